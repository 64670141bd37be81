"""Law 4 for the LIF op: the definition against numbers worked out by hand, and every implementation against the definition."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from spikebrain.kernels import checking, dispatch, lif, native, surrogate

NEEDS_COMPILER = pytest.mark.skipif(native.why_not() is not None, reason=f"compiled kernel: {native.why_not()}")
FAST = ["eager", pytest.param("cpu", marks=NEEDS_COMPILER)]
ALL = ["reference", *FAST]
SHAPES = [(1, 1, 1), (3, 17, 1), (2, 1, 63), (2, 9, 64), (1, 5, 65), (3, 13, 130)]
LEARNED = ("x", "scale", "shift", "decay", "start")
DEFAULT = lif.FireOptions(threshold=0.7, alpha=3.0)


def inputs_of(shape, dtype, affine=True, gain=True, seed=1):
    """Random inputs of one call by name, drawn in float64 so that both dtypes see the same numbers."""
    batch, length, channels = shape
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    made = {"x": normal(*shape), "scale": normal(channels), "shift": normal(channels), "start": normal(batch, channels)}
    made["decay"] = torch.rand(channels, generator=generator, dtype=torch.float64).to(dtype)
    made["gain"] = 2 * torch.rand(batch, channels, generator=generator, dtype=torch.float64).to(dtype).round() if gain else None
    made["counts"] = torch.randint(1, length + 1, (batch,), generator=generator)
    if not affine:
        made["scale"] = made["shift"] = None
    return made


def run(implementation, made, options):
    """Spikes, final membrane and all gradients of a loss that reads both with random weights."""
    leaves = {k: made[k].detach().requires_grad_() for k in LEARNED if made[k] is not None}  # a copy would lose the layout
    affine = lif.Affine(leaves["scale"], leaves["shift"]) if "scale" in leaves else None
    start = leaves.get("start")
    y, code, end = lif.fire(leaves["x"], affine, leaves["decay"], start, made["gain"], made["counts"], options, implementation)
    weighted_sum(y, end).backward()
    return {"y": y.detach(), "code": code, "end": end.detach(), **{f"d{name}": leaf.grad for name, leaf in leaves.items()}}


def weighted_sum(*outputs):
    """A loss with another random weight for every element."""
    generator = torch.Generator().manual_seed(7)
    return sum((out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)).sum() for out in outputs)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", surrogate.NAMES)
@pytest.mark.parametrize("soft, detach", [(False, True), (False, False), (True, True), (True, False)])
def test_implementations_agree_with_the_definition(implementation, dtype, name, soft, detach):
    options = lif.FireOptions(0.7, soft, detach, name, 3.0)
    for affine, gain in itertools.product([False, True], [False, True]):
        made = inputs_of((3, 11, 70), dtype, affine, gain)
        expected = run("reference", made, options)
        assert expected["code"].any() and expected["ddecay"].abs().max() > 0
        checking.agree(expected, run(implementation, made, options))


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_implementations_agree_at_odd_sizes(implementation, dtype, shape):
    made = inputs_of(shape, dtype)
    made["x"][0, 0] = 3 * made["scale"].sign()  # spikes in every case
    checking.agree(run("reference", made, DEFAULT), run(implementation, made, DEFAULT))


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize(
    "soft, detach, end, dx, ddecay",
    [
        (False, True, 0.0, [0.875, 0.75, 0.625, 0.25], 0.5),
        (False, False, 0.0, [0.6768798828125, 0.4716796875, 0.59375, 0.25], 0.36083984375),
        (True, True, 0.8125, [1.0546875, 1.109375, 0.71875, 0.1875], 0.8515625),
        (True, False, 0.8125, [0.7081298828125, 0.83251953125, 0.66015625, 0.1875], 0.698486328125),
    ],
)
def test_a_trajectory_by_hand(implementation, soft, detach, end, dx, ddecay):
    """Input 0.5, 1, 0.5, 1.5; decay 0.5, threshold 1; triangle of alpha 1, whose slope is 1 - |h - 1|; loss: the sum of spikes.

    hard    h  0.5  1.25  0.5    1.75      soft    h  0.5  1.25  0.625  1.8125
            s  0    1     0      1                 s  0    1     0      1
            v  0.5  0     0.5    0                 v  0.5  0.25  0.625  0.8125
        slope  0.5  0.75  0.5    0.25          slope  0.5  0.75  0.625  0.1875

    Back through time: g_t = slope_t + r_t decay g_(t+1), where r is what the reset lets through: 1 - s (hard) or 1 (soft) where it is
    detached, else less h slope (hard) or slope (soft). Hard, detached: g = 0.25, then 0.5 + 0.125, then 0.75 (the spike stops the rest),
    then 0.5 + 0.375. The decay's derivative is the sum of g_t v_(t-1), that of the start decay g_1.
    """
    x = torch.tensor([0.5, 1.0, 0.5, 1.5], dtype=torch.float64).view(1, 4, 1).requires_grad_()
    decay, start = torch.tensor([0.5], dtype=torch.float64, requires_grad=True), torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    options = lif.FireOptions(1.0, soft, detach, "triangle", 1.0)
    y, code, last = lif.fire(x, None, decay, start, None, torch.tensor([4]), options, implementation)
    y.sum().backward()
    assert y.flatten().tolist() == code.flatten().tolist() == [0, 1, 0, 1] and last.item() == end
    assert x.grad.flatten().tolist() == dx and start.grad.item() == 0.5 * dx[0]
    assert decay.grad.item() == pytest.approx(ddecay, abs=1e-15)


@pytest.mark.parametrize("implementation", ALL)
def test_padding_neither_fires_nor_moves_the_membrane(implementation):
    made = inputs_of((4, 12, 20), torch.float64)
    made["counts"] = torch.tensor([12, 7, 3, 1])
    batch = run(implementation, made, DEFAULT)
    for b, n in enumerate(made["counts"].tolist()):
        assert all(batch[name][b, n:].abs().sum() == 0 for name in ("code", "y", "dx"))
        alone = {k: v[b : b + 1] if k in ("start", "gain", "counts") else v for k, v in made.items()} | {"x": made["x"][b : b + 1, :n]}
        single = run(implementation, alone, DEFAULT)
        assert torch.equal(single["code"][0], batch["code"][b, :n]) and torch.equal(single["end"][0], batch["end"][b])


@pytest.mark.parametrize("implementation", FAST)
def test_padding_that_is_not_a_number_changes_nothing(implementation):
    made = inputs_of((3, 12, 20), torch.float64)
    made["counts"] = torch.tensor([12, 7, 3])
    clean = run(implementation, made, DEFAULT)
    made["x"][1, 7:], made["x"][2, 3:] = float("nan"), -float("inf")
    checking.agree(clean, run(implementation, made, DEFAULT))


@pytest.mark.parametrize("implementation", FAST)
def test_chunks_with_carried_membranes_are_the_whole_and_so_are_their_gradients(implementation):
    """At every split: the first chunk's final membrane starts the second, and the gradient goes back through it."""
    made = inputs_of((2, 9, 5), torch.float64)
    made["counts"] = torch.tensor([9, 9])
    whole = run("reference", made, DEFAULT)
    for split in range(1, 9):
        leaves = {name: made[name].clone().requires_grad_() for name in LEARNED}
        membrane, parts = leaves["start"], []
        for part in leaves["x"].split([split, 9 - split], 1):
            affine, counts = lif.Affine(leaves["scale"], leaves["shift"]), torch.full((2,), part.shape[1])
            y, code, membrane = lif.fire(part, affine, leaves["decay"], membrane, made["gain"], counts, DEFAULT, implementation)
            parts.append((y, code))
        y, code = (torch.cat(p, 1) for p in zip(*parts, strict=True))
        weighted_sum(y, membrane).backward()
        found = {"y": y.detach(), "code": code, "end": membrane.detach()} | {f"d{k}": v.grad for k, v in leaves.items()}
        checking.agree(whole, found)


@pytest.mark.parametrize("implementation", ["reference", *FAST])
def test_no_start_is_membranes_at_rest(implementation):
    made = inputs_of((3, 9, 70), torch.float64)
    made["start"].zero_()
    expected = run(implementation, made, DEFAULT)
    del expected["dstart"]
    made["start"] = None
    found = run(implementation, made, DEFAULT)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in found)


@pytest.mark.parametrize("implementation", FAST)
def test_the_gain_scales_spikes_and_their_gradients(implementation):
    made = inputs_of((2, 9, 5), torch.float64, gain=False)
    plain = run(implementation, made, DEFAULT)
    made["gain"] = torch.tensor([[0.0, 1.0, 2.0, 0.5, 3.0]] * 2, dtype=torch.float64)
    scaled = run(implementation, made, DEFAULT)
    assert torch.equal(scaled["code"], plain["code"]) and torch.equal(scaled["y"], plain["code"] * made["gain"].unsqueeze(1))
    assert torch.equal(scaled["end"], plain["end"]) and not torch.equal(scaled["dx"], plain["dx"])


def strided(made):
    """The same inputs, none of them contiguous."""
    layouts = {3: lambda t: t.transpose(0, 1).contiguous().transpose(0, 1), 2: lambda t: t.t().contiguous().t()}
    spread = lambda t: torch.stack([t, t.flip(0)], -1)[..., 0]  # noqa: E731
    return {k: None if v is None else layouts.get(v.dim(), spread)(v) for k, v in made.items()}


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("names", [("x",), ("start",), ("counts",), ("gain",), ("scale", "shift", "decay")], ids="-".join)
def test_layout_in_memory_does_not_matter(implementation, names):
    made = inputs_of((3, 7, 6), torch.float64)
    other = made | {name: strided(made)[name] for name in names}
    assert not any(other[name].is_contiguous() for name in names)
    checking.agree(run("reference", made, DEFAULT), run(implementation, other, DEFAULT))


@pytest.mark.parametrize("implementation", FAST)
def test_layout_of_the_incoming_gradients_does_not_matter(implementation):
    made, found = inputs_of((3, 7, 6), torch.float64, affine=False), {}
    for name in ("reference", implementation):
        x, start = made["x"].clone().requires_grad_(), made["start"].clone().requires_grad_()
        y, _, end = lif.fire(x, None, made["decay"], start, None, made["counts"], DEFAULT, name)
        weights = torch.arange(126.0, dtype=torch.float64).view(7, 6, 3), torch.arange(18.0, dtype=torch.float64).view(6, 3)
        ((y.permute(1, 2, 0) * weights[0]).sum() + (end.t() * weights[1]).sum()).backward()
        found[name] = {"dx": x.grad, "dstart": start.grad}
    checking.agree(found["reference"], found[implementation])


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("learned", [("scale",), ("shift",), ("decay",), ("start",), ("x",), ("shift", "decay")], ids="-".join)
def test_each_gradient_is_had_without_the_others(implementation, learned):
    made = inputs_of((3, 7, 6), torch.float64)
    expected = run("reference", made, DEFAULT)
    leaves = {name: made[name].clone().requires_grad_(name in learned) for name in LEARNED}
    affine = lif.Affine(leaves["scale"], leaves["shift"])
    y, _, end = lif.fire(leaves["x"], affine, leaves["decay"], leaves["start"], made["gain"], made["counts"], DEFAULT, implementation)
    weighted_sum(y, end).backward()
    for name, leaf in leaves.items():
        assert (leaf.grad is not None) == (name in learned), name
        assert name not in learned or torch.allclose(leaf.grad, expected[f"d{name}"], atol=1e-12), name


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("read", ["spikes", "membrane"])
def test_a_loss_that_reads_one_output_alone(implementation, read):
    made, found = inputs_of((3, 7, 6), torch.float64, affine=False), {}
    for name in ("reference", implementation):
        x = made["x"].clone().requires_grad_()
        y, _, end = lif.fire(x, None, made["decay"], made["start"], None, made["counts"], DEFAULT, name)
        (y if read == "spikes" else end).square().sum().backward()
        found[name] = {"dx": x.grad}
    assert found["reference"]["dx"].abs().sum() > 0
    checking.agree(found["reference"], found[implementation])


def _late_threshold(made, options):
    return made, options._replace(threshold=options.threshold + 0.01)


def _thaws(made, options):
    return made | {"counts": torch.full_like(made["counts"], made["x"].shape[1])}, options


def _other_slope(made, options):
    return made, options._replace(alpha=options.alpha * (1 + 1e-6))


def _follows_the_reset(made, options):
    return made, options._replace(detach=not options.detach)


def _one_decay(made, options):
    return made | {"decay": made["decay"].mean().expand_as(made["decay"]).contiguous()}, options


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize(
    "break_it, noticed",
    [
        (_late_threshold, "spikes differ"),
        (_thaws, "spikes differ"),
        (_one_decay, "spikes differ"),
        (_other_slope, "dx"),
        (_follows_the_reset, "dx"),
    ],
)
def test_the_comparison_notices_a_wrong_kernel(implementation, break_it, noticed):
    made = inputs_of((3, 11, 20), torch.float64)
    expected = run("reference", made, DEFAULT)
    with pytest.raises(AssertionError, match=noticed):
        checking.agree(expected, run(implementation, *break_it(made, DEFAULT)))


@pytest.mark.parametrize("implementation", FAST)
def test_every_element_is_written(implementation, monkeypatch):
    """Memory comes filled with NaN or 255: what a kernel forgets to write is seen."""
    made = inputs_of((2, 9, 65), torch.float64)
    expected = run(implementation, made, DEFAULT)
    for home, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(home, name, _poisoned(getattr(home, name)))
    assert torch.empty(3).isnan().all()
    checking.agree(expected, run(implementation, made, DEFAULT))


def _poisoned(make):
    def made(*args, **kwargs):
        tensor = make(*args, **kwargs)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 255)

    return made


@NEEDS_COMPILER
def test_the_number_of_threads_changes_nothing():
    made = inputs_of((8, 40, 130), torch.float32)
    assert made["x"].numel() > 32768, "below that the kernel keeps to one thread"
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run("cpu", made, DEFAULT))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][k], other[k]) for other in found[1:] for k in other)


def test_neither_membranes_nor_spikes_are_kept():
    made = inputs_of((4, 50, 64), torch.float32, affine=False, gain=False)
    x, kept = made["x"].requires_grad_(), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        lif.fire(x, None, made["decay"], made["start"], None, made["counts"], DEFAULT)
    small = sum(made[name].untyped_storage().nbytes() for name in ("decay", "start", "counts"))
    assert sum(kept.values()) == x.untyped_storage().nbytes() + small


def test_without_a_compiler_the_eager_kernel_gives_the_same_numbers(monkeypatch):
    made = inputs_of((2, 9, 5), torch.float64)
    expected = run(None, made, DEFAULT)
    monkeypatch.setattr(native, "load", lambda source: None)
    assert dispatch.choose(made["x"], None, lif.cpu.SOURCE) == "eager"
    checking.agree(expected, run(None, made, DEFAULT))
    with pytest.raises(RuntimeError, match="the compiled kernel cannot run"):
        run("cpu", made, DEFAULT)


@NEEDS_COMPILER
def test_a_source_that_does_not_compile_is_a_warning_and_no_library(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEBRAIN_CACHE", str(tmp_path))
    source = tmp_path / "broken.c"
    source.write_text("int lif_float(void) { return nothing; }\n")
    with pytest.warns(UserWarning, match="broken.c could not be compiled, the slower eager kernel is used"):
        assert native.load(source) is None
    assert list((tmp_path / "kernels").iterdir()) == [], "half a library was left behind"


@pytest.mark.parametrize("affine, gain", [(True, True), (False, False)])
def test_op_is_registered_correctly(affine, gain):
    """torch's own check of schema, fake implementation and autograd registration."""
    made = inputs_of((2, 7, 5), torch.float64, affine, gain)
    for name in LEARNED:
        made[name] = None if made[name] is None else made[name].requires_grad_()
    order = [made[name] for name in (*LEARNED, "gain", "counts")]
    torch.library.opcheck(lif._fire_op, (*order, lif.to_numbers(DEFAULT)))


def test_a_tracer_is_told_the_true_layout():
    """torch.compile lays out its own memory by what the fake op says."""
    made = inputs_of((3, 7, 6), torch.float32, affine=False, gain=False)
    x = strided(made)["x"]
    rest = (None, None, made["decay"], made["start"], None, made["counts"], lif.to_numbers(DEFAULT))
    real = lif._fire_op(x, *rest)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = lif._fire_op(mode.from_tensor(x), *rest)
    assert [f.stride() for f in fake] == [r.stride() for r in real]
