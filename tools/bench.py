"""Measures time and memory side by side, in one run, on this machine.

    python tools/bench.py multilevel [--quick | --full] [--threads N] [--rounds N] [--out FILE]
    python tools/bench.py table [--check]        # benchmarks/README.md from benchmarks/*.json

Variants take turns (A B C A B C ...), so that what else the machine does hits all of them alike; what is reported is the
median of many and the median of ratios inside a round, never a single time. No time is printed before the implementations
agree with the definition (law 4) on the very shapes that are timed. Memory is what a step keeps for its backward pass:
bytes of unique storages seen by ``saved_tensors_hooks``, parameters left out; beside it stands the peak resident size of
a process that does nothing else. A run without ``--quick`` writes ``benchmarks/<bench>-<machine>.json`` and the tables.

Exit status: 0 when every bar is met, 1 when one is missed or a file cannot be used, 2 when implementations disagree.
"""

import argparse
import contextlib
import datetime
import functools
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile, record_function

from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer
from spikebrain.kernels import checking, multilevel, native
from spikebrain.training import results

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
MIB = 2**20
HEAD = """# Benchmarks

Made by `python tools/bench.py table` from the JSON files of this folder; not written by hand. Times are medians over rounds in which
the variants take turns, with quartiles in brackets; a ratio is the median of the ratios inside a round. "Saved" is what one step
keeps for its backward pass, parameters left out; "peak" is the resident size of a process that runs two steps and nothing else, and
"step" the part of it that came with the model: parameters, gradients and all that the two steps held at a time. Training steps are
forward and backward pass, without the optimiser.
"""


class BenchError(Exception):
    """A file cannot be used; the message names it."""


class Disagreement(Exception):
    """An implementation differs from the definition, so that its time means nothing."""


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


# Measuring: nothing below knows what is measured.


def take_turns(variants, rounds):
    """Seconds of every call: name -> list of ``rounds`` floats, for ``variants`` name -> callable, called in turns.

    Two rounds of warm-up go before. Garbage is collected between calls and never during one.
    """
    for _ in range(2):
        for call in variants.values():
            call()
    seconds = {name: [] for name in variants}
    with _no_garbage():
        for _ in range(rounds):
            for name, call in variants.items():
                gc.collect()
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
    return seconds


@contextlib.contextmanager
def _no_garbage():
    gc.collect()
    gc.freeze()  # what lives now is not looked at again: a collection between two calls takes no time
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def spread(values):
    """Median and quartiles of ``values``, a list of numbers."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": digits(middle), "low": digits(low), "high": digits(high)}


def ratio(seconds, name, base):
    """Spread of the ratios of ``name`` to ``base`` inside a round."""
    return spread([a / b for a, b in zip(seconds[name], seconds[base], strict=True)])


def say(stage):
    """Tells who waits what is measured now, on standard error."""
    print(f"bench.py: {stage} ...", file=sys.stderr, flush=True)


def digits(value, significant=4):
    """``value`` as a float of so many significant digits: what is written is what is judged."""
    return float(f"{value:.{significant}g}")


def saved_bytes(step):
    """Bytes that the forward pass of a :class:`Step` keeps for its backward pass: unique storages, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in step.module.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = step.forward()
    del out
    return sum(size for pointer, size in sizes.items() if pointer not in parameters)


def peak_resident():
    """Largest resident size of this process so far, in bytes.

    Linux hands ``ru_maxrss`` on to a child, which would then show its parent's size; VmHWM starts anew with each program.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    if found:
        return int(found.group(1)) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_of(task):
    """``peak_mib`` of a process of its own that runs two steps of ``task``, and ``step_mib`` of it that model and steps took."""
    command = [sys.executable, str(Path(__file__).resolve()), "probe", json.dumps(asdict(task)), "--threads", str(torch.get_num_threads())]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or ["without a message"])[-1]
        raise BenchError(f"the process that measures {task} ended with {ended.returncode}: {why}")
    return json.loads(ended.stdout.splitlines()[-1])


def _probe(arguments):
    """What :func:`resident_of` runs."""
    written = json.loads(arguments.task)
    task = Task(**{**written, "size": Size(**written["size"])})
    replace(task, size=TINY).build()()  # loads what torch loads at the first call
    before = peak_resident()
    step = task.build()
    step()
    step()
    peak = peak_resident()
    print(json.dumps({"peak_mib": digits(peak / MIB), "step_mib": digits((peak - before) / MIB)}))
    return 0


# A step, and where its time goes.


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


class Step:
    """Forward and backward pass of ``forward()``, a real tensor, against one fixed cotangent.

    The cotangent is random: a norm at the end has no gradient towards a constant one, and numbers near 0 take their own time.
    """

    def __init__(self, module, forward):
        self.module, self.forward = module, forward
        self.cotangent = torch.randn_like(forward())

    def __call__(self):
        self.module.zero_grad()
        self.forward().backward(self.cotangent)


# The first that fits an operation or what called it, nearest caller first.
KINDS = {
    "matmul": r"aten::(mm|bmm|addmm|baddbmm)$",
    "norm": r"layer_norm",
    "neuron": r"neuron$|spikebrain::",
    "attention softmax": r"softmax|_RepSSA",
    "dropout": r"dropout",
}


def breakdown(step, repeats=5):
    """Percent of a :class:`Step`'s time a kind of work (KINDS, and "rest"), and operations a step, by torch's profiler.

    Products inside attention count as matmul. Elementwise work in the backward pass belongs to what it is the derivative of.
    """
    with _named_neurons(step.module):
        step()
        with profile(activities=[ProfilerActivity.CPU], acc_events=True) as watched:
            for _ in range(repeats):
                with record_function("step"):
                    step()
    events = list(watched.events())
    forward = {e.sequence_nr: e for e in reversed(events) if e.sequence_nr >= 0 and not e.name.startswith("autograd::")}
    spent = dict.fromkeys([*KINDS, "rest"], 0.0)
    for event in events:
        spent[_kind(event, forward)] += event.self_cpu_time_total
    operations = sum(event.name.startswith(("aten::", "spikebrain::")) for event in events)
    total = sum(spent.values())
    return {**{f"{kind} %": digits(100 * value / total, 3) for kind, value in spent.items()}, "operations": operations // repeats}


def _kind(event, forward):
    """The kind of the nearest of an event and its callers that has one; behind a backward node stands its forward operation."""
    while event is not None:
        for kind, pattern in KINDS.items():
            if re.search(pattern, event.name):
                return kind
        made_by = forward.get(event.sequence_nr) if event.name.startswith("autograd::engine") else None
        event = made_by or event.cpu_parent
    return "rest"


@contextlib.contextmanager
def _named_neurons(module):
    """Gives what neurons do a name in profiles."""
    neurons = [m for m in module.modules() if hasattr(m, "fire")]

    def named(fire):
        @functools.wraps(fire)
        def call(*arguments):
            with record_function("neuron"):
                return fire(*arguments)

        return call

    for neuron in neurons:
        neuron.fire = named(neuron.fire)
    try:
        yield
    finally:
        for neuron in neurons:
            del neuron.fire


# The multi-level op and the encoder on it.


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
                rows[shape, name].update(_agreement(name, expected, given))
    return list(rows.values())


def _agreement(name, expected, given):
    x, dtype = given[0], str(given[0].dtype).removeprefix("torch.")
    try:
        found = checking.agree(expected, fire_step(name, *given))
    except AssertionError as error:
        raise Disagreement(f"no times: {name} is not the definition on {tuple(x.shape)} in {dtype}: {error}") from error
    worst = digits(max(found.errors.values()), 2)
    return {f"flipped, {dtype}": found.flipped, f"largest error, {dtype}": worst}


def multilevel_bench(plan):
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


def _op_rows(shape, rounds):
    """One firing layer by every implementation, with a small matrix product in turn, as between the layers of a network."""
    say(f"one firing layer, {shape}")
    given = _layer_input(shape)
    linear = torch.nn.Linear(shape[-1], min(shape[-1], 256))
    x, cotangent = given[0].clone().requires_grad_(), torch.randn(*shape[:2], linear.out_features)
    variants = {name: functools.partial(fire_step, name, *given) for name in implementations()}
    variants[f"linear to {linear.out_features}"] = lambda: torch.autograd.grad(linear(x), [x, linear.weight], cotangent)
    seconds = take_turns(variants, rounds)
    return [{"shape": list(shape), "variant": name, **_timed(seconds, name, "reference")} for name in variants]


def _timed(seconds, name, base, called=None):
    return {"ms": spread([1000 * s for s in seconds[name]]), f"ratio to {called or base}": ratio(seconds, name, base)}


LEVELS = (4, 6, 8)


def _levels(plan):
    """IMLS against iterative firing, T = 4, 6, 8: rows and verdicts.

    IMLS first takes turns with itself alone, four times as often: that its time is constant is a claim of a few percent.
    """
    say(f"IMLS and iterative firing, {plan.levels.name}")
    tasks = {f"{neuron} T={t}": Task(plan.levels, None, neuron, t) for neuron in ("imls", "lif_multistep") for t in LEVELS}
    steps = {name: task.build() for name, task in tasks.items()}
    base = "imls T=4"
    alone = take_turns({name: step for name, step in steps.items() if name.startswith("imls")}, 4 * plan.rounds)
    mixed = take_turns({name: step for name, step in steps.items() if name == base or name not in alone}, plan.rounds)
    rows = []
    for name, task in tasks.items():
        timed = _timed(alone if name in alone else mixed, name, base)
        rows.append(_step_row(task, steps[name], timed, name, task.levels in plan.resident))
    times = {row["variant"]: row[f"ratio to {base}"]["median"] for row in rows}
    return rows, _levels_verdicts(times, {row["variant"]: row["saved_mib"] for row in rows}, plan.judged)


def _levels_verdicts(times, saved, judged):
    """Constant means within 5 %, growing more than 5 % from each T to the next."""
    verdicts = []
    for what, values, counts in (("time", times, judged), ("saved memory", saved, True)):
        ours, iterative = ([values[f"{neuron} T={t}"] for t in LEVELS] for neuron in ("imls", "lif_multistep"))
        verdicts.append(_verdict(f"IMLS: {what} over T = 4, 6, 8, largest to smallest", max(ours) / min(ours), "<=", 1.05, counts))
        growth = min(after / before for before, after in zip(iterative, iterative[1:], strict=False))
        verdicts.append(_verdict(f"iterative firing: {what}, smallest growth from one T to the next", growth, ">=", 1.05, counts))
    share = saved["lif_multistep T=6"] / saved["imls T=6"]
    return [*verdicts, _verdict("iterative firing to IMLS: saved memory at T = 6", share, ">=", 2.5)]


def _step_row(task, step, timed, variant, resident=True):
    saved = digits(saved_bytes(step) / MIB)
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
    seconds = take_turns(steps, plan.rounds)
    rows, parts = [], []
    for (host, dropout), step in steps.items():
        timed = _timed(seconds, (host, dropout), (TWIN, dropout), "its twin")
        rows.append(_step_row(tasks[host, dropout], step, {"dropout": dropout, **timed}, host, resident=dropout > 0))
        parts.append({"size": size.name, "variant": host, "dropout": dropout, **breakdown(step)})
    slower = rows[1]["ratio to its twin"]["median"]
    share = rows[1]["saved_mib"] / rows[0]["saved_mib"]
    verdicts = [
        _verdict(f"spiking encoder to twin, {size.name}: time of a training step (aim 1.0)", slower, "<=", 1.3, plan.judged),
        _verdict(f"spiking encoder to twin, {size.name}: saved memory", share, "<", 1.0),
    ]
    return rows, verdicts, parts


_HOLDS = {"<=": lambda value, limit: value <= limit, ">=": lambda value, limit: value >= limit, "<": lambda value, limit: value < limit}


def _verdict(what, value, sign, limit, judged=True):
    value = digits(value)
    passed = "PASS" if _HOLDS[sign](value, limit) else "FAIL"
    return {"what": what, "value": value, "bar": f"{sign} {limit}", "verdict": passed if judged else "not judged"}


# Name -> function of a Plan that returns (sections, verdicts): name -> rows, and rows with what, value, bar, verdict. A row is a dict
# of text, numbers, shapes and spreads; that is all that files and tables know of a bench.
BENCHES = {"multilevel": multilevel_bench}


# Files and tables.


def run(arguments):
    """Measures, prints and writes what was measured; returns the exit status."""
    plan_name = "quick" if arguments.quick else "full" if arguments.full else "default"
    plan = PLANS[plan_name] if arguments.rounds is None else replace(PLANS[plan_name], rounds=arguments.rounds)
    about = {"bench": arguments.bench, "plan": plan_name, "rounds": plan.rounds, **_about(arguments.words)}
    sections, verdicts = BENCHES[arguments.bench](plan)
    written = {**about, "load": [about["load"], _load()], "sections": sections, "verdicts": verdicts}
    print(render(written))
    out = arguments.out or (None if arguments.quick else _place(written))
    if out:
        write_atomic(out, json.dumps(written, indent=1, allow_nan=False) + "\n")
        if Path(out).resolve().parent == FOLDER:
            write_atomic(FOLDER / "README.md", page(FOLDER))
    return int(any(row["verdict"] == "FAIL" for row in verdicts))


def _about(words):
    """When, where and with what a run was made."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": results.command(["tools/bench.py", *words], {str(ROOT): "."}),
        "commit": results.commit(str(ROOT)),
        "versions": results.versions(),
        "hardware": results.hardware("cpu"),
        "compiled": native.why_not() or f"by {Path(native.compiler()).name}",
        "load": _load(),
    }


def _load():
    """Processes that wanted to run, averaged over the last minute; None where the system does not say."""
    return digits(os.getloadavg()[0], 3) if hasattr(os, "getloadavg") else None


def _place(written):
    """A file of its own for every bench and machine."""
    hardware = written["hardware"]
    machine = re.sub(r"[^a-z0-9]+", "-", hardware["cpu"].lower()).strip("-")
    plan = "" if written["plan"] == "default" else f"-{written['plan']}"
    return FOLDER / f"{written['bench']}{plan}-{machine}-{hardware['threads']}-threads.json"


def page(folder):
    """The text of README.md from the JSON files in ``folder``; BenchError for one that is no run."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        try:
            parts.append(render(json.loads(path.read_text(encoding="utf-8"))))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(f"{path.name}: is no run of bench.py ({type(error).__name__}: {error}): measure again") from error
    return "\n".join([HEAD, *(parts or ["No run is kept yet.\n"])])


def render(written):
    """One run as text: where it ran, the verdicts, and a table for every section."""
    hardware, versions = written["hardware"], written["versions"]
    load = " to ".join("unknown" if one is None else f"{one:g}" for one in written["load"])
    parts = [
        f"## {written['bench']} ({written['plan']}): {hardware['cpu']}, {hardware['threads']} of {hardware['cores']} cores\n",
        f"`{written['command']}`, {written['date']}, commit {written['commit'] or 'unknown'}, torch {versions['torch']}, "
        f"kernels compiled: {written['compiled']}, {written['rounds']} rounds, load {load}.\n",
        table(written["verdicts"]),
    ]
    for name, rows in written["sections"].items():
        parts += [f"### {name}\n", table(rows)]
    return "\n".join(parts)


def table(rows):
    """Rows (dicts) as a table; a column for every key of any row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = [all(not isinstance(row.get(column), str) for row in rows) for column in columns]
    lines = [columns, ["---:" if right else "---" for right in numeric], *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(value):
    if isinstance(value, dict):
        return f"{value['median']:g} ({value['low']:g} .. {value['high']:g})"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "-" if value is None else value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def tables(arguments):
    """Writes benchmarks/README.md, or compares with ``--check``; returns the exit status."""
    text, target = page(FOLDER), FOLDER / "README.md"
    if not arguments.check:
        write_atomic(target, text)
    elif not target.is_file() or target.read_text(encoding="utf-8") != text:
        raise BenchError("benchmarks/README.md is not what the JSON files say: run `python tools/bench.py table`")
    return 0


def main(words=None):
    """Does what the command line says; returns the exit status."""
    words = sys.argv[1:] if words is None else [str(word) for word in words]
    arguments = _parser().parse_args(words)
    arguments.words = words
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(arguments, "threads", None) or before)
    try:
        return arguments.call(arguments)
    except Disagreement as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 2
    except (BenchError, DataError, OSError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    finally:
        torch.set_num_threads(before)


def _parser():
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in BENCHES:
        command = commands.add_parser(name, help="measure")
        command.set_defaults(call=run, bench=name)
        scale = command.add_mutually_exclusive_group()
        scale.add_argument("--quick", action="store_true", help="tiny sizes: times are not judged and no file is kept")
        scale.add_argument("--full", action="store_true", help="published sizes throughout; minutes, several GiB")
        command.add_argument("--threads", type=_positive, help="of torch and of the compiled kernels; default: torch's own choice")
        command.add_argument("--rounds", type=_positive, help="turns of every variant")
        command.add_argument("--out", type=Path, help="JSON file; default: benchmarks/<bench>-<machine>.json")
    command = commands.add_parser("table", help="make benchmarks/README.md")
    command.set_defaults(call=tables)
    command.add_argument("--check", action="store_true", help="fail when it is out of date")
    command = commands.add_parser("probe", help="used by the benches: memory of one step in a process of its own")
    command.set_defaults(call=_probe)
    command.add_argument("task")
    command.add_argument("--threads", type=_positive)
    return parser


def _positive(word):
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is not positive: give 1 or more")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
