"""Law 4 for batch normalisation over valid frames, alone and fused with the LIF neurons behind it."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spikebrain.kernels import batch_norm, checking, lif, native
from spikebrain.kernels.lif import normed

NEEDS_COMPILER = pytest.mark.skipif(native.why_not() is not None, reason=f"compiled kernel: {native.why_not()}")
FAST = ["eager", pytest.param("cpu", marks=NEEDS_COMPILER)]
ALL = ["reference", *FAST]
SHAPES = [(1, 4, 1), (3, 17, 1), (5, 2, 63), (2, 9, 64), (2, 5, 65), (3, 13, 130)]
NEURON = lif.FireOptions(0.7, alpha=3.0)
LEARNED = ("x", "weight", "bias", "decay", "start")
FUSED = pytest.mark.parametrize("fused", [False, True], ids=["norm", "norm+lif"])


def inputs_of(shape, dtype, seed=1):
    """Random inputs of both ops by name; channels differ in mean and spread by orders of magnitude."""
    batch, length, channels = shape
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    made = {"x": (normal(*shape) + normal(channels)) * torch.logspace(-1, 1, channels, dtype=torch.float64)}
    made |= {"weight": 1 + 0.3 * normal(channels), "bias": normal(channels) + 0.5, "start": normal(batch, channels)}
    made |= {"decay": normal(channels).sigmoid(), "gain": 1 + normal(batch, channels).sign()}
    counts = torch.randint(1, length + 1, (batch,), generator=generator)
    counts[0] = length  # a batch of one frame has no spread
    return {name: value.to(dtype) for name, value in made.items()} | {"counts": counts}


def run(implementation, made, fused, neuron=NEURON, eps=1e-5):
    """Outputs, moments and all gradients of a loss that reads every output with random weights."""
    leaves = {name: made[name].detach().requires_grad_() for name in LEARNED}
    x, weight, bias, decay, start = leaves.values()
    if fused:
        *fired, moments = normed.fire(x, weight, bias, decay, start, made["gain"], made["counts"], eps, neuron, implementation)
        outputs = dict(zip(("y", "code", "end"), fired, strict=True))
    else:
        y, moments = batch_norm.normalise(x, weight, bias, made["counts"], eps, implementation)
        outputs = {"y": y}
    return results(outputs, moments, leaves)


def results(outputs, moments, leaves):
    """What two runs are compared by, after the way back from a random weight for every real output."""
    generator = torch.Generator().manual_seed(7)
    real = [out for out in outputs.values() if out.is_floating_point()]
    sum((out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)).sum() for out in real).backward()
    found = {name: out.detach() for name, out in outputs.items()} | {"frames": moments.frames.long()}
    found |= {name: getattr(moments, name).to(real[0].dtype) for name in ("mean", "var")}
    return found | {f"d{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@FUSED
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_implementations_agree_with_the_definition(implementation, dtype, shape, fused):
    made = inputs_of(shape, dtype)
    made["bias"][0] = 2.0  # spikes in every case
    expected = run("reference", made, fused)
    checking.agree(expected, run(implementation, made, fused))
    assert not fused or expected["code"].any()


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(
    "soft, detach, name", [(False, True, "arctan"), (True, False, "sigmoid"), (False, False, "triangle"), (True, True, "rectangle")]
)
def test_the_fused_op_agrees_for_every_kind_of_neuron(implementation, soft, detach, name):
    made, neuron = inputs_of((3, 11, 70), torch.float64), lif.FireOptions(0.9, soft, detach, name, 2.0)
    checking.agree(run("reference", made, True, neuron), run(implementation, made, True, neuron))


@pytest.mark.parametrize("implementation", ALL)
def test_the_fused_op_is_the_two_apart(implementation):
    made = inputs_of((3, 11, 20), torch.float64)
    together = run(implementation, made, True)
    leaves = {name: made[name].clone().requires_grad_() for name in LEARNED}
    x, weight, bias, decay, start = leaves.values()
    hidden, moments = batch_norm.normalise(x, weight, bias, made["counts"], 1e-5, implementation)
    y, code, end = lif.fire(hidden, None, decay, start, made["gain"], made["counts"], NEURON, implementation)
    checking.agree(together, results({"y": y, "code": code, "end": end}, moments, leaves))


@pytest.mark.parametrize("implementation", ALL)
def test_equals_torch_on_the_valid_frames_alone(implementation):
    made = inputs_of((4, 9, 7), torch.float64)
    found = run(implementation, made, False)
    valid = torch.arange(9) < made["counts"].unsqueeze(1)
    theirs = nn.BatchNorm1d(7).double()
    theirs.load_state_dict({"weight": made["weight"], "bias": made["bias"]}, strict=False)
    x = made["x"].clone().requires_grad_()
    y = torch.zeros_like(x).masked_scatter(valid.unsqueeze(-1), theirs(x[valid]))
    generator = torch.Generator().manual_seed(7)
    (y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum().backward()
    pairs = {"y": y.detach(), "dx": x.grad, "dweight": theirs.weight.grad, "dbias": theirs.bias.grad}
    for name, expected in pairs.items():
        assert torch.allclose(found[name], expected, atol=1e-10), name


@FUSED
@pytest.mark.parametrize("implementation", FAST)
def test_padding_that_is_not_a_number_changes_nothing(implementation, fused):
    made = inputs_of((3, 12, 20), torch.float64)
    made["counts"] = torch.tensor([12, 7, 3])
    clean = run(implementation, made, fused)
    assert clean["y"][1, 7:].abs().max() == clean["y"][2, 3:].abs().max() == clean["dx"][2, 3:].abs().max() == 0
    made["x"][1, 7:], made["x"][2, 3:] = float("nan"), float("inf")
    checking.agree(clean, run(implementation, made, fused))


@FUSED
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("name", ["x", "counts", "weight", "bias"])
def test_layout_in_memory_does_not_matter(implementation, name, fused):
    made = inputs_of((3, 7, 6), torch.float64)
    other = dict(made)
    other[name] = made["x"].transpose(0, 1).contiguous().transpose(0, 1) if name == "x" else torch.stack([made[name]] * 2, -1)[..., 0]
    assert not other[name].is_contiguous()
    checking.agree(run("reference", made, fused), run(implementation, other, fused))


@FUSED
@pytest.mark.parametrize("implementation", FAST)
def test_the_incoming_gradient_may_be_strided_and_stays_as_it_is(implementation, fused):
    """The way back writes over memory of its own only."""
    made, results = inputs_of((3, 7, 6), torch.float64), []
    for strided in (False, True):
        x, weight, bias = (made[name].clone().requires_grad_() for name in ("x", "weight", "bias"))
        if fused:
            y = normed.fire(x, weight, bias, made["decay"], made["start"], None, made["counts"], 1e-5, NEURON, implementation)[0]
        else:
            y = batch_norm.normalise(x, weight, bias, made["counts"], 1e-5, implementation)[0]
        grad = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(7, 6, 3).permute(2, 0, 1)
        grad = grad if strided else grad.contiguous()
        before = grad.clone()
        results.append(torch.autograd.grad(y, (x, weight, bias), grad))
        assert torch.equal(grad, before)
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("implementation", FAST)
def test_sums_in_double_precision_survive_a_large_mean(implementation):
    """A mean 1000 times the spread: a variance from float32 sums of squares would be noise, or negative."""
    made = inputs_of((4, 200, 3), torch.float32)
    made["x"] = torch.randn(4, 200, 3, generator=torch.Generator().manual_seed(0)) + 1000
    moments = batch_norm.Moments(batch_norm.moments(made["x"], made["counts"], implementation))
    rows = made["x"].double()[torch.arange(200) < made["counts"].unsqueeze(1)]
    assert torch.allclose(moments.var, rows.var(0, unbiased=False), rtol=1e-6) and moments.var.dtype == torch.float64
    assert torch.allclose(moments.mean, rows.mean(0), rtol=1e-12) and moments.frames == len(rows)


def _biased(made):
    return made | {"x": made["x"] + 1e-3 * torch.arange(made["x"].shape[-1])}


def _counts_padding(made):
    return made | {"counts": torch.full_like(made["counts"], made["x"].shape[1])}


def _other_weight(made):
    return made | {"weight": made["weight"] * (1 + 1e-6)}


@FUSED
@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("break_it", [_biased, _counts_padding, _other_weight])
def test_the_comparison_notices_a_wrong_kernel(implementation, break_it, fused):
    made = inputs_of((3, 11, 20), torch.float64)
    with pytest.raises(AssertionError, match="differ"):
        checking.agree(run("reference", made, fused), run(implementation, break_it(made), fused))


@pytest.mark.parametrize("implementation", FAST)
def test_eps_is_inside_the_root(implementation):
    made = inputs_of((2, 9, 4), torch.float64)
    made["x"][..., 2] = 3.0  # no spread at all: only eps keeps it finite
    checking.agree(run("reference", made, False, eps=0.1), run(implementation, made, False, eps=0.1))


@NEEDS_COMPILER
@FUSED
def test_the_number_of_threads_changes_nothing(fused):
    made = inputs_of((8, 40, 130), torch.float32)
    assert made["x"].numel() > 32768, "below that the kernel keeps to one thread"
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run("cpu", made, fused))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][k], other[k]) for other in found[1:] for k in other)


def kept_bytes(function):
    """Bytes that autograd keeps while ``function`` runs, every storage once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        function()
    return sum(kept.values())


def test_the_fused_op_keeps_its_input_and_numbers_of_channels():
    made = inputs_of((4, 50, 64), torch.float32)
    x, channel = made["x"].requires_grad_(), 64 * 4
    kept = kept_bytes(lambda: normed.fire(x, *(made[k] for k in ("weight", "bias", "decay", "start")), None, made["counts"], 1e-5, NEURON))
    assert x.numel() * 4 <= kept <= x.numel() * 4 + made["start"].numel() * 4 + 16 * channel


def registered(fused, made):
    """The registered op and its arguments."""
    if not fused:
        return batch_norm._normalise_op, [made[name] for name in ("x", "weight", "bias", "counts")] + [1e-5]
    return normed._fire_op, [made[name] for name in (*LEARNED, "gain", "counts")] + [1e-5, lif.to_numbers(NEURON)]


@FUSED
def test_op_is_registered_correctly(fused):
    """torch's own check of schema, fake implementation and autograd registration."""
    made = inputs_of((2, 7, 5), torch.float64)
    for name in LEARNED:
        made[name].requires_grad_()
    torch.library.opcheck(*registered(fused, made))


@FUSED
def test_a_tracer_is_told_the_true_layout(fused):
    """torch.compile lays out its own memory by what the fake op says."""
    made = inputs_of((3, 7, 6), torch.float32)
    op, (_, *rest) = registered(fused, made)
    x = made["x"].transpose(0, 1).contiguous().transpose(0, 1)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = op(mode.from_tensor(x), *rest)
    assert [f.stride() for f in fake] == [r.stride() for r in op(x, *rest)]
