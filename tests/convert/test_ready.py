"""What cannot be converted is refused by every step, with the layer's name and the repair."""

import pytest
import torch
from torch import nn

from spikebrain import convert, registry
from spikebrain.neurons import MultiLevelSpike

STEPS = {
    "check": convert.check,
    "fold_batchnorm": convert.fold_batchnorm,
    "reparameterise": convert.reparameterise,
    "unroll_levels": convert.unroll_levels,
    "convert": convert.convert,
    "simulate": lambda network: convert.simulate(network, torch.randn(1, 4, 16)),
    "audit": lambda network: convert.audit(network, torch.randn(1, 4, 16)),
}


@pytest.fixture(params=STEPS)
def step(request):
    return STEPS[request.param]


def build(name):
    return registry.build(name, num_layers=1, d_model=16, nhead=2, d_ffn=32)


def test_a_network_in_training_mode(step):
    with pytest.raises(convert.ConversionError, match=r"^the network \(SpikeSCR\) is in training mode.*: call network.eval\(\) first"):
        step(build("spikescr"))


@pytest.mark.parametrize("name, layer", [("iml_spikeformer", "layers.0.dropout"), ("spikescr", "layers.0.attention.dropout")])
def test_one_dropout_that_is_active(step, name, layer):
    network = build(name)
    network(torch.randn(2, 9, 16))
    network.eval().get_submodule(layer).train()
    with pytest.raises(convert.ConversionError, match=rf"^{layer} \(\w*Dropout\) is in training mode, with dropout and batch statistics"):
        step(network)


def test_a_neuron_that_has_seen_no_training_batch(step):
    with pytest.raises(convert.ConversionError, match="^layers.0.attention.sn_in .* has seen no training batch.*: train it or load"):
        step(build("iml_spikeformer").eval())


def test_one_neuron_that_was_forgotten(step):
    network = build("iml_spikeformer")
    network(torch.randn(2, 9, 16))
    network.eval().layers[0].mlp.sn_2 = MultiLevelSpike(32).eval()
    with pytest.raises(convert.ConversionError, match="^layers.0.mlp.sn_2 .* no threshold"):
        step(network)


def test_a_fixed_threshold_needs_no_training():
    network = build("iml_spikeformer_mls").eval()
    assert convert.simulate(convert.convert(network), torch.randn(1, 4, 16)).spikes


@pytest.mark.parametrize("name, norm", [("spikescr", "embedding.neuron.norm"), ("lif_network", "layers.0.norm")])
def test_a_norm_that_was_not_folded(name, norm):
    network = build(name).eval()
    with pytest.raises(convert.ConversionError, match=rf"^{norm} is a batch norm: fold_batchnorm\(network\) first"):
        convert.unroll_levels(network)
    convert.unroll_levels(convert.fold_batchnorm(network))


def test_loaded_statistics_are_as_good_as_seen_ones():
    network = build("iml_spikeformer")
    network(torch.randn(2, 9, 16))
    loaded = build("iml_spikeformer").eval()
    loaded.load_state_dict(network.state_dict())
    convert.check(loaded)


def test_a_refused_network_stays_as_it_was(step):
    network = nn.Sequential(build("iml_spikeformer")).eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(convert.ConversionError):
        step(network)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items()) and not network.training
