"""Multi-level firing: the op, IMLS against iterative firing, and IML-Spikeformer against its twin.

The plan ``figure5`` is what figure 5 of the paper (arXiv 2507.07396) compares: training steps of the whole model, front end and decoder
included, by IMLS and by iterative firing. ``tools/figures.py`` draws what it writes.
"""

import functools
import json
from dataclasses import asdict, dataclass, replace

import torch

from benches import measure
from benches.measure import MIB, Step, digits, say, verdict
from spikebrain.blocks.subsampling import Conv2dSubsampling, subsampled_frames
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


@dataclass(frozen=True)
class Whole:
    """A whole recogniser and the batch that it is timed on.

    encoder : Size; its ``frames`` are those of features, of which the front end leaves a quarter
    decoder : blocks
    vocabulary : V, of both output layers
    tokens : of each utterance
    """

    encoder: Size
    decoder: int
    vocabulary: int
    tokens: int
    n_mels: int = 80

    @property
    def name(self):
        """Size and batch, as the tables say it."""
        size = self.encoder
        return f"{size.name}, decoder of {self.decoder}, V = {self.vocabulary}, {size.batch} x {size.frames} frames"

    def firing(self):
        """Shapes (B, L, C) of the layers that fire."""
        size = self.encoder
        return [(size.batch, subsampled_frames(size.frames, 4), width) for width in (size.d_model, size.d_ffn)]


TINY = Size("2 x 32", 2, 32, 2, 64, batch=2, frames=20)
MINI = Size("4 x 144", 4, 144, 4, 576, batch=8, frames=100)
PUBLISHED = Size("12 x 256", 12, 256, 4, 2048, batch=8, frames=100)
TINY_WHOLE = Whole(replace(TINY, frames=80), decoder=1, vocabulary=8, tokens=2, n_mels=20)
# The model of AISHELL-1, 30.35 M parameters; 283 frames and 11 characters give the energies of its Table I.
AISHELL = Whole(replace(PUBLISHED, batch=2, frames=283), decoder=6, vocabulary=4233, tokens=11)


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    judged : whether bars on time count; sizes whose time is overhead say nothing about them
    op : shapes (B, L, C) of one firing layer
    levels : Size of the encoder on which IMLS meets iterative firing, or None
    encoders : Sizes at which the spiking encoder meets its twin
    rounds : turns of every variant; the op takes twice as many, IMLS by itself four times
    whole : the Whole on which IMLS meets iterative firing, or None
    resident : T at which the resident size is measured too, a process each
    """

    judged: bool
    op: tuple
    levels: Size | None
    encoders: tuple
    rounds: int
    whole: Whole | None = None
    resident: tuple = (4, 6, 8)


PLANS = {
    "quick": Plan(False, ((2, 20, 32),), TINY, (TINY,), rounds=2, whole=TINY_WHOLE, resident=()),
    "default": Plan(True, ((32, 100, 256), (32, 100, 1024), (16, 400, 512)), MINI, (MINI, PUBLISHED), rounds=15),
    "full": Plan(True, ((32, 100, 256), (32, 100, 1024), (16, 400, 512), (32, 400, 2048)), PUBLISHED, (MINI, PUBLISHED), rounds=9),
    "figure5": Plan(True, (), None, (), rounds=9, whole=AISHELL),
}


def bench(plan):
    """Sections and verdicts of ``bench.py multilevel``; sections that a plan has nothing for are left out."""
    sizes = dict.fromkeys([*([plan.levels] if plan.levels else []), *plan.encoders])
    in_encoders = [(size.batch, size.frames, width) for size in sizes for width in (size.d_model, size.d_ffn)]
    in_whole = plan.whole.firing() if plan.whole else []
    say("comparing implementations with the definition")
    sections = {"equality": require_equality(dict.fromkeys([*plan.op, *in_encoders, *in_whole]))}
    sections["op"] = [row for shape in plan.op for row in _op_rows(shape, 2 * plan.rounds)]
    sections["levels"], verdicts = _levels(plan) if plan.levels else ([], [])
    sections["encoder"], sections["breakdown"] = [], []
    for size in plan.encoders:
        rows, found, parts = _encoder(size, plan)
        sections["encoder"] += rows
        sections["breakdown"] += parts
        verdicts += found
    if plan.whole:
        sections["whole model"], sections["iterative firing to IMLS"], found = _whole(plan)
        verdicts += found
    return {name: rows for name, rows in sections.items() if rows}, verdicts


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


def _levels_verdicts(times, saved, judged, levels=LEVELS, where=""):
    """Constant means within 5 %, growing more than 5 % from each T to the next."""
    verdicts, over = [], ", ".join(map(str, levels))
    for what, values, counts in (("time", times, judged), ("saved memory", saved, True)):
        ours, iterative = ([values[f"{neuron} T={t}"] for t in levels] for neuron in ("imls", "lif_multistep"))
        verdicts.append(verdict(f"IMLS{where}: {what} over T = {over}, largest to smallest", max(ours) / min(ours), "<=", 1.05, counts))
        growth = min(after / before for before, after in zip(iterative, iterative[1:], strict=False))
        verdicts.append(verdict(f"iterative firing{where}: {what}, smallest growth from one T to the next", growth, ">=", 1.05, counts))
    share = saved["lif_multistep T=6"] / saved["imls T=6"]
    return [*verdicts, verdict(f"iterative firing to IMLS{where}: saved memory at T = 6", share, ">=", 2.5)]


def _step_row(task, step, timed, variant, resident=True):
    saved = measure.saved_mib(step)
    return {"size": task.size.name, "variant": variant, **timed, "saved_mib": saved, **(resident_of(task) if resident else {})}


# Figure 5: the whole model.

FIGURE_5 = {"paper, time": 2.24, "paper, memory": 3.31}  # read off its text; at which T it does not say
PROTOTYPE = {4: 2.96, 6: 4.27}  # saved memory of a plain PyTorch prototype of the same model at the same batch, measured before this one


def whole_model(whole, neuron="imls", levels=6, **switches):
    """Front end, encoder, decoder and output layers of a :class:`Whole`: an nn.ModuleDict, as ``spikebrain.lobes.published_asr`` gives."""
    from speechbrain.nnet.linear import Linear

    from spikebrain.lobes import SpikingTransformerASR

    size = whole.encoder
    frontend = Conv2dSubsampling(size.d_model, 4, whole.n_mels)
    transformer = SpikingTransformerASR(
        whole.vocabulary, frontend.out_features, num_encoder_layers=size.num_layers, num_decoder_layers=whole.decoder,
        normalize_before=True, encoder_kwargs={"neuron": neuron, "levels": levels, **switches}, **size.network(),
    )  # fmt: skip
    heads = {name: Linear(input_size=size.d_model, n_neurons=whole.vocabulary) for name in ("ctc_lin", "seq_lin")}
    return torch.nn.ModuleDict({"frontend": frontend, "Transformer": transformer, **heads})


def whole_step(whole, neuron, levels):
    """The :class:`Step` of joint CTC and attention training, loss included, from a fixed seed."""
    from spikebrain.training import asr

    torch.manual_seed(0)
    model, size = whole_model(whole, neuron, levels), whole.encoder
    x, lengths = torch.randn(size.batch, size.frames, whole.n_mels), torch.linspace(1.0, 0.6, size.batch)
    tokens, full = torch.randint(3, whole.vocabulary, (size.batch, whole.tokens)), torch.ones(size.batch)

    def forward():
        """The loss of the batch."""
        features, counts = model["frontend"](x, lengths)
        encoded, decoded = model["Transformer"](features, tokens, counts)
        output = asr.Output(model["ctc_lin"](encoded).log_softmax(-1), model["seq_lin"](decoded), encoded, counts)
        return 0.3 * asr.ctc_loss(output, (tokens, full)) + 0.7 * asr.attention_loss(output.attention, (tokens, full), 0.1)

    return Step(model, forward, torch.ones(()))


FIRING = {"imls": "IMLS", "lif_multistep": "iterative"}


def _whole(plan):
    """IMLS against iterative firing in the whole model, T = 4 and 6: rows, their ratios beside published ones, and verdicts.

    All variants take turns for the ratios; that IMLS's time is constant is judged of IMLS by itself, as in :func:`_levels`.
    """
    say(f"training steps of the whole model, {plan.whole.name}")
    variants = {f"{neuron} T={t}": (neuron, t) for t in PROTOTYPE for neuron in FIRING}
    steps = {name: whole_step(plan.whole, *variant) for name, variant in variants.items()}
    alone = measure.take_turns({name: step for name, step in steps.items() if name.startswith("imls")}, 4 * plan.rounds)
    seconds = measure.take_turns(steps, plan.rounds)
    saved = {name: measure.saved_mib(step) for name, step in steps.items()}
    rows = [_whole_row(plan.whole, *variants[name], measure.milliseconds(seconds, name), saved[name]) for name in variants]
    base = "imls T=4"
    times = {name: measure.ratio(alone if name in alone else seconds, name, base)["median"] for name in variants}
    shares = [_share(seconds, saved, t) for t in PROTOTYPE]
    return rows, shares, _levels_verdicts(times, saved, plan.judged, tuple(PROTOTYPE), " in the whole model")


def _whole_row(whole, neuron, levels, milliseconds, saved):
    return {"size": whole.name, "firing": FIRING[neuron], "T": levels, "ms": milliseconds, "saved_mib": saved}


def _share(seconds, saved, levels):
    """How many times as long and as much iterative firing takes at a T."""
    iterative, ours = f"lif_multistep T={levels}", f"imls T={levels}"
    found = {"time": measure.ratio(seconds, iterative, ours), "saved memory": digits(saved[iterative] / saved[ours])}
    return {"T": levels, **found, **FIGURE_5, "prototype, saved memory": PROTOTYPE[levels]}


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
