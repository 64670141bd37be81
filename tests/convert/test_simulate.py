"""Runs on binary events beyond what the laws run: options of the encoders, classifiers, and what is refused."""

import pytest
import torch
from torch import nn

from spikebrain import convert, operands
from spikebrain.baselines.lif_network import LIFNetwork
from spikebrain.blocks.rate_readout import RateReadout
from spikebrain.blocks.subsampling import Conv2dSubsampling

OPTIONS = [
    ("iml_spikeformer", {"levels": 1}),
    ("iml_spikeformer", {"levels": 8, "rounding": "round"}),
    ("iml_spikeformer", {"output_scale": "channel"}),
    ("iml_spikeformer", {"output_scale": "none", "hdm": "log_bias"}),
    ("iml_spikeformer", {"hdm": "post_softmax", "causal": True}),
    ("iml_spikeformer", {"score": "linear", "linear_form": "scan"}),
    ("iml_spikeformer", {"neuron": "mls", "threshold": 0.5, "rounding": "round"}),
    ("spikescr", {"attention_order": "state"}),
    ("spikescr", {"reset": "soft", "decay": 0.7, "decay_input": True}),
    ("spikescr", {"paper_padding": True}),
    ("spikescr", {"input_kind": "level"}),
    ("lif_network", {"input_kind": "level"}),
    ("pts_snn", {"block_norm": "batch", "columns": "l1"}),
]


@pytest.mark.parametrize("name, switches", OPTIONS, ids=lambda value: str(value))
def test_same_spikes_and_the_additions_that_were_worked_out(trained, x, events_x, lengths, hear, name, switches):
    network = trained(name, **switches)
    x = events_x if switches.get("input_kind") == "level" else x
    out, spikes, products = hear(network, x, lengths)
    run = convert.simulate(convert.convert(network), x, lengths)
    assert spikes.keys() == run.spikes.keys() and any(counts.any() for counts in spikes.values())
    assert all(torch.equal(run.spikes[layer], counts) for layer, counts in spikes.items())
    assert torch.allclose(run.out, out, atol=1e-10)
    assert sum(run.accumulates.values()) == sum(product.accumulates or 0 for product in products)
    assert sum(run.macs.values()) == sum(product.macs for product in products if product.accumulates is None)


class Classifier(nn.Module):
    """An encoder and a readout of rates."""

    def __init__(self, encoder, readout):
        super().__init__()
        self.encoder, self.readout = encoder, readout

    def forward(self, x, lengths=None):
        return self.readout(self.encoder(x, lengths)[0], lengths)


@pytest.mark.parametrize("name, reads", [("pts_snn", True), ("vanilla_snn", False)])
def test_a_readout_of_rates_behind_an_encoder(trained, x, lengths, hear, name, reads):
    torch.manual_seed(0)
    readout = RateReadout(16, 4, input_neuron=reads, neuron="plif" if reads else "lif").double().eval()
    readout.linear.weight.data.abs_()  # so that classes fire
    network = Classifier(trained(name), readout).eval()
    out, spikes, _ = hear(network, x, lengths)
    run = convert.simulate(convert.convert(network), x, lengths)
    assert torch.equal(run.out, out) and out.abs().sum() > 0
    assert all(torch.equal(run.spikes[layer], counts) for layer, counts in spikes.items())
    assert run.accumulates["readout.linear", "weight"] > 0


def test_two_layers_by_hand():
    """Frames (1, 0), (2, 1), (0, 1) of counts; weights of whole numbers; neurons that forget everything between frames."""
    network = LIFNetwork(input_size=2, num_layers=2, d_model=2, decay=0.0, input_kind="level", dropout=0.0).double().eval()
    for layer, rows in zip(network.layers, ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 2.0]]), strict=True):
        layer.linear.weight.data = torch.tensor(rows, dtype=torch.float64)
        layer.norm = None
    x = torch.tensor([[[1.0, 0.0], [2.0, 1.0], [0.0, 1.0], [7.0, 7.0]]], dtype=torch.float64)
    run = convert.simulate(convert.unroll_levels(network), x, torch.tensor([0.75]))
    # first layer fires (1, 0), (1, 1), (0, 1): five events in, two weights each; second (1, 0), (1, 1), (1, 1)
    assert run.accumulates == {("layers.0.linear", "weight"): 5 * 2, ("layers.1.linear", "weight"): 4 * 2} and not run.macs
    assert [run.spikes[f"layers.{n}.neuron"].tolist() for n in (0, 1)] == [[2, 2], [3, 2]]
    assert run.out[0].tolist() == [[1, 0], [1, 1], [1, 1], [0, 0]]


def test_silence_costs_no_addition(trained):
    network = trained("lif_network", input_kind="level")
    for layer in network.layers:
        nn.init.constant_(layer.norm.bias, -1.0)
        layer.norm.running_mean.zero_()
    run = convert.simulate(convert.convert(network), torch.zeros(2, 5, 16, dtype=torch.float64))
    assert set(run.accumulates.values()) == {0} and not any(counts.any() for counts in run.spikes.values())


def test_an_unrolled_network_keeps_names_and_weights_and_may_be_unrolled_again(trained, x, lengths):
    network = convert.reparameterise(trained("iml_spikeformer"))
    driven = convert.unroll_levels(network)
    assert [name for name, _ in driven.named_modules()] == [name for name, _ in network.named_modules()]
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in driven.state_dict().items())
    for once in (driven, convert.unroll_levels(convert.fold_batchnorm(trained("spikescr")))):
        again = convert.unroll_levels(once)
        assert [type(module) for module in again.modules()] == [type(module) for module in once.modules()]
        assert convert.simulate(again, x, lengths).accumulates == convert.simulate(once, x, lengths).accumulates


@pytest.mark.parametrize(
    "name, layer", [("iml_spikeformer", "layers.0.attention"), ("spikescr_plif", "embedding"), ("plif_network", "layers.0")]
)
def test_a_network_that_is_not_unrolled_would_equal_itself_and_is_refused(trained, x, lengths, name, layer):
    network = convert.fold_batchnorm(trained(name))
    with pytest.raises(convert.ConversionError, match=rf"^{layer} \(.*\) is not unrolled: convert\(network\)"):
        convert.simulate(network, x, lengths)


@pytest.mark.parametrize("name", ["spikescr", "lif_network"])
@pytest.mark.parametrize("wrong, numbers", [(0.5, "0 to 0.5"), (-1.0, "-1 to 0"), (128.0, "0 to 128"), (300.0, "0 to 300")])
def test_counts_that_are_none_or_too_many_are_refused(trained, lengths, name, wrong, numbers):
    driven = convert.convert(trained(name, input_kind="level"))
    x = torch.zeros(3, 13, 16, dtype=torch.float64)
    x[1, 8:] = wrong  # padding may hold anything
    convert.simulate(driven, x, lengths)
    x[1, 6, 3] = wrong
    with pytest.raises(convert.ConversionError, match=f"counts of events goes from {numbers}, but a train holds whole numbers, 0 to 127"):
        convert.simulate(driven, x, lengths)


def test_as_many_counts_as_a_train_holds(trained, lengths, hear):
    network = trained("lif_network", input_kind="level")
    x = torch.zeros(3, 13, 16, dtype=torch.float64)
    x[:, 2] = 127
    run = convert.simulate(convert.convert(network), x, lengths)
    first = next(product for product in hear(network, x, lengths)[2] if product.left is operands.Kind.LEVEL)
    assert run.accumulates["layers.0.linear", "weight"] == first.accumulates == 3 * 16 * 127 * 16


def test_additions_that_nobody_made_are_no_proof():
    front = Conv2dSubsampling(2, 4, n_mels=15, activation="spike", levels=4).double().train()
    front(torch.randn(2, 30, 15, dtype=torch.float64))
    with pytest.raises(convert.ConversionError, match=r"conv_2.weight \(Conv2d\) reads spikes and has no form for events"):
        convert.simulate(convert.convert(front.eval()), torch.randn(1, 30, 15, dtype=torch.float64))
