"""Firing rates by epoch: which layers are meant, for every encoder, over valid frames, and what is said of a name that means none."""

import logging

import pytest
import torch

from spikebrain import energy, operands, registry
from spikebrain.lobes import SpikingClassifier
from spikebrain.training import firing

SIZES = {"num_layers": 1, "d_model": 16, "nhead": 2}
GATE = "classifier.encoder.model.layers.0.convolution.gate.neuron"


def classifier(encoder):
    """A classifier with weights so large that every encoder fires, whose norms and levels have seen noise; in evaluation."""
    torch.manual_seed(3)
    net = SpikingClassifier(20, 4, encoder, SIZES).train()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(8)
        for _ in range(5):
            net(2 * torch.randn(8, 30, 20))
    return net.eval()


def heard(net, wanted, lengths=None, epoch=1):
    """What Rates and Counter say of the same two batches."""
    parts = {"classifier": net}
    rates, counter = firing.Rates(parts, wanted), energy.Counter(torch.nn.ModuleDict(parts))
    torch.manual_seed(4)
    with torch.no_grad(), operands.listen(rates), operands.listen(counter):
        for _ in range(2):
            net(2 * torch.randn(3, 30, 20), lengths)
    return rates.of(epoch), {name: layer["mean"] for name, layer in counter.firing_rate().items()}


@pytest.mark.parametrize("entry", registry.entries("encoder") + registry.entries("ann"), ids=lambda e: e.name)
def test_every_encoder_is_heard_and_a_network_without_spikes_says_nothing(entry):
    rates, means = heard(classifier(entry.name), ["*"])
    assert rates == means and bool(rates) == (entry.kind == "encoder")
    assert entry.kind == "ann" or any(rate > 0 for rate in rates.values())


@pytest.mark.parametrize(
    "wanted, layers",
    [
        (["gate.neuron"], {GATE}),
        ("gate.neuron", {GATE}),
        (["neuron.neuron"], {"classifier.encoder.model.embedding.neuron.neuron"}),  # and not ....qkv_neuron.neuron
        ([GATE], {GATE}),
        (["layers.*.gate*.neuron"], {GATE, GATE.replace("gate", "gate_input")}),
        (["gate.neuron", "rotary_neuron"], {GATE, "classifier.encoder.model.layers.0.attention.rotary_neuron"}),
    ],
)
def test_layers_are_named_by_the_end_of_their_name(wanted, layers):
    rates, means = heard(classifier("spikescr"), wanted)
    assert set(rates) == layers and rates == {name: means[name] for name in layers}


def test_padding_is_no_frame():
    net, lengths = classifier("spikescr"), torch.tensor([1.0, 0.5, 0.3])
    padded, _ = heard(net, ["*"], lengths)
    parts = firing.Rates({"classifier": net}, ["*"])
    torch.manual_seed(4)
    with torch.no_grad(), operands.listen(parts):
        for _ in range(2):
            for x, share in zip(2 * torch.randn(3, 30, 20), lengths):
                net(x[None, : round(30 * float(share))])
    assert parts.of(2) == pytest.approx(padded) and any(padded.values())
    assert heard(net, ["*"])[0] != pytest.approx(padded), "rates over padding must fail this"


def test_a_name_that_means_no_layer_is_said_once_with_those_there_are(caplog):
    net = classifier("lif_network")
    with caplog.at_level(logging.WARNING):
        assert heard(net, ["gate.neuron", "layers.0.neuron"])[0].keys() == {"classifier.encoder.model.layers.0.neuron"}
        assert heard(net, ["gate.neuron"], epoch=2)[0] == {}
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "firing_by_epoch: no layer that fires is called gate.neuron; there are: classifier.encoder.model.layers.0.neuron"


def test_an_epoch_without_a_rate_has_a_hole():
    rows = [{"epoch": 1}, {"epoch": 2, "firing": {"a": 0.1}}, {"epoch": 3, "firing": {"a": 0.2, "b": 0.5}}]
    assert firing.by_epoch(rows) == {"a": [None, 0.1, 0.2], "b": [None, None, 0.5]}
    assert firing.by_epoch(rows[:1]) == {}
