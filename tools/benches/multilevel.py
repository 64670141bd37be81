"""Multi-level firing: the op, IMLS against iterative firing, and IML-Spikeformer against its twin."""

import functools
import json
from dataclasses import asdict, dataclass, replace

import torch

from benches import measure
from benches.measure import MIB, Step, digits, say, verdict
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer
from spikebrain.kernels import multilevel, native


@dataclass(frozen=True)
class Size:
    """Shape of an encoder and of the batch that it is timed on (``frames`` after subsampling)."""

    name: str
    num_layers: int
    d_model: int
    nhead: int
    d_ffn: int
    batch: int
    frames: int

    def network(self):
        """What a constructor takes, the number of layers apart, which two hosts call by two names."""
        return {key: getattr(self, key) for key in ("d_model", "nhead", "d_ffn")}


TINY = Size("2 x 32", 2, 32, 2, 64, batch=2, frames=20)
MINI = Size("4 x 144", 4, 144, 4, 576, batch=8, frames=100)
PUBLISHED = Size("12 x 256", 12, 256, 4, 2048, batch=8, frames=100)


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    judged : whether bars on time count; sizes whose time is overhead say nothing about them
    op : shapes (B, L, C) of one firing layer
    levels : Size of the encoder on which IMLS meets iterative firing
    encoders : Sizes at which the spiking encoder meets its twin
    rounds : turns of every variant; the op takes twice as many, IMLS by itself four times
    resident : T at which the resident size is measured too, a process each
    """

    judged: bool
    op: tuple
    levels: Size
    encoders: tuple
    rounds: int
    resident: tuple = (4, 6, 8)


PLANS = {
    "quick": Plan(False, ((2, 20, 32),), TINY, (TINY,), rounds=2, resident=()),
    "default": Plan(True, ((32, 100, 256), (32, 100, 1024), (16, 400, 512)), MINI, (MINI, PUBLISHED), rounds=15),
    "full": Plan(True, ((32, 100, 256), (32, 100, 1024), (16, 400, 512), (32, 400, 2048)), PUBLISHED, (MINI, PUBLISHED), rounds=9),
}


def bench(plan):
    """Sections and verdicts of ``bench.py multilevel``."""
    sizes = dict.fromkeys([plan.levels, *plan.encoders])
    in_encoders = [(size.batch, size.frames, width) for size in sizes for width in (size.d_model, size.d_ffn)]
    say("comparing implementations with the definition")
    sections = {"equality": require_equality(dict.fromkeys([*plan.op, *in_encoders]))}
    sections["op"] = [row for shape in plan.op for row in _op_rows(shape, 2 * plan.rounds)]
    sections["levels"], verdicts = _levels(plan)
    sections["encoder"], sections["breakdown"] = [], []
    for size in plan.encoders:
        rows, found, parts = _encoder(size, plan)
        sections["encoder"] += rows
        sections["breakdown"] += parts
        verdicts += found
    return sections, verdicts


# The op.


def implementations():
    """Names of the implementations that run here, the definition first."""
    return ["reference", "eager", *([] if native.why_not() else ["cpu"])]


def fire_step(implementation, x, counts, cotangent):
    """Forward and backward pass of one firing layer that is scaled by its channels' maxima; outputs and gradient by name."""
    x = x.detach().requires_grad_()
    top, row = multilevel.channel_max(x, counts, implementation)
    options = multilevel.FireOptions(levels=6, ratio=6.0)
    y, code = multilevel.fire(x, top.clamp(min=1e-2), torch.full_like(top, 1 / 6), counts, row, options, implementation)
    (grad,) = torch.autograd.grad(y, x, cotangent)
    return {"top": top, "row": row, "y": y.detach(), "code": code, "grad": grad}


def _layer_input(shape, dtype=torch.float32):
    """x, ragged counts and a cotangent for one layer."""
    generator = torch.Generator().manual_seed(sum(shape))
    x, cotangent = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(2))
    return x, torch.linspace(shape[1], 0.6 * shape[1], shape[0]).long().clamp(min=1), cotangent


def require_equality(shapes):
    """Law 4 on ``shapes``, in float64 and float32: a row for every shape and implementation.

    Raises
    ------
    Disagreement
        Where an implementation differs from the definition; nothing may be timed then.
    """
    rows = {(shape, name): {"shape": list(shape), "implementation": name} for shape in shapes for name in implementations()[1:]}
    for shape in shapes:
        for dtype in (torch.float64, torch.float32):
            given = _layer_input(shape, dtype)
            expected = fire_step("reference", *given)
            for name in implementations()[1:]:
                rows[shape, name].update(measure.agreement(name, expected, fire_step(name, *given), shape))
    return list(rows.values())


def _op_rows(shape, rounds):
    """One firing layer by every implementation, with a small matrix product in turn, as between the layers of a network."""
    say(f"one firing layer, {shape}")
    given = _layer_input(shape)
    linear = torch.nn.Linear(shape[-1], min(shape[-1], 256))
    x, cotangent = given[0].clone().requires_grad_(), torch.randn(*shape[:2], linear.out_features)
    variants = {name: functools.partial(fire_step, name, *given) for name in implementations()}
    variants[f"linear to {linear.out_features}"] = lambda: torch.autograd.grad(linear(x), [x, linear.weight], cotangent)
    seconds = measure.take_turns(variants, rounds)
    return [{"shape": list(shape), "variant": name, **measure.timed(seconds, name, "reference")} for name in variants]


# Training steps of encoders.


@dataclass(frozen=True)
class Task:
    """A training step of an encoder: ``IMLSpikeformer`` alone for ``host=None``, else inside the ASR lobe.

    host : encoder_module of SpikingTransformerASR, or None
    neuron, levels : of IML-Spikeformer
    dropout : on every place where the encoder has one
    """

    size: Size
    host: str | None = None
    neuron: str = "imls"
    levels: int = 6
    dropout: float = 0.1

    def build(self):
        """The :class:`Step`, from a fixed seed."""
        torch.manual_seed(0)
        size = self.size
        lengths = torch.linspace(1.0, 0.6, size.batch)
        if self.host is None:
            module = IMLSpikeformer(num_layers=size.num_layers, **self._firing(), dropout=self.dropout, **size.network())
            x = torch.randn(size.batch, size.frames, size.d_model)
            return Step(module, lambda: module(x, lengths)[0])
        module = self._hosted()
        x = torch.randn(size.batch, size.frames, module.custom_src_module.layers[0].w.in_features)
        return Step(module, lambda: module.encode(x, lengths))

    def _hosted(self):
        from spikebrain.lobes import SpikingTransformerASR

        spiking = {"encoder_kwargs": self._firing()} if self.host == "iml_spikeformer" else {}
        return SpikingTransformerASR(
            tgt_vocab=8, input_size=4 * self.size.d_model, num_encoder_layers=self.size.num_layers, num_decoder_layers=0,
            dropout=self.dropout, activation=torch.nn.ReLU, normalize_before=True, encoder_module=self.host, **spiking,
            **self.size.network(),
        )  # fmt: skip

    def _firing(self):
        return {"neuron": self.neuron, "levels": self.levels}


def resident_of(task):
    """``peak_mib`` of a process of its own that runs two steps of ``task``, and ``step_mib`` of it that model and steps took."""
    return measure.in_own_process(["probe", json.dumps(asdict(task)), "--threads", str(torch.get_num_threads())], task)


def probe(written):
    """What :func:`resident_of` runs, given a Task as JSON."""
    written = json.loads(written)
    task = Task(**{**written, "size": Size(**written["size"])})
    replace(task, size=TINY).build()()  # loads what torch loads at the first call
    before = measure.peak_resident()
    step = task.build()
    step()
    step()
    peak = measure.peak_resident()
    return {"peak_mib": digits(peak / MIB), "step_mib": digits((peak - before) / MIB)}


KINDS = {
    "matmul": r"aten::(mm|bmm|addmm|baddbmm)$",
    "norm": r"layer_norm",
    "neuron": r"neuron$|spikebrain::",
    "attention softmax": r"softmax|_RepSSA",
    "dropout": r"dropout",
}


def breakdown(step):
    """Percent of a :class:`Step`'s time a kind of work (KINDS, and "rest"), and operations a step, by torch's profiler.

    Products inside attention count as matmul. Elementwise work in the backward pass belongs to what it is the derivative of.
    """
    with measure.named([(m, "fire", "neuron") for m in step.module.modules() if hasattr(m, "fire")]):
        spent, operations = measure.profiled(step, KINDS)
    return {**measure.shares(spent), "operations": operations}


LEVELS = (4, 6, 8)


def _levels(plan):
    """IMLS against iterative firing, T = 4, 6, 8: rows and verdicts.

    IMLS first takes turns with itself alone, four times as often: that its time is constant is a claim of a few percent.
    """
    say(f"IMLS and iterative firing, {plan.levels.name}")
    tasks = {f"{neuron} T={t}": Task(plan.levels, None, neuron, t) for neuron in ("imls", "lif_multistep") for t in LEVELS}
    steps = {name: task.build() for name, task in tasks.items()}
    base = "imls T=4"
    alone = measure.take_turns({name: step for name, step in steps.items() if name.startswith("imls")}, 4 * plan.rounds)
    mixed = measure.take_turns({name: step for name, step in steps.items() if name == base or name not in alone}, plan.rounds)
    rows = []
    for name, task in tasks.items():
        timed = measure.timed(alone if name in alone else mixed, name, base)
        rows.append(_step_row(task, steps[name], timed, name, task.levels in plan.resident))
    times = {row["variant"]: row[f"ratio to {base}"]["median"] for row in rows}
    return rows, _levels_verdicts(times, {row["variant"]: row["saved_mib"] for row in rows}, plan.judged)


def _levels_verdicts(times, saved, judged):
    """Constant means within 5 %, growing more than 5 % from each T to the next."""
    verdicts = []
    for what, values, counts in (("time", times, judged), ("saved memory", saved, True)):
        ours, iterative = ([values[f"{neuron} T={t}"] for t in LEVELS] for neuron in ("imls", "lif_multistep"))
        verdicts.append(verdict(f"IMLS: {what} over T = 4, 6, 8, largest to smallest", max(ours) / min(ours), "<=", 1.05, counts))
        growth = min(after / before for before, after in zip(iterative, iterative[1:], strict=False))
        verdicts.append(verdict(f"iterative firing: {what}, smallest growth from one T to the next", growth, ">=", 1.05, counts))
    share = saved["lif_multistep T=6"] / saved["imls T=6"]
    return [*verdicts, verdict("iterative firing to IMLS: saved memory at T = 6", share, ">=", 2.5)]


def _step_row(task, step, timed, variant, resident=True):
    saved = measure.saved_mib(step)
    return {"size": task.size.name, "variant": variant, **timed, "saved_mib": saved, **(resident_of(task) if resident else {})}


TWIN, SPIKING = "transformer", "iml_spikeformer"


def _encoder(size, plan):
    """The spiking encoder's training step against its twin's: rows, verdicts, and where the time goes.

    The twin drops attention weights and hidden activations besides the residual branches, as SpeechBrain's does; what that costs
    shows in the rows without dropout. Bars are those of training, with dropout.
    """
    say(f"spiking encoder and twin, {size.name}")
    tasks = {(host, dropout): Task(size, host, dropout=dropout) for dropout in (0.1, 0.0) for host in (TWIN, SPIKING)}
    steps = {key: task.build() for key, task in tasks.items()}
    seconds = measure.take_turns(steps, plan.rounds)
    rows, parts = [], []
    for (host, dropout), step in steps.items():
        timed = measure.timed(seconds, (host, dropout), (TWIN, dropout), "its twin")
        rows.append(_step_row(tasks[host, dropout], step, {"dropout": dropout, **timed}, host, resident=dropout > 0))
        parts.append({"size": size.name, "variant": host, "dropout": dropout, **breakdown(step)})
    slower = rows[1]["ratio to its twin"]["median"]
    share = rows[1]["saved_mib"] / rows[0]["saved_mib"]
    verdicts = [
        verdict(f"spiking encoder to twin, {size.name}: time of a training step (aim 1.0)", slower, "<=", 1.3, plan.judged),
        verdict(f"spiking encoder to twin, {size.name}: saved memory", share, "<", 1.0),
    ]
    return rows, verdicts, parts
