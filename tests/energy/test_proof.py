"""A run on events beside the trained network: what is kept of each neuron, what is compared, and that differences are seen."""

import pytest
import torch

from spikebrain import operands, registry
from spikebrain.convert import ConversionError, events
from spikebrain.energy.proof import Trains, prove
from spikebrain.neurons import MultiLevelSpike

SMALL = {
    "iml_spikeformer": {"num_layers": 1, "d_model": 8, "nhead": 2, "d_ffn": 16},
    "spikescr": {"num_layers": 1, "d_model": 16, "nhead": 2, "input_size": 6},
    "pts_snn": {"d_model": 8, "input_size": 6},
    "lif_network": {"num_layers": 2, "d_model": 8, "input_size": 6},
}


def built(name, frames=9):
    """(network with statistics, x) of a small registered encoder."""
    torch.manual_seed(1)
    network = registry.build(name, **SMALL[name])
    x = 2 * torch.randn(2, frames, SMALL[name].get("input_size", 8))
    network.train()(x)
    return network.eval(), x[:1]


@pytest.mark.parametrize("name", SMALL)
def test_every_spike_and_every_addition_is_the_same(name):
    network, x = built(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    proof = prove(network, x)
    assert proof.equal and sum(int(train.sum()) for train in proof.trains.values()) > 0
    assert proof.trains and set(proof.differ) == set(proof.differ_float32) == set(proof.trains)
    said = proof.as_dict()
    assert said["equal"] and said["seconds"] > 0 and 0 <= said["flipped_float32"] <= 1
    assert said["additions"] and all(made == counted for made, counted in said["additions"].values())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_trains_are_what_neurons_told_of(name):
    network, x = built(name)
    names, told = {module: layer for layer, module in network.named_modules()}, {}

    def hear(event):
        if isinstance(event, operands.Firing):
            told.setdefault(names[event.module], []).append(event.counts)

    with torch.no_grad(), operands.listen(hear), Trains(network) as trains:
        network(x)
    assert {layer.partition("#")[0] for layer in trains.layers} == set(told)
    for layer, counts in told.items():
        kept = [train for other, train in trains.layers.items() if other.partition("#")[0] == layer]
        assert [train.double().sum(0).tolist() for train in kept] == [one.tolist() for one in counts]
        assert len(trains.layers[layer]) == x.shape[1]  # and of PTS-SNN's attention again on prompts, which are no frames
    assert not any({"run", "fire"} & vars(module).keys() for module in network.modules())  # nothing is left behind


def test_a_layer_that_fires_twice_has_two_entries():
    network = torch.nn.ModuleDict({"neuron": MultiLevelSpike(2, 4, mode="mls")})
    with torch.no_grad(), Trains(network) as trains:
        for x in ([1.0, 3.2], [9.0, -1.0]):
            network["neuron"].fire(torch.tensor([[x]]), torch.tensor([1]))
    assert {name: train.tolist() for name, train in trains.layers.items()} == {"neuron": [[1, 3]], "neuron#2": [[4, 0]]}


def test_micro_steps_of_one_utterance_are_added_up():
    network = registry.build("iml_spikeformer", **SMALL["iml_spikeformer"], neuron="lif_multistep").eval()
    with torch.no_grad(), Trains(network) as trains:
        network(3 * torch.randn(1, 5, 8))
    assert {tuple(train.shape) for train in trains.layers.values()} == {(5, 8), (5, 16)}
    assert max(int(train.max()) for train in trains.layers.values()) > 1


def test_other_spikes_are_seen(monkeypatch):
    network, x = built("iml_spikeformer")
    project = events.project

    def shifted(spikes, weight, bias=None):
        out, added = project(spikes, weight, bias)
        return out + 0.5, added

    monkeypatch.setattr(events, "project", shifted)
    proof = prove(network, x)
    assert not proof.equal and any(proof.differ.values())


def test_another_number_of_additions_is_seen(monkeypatch):
    network, x = built("iml_spikeformer")
    project = events.project

    def often(spikes, weight, bias=None):
        out, added = project(spikes, weight, bias)
        return out, added + 1

    monkeypatch.setattr(events, "project", often)
    proof = prove(network, x)
    assert not proof.equal and not any(proof.differ.values())


def test_what_cannot_be_proved_is_refused():
    network, x = built("iml_spikeformer")
    with pytest.raises(ValueError, match="x holds 2 utterances: trains are kept of one"):
        prove(network, torch.cat([x, x]))
    with pytest.raises(ConversionError, match="training mode"):
        prove(network.train(), x)
