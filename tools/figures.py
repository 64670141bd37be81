"""Draws what runs found, from their results.

    python tools/figures.py recipes/GSC/results/spikescr_mini_kdcl-official-*.json --out FOLDER
    python tools/figures.py recipes/URDU/results/{pts_snn_mini,vanilla_snn_mini}-random-1.json --out FOLDER
    python tools/figures.py RUN [RUN ...] --out FOLDER [--data_folder=...] [--utterance ID] [--blocks 1 6 12]
    python tools/figures.py benchmarks/multilevel-figure5-*.json --out FOLDER

Distillation runs that differ in their seed are drawn arm by arm, as their mean and standard deviation: accuracy and energy by frames.
Of emotion runs that looked at their neurons (``--gains``), one a model, silence and saturation are drawn, before and after training.

Runs of recognition, classification and speakers, one or several beside each other, are reopened, from the folders that they were
trained in. How often each neuron fires on the utterances that chose the checkpoint becomes ``firing_rates.png``; where the network
can say what it attends to, one utterance becomes ``attention.png``, and ``attention_raw.png`` where scores are negative too. The numbers
behind them stand in ``firing_rates.json`` and ``attention.json``. They are figures 3 and 4 of the IML-Spikeformer paper; figure 5, what
training costs with more levels, is drawn from what ``tools/bench.py multilevel --figure5`` measured.
"""

import argparse
import json
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spikebrain import plots
from spikebrain.data.manifest import write_atomic
from spikebrain.training import arms, looking
from spikebrain.training.checkpoints import CheckpointError

SAME = ("corpus", "model", "protocol")
WHOLE, SHARES = "whole model", "iterative firing to IMLS"  # sections of a run of bench.py multilevel --figure5
DEFAULT = looking.Options()


class FiguresError(ValueError):
    """Runs cannot be drawn together; the message names the file and the repair."""


def main(argv=None):
    """Writes the pictures and prints their places; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        for path in draw(arguments.out, makers(read(arguments.runs), _options(arguments))):
            print(path)
    except (ValueError, CheckpointError, OSError, ImportError) as error:  # nothing to draw, no such place, no matplotlib
        print(f"figures.py: {error}", file=sys.stderr)
        return 1
    return 0


def read(paths):
    """The results of runs, a list of (file, dict), of files or of output folders that hold a ``results.json``."""
    return [(file, _read(file)) for file in (path / "results.json" if path.is_dir() else path for path in paths)]


def makers(runs, options=DEFAULT):
    """Name -> what draws it, of the pictures for the kind of ``runs``, a list of (file, dict): the task of the first says which."""
    first = runs[0][1]
    if "bench" in first:
        kind = cost_of
    elif first.get("task") in looking.TASKS:
        return networks_of(runs, options)
    else:
        kind = health_of if first.get("task") == "emotion" else arms_of
    if options != DEFAULT:
        raise FiguresError(f"{runs[0][0]}: is drawn from its numbers alone: leave out what is for runs of {', '.join(looking.TASKS)}")
    return kind(runs)


def networks_of(runs, options):
    """The pictures and the numbers of trained networks that are reopened and looked into, beside each other.

    Arguments
    ---------
    runs : list of (Path, dict)
        Files, each in the folder of its run, and the results in them.
    options : looking.Options

    Returns
    -------
    dict
        Name -> what gives a picture, or a dict that is written as JSON.

    Raises
    ------
    FiguresError, LookingError
        For something that is no such run, and as :func:`spikebrain.training.looking.look`.
    """
    folders, found, same = [file.parent for file, _ in runs], [], options
    for folder, (file, results) in zip(folders, runs, strict=True):
        if results.get("task") not in looking.TASKS:
            raise FiguresError(f"{file}: task {results.get('task')}, that of {runs[0][0]} is {runs[0][1]['task']}: draw them apart")
        found.append(looking.look(folder, results, same))
        same = replace(same, utterance=same.utterance or found[-1].utterance)
    if (options.utterance or options.blocks) and not any(one.maps for one in found):
        raise FiguresError(f"{runs[0][0]}: no run here can say what it attends to: leave --utterance and --blocks out")
    named = dict(zip(looking.labels(found, folders), found, strict=True))
    return _firing(named) | _attention(named, options.blocks or None)


def _firing(named):
    heard = {label: f"{one.about['corpus']}, {one.split}, {one.looked_at} of {one.of} utterances" for label, one in named.items()}
    alike, first = len(set(heard.values())) == 1, next(iter(heard.values()))
    title = f"Firing rates: {first}" if alike else "Firing rates"
    rates = {label if alike else f"{label}\n{heard[label]}": one.rates for label, one in named.items()}
    numbers = {
        label: {
            **one.about,
            "split": one.split,
            "utterances": {"looked_at": one.looked_at, "of": one.of},
            "all": plots.firing_numbers(one.rates),
            "layers": one.layers,
        }
        for label, one in named.items()
    }
    return {"firing_rates": partial(plots.firing_rates_of_runs, rates, title=title), "firing_rates.json": lambda: numbers}


def _attention(named, blocks):
    """Nothing where no network says what it attends to."""
    maps = {label: one.maps for label, one in named.items() if one.maps}
    if not maps:
        return {}
    utterance = next(one.utterance for one in named.values() if one.maps)
    drawn = partial(plots.attention_of_runs, maps, blocks, f"Attention of {utterance}")
    signed = any(values.min() < 0 for of_run in maps.values() for values in of_run)
    numbers = {
        label: {**named[label].about, "utterance": utterance, "frames": len(of_run[0][0]), "blocks": _attention_numbers(of_run)}
        for label, of_run in maps.items()
    }
    return {"attention": drawn, **({"attention_raw": partial(drawn, signed=True)} if signed else {}), "attention.json": lambda: numbers}


def _attention_numbers(maps):
    """Block -> the numbers of each head, and their means; of all blocks, whichever are drawn."""
    found = {}
    for block, values in enumerate(maps, 1):
        heads = [plots.attention_numbers(head) for head in values]
        found[block] = {"mean": {name: fmean(head[name] for head in heads) for name in heads[0]}, "heads": heads}
    return found


def cost_of(runs):
    """The picture of what training costs: of one file that ``tools/bench.py multilevel --figure5`` wrote."""
    (file, written), *more = runs
    if more:
        raise FiguresError(f"{more[0][0]}: runs of bench.py are drawn one at a time: name {file} alone")
    if not {WHOLE, SHARES} <= written.get("sections", {}).keys():
        raise FiguresError(f"{file}: has no section '{WHOLE}': make one with `python tools/bench.py multilevel --figure5`")
    whole, shares = (written["sections"][section] for section in (WHOLE, SHARES))
    costs = {name: {row["T"]: row for row in whole if row["firing"] == name} for name in ("iterative", "IMLS")}
    ratios = {row["T"]: {"ms": row["time"]["median"], "saved_mib": row["saved memory"]} for row in shares}
    paper = {"ms": shares[0]["paper, time"], "saved_mib": shares[0]["paper, memory"]}
    hardware = written["hardware"]
    title = f"{whole[0]['size']}; {hardware['cpu']}, {hardware['threads']} of {hardware['cores']} cores"
    return {"training_cost": partial(plots.training_cost, costs, ratios, paper, title=title)}


def arms_of(runs):
    """The pictures of distillation runs that differ in their seed only.

    Arguments
    ---------
    runs : list of (Path, dict)
        Files, and the results in them.

    Returns
    -------
    dict
        Name -> what draws it.

    Raises
    ------
    FiguresError
        For a run that is no distillation, and for runs of different corpora, models or protocols, or of one seed.
    """
    found = _by("seed", runs, {"stages", "arms", *SAME, "seed"}, SAME)
    splits = list(dict.fromkeys(split for run in found.values() for row in run["stages"] for split in row["accuracy"]))
    title = ", ".join(str(runs[0][1][key]) for key in SAME)
    return {name: partial(make, title=title) for name, make in arms.pictures(list(found.values()), splits).items()}


def health_of(runs):
    """The picture of emotion runs that differ in their model, as :func:`arms_of`: all need a ``calibration``."""
    found = _by("model", runs, {"calibration", *SAME}, ("corpus", "protocol"))
    title = f"{runs[0][1]['corpus']}, {runs[0][1]['protocol']} folds: silent and saturated neurons"
    calibrations = {model: run["calibration"] for model, run in found.items()}
    return {"neuron_health": partial(plots.neuron_health, calibrations, title=title)}


def draw(folder, pictures):
    """Writes ``pictures``, name -> what draws it, or ``name.json`` -> what gives its numbers, into ``folder``; gives their places."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_written(folder / name, make()) for name, make in pictures.items()]


def _written(path, made):
    if path.suffix != ".json":
        return plots.save(made, path.with_name(f"{path.name}.png"))
    write_atomic(path, json.dumps(made, indent=1, allow_nan=False) + "\n")
    return path


def _by(key, runs, needed, same):
    """The results of ``runs`` by what they say of ``key``, one each; all have the keys ``needed``, and those of ``same`` are alike."""
    found, (first_file, first) = {}, runs[0]
    for file, run in runs:
        if not needed <= run.keys():
            lacks = ", ".join(sorted(needed - run.keys()))
            raise FiguresError(f"{file}: task {run.get('task')}, lacks {lacks}: name runs of distillation, or emotion runs with --gains")
        for name in same:
            if run[name] != first[name]:
                raise FiguresError(f"{file}: {name} is {run[name]}, that of {first_file} is {first[name]}: draw them apart")
        if run[key] in found:
            raise FiguresError(f"{file}: its {key}, {run[key]}, is that of another run: name each run once")
        found[run[key]] = run
    return found


def _read(file):
    if not file.is_file():
        raise FiguresError(f"{file}: no such file: name kept results, or the output_folder of a run that has ended")
    return json.loads(file.read_text(encoding="utf-8"))


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="results.json of a run, or its output folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
    looked = parser.add_argument_group("runs that are reopened", f"of the tasks {', '.join(looking.TASKS)}")
    looked.add_argument("--data_folder", help="the corpus, where it is elsewhere than when the runs were trained")
    looked.add_argument("--utterance", metavar="ID", help="whose attention is drawn; by default one of middle length, or place")
    looked.add_argument("--utterances", type=int, metavar="N", help="that are listened to, evenly over the dev split; by default all")
    looked.add_argument("--blocks", type=int, nargs="+", default=(), help="whose attention is drawn; by default first, middle and last")
    looked.add_argument("--device", default="cpu")
    return parser


def _options(arguments):
    """What of the command line is for runs that are reopened."""
    given = {field.name: getattr(arguments, field.name) for field in fields(looking.Options)}
    return looking.Options(**given | {"blocks": tuple(arguments.blocks)})


if __name__ == "__main__":
    sys.exit(main())
