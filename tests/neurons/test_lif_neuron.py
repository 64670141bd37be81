"""LIF neurons: the properties of the specification, state, precision, and what a user may get wrong."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from spikebrain import operands
from spikebrain.kernels import lif
from spikebrain.neurons import LIF, PLIF
from spikebrain.neurons.lif import LIFState

RESETS = pytest.mark.parametrize("reset", ["hard", "soft"])


def train_of(neuron, values):
    """Spikes of one neuron that hears ``values``, a list, frame by frame."""
    spikes, state = neuron(torch.tensor(values, dtype=torch.float64).view(1, -1, 1))
    return spikes.flatten().tolist(), state.membrane.item()


def test_a_constant_input_below_threshold_fires_by_adding_up_or_never():
    """0.6 a frame, decay 0.5: the membrane is 0.6, 0.9, 1.05 and fires at frames 3, 6, 9; as printed (Eq. 1) it is 0.3, 0.45, ... < 0.6."""
    assert train_of(LIF(1), [0.6] * 9)[0] == [0, 0, 1] * 3
    spikes, membrane = train_of(LIF(1, decay_input=True), [0.6] * 99)
    assert sum(spikes) == 0 and membrane == pytest.approx(0.6)


@pytest.mark.parametrize(
    "reset, decay_input, values, expected, left",
    [
        ("hard", False, [1, 0, 0.5, 0.75], [1, 0, 0, 1], 0.0),  # fires at equality: 1 at once, then 0, 0.5, 0.25 + 0.75
        ("hard", True, [1, 0, 0.5, 0.75], [0, 0, 0, 0], 0.5625),  # 0.5, 0.25, 0.375, 0.1875 + 0.375
        ("hard", True, [2, 0, 1.0, 1.5], [1, 0, 0, 1], 0.0),  # twice the input is the other reading of the first row
        ("soft", False, [1.5, 0.5, 0.5, 1.25], [1, 0, 0, 1], 0.6875),  # 1.5 -> 0.5, 0.75, 0.875, 0.4375 + 1.25 = 1.6875 -> 0.6875
    ],
)
def test_trains_by_hand(reset, decay_input, values, expected, left):
    assert train_of(LIF(1, reset=reset, decay_input=decay_input), values) == (expected, left)


def test_decay_of_a_time_constant():
    """tau = 4 frames leaves 3/4: an impulse of 0.8 is 0.8 (3/4)^n after n frames."""
    assert train_of(LIF(1, decay=1 - 1 / 4), [0.8, 0, 0, 0])[1] == pytest.approx(0.8 * 0.75**3)
    assert train_of(LIF(1, decay=0.0), [0.8, 0.7])[1] == 0.7 and train_of(LIF(1, decay=1.0), [0.25, 0.25])[1] == 0.5


@RESETS
@pytest.mark.parametrize("detach", [True, False])
def test_gradients_are_those_of_the_definition(reset, detach):
    """Property 3: back in one go = autograd through the unrolled loop, float64, ragged."""
    torch.manual_seed(0)
    neuron, counts = LIF(7, 0.6, 0.8, reset, detach), torch.tensor([12, 5, 9])
    x, found = 1.5 * torch.randn(3, 12, 7, dtype=torch.float64), []
    for implementation in (None, "reference"):
        leaf = x.clone().requires_grad_()
        decay, start = torch.full((7,), 0.6, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.float64)
        if implementation is None:
            y, membrane = neuron(leaf, counts / 12)
            membrane = membrane.membrane
        else:
            y, _, membrane = lif.fire(leaf, None, decay, start, None, counts, neuron.options, implementation)
        (y.square().sum() + membrane.sum()).backward()
        found.append((y.detach(), membrane.detach(), leaf.grad))
    assert found[0][0].any() and all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))


def test_a_detached_reset_passes_nothing_and_a_spike_stops_the_past():
    """Hard reset: behind a spike nothing of the membrane is left, so no gradient goes past it, unless the reset has a derivative."""
    for detach in (True, False):
        x = torch.tensor([0.4, 1.2, 0.3], dtype=torch.float64).view(1, 3, 1).requires_grad_()
        spikes, state = LIF(1, detach_reset=detach)(x)
        assert spikes.flatten().tolist() == [0, 1, 0]
        (grad,) = torch.autograd.grad(state.membrane.sum(), x)
        assert bool(grad[0, :2].any()) != detach and (grad[0, 2, 0] == 1 or not detach)


@RESETS
@pytest.mark.parametrize("make", [LIF, lambda *a, **k: PLIF(*a, decay_per="channel", **k)], ids=["lif", "plif"])
def test_state_at_every_split(make, reset):
    torch.manual_seed(0)
    neuron, x = make(6, reset=reset), torch.randn(3, 11, 6) + 0.5
    whole, last = neuron(x)
    for split in range(1, 11):
        left, state = neuron(x[:, :split])
        right, end = neuron(x[:, split:], state=state)
        assert torch.equal(torch.cat([left, right], 1), whole) and torch.equal(end.membrane, last.membrane)
    assert not torch.equal(neuron(x[:, 5:])[0], whole[:, 5:]), "the membrane that was carried would not matter"


def test_a_state_may_be_a_view_of_a_larger_tensor():
    """A server that keeps the membranes of all layers in one tensor hands over strided views."""
    torch.manual_seed(0)
    x, kept = torch.randn(3, 5, 4), torch.rand(3, 2, 4)
    for view in (kept[:, 1], kept[:, 0].t().contiguous().t(), kept[:1, 1].expand(3, 4)):
        spikes, state = LIF(4)(x, state=LIFState(view))
        expected, end = LIF(4)(x, state=LIFState(view.contiguous()))
        assert torch.equal(spikes, expected) and torch.equal(state.membrane, end.membrane)


@RESETS
def test_padding_freezes_the_membrane(reset):
    torch.manual_seed(0)
    neuron, x, counts = LIF(5, reset=reset), torch.randn(3, 10, 5), (10, 4, 7)
    x[1, 4:], x[2, 7:] = 50.0, -50.0
    spikes, state = neuron(x, torch.tensor(counts) / 10)
    for row, n in enumerate(counts):
        alone, end = neuron(x[row : row + 1, :n])
        assert torch.equal(spikes[row, :n], alone[0]) and not spikes[row, n:].any()
        assert torch.equal(state.membrane[row], end.membrane[0])
    assert not torch.equal(neuron(x)[1].membrane, state.membrane), "the padding would be heard without lengths"


def test_nothing_is_kept_on_the_module():
    torch.manual_seed(0)
    neuron, x = PLIF(4), torch.randn(2, 9, 4)
    before, twin = copy.deepcopy(neuron.state_dict()), copy.deepcopy(neuron)
    first = neuron(x)
    assert torch.equal(first[0], neuron(x)[0])
    assert list(before) == ["logit"] and torch.equal(neuron.state_dict()["logit"], before["logit"])
    assert LIF(4).state_dict() == {}
    with torch.no_grad():
        neuron.logit += 3.0
    assert torch.equal(twin(x)[0], first[0]) and not torch.equal(neuron(x)[0], first[0])


def test_recomputed_neurons_give_the_same_gradient():
    torch.manual_seed(0)
    neuron, x, gradients = PLIF(4), torch.randn(2, 9, 4), []
    for recompute in (False, True):
        leaf = x.clone().requires_grad_()
        spikes = checkpoint(lambda v: neuron(v)[0], leaf, use_reentrant=False) if recompute else neuron(leaf)[0]
        gradients.append(torch.autograd.grad(spikes.square().sum(), (leaf, neuron.logit)))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True)) and gradients[0][1].abs() > 0


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("decay_per, parameters", [("layer", 1), ("channel", 6)])
def test_the_gradient_of_a_learned_decay(decay_per, parameters, decay_input):
    """By autograd of the definition from the logits; a layer's own is the sum of its channels'."""
    torch.manual_seed(0)
    neuron = PLIF(6, 0.3, decay_per=decay_per, decay_input=decay_input).double()
    x, counts = 2 * torch.randn(3, 9, 6, dtype=torch.float64) + 0.5, torch.tensor([9, 4, 6])
    assert neuron.logit.shape == (parameters,) and torch.allclose(neuron.decays(x), torch.full((6,), 0.3, dtype=torch.float64), atol=1e-7)
    spikes, state = neuron(x, counts / 9)
    ((spikes * x).sum() + state.membrane.sum()).backward()
    logit = neuron.logit.detach().clone().requires_grad_()
    decay = torch.sigmoid(logit).expand(6)
    charge = x * (1 - decay) if decay_input else x
    y, _, end = lif.fire(charge, None, decay, torch.zeros(3, 6, dtype=torch.float64), None, counts, neuron.options, "reference")
    ((y * x).sum() + end.sum()).backward()
    assert torch.equal(y, spikes) and y.any()
    assert torch.allclose(neuron.logit.grad, logit.grad, atol=1e-12) and logit.grad.abs().min() > 0


def test_a_learned_decay_stays_inside_0_to_1_and_learns():
    """Teacher of decay 0.9, pupil from 0.5: the spikes alone tell."""
    torch.manual_seed(0)
    x, teacher = torch.rand(16, 60, 1) * 0.4, LIF(1, 0.9)
    target = teacher(x)[0].cumsum(1)
    pupil = PLIF(1, 0.5)
    optimiser, errors = torch.optim.Adam(pupil.parameters(), 0.05), []
    for _ in range(80):
        optimiser.zero_grad()
        error = (pupil(x)[0].cumsum(1) - target).square().mean()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0] and abs(pupil.decays(x).item() - 0.9) < 0.05
    for extreme in (-1e4, 1e4):
        with torch.no_grad():
            pupil.logit.fill_(extreme)
        assert 0 <= pupil.decays(x).item() <= 1 and pupil(x)[1].membrane.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_in_and_out_and_the_membrane_is_float32(dtype):
    """A membrane in half precision would lose what adds up slowly: 1/512 a frame stops growing at 1 in bfloat16, and never fires at 1.5."""
    torch.manual_seed(0)
    neuron, x = LIF(16), torch.randn(4, 50, 16).to(dtype)
    spikes, state = neuron(x)
    wide, end = neuron(x.float())
    assert (spikes.dtype, state.membrane.dtype) == (dtype, torch.float32)
    assert torch.equal(spikes.float(), wide) and torch.equal(state.membrane, end.membrane) and wide.any()
    slow, threshold = torch.full((1, 800, 1), 1 / 512, dtype=torch.bfloat16), 1.5
    assert LIF(1, decay=1.0, threshold=threshold)(slow)[0].sum() == 1
    membrane = torch.zeros(1, dtype=torch.bfloat16)
    for frame in slow[0]:
        membrane = membrane + frame
    assert membrane < threshold


def test_under_autocast_and_with_float64():
    torch.manual_seed(0)
    neuron, x = PLIF(8, decay_input=True), 2 * torch.randn(2, 20, 8)
    expected = neuron(x.bfloat16().float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        leaf = x.bfloat16().requires_grad_()
        spikes, state = neuron(leaf)
    spikes.float().square().sum().backward()
    assert (spikes.dtype, state.membrane.dtype, leaf.grad.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    assert torch.equal(spikes.float(), expected) and neuron.logit.grad.isfinite().all() and neuron.logit.grad.abs() > 0
    spikes, state = neuron(x.double())
    assert spikes.dtype == state.membrane.dtype == torch.float64


def test_half_precision_streams_as_well():
    torch.manual_seed(0)
    neuron, x = LIF(6), torch.randn(2, 12, 6).bfloat16()
    left, state = neuron(x[:, :5])
    assert torch.equal(torch.cat([left, neuron(x[:, 5:], state=state)[0]], 1), neuron(x)[0])


@pytest.mark.parametrize("make", [LIF, lambda c: PLIF(c, decay_per="channel", decay_input=True)], ids=["lif", "plif"])
def test_compiles_without_a_graph_break_and_agrees_with_eager(make):
    torch.manual_seed(0)
    neuron, x, lengths = make(5).double(), torch.randn(3, 9, 5, dtype=torch.float64) + 0.5, torch.tensor([1.0, 0.5, 0.7])
    compiled, found = torch.compile(neuron, backend="aot_eager", fullgraph=True), []
    for function in (neuron, compiled):
        leaf = x.clone().requires_grad_()
        spikes, state = function(leaf, lengths)
        learned = (leaf, *neuron.parameters())
        found.append((spikes, state.membrane, *torch.autograd.grad((spikes * x).sum() + state.membrane.sum(), learned)))
    assert found[0][0].any() and all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))


def test_firing_is_told_to_whoever_listens():
    events, neuron = [], LIF(2)
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.2], [9.0, 9.0]]])
    with operands.listen(events.append):
        neuron(x, torch.tensor([2 / 3]))
    (event,) = events
    assert event.module is neuron and event.counts.tolist() == [2, 0] and (event.frames, event.levels) == (2, 1)


def test_a_gain_is_the_value_of_a_spike_and_not_of_the_membrane():
    torch.manual_seed(0)
    neuron, x, counts = LIF(4), torch.randn(2, 9, 4) + 0.5, torch.tensor([9, 5])
    plain, gain = neuron.fire(x, counts), torch.tensor([0.0, 1.25, 2.0, 1.0]).repeat(2, 1, 1)
    scaled = neuron.fire(x, counts, gain)
    assert torch.equal(scaled.value, plain.value * gain) and torch.equal(scaled.code, plain.code) and scaled.levels == 1
    assert torch.equal(plain.code.float(), plain.value) and torch.equal(plain.gain, torch.ones(4))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: LIF(4, decay=1.5), "decay is 1.5: choose what is left of a membrane after a frame, 0 to 1"),
        (lambda: PLIF(4, decay=1.0), "decay is 1.0: a decay that is learned begins inside 0 to 1"),
        (lambda: PLIF(4, decay_per="frame"), "decay_per is 'frame': choose one of layer, channel"),
        (lambda: LIF(4, reset="zero"), "reset is 'zero': choose one of hard, soft"),
        (lambda: LIF(4, threshold=0), "threshold 0 and alpha 5.0 must be positive"),
        (lambda: LIF(4, surrogate="atan"), "surrogate is 'atan': choose one of arctan"),
        (lambda: LIF(4)(torch.zeros(1, 2, 6)), "x has 6 channels, the neuron 4: set channels=6"),
        (lambda: LIF(4)(torch.zeros(2, 2, 4), torch.tensor([1.0])), "batch of 2"),
        (lambda: LIF(4)(torch.zeros(2, 2, 4), torch.tensor([2.0, 1.0])), "relative"),
        (lambda: LIF(4)(torch.zeros(3, 2, 4), state=LIFState(torch.zeros(2, 4))), r"membrane is \(2, 4\), x needs \(3, 4\): pass"),
    ],
)
def test_wrong_arguments_say_what_to_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_is_printed_with_its_numbers():
    assert repr(LIF(4, decay=0.25, reset="soft")) == "LIF(4, decay=0.25, threshold=1.0, reset='soft', surrogate='arctan', alpha=5.0)"
    assert "decay=1" in repr(LIF(4, decay=1)) and "decay" not in repr(PLIF(4))
