"""Silent, saturated and talking neurons: every number by hand."""

import math

import pytest
import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain.blocks.masked_norm import NormedNeuron
from spikebrain.neurons import LIF, PLIF, MultiLevelSpike
from spikebrain.neurons.health import EDGES, Health, entropy, examine
from spikebrain.neurons.single_step import SingleStepPLIF


class Net(nn.Module):
    """A layer of neurons behind nothing."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x, lengths=None):
        return self.neuron(x, lengths)[0]


def constant(*currents, frames=200):
    return torch.tensor(currents).expand(1, frames, len(currents))


def test_by_hand():
    """Soft reset, decay 0.5: 0.3 never fires, 0.75 in every second frame, 2 always; the band lies from 0.5 to 1."""
    report = examine(Net(LIF(3, reset="soft")), [(constant(0.3, 0.75, 2.0), None)])
    layer = report["neuron"]
    assert list(report) == ["neuron"] and (layer["pairs"], layer["threshold"]) == (3, 1.0)
    assert layer["rate"] == pytest.approx((0 + 0.5 + 1) / 3) and layer["entropy"] == pytest.approx(1 / 3, abs=1e-6)
    assert layer["silent"] == layer["nearly_silent"] == layer["saturated"] == pytest.approx(1 / 3)
    current = layer["current"]
    assert current["band"] == [0.5, 1.0]
    assert [current[k] for k in ("below", "inside", "above")] == pytest.approx([1 / 3] * 3)
    found = [(EDGES[i - 1], n) for i, n in enumerate(current["counts"]) if n]
    assert sum(current["counts"]) == 600 and [n for _, n in found] == [200] * 3
    assert [edge for edge, _ in found] == pytest.approx([0.3, 0.75, 2.0]), "an edge belongs to what lies above it, as the threshold does"


def test_a_neuron_that_fires_once_in_200_frames_is_nearly_silent():
    x = torch.zeros(1, 200, 2)
    x[0, 7, 0] = 1.0
    layer = examine(Net(LIF(2)), [(x, None)])["neuron"]
    assert (layer["silent"], layer["nearly_silent"], layer["saturated"]) == (0.5, 1.0, 0.0)
    once = -(math.log2(1 / 200) / 200 + 199 / 200 * math.log2(199 / 200))
    assert layer["entropy"] == pytest.approx(once / 2)


def test_entropy_of_a_train():
    assert entropy(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist() == pytest.approx([0, 1, 0])
    assert entropy(torch.tensor(0.25, dtype=torch.float64)) == pytest.approx(2 - 0.75 * math.log2(3))


@pytest.mark.parametrize(
    "neuron, band",
    [
        (lambda: LIF(1, 0.9, threshold=0.5), [0.05, 0.5]),
        (lambda: PLIF(1, 0.8), [0.2, 1.0]),
        (lambda: LIF(1, 0.75, decay_input=True), [1.0, 4.0]),
        (lambda: SingleStepPLIF(1), [1.0, 1.0]),
    ],
)
def test_the_band_is_where_a_constant_current_is_neither_silent_nor_saturated(neuron, band):
    found = examine(Net(neuron()), [(constant(0.1, frames=10), None)])["neuron"]["current"]
    assert found["band"] == pytest.approx(band) and found["edges"][0] == pytest.approx(-2 * neuron().options.threshold)
    for current in (1.001 * band[0], 1.001 * band[1]):
        report = examine(Net(neuron()), [(constant(0.98 * current), None), (constant(1.02 * current), None)])["neuron"]
        assert report["silent"] + report["saturated"] >= 0.5


def test_padding_and_the_division_into_batches_change_nothing():
    torch.manual_seed(0)
    net, x, counts = Net(PLIF(6)), 2 * torch.randn(4, 30, 6), torch.tensor([30, 12, 20, 5])
    x = frames.zero_past(x, counts)
    whole = examine(net, [(x, counts / 30)])
    longer = torch.cat([x, torch.full((4, 10, 6), 9.0)], 1)
    parts = examine(net, [(longer[:3], counts[:3] / 40), (longer[3:, :5], None)])
    assert whole == parts and 0 < whole["neuron"]["rate"] < 1
    assert sum(whole["neuron"]["current"]["counts"]) == 67 * 6


def test_currents_behind_a_batch_norm_are_the_normalised_ones():
    torch.manual_seed(0)
    net = Net(NormedNeuron(4, LIF(4)))
    net.neuron.norm.running_mean.fill_(3.0), net.neuron.norm.running_var.fill_(4.0)
    net.forward = lambda x, lengths: net.neuron.fire(x, frames.absolute(lengths, x))
    x = 3 + 2 * torch.randn(2, 50, 4)
    shares = examine(net, [(x, None)])["neuron.neuron"]["current"]
    currents = (x - 3) / 2
    assert shares["below"] == pytest.approx((currents < 0.5).float().mean().item(), abs=1e-6)
    assert shares["above"] == pytest.approx((currents >= 1).float().mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="in training mode, where listening would change its statistics: call network.eval"):
        with Health(net.train()):
            net.forward(x, None)
    assert "run" not in vars(net.neuron.neuron)


def test_a_layer_that_fires_twice_has_two_lines():
    net = Net(SingleStepPLIF(2))
    net.register_forward_hook(lambda module, args, out: net.neuron.fire(args[0] - 5, torch.full((1,), 4)))
    report = examine(net, [(torch.full((1, 4, 2), 2.0), None)] * 2)
    assert {name: (n["rate"], n["pairs"]) for name, n in report.items()} == {"neuron": (1.0, 4), "neuron#2": (0.0, 4)}


def test_nothing_is_left_behind_and_nothing_is_changed():
    torch.manual_seed(0)
    net, x = Net(PLIF(3)).train(), torch.randn(2, 9, 3, requires_grad=True)
    expected = net(x)
    with Health(net) as outer:
        with Health(net) as inner:
            heard = net(x)
        net(x)
    assert torch.equal(heard, expected) and heard.requires_grad
    assert inner.report()["neuron"]["pairs"] == 6 and outer.report()["neuron"]["pairs"] == 12
    assert net(x) is not None and outer.report()["neuron"]["pairs"] == 12 and "run" not in vars(net.neuron)
    assert not net._forward_pre_hooks
    examine(net, [(x, None)])
    assert net.training


def test_a_network_without_lif_neurons_is_refused():
    with pytest.raises(ValueError, match="Net has no layer of LIF neurons"):
        examine(Net(MultiLevelSpike(3)), [])
