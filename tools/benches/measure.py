"""Time, memory and profiles of callables side by side in one process. Nothing here knows what is measured.

Variants take turns (A B C A B C ...), so that what else the machine does hits all of them alike; what is reported is the
median of many and the median of ratios inside a round, never a single time.
"""

import contextlib
import functools
import gc
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile, record_function

from spikebrain.kernels import checking

MIB = 2**20


class BenchError(Exception):
    """Something that a bench needs is missing, or a file cannot be used; the message names it."""


class Disagreement(Exception):
    """An implementation differs from the definition, so that its time means nothing."""


def take_turns(variants, rounds, before=None):
    """Seconds of every call: name -> list of ``rounds`` floats.

    Two rounds of warm-up go before. Garbage is collected between calls and never during one.

    Arguments
    ---------
    variants : dict
        Name -> callable, called in turns.
    rounds : int
    before : dict, optional
        Name -> what is called right before the variant of that name and is not timed.
    """
    before = before or {}
    for _ in range(2):
        for name, call in variants.items():
            before.get(name, _nothing)()
            call()
    seconds = {name: [] for name in variants}
    with _no_garbage():
        for _ in range(rounds):
            for name, call in variants.items():
                gc.collect()
                before.get(name, _nothing)()
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _nothing():
    pass


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


def milliseconds(seconds, name):
    """Spread of the times of ``name``."""
    return spread([1000 * s for s in seconds[name]])


def timed(seconds, name, base, called=None):
    """Columns of a row: time of ``name`` and its ratio to ``base``, which the table calls ``called``."""
    return {"ms": milliseconds(seconds, name), f"ratio to {called or base}": ratio(seconds, name, base)}


def say(stage):
    """Tells who waits what is measured now, on standard error."""
    print(f"bench.py: {stage} ...", file=sys.stderr, flush=True)


def digits(value, significant=4):
    """``value`` as a float of so many significant digits: what is written is what is judged."""
    return float(f"{value:.{significant}g}")


_HOLDS = {"<=": lambda value, limit: value <= limit, ">=": lambda value, limit: value >= limit, "<": lambda value, limit: value < limit}


def verdict(what, value, sign, limit, judged=True):
    """A row that says whether ``value`` is on the right side of a bar."""
    value = digits(value)
    passed = "PASS" if _HOLDS[sign](value, limit) else "FAIL"
    return {"what": what, "value": value, "bar": f"{sign} {limit}", "verdict": passed if judged else "not judged"}


def agreement(who, expected, found, where):
    """Columns of a row: flipped spikes and largest error of ``found`` against the definition's ``expected``, dicts of tensors.

    Raises
    ------
    Disagreement
        Beyond law 4; it names ``who`` and ``where``.
    """
    dtype = str(next(t.dtype for t in expected.values() if t.is_floating_point())).removeprefix("torch.")
    try:
        difference = checking.agree(expected, found)
    except AssertionError as error:
        raise Disagreement(f"no times: {who} is not the definition on {where} in {dtype}: {error}") from error
    worst = digits(max(difference.errors.values()), 2)
    return {f"flipped, {dtype}": difference.flipped, f"largest error, {dtype}": worst}


# A step, what it keeps, and where its time goes.


class Step:
    """Forward and backward pass of ``forward()``, a real tensor, against one fixed cotangent.

    The cotangent is random unless one is given: a norm at the end has no gradient towards a constant one, and numbers near 0 take
    their own time.
    """

    def __init__(self, module, forward, cotangent=None):
        self.module, self.forward = module, forward
        self.cotangent = torch.randn_like(forward()) if cotangent is None else cotangent

    def __call__(self):
        self.module.zero_grad()
        self.forward().backward(self.cotangent)


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


def saved_mib(step):
    """The same in MiB."""
    return digits(saved_bytes(step) / MIB)


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


def in_own_process(words, what):
    """What ``tools/bench.py`` with ``words`` prints last, read as JSON; a BenchError names ``what`` where it fails."""
    script = Path(__file__).resolve().parent.parent / "bench.py"
    ended = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True)
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or ["without a message"])[-1]
        raise BenchError(f"the process that measures {what} ended with {ended.returncode}: {why}")
    return json.loads(ended.stdout.splitlines()[-1])


def profiled(step, kinds, repeats=5):
    """Microseconds in a :class:`Step` for every kind of work and "rest", summed over ``repeats``, and operations a step.

    ``kinds`` is name -> pattern. The first that fits an operation or what called it, nearest caller first, has its time; work in
    the backward pass belongs to what it is the derivative of. See :func:`named` for work that has no name of its own.
    """
    step()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as watched:
        for _ in range(repeats):
            with record_function("step"):
                step()
    events = list(watched.events())
    forward = {e.sequence_nr: e for e in reversed(events) if e.sequence_nr >= 0 and not e.name.startswith("autograd::")}
    of_name = {name: _first(kinds, name) for name in {event.name for event in events}}
    spent = dict.fromkeys([*kinds, "rest"], 0.0)
    for event in events:
        spent[_kind(event, forward, of_name)] += event.self_cpu_time_total
    operations = sum(event.name.startswith(("aten::", "spikebrain::")) for event in events)
    return spent, operations // repeats


def shares(spent):
    """Percent of the whole of every entry of ``spent``, as columns of a row."""
    total = sum(spent.values())
    return {f"{kind} %": digits(100 * value / total, 3) for kind, value in spent.items()}


def _first(kinds, name):
    return next((kind for kind, pattern in kinds.items() if re.search(pattern, name)), None)


def _kind(event, forward, of_name):
    """The kind of the nearest of an event and its callers that has one; behind a backward node stands its forward operation."""
    while event is not None:
        if of_name.get(event.name):
            return of_name[event.name]
        made_by = forward.get(event.sequence_nr) if event.name.startswith("autograd::engine") else None
        event = made_by or event.cpu_parent
    return "rest"


@contextlib.contextmanager
def named(places):
    """Gives functions a name in profiles while the block runs.

    ``places`` are (owner, attribute, name): ``owner.attribute`` is what is called, ``name`` a text or a function of its arguments
    that gives one.
    """
    before = [(owner, attribute, vars(owner).get(attribute)) for owner, attribute, _ in places]
    for owner, attribute, name in places:
        setattr(owner, attribute, _recorded(getattr(owner, attribute), name))
    try:
        yield
    finally:
        for owner, attribute, old in before:
            delattr(owner, attribute) if old is None else setattr(owner, attribute, old)


def _recorded(function, name):
    @functools.wraps(function)
    def call(*arguments, **options):
        with record_function(name if isinstance(name, str) else name(*arguments)):
            return function(*arguments, **options)

    return call
