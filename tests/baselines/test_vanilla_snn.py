"""The vanilla spiking network: its equations, the state that it carries, and what features of another gain do to it."""

import pytest
import torch

from spikebrain import operands
from spikebrain.baselines.lif_network import LIFNetworkState
from spikebrain.baselines.vanilla_snn import VanillaSNN
from spikebrain.lobes import RateClassifier
from spikebrain.neurons.health import examine

COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20


def features(frames=20, seed=0):
    return 3 * torch.randn(3, frames, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(**switches):
    torch.manual_seed(0)
    return VanillaSNN(12, **{"num_layers": 2, "d_model": 16, **switches}).double()


def written_out(net, x):
    """Spikes (L, C) of every layer for one utterance ``x`` (L, N), with the soft reset."""
    trains = []
    for layer in net.layers:
        membrane, spikes = torch.zeros(16, dtype=x.dtype), []
        for frame in x @ layer.linear.weight.T + layer.linear.bias:
            membrane = 0.5 * membrane + frame
            spikes.append((membrane >= 1).to(x.dtype))
            membrane = membrane - spikes[-1]
        x = torch.stack(spikes)
        trains.append(x)
    return trains


def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone():
    net, x = network(), features()
    x[1, 7:], x[2, 13:] = float("nan"), 1e9
    spikes, _ = net(x, LENGTHS)
    for row, n in enumerate(COUNTS):
        trains = written_out(net, x[row, :n])
        assert all(train.any() and not train.all() for train in trains), "a silent layer would prove nothing"
        assert torch.equal(spikes[row, :n], trains[-1]) and not spikes[row, n:].any()


@pytest.mark.parametrize("chunk", [1, 7, 20])
def test_chunks_with_carried_state_are_the_whole(chunk):
    net, x = network(), features()
    (whole, _), state, parts = net(x), None, []
    for part in x.split(chunk, 1):
        spikes, state = net(part, state=state)
        parts.append(spikes)
    assert torch.equal(torch.cat(parts, 1), whole) and whole.any()


def test_products_by_hand():
    net, x, events = network(), features(), []
    with operands.listen(events.append):
        net(x, LENGTHS)
    first = torch.cat([written_out(net, x[row, :n])[0] for row, n in enumerate(COUNTS)])
    told = {e.module: (e.left.value, e.macs, e.accumulates) for e in events if isinstance(e, operands.Product)}
    assert told == {
        net.layers[0].linear: ("real", 40 * 12 * 16, None),
        net.layers[1].linear: ("binary", 40 * 16 * 16, int(first.sum()) * 16),
    }


def test_features_of_another_gain_leave_it_silent_or_saturated():
    """What PTS-SNN is for (its Fig. 1): gain 0.1 fires nowhere, gain 10 saturates; PTS-SNN does not feel the gain."""
    torch.manual_seed(0)
    classifiers = {
        "vanilla_snn": RateClassifier(768, 4, "vanilla_snn", readout_kwargs={"neuron": "lif"}),
        "pts_snn": RateClassifier(768, 4),
    }
    x = torch.randn(8, 50, 1) * 0.5 + torch.randn(8, 50, 768) * 0.3 + torch.randn(8, 1, 768)
    first = {"vanilla_snn": "encoder.model.layers.0.neuron", "pts_snn": "readout.neuron"}
    found = {n: [examine(net, [(gain * x, None)])[first[n]] for gain in (0.1, 1, 10)] for n, net in classifiers.items()}
    weak, plain, strong = found["vanilla_snn"]
    assert weak["silent"] > 0.99 and plain["silent"] < weak["silent"] and strong["saturated"] > 0.1 > plain["saturated"]
    alive = [n["silent"] for n in found["pts_snn"]]
    assert max(alive) - min(alive) < 0.05 and max(alive) < 0.6


def test_size_beside_its_readout():
    classifier = RateClassifier(768, 4, "vanilla_snn", readout_kwargs={"neuron": "lif"})
    assert sum(p.numel() for p in classifier.parameters()) == 197_892 and classifier.readout.neuron is None


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: VanillaSNN(num_layers=0), ValueError, "num_layers is 0: choose 1 or more"),
        (lambda: VanillaSNN(num_layer=2), TypeError, "VanillaSNN has no option 'num_layer'; did you mean num_layers"),
        (lambda: network()(torch.zeros(1, 3, 40).double()), ValueError, "x has 40 channels, encoder expects 12: set input_size: 40"),
        (
            lambda: network()(features(), state=LIFNetworkState(network()(features())[1].layers[:1])),
            ValueError,
            "the state has 1 layers, the network 2: pass the state that it returned",
        ),
    ],
)
def test_wrong_arguments_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()
