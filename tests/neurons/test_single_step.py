"""The neurons of PTS-SNN: constant currents and thresholds, the two resets, and the layer that begins anew at every frame."""

import pytest
import torch

from spikebrain import operands
from spikebrain.kernels import surrogate
from spikebrain.neurons import LIF, PLIF
from spikebrain.neurons.neuron_switches import SoftNeuronSwitches
from spikebrain.neurons.single_step import SingleStepPLIF

OPTIONS = SoftNeuronSwitches().neuron_options()


def rate(current, frames=600, **changes):
    """How often a neuron with the paper's options fires at a constant current, behind its first 60 frames."""
    spikes, _ = PLIF(1, **{**OPTIONS, **changes})(torch.full((1, frames, 1), current, dtype=torch.float64))
    return spikes[0, 60:].mean().item()


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_silent_below_the_band_and_in_every_frame_above_it(decay, reset):
    """The closed form: silent for I < (1 - decay) threshold, always for I >= threshold; weighted input divides both by 1 - decay."""
    for threshold in (1.0, 0.4):
        options = {"decay": decay, "reset": reset, "threshold": threshold}
        low = (1 - decay) * threshold
        assert rate(0.999 * low, **options) == 0 < rate(1.05 * low, **options) < 1
        assert rate(0.97 * threshold, **options) < 1 == rate(threshold, **options)
        assert rate(0.999 * threshold, **options, decay_input=True) == 0 < rate(1.05 * threshold, **options, decay_input=True)
        assert rate(1.001 * threshold / (1 - decay), **options, decay_input=True) == 1


def test_rates_by_hand():
    """0.75 at decay 0.5: 0.75, 1.125 -> 0.125, 0.8125, 1.156 -> 0.156: every second frame. 0.9 tells the resets apart: 2/3 and 1/2."""
    assert rate(0.75) == 0.5
    assert rate(0.9) == pytest.approx(2 / 3, abs=1e-3) and rate(0.9, reset="hard") == 0.5


def test_is_the_loop_written_out_with_gradients_through_the_reset():
    torch.manual_seed(0)
    neuron, x = PLIF(5, **OPTIONS).double(), 1.5 * torch.randn(2, 12, 5, dtype=torch.float64)
    weights = torch.randn(2, 12, 5, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    spikes, _ = neuron(leaf)
    (spikes * weights).sum().backward()
    back, logit = x.clone().requires_grad_(), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    v, total = torch.zeros(2, 5, dtype=torch.float64), 0.0
    for frame, weight in zip(back.unbind(1), weights.unbind(1), strict=True):
        u = torch.sigmoid(logit) * v + frame
        slope = surrogate.derivative("arctan", u.detach() - 1, 2.0)
        s = (u >= 1).double() + slope * (u - u.detach())
        v, total = u - s, total + (s * weight).sum()
    total.backward()
    assert spikes.any() and torch.allclose(leaf.grad, back.grad, atol=1e-12) and torch.allclose(neuron.logit.grad, logit.grad, atol=1e-12)
    assert surrogate.derivative("arctan", torch.tensor(0.0), 2.0) == 1.0, "alpha / 2 at the threshold"


def test_the_options_are_the_ones_of_the_specification():
    expected = {"decay": 0.5, "threshold": 1.0, "reset": "soft", "detach_reset": False, "decay_input": False}
    assert OPTIONS == {**expected, "surrogate": "arctan", "alpha": 2.0}
    assert 0 < PLIF(3, **OPTIONS).decays(torch.zeros(1)).min() < 1


@pytest.mark.parametrize("options", [{}, {"reset": "hard"}, {"decay_input": True}, {"decay": 0.9}], ids=str)
def test_a_single_step_is_the_threshold(options):
    """Whatever the options of neurons: Eq. 8 is a comparison, and frames do not know of each other."""
    torch.manual_seed(0)
    neuron, x = SingleStepPLIF(6, **{**OPTIONS, **options}), 2 * torch.randn(3, 9, 6)
    x[0, 0, 0] = 1.0
    leaf = x.clone().requires_grad_()
    spikes, _ = neuron(leaf)
    assert torch.equal(spikes, (x >= 1).float()) and spikes[0, 0, 0] == 1
    spikes.sum().backward()
    assert torch.allclose(leaf.grad, surrogate.derivative("arctan", x - 1, 2.0), rtol=1e-5)
    order = torch.randperm(9)
    assert torch.equal(neuron(x[:, order])[0], spikes[:, order])
    assert not torch.equal(LIF(6, **{**OPTIONS, **options})(x)[0], spikes), "neurons with a memory are others"


def test_its_decay_is_counted_and_frozen():
    neuron = SingleStepPLIF(6, **OPTIONS)
    assert [p.numel() for p in neuron.parameters()] == [1] and not any(p.requires_grad for p in neuron.parameters())
    x = torch.randn(2, 4, 6, requires_grad=True)
    neuron(x)[0].sum().backward()
    assert neuron.logit.grad is None and x.grad.abs().min() > 0
    assert {name: p.shape for name, p in PLIF(6).named_parameters()} == {name: p.shape for name, p in neuron.named_parameters()}


def test_padding_does_not_fire_and_is_not_told():
    events, neuron = [], SingleStepPLIF(2)
    with operands.listen(events.append):
        spikes, _ = neuron(torch.full((2, 4, 2), 5.0), torch.tensor([1.0, 0.5]))
    assert spikes[0].all() and spikes[1, :2].all() and not spikes[1, 2:].any()
    assert (events[0].frames, events[0].counts.tolist()) == (6, [6, 6])
