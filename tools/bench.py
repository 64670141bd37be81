"""Measures time and memory side by side, in one run, on this machine.

    python tools/bench.py multilevel [--quick | --full | --figure5] [--threads N] [--rounds N] [--out FILE]
    python tools/bench.py lif | spikescr [...]   # against SpikingJelly and snnTorch: pip install spikebrain[peers]
    python tools/bench.py table [--check]        # benchmarks/README.md from benchmarks/*.json

Variants take turns (A B C A B C ...), so that what else the machine does hits all of them alike; what is reported is the
median of many and the median of ratios inside a round, never a single time. No time is printed before the implementations
agree with the definition (law 4) on the very shapes that are timed. Memory is what a step keeps for its backward pass:
bytes of unique storages seen by ``saved_tensors_hooks``, parameters left out; beside it stands the peak resident size of
a process that does nothing else. A run without ``--quick`` writes ``benchmarks/<bench>-<machine>.json`` and the tables.

Exit status: 0 when every bar is met, 1 when one is missed or a file cannot be used, 2 when implementations disagree.
"""

import argparse
import datetime
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from benches import lif, multilevel, spikescr
from benches.measure import BenchError, Disagreement, digits

from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.kernels import native
from spikebrain.training import results

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
HEAD = """# Benchmarks

Made by `python tools/bench.py table` from the JSON files of this folder; not written by hand. Times are medians over rounds in which
the variants take turns, with quartiles in brackets; a ratio is the median of the ratios inside a round. "Saved" is what one step
keeps for its backward pass, parameters left out; "peak" is the resident size of a process that runs two steps and nothing else, and
"step" the part of it that came with the model: parameters, gradients and all that the two steps held at a time. Training steps are
forward and backward pass, without the optimiser.
"""

PLANS = {
    "quick": "tiny sizes: times are not judged and no file is kept",
    "full": "published sizes throughout; minutes, several GiB",
    "figure5": "training steps of the whole published model alone: time and memory against T",
}
BENCHES = {"multilevel": multilevel, "lif": lif, "spikescr": spikescr}


def run(arguments):
    """Measures, prints and writes what was measured; returns the exit status."""
    plan_name, measured = arguments.plan, BENCHES[arguments.bench]
    native.keep_freed_memory()  # as in training; for all that is measured here, peers too
    plan = measured.PLANS[plan_name] if arguments.rounds is None else replace(measured.PLANS[plan_name], rounds=arguments.rounds)
    about = {"bench": arguments.bench, "plan": plan_name, "rounds": plan.rounds, **_about(arguments.words)}
    sections, verdicts = measured.bench(plan)
    written = {**about, "load": [about["load"], _load()], "sections": sections, "verdicts": verdicts}
    print(render(written))
    out = arguments.out or (None if plan_name == "quick" else _place(written))
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


def probe(arguments):
    """Memory of one step in this process, printed; returns the exit status."""
    print(json.dumps(multilevel.probe(arguments.task)))
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
    for name, measured in BENCHES.items():
        command = commands.add_parser(name, help=measured.__doc__.splitlines()[0])
        command.set_defaults(call=run, bench=name)
        scale = command.add_mutually_exclusive_group()
        for plan in (name for name in measured.PLANS if name != "default"):
            scale.add_argument(f"--{plan}", dest="plan", action="store_const", const=plan, default="default", help=PLANS[plan])
        command.add_argument("--threads", type=_positive, help="of torch and of the compiled kernels; default: torch's own choice")
        command.add_argument("--rounds", type=_positive, help="turns of every variant")
        command.add_argument("--out", type=Path, help="JSON file; default: benchmarks/<bench>-<machine>.json")
    command = commands.add_parser("table", help="make benchmarks/README.md")
    command.set_defaults(call=tables)
    command.add_argument("--check", action="store_true", help="fail when it is out of date")
    command = commands.add_parser("probe", help="used by the benches: memory of one step in a process of its own")
    command.set_defaults(call=probe)
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
