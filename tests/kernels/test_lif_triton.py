"""Law 4 for the LIF op in Triton: on a GPU where there is one, else in Triton's interpreter and through its compiler.

The interpreter takes milliseconds a frame: sizes here are odd and small.
"""

import importlib.util
import itertools
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch

from spikebrain.kernels import checking, dispatch, lif, native, surrogate
from spikebrain.kernels.lif import eager, normed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NEEDS_TRITON = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: its kernels are not tested here"
)
SWITCHES = list(itertools.product(surrogate.NAMES, (False, True), (False, True)))


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Without a GPU the kernels of this process are interpreted: no other test runs them."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def options(name="arctan", soft=False, detach=True):
    """An alpha below 1, so that every surrogate but the straight-through one passes something and cuts something off."""
    return lif.FireOptions(0.7, soft, detach, name, 0.6)


def inputs(shape, dtype, affine=True, gain=True, seed=0):
    """Arguments of the op up to ``counts``, ragged, with gradients where it gives some; and derivatives by y and by the membranes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

    b, _, c = shape
    x, scale, shift, start = (t.requires_grad_() for t in (normal(*shape) + 0.5, normal(c) + 1, normal(c), normal(b, c)))
    decay = torch.sigmoid(normal(c)).requires_grad_()
    counts = torch.tensor([max(1, shape[1] * n // b) for n in range(b, 0, -1)], device=DEVICE)
    arguments = (x, lif.Affine(scale, shift) if affine else None, decay, start, normal(b, c).abs() if gain else None, counts)
    return arguments, normal(*shape), normal(b, c)


def constants(shape):
    """The same without gradients, for calls of one implementation's own functions: (kept, derivative by y, by the membranes)."""
    (x, by, *rest), weight, weight_end = inputs(shape, torch.float64)
    return (x.detach(), lif.Affine(*(t.detach() for t in by)), *(t.detach() for t in rest)), weight, weight_end


def run(implementation, shape, dtype, chosen, affine=True, gain=True, membranes=True):
    """Outputs, final membranes and every gradient; with ``membranes`` the loss looks at these too."""
    (x, by, decay, start, worth, counts), weight, weight_end = inputs(shape, dtype, affine, gain)
    y, code, end = lif.fire(x, by, decay, start, worth, counts, chosen, implementation)
    ((y * weight).sum() + ((end * weight_end).sum() if membranes else 0)).backward()
    leaves = {"x": x, "decay": decay, "start": start} | (by._asdict() if by else {})
    return {"y": y.detach(), "code": code, "end": end.detach()} | {f"d {name}": leaf.grad for name, leaf in leaves.items()}


@NEEDS_TRITON
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name, soft, detach", SWITCHES)
def test_every_surrogate_and_reset_agrees_with_the_definition(name, soft, detach, dtype):
    affine, gain = SWITCHES.index((name, soft, detach)) % 2 == 0, SWITCHES.index((name, soft, detach)) % 3 == 0
    case = ((2, 4, 5), dtype, options(name, soft, detach), affine, gain)
    expected = run("reference", *case)
    assert 0 < expected["code"].sum() < expected["code"].numel()
    checking.agree(expected, run("triton", *case))


@NEEDS_TRITON
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 70), (3, 9, 1), (3, 9, 33), (2, 9, 70)])
def test_odd_and_ragged_sizes_agree_with_the_definition(shape, dtype):
    case = (shape, dtype, options(detach=False))
    checking.agree(run("reference", *case), run("triton", *case))


@NEEDS_TRITON
@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_a_membrane_that_just_reaches_the_threshold_fires_and_forgets(implementation):
    """By hand, decay 1/2: membranes 1, 0, 1/2, 1/4 + 3/4. Behind the first spike nothing of the start is left."""
    x = torch.tensor([1.0, 0.0, 0.5, 0.75], device=DEVICE).view(1, 4, 1)
    decay, start = torch.tensor([0.5], device=DEVICE), torch.zeros(1, 1, device=DEVICE, requires_grad=True)
    chosen = lif.FireOptions(1.0, surrogate="straight_through")
    y, code, end = lif.fire(x, None, decay, start, None, torch.tensor([4], device=DEVICE), chosen, implementation)
    assert code.flatten().tolist() == [1, 0, 0, 1] and end.item() == 0
    (grad,) = torch.autograd.grad(y.sum(), start)
    assert grad.item() == 0.5


@NEEDS_TRITON
@pytest.mark.parametrize("affine, gain, membranes", [(False, False, True), (True, False, False), (False, True, False)])
def test_what_may_be_left_out_may_be(affine, gain, membranes):
    case = ((2, 3, 5), torch.float64, options(soft=True), affine, gain, membranes)
    checking.agree(run("reference", *case), run("triton", *case))


@NEEDS_TRITON
@pytest.mark.parametrize("wanted", range(4))
@pytest.mark.parametrize("factor", [False, True])
def test_the_way_back_gives_what_is_wanted_of_it(wanted, factor):
    kept, grad, grad_end = constants((2, 3, 5))
    by = kept[1].scale if factor else None
    found = [m.backward(grad, grad_end, kept, by, options(), wanted) for m in (eager, lif.fast(grad, "triton"))]
    for expected, triton in zip(*(f[:2] for f in found)):
        torch.testing.assert_close(triton, expected, rtol=0, atol=1e-12)
    rows = [0, 1] * (wanted & 1) + [2] * (wanted // 2)
    assert (found[1][2] is None) == (wanted == 0)
    if wanted:
        torch.testing.assert_close(found[1][2][rows], found[0][2][rows], rtol=0, atol=1e-12)


@NEEDS_TRITON
def test_a_wrong_constant_is_noticed():
    case = ((2, 4, 5), torch.float64)
    expected = run("reference", *case, options())
    with pytest.raises(AssertionError, match="spikes differ"):
        checking.agree(expected, run("triton", *case, options()._replace(threshold=0.5)))
    with pytest.raises(AssertionError, match="d x"):
        checking.agree(expected, run("triton", *case, options()._replace(alpha=0.61)))


@NEEDS_TRITON
def test_tensors_may_lie_anyhow_in_memory():
    (x, by, decay, start, gain, counts), weight, weight_end = constants((2, 3, 5))
    decay = decay[:1].expand(5)
    module, expected = lif.fast(x, "triton"), (x, by, decay.contiguous(), start, gain, counts)
    turned = [t.mT.contiguous().mT for t in (x, start, gain, weight, weight_end)]
    assert not any(t.is_contiguous() for t in (decay, *turned))
    strange = (turned[0], by, decay, turned[1], turned[2], counts)
    for a, b in zip(module.forward(*expected, options()), module.forward(*strange, options())):
        assert torch.equal(a, b)
    back = module.backward(weight, weight_end, expected, None, options(), 3)
    for a, b in zip(back, module.backward(*turned[3:], strange, None, options(), 3)):
        assert torch.equal(a, b)


@NEEDS_TRITON
def test_padding_is_not_read():
    (x, *rest, counts), weight, weight_end = constants((2, 4, 5))
    past = torch.arange(4, device=DEVICE) >= counts.unsqueeze(1)
    assert past.any()
    dirty, dirty_weight = (t.masked_fill(past.unsqueeze(-1), torch.nan) for t in (x, weight))
    module = lif.fast(x, "triton")
    for a, b in zip(module.forward(x, *rest, counts, options()), module.forward(dirty, *rest, counts, options())):
        assert torch.equal(a, b)
    clean = module.backward(weight, weight_end, (x, *rest, counts), None, options(), 3)
    for a, b in zip(clean, module.backward(dirty_weight, weight_end, (dirty, *rest, counts), None, options(), 3)):
        assert torch.equal(a, b)
    assert not clean[0][past].any()


@NEEDS_TRITON
def test_the_membranes_computed_again_are_those_that_each_frame_finds():
    (x, *rest, counts), _, _ = constants((1, 4, 5))
    module = lif.fast(x, "triton")
    before = module.membranes(x, *rest, counts, options())
    assert torch.equal(before[:, 0], rest[2])
    for t in range(1, 4):
        assert torch.equal(before[:, t], module.forward(x[:, :t], *rest, counts.clamp(max=t), options())[2])


@NEEDS_TRITON
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_neurons_behind_a_normalisation_agree_with_the_definition(dtype):
    found = []
    for implementation in ("reference", "triton"):
        (x, (weight, bias), decay, start, gain, counts), by_y, by_end = inputs((3, 5, 7), dtype)
        y, code, end, moments = normed.fire(x, weight, bias, decay, start, gain, counts, 1e-5, options(), implementation)
        ((y * by_y).sum() + (end * by_end).sum()).backward()
        leaves = {"x": x, "weight": weight, "bias": bias, "decay": decay, "start": start}
        outputs = {"y": y.detach(), "code": code, "end": end.detach(), "mean": moments.mean.to(dtype)}
        found.append(outputs | {f"d {name}": leaf.grad for name, leaf in leaves.items()})
    checking.agree(*found)


@NEEDS_TRITON
def test_no_start_is_membranes_at_rest():
    found = []
    for implementation in ("reference", "triton"):
        (x, *_, counts), by_y, by_end = inputs((2, 4, 5), torch.float64)
        y, code, end = lif.fire(x, None, torch.full((5,), 0.5, device=DEVICE).double(), None, None, counts, options(), implementation)
        ((y * by_y).sum() + (end * by_end).sum()).backward()
        found.append({"y": y.detach(), "code": code, "end": end.detach(), "d x": x.grad})
    checking.agree(*found)


COMPILE = """
    import re, torch
    from spikebrain.kernels import lif, surrogate
    from spikebrain.kernels.lif import triton as kernels
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    NAMES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64", torch.uint8: "*u8", int: "i32"}
    made = kernels._kernels()

    class Compiler:  # stands where a kernel stands, compiles what would be launched
        def __init__(self, kernel):
            self.kernel = kernel
        def __getitem__(self, grid):
            return self.launch
        def launch(self, *arguments, num_warps, enable_fp_fusion, **constants):
            signature, known = {}, {}
            for i, (name, a) in enumerate(zip(self.kernel.arg_names, (*arguments, *[None] * len(constants)))):
                a = constants.get(name, a)
                constant = name in constants or a is None or (isinstance(a, int) and a == 1)
                signature[name] = "constexpr" if constant else NAMES[getattr(a, "dtype", int)]
                known |= {(i,): a} if constant else {}
            for fuses in (enable_fp_fusion, True):
                options = {"num_warps": num_warps, "enable_fp_fusion": fuses}
                out = compile(ASTSource(self.kernel, signature, known), target=GPUTarget("cuda", 80, 32), options=options)
                ops = re.findall(r"[^.\\w](mul|add|fma)[.]rn[.]f(?:32|64)", out.asm["ptx"])
                print("fusing" if fuses else "as launched", self.kernel.__name__, len(out.asm["cubin"]) > 0, *ops, sep=",")
                if n > 0:
                    break

    kernels._kernels = lambda: [Compiler(kernel) for kernel in made]
    for n, name in enumerate(surrogate.NAMES):
        def like(*size):
            return torch.ones(*size, dtype=torch.float64 if n % 2 else torch.float32)
        b, l, c = (1, 1, 1) if name == "triangle" else (2, 3, 5)
        every, some = n % 3 == 0, n % 3 != 1
        gain, affine = like(b, c) if some else None, lif.Affine(like(c), like(c)) if every else None
        inputs = (like(b, l, c), affine, like(c), like(b, c), gain, torch.ones(b, dtype=torch.long))
        options = lif.FireOptions(0.7, n % 2 == 1, n < 3, name, 5.0)
        kernels.forward(*inputs, options)
        kernels.backward(like(b, l, c), like(b, c) if some else None, inputs, like(c) if every else None, options, n % 4)
"""


@NEEDS_TRITON
def test_the_compiler_takes_the_kernels_and_fuses_nothing(tmp_path):
    """What the interpreter cannot say: that everything types, and that products are rounded before they are added."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(COMPILE)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.splitlines()]
    launched = [line[1:] for line in lines if line[0] == "as launched"]
    assert [line[0] for line in launched] == ["_lif_charge", "_lif_charge", "_lif_discharge"] * len(surrogate.NAMES)
    assert all(line[1] == "True" for line in launched)
    assert launched[0][2:] == ["mul", "add", "mul", "add"] and launched[3][2:] == ["mul", "add", "add"]
    assert not any("fma" in line for line in launched if line[0] == "_lif_charge")
    assert lines[1] == ["fusing", "_lif_charge", "True", "fma", "fma"]


# What dispatch looks at of a tensor; a real one on a GPU is not to be had everywhere.
ON_GPU = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32)


@NEEDS_TRITON
def test_a_tensor_on_a_gpu_gets_triton_where_the_op_has_it(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_no_compilation", lambda device: None)
    assert dispatch.choose(ON_GPU, None, lif.cpu.SOURCE, triton=True) == "triton"
    assert dispatch.choose(ON_GPU, None, lif.cpu.SOURCE) == "eager"
    assert dispatch.choose(ON_GPU, "eager", lif.cpu.SOURCE, triton=True) == "eager"
    half = SimpleNamespace(device=ON_GPU.device, dtype=torch.bfloat16)
    assert dispatch.choose(half, None, lif.cpu.SOURCE, triton=True) == "eager"
    with pytest.raises(RuntimeError, match="Triton kernel cannot run: it takes float32 and float64, x is torch.bfloat16"):
        dispatch.choose(half, "triton", triton=True)


@NEEDS_TRITON
@pytest.mark.parametrize("capability, compiler, reason", [((7, 5), None, "no C compiler"), ((6, 1), "cc", r"compute capability \(6, 1\)")])
def test_a_gpu_on_which_triton_cannot_compile_gets_eager(monkeypatch, capability, compiler, reason):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_no_compilation", dispatch._no_compilation.__wrapped__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(native, "compiler", lambda: compiler)
    assert dispatch.choose(ON_GPU, None, lif.cpu.SOURCE, triton=True) == "eager"
    with pytest.raises(RuntimeError, match=reason):
        dispatch.choose(ON_GPU, "triton", triton=True)


@NEEDS_TRITON
def test_on_the_cpu_it_is_interpreted_when_asked_for_and_never_chosen(monkeypatch):
    x = torch.zeros(1, 1, 1)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.choose(x, "triton", triton=True) == "triton"
    assert dispatch.choose(x, None, triton=True) == "eager"
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(RuntimeError, match="x is on cpu, .* set TRITON_INTERPRET=1"):
        dispatch.choose(x, "triton", triton=True)
    with pytest.raises(RuntimeError, match="this op has none, choose eager"):
        dispatch.choose(x, "triton")


WITHOUT = """
    import sys
    sys.modules["triton"] = None  # its import fails from here on
    from types import SimpleNamespace
    import torch
    import spikebrain
    from spikebrain.kernels import dispatch, lif
    x, one = torch.ones(1, 2, 3), torch.ones(1, 3)
    print(int(lif.fire(x, None, one[0], one, None, torch.tensor([2]), lif.FireOptions())[1].sum()))
    print(dispatch.choose(SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32), None, triton=True))
    dispatch.choose(x, "triton", triton=True)
"""


def test_without_triton_everything_else_works(tmp_path):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(WITHOUT)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["6", "eager"], done.stderr
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("RuntimeError: the Triton kernel cannot run: triton does not import")
