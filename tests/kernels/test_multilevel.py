"""Law 4 for the multi-level op, and the definition against an integrate-and-fire neuron run step by step."""

import pytest
import torch

from spikebrain.kernels import checking, dispatch, multilevel, native

NEEDS_COMPILER = pytest.mark.skipif(native.why_not() is not None, reason=f"compiled kernel: {native.why_not()}")
FAST = ["eager", pytest.param("cpu", marks=NEEDS_COMPILER)]
SHAPES = [(1, 1, 1), (3, 17, 13), (2, 63, 64), (4, 101, 130)]


def run(implementation, x, counts, options, seed=1):
    """Outputs and gradient of one firing whose top is the channel maximum."""
    x = x.clone().requires_grad_()
    top, row = multilevel.channel_max(x, counts, implementation)
    top = top.clamp(min=1e-2) * options.theta
    gain = torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)
    y, code = multilevel.fire(x, top, gain, counts, row, options, implementation)
    torch.manual_seed(seed)
    (grad,) = torch.autograd.grad(y, x, torch.randn_like(y))
    return {"top": top, "row": row, "y": y.detach(), "code": code, "grad": grad}


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels, offset, theta", [(6, 0.0, 1.0), (1, 0.0, 1.0), (4, 0.5, 0.7), (127, 0.0, 1.0)])
def test_implementations_agree_with_the_definition(implementation, dtype, shape, levels, offset, theta):
    torch.manual_seed(sum(shape) + levels)
    x = 2 * torch.randn(shape, dtype=dtype) + 0.3
    x[0, 0] = 2.0  # spikes in every case
    counts = torch.randint(1, shape[1] + 1, (shape[0],))
    options = multilevel.FireOptions(levels, float(levels), offset, theta)
    expected = run("reference", x, counts, options)
    checking.agree(expected, run(implementation, x, counts, options))
    assert (expected["code"] & 127).max() >= 1


@pytest.mark.parametrize("implementation", FAST)
def test_the_comparison_notices_a_wrong_kernel(implementation):
    x, counts = torch.randn(2, 9, 5, dtype=torch.float64), torch.tensor([9, 4])
    expected = run("reference", x, counts, multilevel.FireOptions(6, 6.0))
    wrong = run(implementation, x, counts, multilevel.FireOptions(6, 5.9))
    with pytest.raises(AssertionError, match="spikes differ"):
        checking.agree(expected, wrong)
    nearly = run(implementation, x, counts, multilevel.FireOptions(6, 6.0))
    nearly["grad"] = nearly["grad"] * (1 + 1e-6)
    with pytest.raises(AssertionError, match="grad"):
        checking.agree(expected, nearly)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_an_integrate_and_fire_neuron_bit_by_bit(dtype):
    """v <- v - 1 after every spike, T steps: the train is a burst whose length is floor(clip(u, 0, T))."""
    levels = 6
    whole = torch.arange(-1, levels + 3, dtype=dtype)
    edges = torch.cat(
        [whole, torch.nextafter(whole, whole + 1), torch.nextafter(whole, whole - 1), torch.tensor([-7.5, 99.0], dtype=dtype)]
    )
    u = torch.cat([edges, 3 + 3 * torch.randn(4000, dtype=dtype, generator=torch.Generator().manual_seed(0))])
    membrane, train = u.clone(), []
    for _ in range(levels):
        train.append(membrane >= 1)
        membrane = membrane - train[-1].to(dtype)
    train = torch.stack(train)
    assert bool((train[:-1] | ~train[1:]).all()), "not a burst"
    one = torch.ones(len(u), dtype=dtype)
    for implementation in ("reference", "eager", *([] if native.why_not() else ["cpu"])):
        fired = multilevel.fire(
            u.view(1, 1, -1), one, one, torch.tensor([1]), torch.full((len(u),), -1), multilevel.FireOptions(levels, 1.0), implementation
        )
        assert torch.equal(fired[0].flatten(), train.sum(0).to(dtype)), implementation
        assert torch.equal((fired[1] & 127).flatten().long(), train.sum(0)), implementation


@pytest.mark.parametrize("implementation", FAST)
def test_nan_is_passed_on_and_not_hidden_as_silence(implementation):
    x = torch.tensor([[[1.0, float("nan")], [float("inf"), 2.0]]])
    one = torch.ones(2)
    y, _ = multilevel.fire(x, one, one, torch.tensor([2]), torch.full((2,), -1), multilevel.FireOptions(4, 1.0), implementation)
    assert torch.isnan(y[0, 0, 1]) and y[0, 1, 0] == 4 and y[0, 1, 1] == 2


def test_the_first_of_equal_maxima_is_followed():
    x = torch.tensor([[[1.0], [3.0], [3.0]], [[3.0], [0.0], [9.0]]])
    for implementation in ("reference", "eager", *([] if native.why_not() else ["cpu"])):
        top, row = multilevel.channel_max(x, torch.tensor([3, 2]), implementation)
        assert (top.item(), row.item()) == (3.0, 1), implementation


@pytest.mark.parametrize("implementation", FAST)
def test_gradient_through_the_scale_is_close_to_autograd(implementation):
    """The middle of a level stands for u (ours): over many frames the derivative of the scale stays within a few percent."""
    torch.manual_seed(0)
    x = torch.randn(8, 200, 32, dtype=torch.float64)
    counts = torch.full((8,), 200)
    cotangent = torch.randn(32, dtype=torch.float64).expand_as(x)
    exact = x.clone().requires_grad_()
    u = exact / exact.flatten(0, 1).amax(0) * 6
    (smooth,) = torch.autograd.grad((u * ((u >= 0) & (u <= 6))).mul(1 / 6), exact, cotangent)
    ours = x.clone().requires_grad_()
    top, row = multilevel.channel_max(ours, counts, implementation)
    y, _ = multilevel.fire(ours, top, torch.full_like(top, 1 / 6), counts, row, multilevel.FireOptions(6, 6.0), implementation)
    (found,) = torch.autograd.grad(y, ours, cotangent)
    peak = x.flatten(0, 1).argmax(0)
    a, b = (g.flatten(0, 1).gather(0, peak[None]).squeeze(0) for g in (smooth, found))
    assert (a - b).norm() / a.norm() < 0.05
    elsewhere = torch.ones_like(x.flatten(0, 1), dtype=torch.bool).scatter_(0, peak[None], False)
    assert torch.allclose(smooth.flatten(0, 1)[elsewhere], found.flatten(0, 1)[elsewhere], atol=1e-12)


def test_what_is_kept_is_one_byte_an_element():
    kept = {}
    x = torch.randn(4, 50, 64, requires_grad=True) * 1.0
    counts = torch.full((4,), 50)
    top, row = multilevel.channel_max(x, counts)

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        multilevel.fire(x, top, torch.ones(64), counts, row, multilevel.FireOptions(6, 6.0))
    assert x.numel() <= sum(kept.values()) <= x.numel() + 64 * (4 + 4 + 8)


def test_decode_reverses_the_code():
    code = torch.randint(0, 256, (3, 5, 9), dtype=torch.uint8)
    gain = torch.linspace(0.1, 2, 9)
    assert torch.equal(multilevel.decode(code, gain), (code & 127).float() * gain)


def test_asking_for_an_implementation_that_cannot_run_says_why():
    half = torch.zeros(1, 1, 1, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="choose one of reference, eager, cpu"):
        dispatch.choose(half, "gpu")
    with pytest.raises(RuntimeError, match="compiled kernel cannot run"):
        dispatch.choose(half, "cpu", multilevel.cpu.SOURCE)


def test_without_a_compiler_the_eager_kernel_gives_the_same_numbers(monkeypatch):
    x, counts = torch.randn(2, 9, 5), torch.tensor([9, 4])
    expected = run(None, x, counts, multilevel.FireOptions(6, 6.0))
    monkeypatch.setattr(native, "load", lambda source: None)
    assert dispatch.choose(x, None, multilevel.cpu.SOURCE) == "eager"
    checking.agree(expected, run(None, x, counts, multilevel.FireOptions(6, 6.0)))


def test_op_is_registered_correctly():
    """torch's own check of schema, fake implementation and autograd registration."""
    x = torch.randn(2, 7, 5, requires_grad=True)
    counts = torch.tensor([7, 3])
    top, row = multilevel.channel_max(x, counts)
    torch.library.opcheck(multilevel._fire_op, (x, top, torch.ones(5), counts, row, [6.0, 6.0, 0.0, 1.0]))
