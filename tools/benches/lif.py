"""One layer of LIF neurons against SpikingJelly's, snnTorch's and what memory allows.

The timed layer is ``spikebrain.neurons.LIF(channels)`` with its defaults, forward and backward pass down to its input. Each call
comes right after a linear layer on the same data, forward and backward, which is not timed: in a network threads and caches are
those that a matrix product left. The same without it stands beside. Peers get contiguous tensors in their own layout, frames first.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from benches import measure, peers
from benches.measure import Disagreement, digits, say, verdict
from spikebrain.kernels import lif, native
from spikebrain.kernels.lif import normed
from spikebrain.neurons import LIF


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    judged : whether bars count; they do for the first shape
    shapes : (B, L, C) on the CPU
    compiled : shapes at which SpikingJelly is compiled too, which takes about a second a frame
    cuda : shapes on a GPU, where there is one; bars count for the last
    rounds : turns of every variant
    """

    judged: bool
    shapes: tuple
    compiled: tuple
    cuda: tuple
    rounds: int


QUICK, *LONGER = (2, 20, 32), (32, 100, 256), (32, 500, 256), (32, 1000, 256)
PLANS = {
    "quick": Plan(False, (QUICK,), (), (QUICK,), rounds=2),
    "default": Plan(True, tuple(LONGER), tuple(LONGER[:1]), (*LONGER, (256, 500, 512)), rounds=30),
    "full": Plan(True, tuple(LONGER), tuple(LONGER[:2]), (*LONGER, (256, 500, 512)), rounds=60),
}


def bench(plan):
    """Sections and verdicts of ``bench.py lif``."""
    sections = {"peers": peers.versions(), "native": _native_rows()}
    say("comparing implementations with the definition")
    sections["equality"] = [row for shape in plan.shapes for row in require_equality(shape)]
    verdicts, names = [], ("equality of peers", "compiling", "layer")
    sections |= {name: [] for name in names}
    for shape in plan.shapes:
        found = dict(zip(names, _layer(shape, plan), strict=True))
        for name, rows in found.items():
            sections[name] += rows
        verdicts += _verdicts(found["layer"], plan.judged) if shape == plan.shapes[0] else []
    if torch.cuda.is_available():
        sections["cuda"], found = on_device(plan.cuda, torch.device("cuda"), plan.rounds, plan.judged)
        verdicts += found
    return sections, verdicts


# Law 4 on the shapes that are timed.


def implementations():
    """Names of the implementations that run on a CPU at full speed, the definition first."""
    return ["reference", "eager", *([] if native.why_not() else ["cpu"])]


@dataclass(frozen=True)
class Given:
    """Inputs of an op, and cotangents for its spikes and its final membranes."""

    x: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor
    decay: torch.Tensor
    start: torch.Tensor
    gain: torch.Tensor
    counts: torch.Tensor
    cotangents: tuple

    @classmethod
    def of(cls, shape, dtype, device="cpu"):
        """Random ones for ``shape`` (B, L, C), ragged."""
        generator = torch.Generator().manual_seed(sum(shape))
        batch, length, channels = shape
        counts = torch.linspace(length, 0.6 * length, batch).long().clamp(min=1)

        def normal(*size):
            return torch.randn(size, dtype=dtype, generator=generator)

        affine, decay = (1 + normal(channels) / 10, normal(channels) / 10), normal(channels).sigmoid()
        gain, cotangents = (normal(batch, channels) > -1).to(dtype) / 0.9, (normal(*shape), normal(batch, channels))
        tensors = [normal(*shape), *affine, decay, normal(batch, channels) / 2, gain, counts]
        return cls(*(t.to(device) for t in tensors), tuple(t.to(device) for t in cotangents))


def timed_arguments(given):
    """What the timed layer gives the op beside x: full length, no scale, no gain, membranes at 0, one decay that is not learned."""
    counts = torch.full_like(given.counts, given.x.shape[1])
    return None, torch.full_like(given.decay, 0.5), torch.zeros_like(given.start), None, counts, lif.FireOptions()


def _as_timed(given):
    x = given.x.detach().requires_grad_()
    return {"x": x}, functools.partial(lif.fire, x, *timed_arguments(given))


def _with_everything(given):
    leaves = {name: getattr(given, name).detach().requires_grad_() for name in ("x", "scale", "shift", "decay", "start")}
    x, scale, shift, decay, start = leaves.values()
    return leaves, functools.partial(lif.fire, x, lif.Affine(scale, shift), decay, start, given.gain, given.counts, lif.FireOptions())


def _normed(given):
    leaves = {name: getattr(given, name).detach().requires_grad_() for name in ("x", "scale", "shift", "decay", "start")}
    return leaves, functools.partial(normed.fire, *leaves.values(), given.gain, given.counts, 1e-5, lif.FireOptions())


OPS = {"as timed": _as_timed, "ragged, scaled, gain": _with_everything, "ragged, normed, gain": _normed}


def fire_step(op, implementation, given):
    """Forward and backward pass of one of ``OPS``: outputs and gradients by name."""
    leaves, fire = OPS[op](given)
    y, code, end = fire(implementation)[:3]
    out, cotangents = [y], given.cotangents[:1]
    found = {"y": y.detach(), "code": code}
    if op != "as timed":
        out, cotangents = [y, end], given.cotangents
        found["end"] = end.detach()
    grads = torch.autograd.grad(out, list(leaves.values()), cotangents)
    return {**found, **{f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}}


def require_equality(shape):
    """Law 4 on ``shape``, in float64 and float32: a row for every op and implementation.

    Raises
    ------
    Disagreement
        Where an implementation differs from the definition; nothing may be timed then.
    """
    rows = {}
    for op in OPS:
        names = implementations()[1:]
        for dtype in (torch.float64, torch.float32):
            given = Given.of(shape, dtype)
            expected = fire_step(op, "reference", given)
            for name in names:
                row = rows.setdefault((op, name), {"shape": list(shape), "op": op, "implementation": name})
                row.update(measure.agreement(name, expected, fire_step(op, name, given), f"{shape}, {op},"))
    return list(rows.values())


# Layers.


class LayerStep:
    """Forward and backward pass of a layer of neurons down to its input ``x``: ``fire(x)`` gives its spikes, shaped as x."""

    def __init__(self, module, fire, x, cotangent):
        self.module, self.fire, self.cotangent = module, fire, cotangent
        self.x = x.detach().requires_grad_()

    def forward(self):
        """The spikes, with their graph."""
        return self.fire(self.x)

    def __call__(self):
        spikes = self.forward()
        return spikes.detach(), torch.autograd.grad(spikes, self.x, self.cotangent)[0]


class LinearStep(LayerStep):
    """A linear layer of 256 outputs at most, forward and backward pass to input and weight."""

    def __init__(self, x):
        module = torch.nn.Linear(x.shape[-1], min(x.shape[-1], 256), device=x.device)
        super().__init__(module, module, x, torch.randn(*x.shape[:2], module.out_features, device=x.device))

    def __call__(self):
        return torch.autograd.grad(self.forward(), [self.x, self.module.weight], self.cotangent)


class MemoryFloor:
    """What any LIF layer must move, as copies between tensors that lie ready: x in and spikes out, then the gradient and what was
    kept in and dx out."""

    def __init__(self, x, cotangent):
        self.x, self.cotangent, self.spikes, self.dx = x, cotangent, torch.empty_like(x), torch.empty_like(x)

    def __call__(self):
        self.spikes.copy_(self.x)
        torch.add(self.cotangent, self.x, out=self.dx)


OURS, JELLY, COMPILED, SNNTORCH = "spikebrain", "spikingjelly", "spikingjelly, compiled", "snntorch"
FLOOR, LINEAR = "memory floor", "linear"


def _own_steps(shape, device="cpu"):
    """Our layer and what it is measured beside, name -> step: batch first."""
    given = Given.of(shape, torch.float32, device)
    x, cotangent, layer = given.x, given.cotangents[0], LIF(shape[-1]).to(device)
    steps = {OURS: LayerStep(layer, lambda x: layer(x)[0], x, cotangent)}
    if torch.device(device).type == "cpu":
        rest = timed_arguments(given)
        steps["op alone"] = LayerStep(layer, lambda x: lif.fire(x, *rest)[0], x, cotangent)
    return {**steps, FLOOR: MemoryFloor(x, cotangent), LINEAR: LinearStep(x)}


def _turned(own):
    """Input and cotangent of our layer with frames first."""
    return tuple(t.detach().transpose(0, 1).contiguous() for t in (own.x, own.cotangent))


def _peer_steps(own, compiled):
    """Peers' layers on the input of ours, name -> step, and a row that says how compiling went, where it is asked for."""
    x, cotangent = _turned(own)
    steps = {JELLY: LayerStep(*peers.jelly_layer(), x, cotangent), SNNTORCH: LayerStep(*peers.snntorch_layer(), x, cotangent)}
    if not compiled:
        return steps, []
    say(f"compiling SpikingJelly's layer for {len(x)} frames")
    row = {"shape": list(own.x.shape), "peer": COMPILED}
    try:
        module, fire, seconds = peers.compiled_jelly_layer(x)
    except RuntimeError as error:  # of torch.compile: where there is no C++ compiler, among others
        return steps, [{**row, "seconds": None, "left out": str(error).strip().splitlines()[0]}]
    steps[COMPILED] = LayerStep(module, fire, x, cotangent)
    return steps, [{**row, "seconds": digits(seconds, 3), "left out": None}]


def compare_peer(name, ours, theirs):
    """Spikes and input gradients of two :class:`LayerStep`, the second one's frames first: a row.

    snnTorch fires above the threshold and we at it, so that a membrane that hits it may flip a spike: flipped spikes are counted,
    and gradients are compared in the trains (an utterance's channel) without one.

    Raises
    ------
    Disagreement
        When more than 1e-4 of the spikes or, by more than 1e-5 of their largest, gradients differ.
    """
    (spikes, grad), (their_spikes, their_grad) = ours(), (t.transpose(0, 1) for t in theirs())
    flipped = spikes != their_spikes
    same = ~flipped.any(1, keepdim=True)
    error = float(((grad - their_grad) * same).abs().max() / grad.abs().max().clamp(min=1))
    row = {"shape": list(spikes.shape), "peer": name, "spikes": int(spikes.sum()), "flipped": int(flipped.sum())}
    if not (row["flipped"] <= 1e-4 * spikes.numel() and error <= 1e-5):
        apart = f"{row['flipped']} spikes flipped, gradients apart by {error:.2g}"
        raise Disagreement(f"no times: {name} is not ours on {tuple(spikes.shape)}: {apart}")
    return {**row, "error of gradients": digits(error, 2)}


def _layer(shape, plan):
    """Rows of equality, of compiling and of times for one shape."""
    own = _own_steps(shape)
    theirs, compiling = _peer_steps(own[OURS], shape in plan.compiled)
    compared = [compare_peer(name, own[OURS], step) for name, step in theirs.items()]
    say(f"one layer of neurons, {shape}")
    linears = {**dict.fromkeys(own, own[LINEAR]), **dict.fromkeys(theirs, LinearStep(theirs[JELLY].x))}
    steps = own | theirs
    variants = {(name, way): step for name, step in steps.items() for way in ("alone", "after")}
    before = {(name, way): linears[name] for name, way in variants if way == "after"}
    seconds = measure.take_turns(variants, plan.rounds, before)
    return compared, compiling, [_layer_row(shape, name, step, seconds) for name, step in steps.items()]


def _layer_row(shape, name, step, seconds):
    alone, after = (name, "alone"), (name, "after")
    return {
        "shape": list(shape), "variant": name, "ms after a linear": measure.milliseconds(seconds, after),
        f"ratio to {OURS}": measure.ratio(seconds, after, (OURS, "after")), "ms alone": measure.milliseconds(seconds, alone),
        "alone to after": measure.ratio(seconds, alone, after), "saved_mib": measure.saved_mib(step) if hasattr(step, "module") else None,
    }  # fmt: skip


def _verdicts(rows, judged):
    """Bars of the first shape, after a linear. SpikingJelly compiled, minutes a length, is told and not judged."""
    times = {row["variant"]: row[f"ratio to {OURS}"]["median"] for row in rows}
    where = f"{' x '.join(map(str, rows[0]['shape']))}, after a linear"
    bars = {JELLY: (6, " (aim 10)", judged), COMPILED: (1, "", False), SNNTORCH: (10, "", judged)}
    return [
        verdict(f"{name} against {OURS}: time, {where}{aim}", times[name], ">=", least, counts)
        for name, (least, aim, counts) in bars.items()
        if name in times
    ]


def _native_rows():
    """Whether our kernels fight torch for the cores: a second pool of threads would add its own to those that torch has started."""
    if native.why_not():
        return [{"what": "compiled kernels", "value": native.why_not()}]
    layer, x = LIF(256), torch.zeros(32, 100, 256)
    torch.add(x, x)  # starts torch's pool
    before = _threads()
    layer(x)
    return [
        {"what": "threads of torch, and of our kernels", "value": torch.get_num_threads()},
        {"what": "threads that our kernels started beside them", "value": None if before is None else _threads() - before},
    ]


def _threads():
    """Threads of this process; None where the system does not say."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


# On a GPU.


def on_device(shapes, device, rounds, judged):
    """Our layer against SpikingJelly's on ``device``: rows and verdicts.

    A share of the copy bandwidth is the bytes that any LIF layer must move (five tensors of x's size), by the time taken, to
    what a copy of a large tensor moves in its time.
    """
    rows = [row for shape in shapes for row in _device_rows(shape, device, rounds)]
    last = {row["variant"]: row for row in rows if row["shape"] == list(shapes[-1])}
    where = f"{' x '.join(map(str, shapes[-1]))} on {device.type}"
    faster, share = last[JELLY][f"ratio to {OURS}"]["median"], last[OURS]["share of copy bandwidth"]
    return rows, [
        verdict(f"{JELLY} against {OURS}: time, {where}", faster, ">=", 1.2, judged),
        verdict(f"{OURS}: share of the copy bandwidth, {where}", share, ">=", 0.6, judged),
    ]


def _device_rows(shape, device, rounds):
    say(f"one layer of neurons, {shape}, {device.type}")
    own = _own_steps(shape, device)
    for op in OPS:
        for dtype in (torch.float64, torch.float32):
            given = Given.of(shape, dtype, device)
            measure.agreement(f"the {device.type} kernel", fire_step(op, "reference", given), fire_step(op, None, given), f"{shape}, {op},")
    theirs = LayerStep(*peers.jelly_layer(), *_turned(own[OURS]))
    compare_peer(JELLY, own[OURS], theirs)
    source = torch.empty(2**28 if device.type == "cuda" else 2**22, device=device)
    steps = {OURS: own[OURS], JELLY: theirs, "copy": functools.partial(torch.empty_like(source).copy_, source)}
    seconds = measure.take_turns({name: _finished(step, device) for name, step in steps.items()}, rounds)
    bandwidth = 2 * source.nbytes / measure.spread(seconds["copy"])["median"]
    backend = {OURS: _ours_on(device), JELLY: jelly_implementation(device)}
    return [
        {"shape": list(shape), "variant": name, "backend": backend[name], **measure.timed(seconds, name, OURS),
         "share of copy bandwidth": digits(5 * own[OURS].x.nbytes / measure.spread(seconds[name])["median"] / bandwidth),
         "copy GB/s": digits(bandwidth / 1e9), "saved_mib": measure.saved_mib(steps[name])}
        for name in (OURS, JELLY)
    ]  # fmt: skip


def _ours_on(device):
    return lif.fast(torch.empty(1, device=device)).__name__.rpartition(".")[2]


def jelly_implementation(device):
    """What SpikingJelly runs on ``device``: of CUDA, Triton and torch the first that it can."""
    return peers.jelly("functional").neuron_implementation("lif", device)["implementation"]


def _finished(call, device):
    """``call`` and all that it started on the device."""

    def finished():
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished
