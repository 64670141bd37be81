"""Draws what runs found, from their results.

    python tools/figures.py recipes/GSC/results/spikescr_mini_kdcl-official-*.json --out FOLDER
    python tools/figures.py recipes/URDU/results/{pts_snn_mini,vanilla_snn_mini}-random-1.json --out FOLDER

Distillation runs that differ in their seed are drawn arm by arm, as their mean and standard deviation: accuracy and energy by frames.
Of emotion runs that looked at their neurons (``--gains``), one a model, silence and saturation are drawn, before and after training.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spikebrain import plots
from spikebrain.training import arms

SAME = ("corpus", "model", "protocol")


class FiguresError(ValueError):
    """Runs cannot be drawn together; the message names the file and the repair."""


def main(argv=None):
    """Writes the pictures and prints their places; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        for path in draw(arguments.out, makers(read(arguments.runs))):
            print(path)
    except (ValueError, OSError, ImportError) as error:  # nothing to draw, no such place, no matplotlib
        print(f"figures.py: {error}", file=sys.stderr)
        return 1
    return 0


def read(paths):
    """The results of runs, a list of (file, dict), of files or of output folders that hold a ``results.json``."""
    return [(file, _read(file)) for file in (path / "results.json" if path.is_dir() else path for path in paths)]


def makers(runs):
    """Name -> what draws it, of the pictures for the kind of ``runs``, a list of (file, dict)."""
    return health_of(runs) if runs[0][1].get("task") == "emotion" else arms_of(runs)


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
    """Writes ``pictures``, name -> what draws it, into ``folder``; gives their places."""
    folder.mkdir(parents=True, exist_ok=True)
    return [plots.save(make(), folder / f"{name}.png") for name, make in pictures.items()]


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
    return parser


if __name__ == "__main__":
    sys.exit(main())
