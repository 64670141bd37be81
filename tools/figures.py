"""Draws what distillation runs found, arm by arm, from their results.

    python tools/figures.py recipes/GSC/results/spikescr_mini_kdcl-official-*.json --out FOLDER
    python tools/figures.py RUN_FOLDER --out FOLDER

Runs that differ in their seed are drawn as their mean and standard deviation.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from spikebrain import plots
from spikebrain.training.arms import pictures

SAME = ("corpus", "model", "protocol")


class FiguresError(ValueError):
    """Runs cannot be drawn together; the message names the file and the repair."""


def main(argv=None):
    """Writes the pictures and prints their places; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        for path in draw(read(arguments.runs), arguments.out):
            print(path)
    except (ValueError, OSError, ImportError) as error:  # nothing to draw, no such place, no matplotlib
        print(f"figures.py: {error}", file=sys.stderr)
        return 1
    return 0


def read(paths):
    """The results of runs that differ in their seed only.

    Arguments
    ---------
    paths : list of Path
        Files, or output folders that hold a ``results.json``.

    Raises
    ------
    FiguresError
        For a run that is missing or no distillation, and for runs of different corpora, models or protocols, or of one seed.
    """
    runs, files = {}, [path / "results.json" if path.is_dir() else path for path in paths]
    for file in files:
        run = _read(file)
        first = next(iter(runs.values()), run)
        for key in SAME:
            if run[key] != first[key]:
                raise FiguresError(f"{file}: {key} is {run[key]}, that of {files[0]} is {first[key]}: draw them apart")
        if run["seed"] in runs:
            raise FiguresError(f"{file}: its seed, {run['seed']}, is that of another run: name each run once")
        runs[run["seed"]] = run
    return list(runs.values())


def draw(runs, folder):
    """Writes ``accuracy_by_frames.png`` and ``energy_by_frames.png`` into ``folder``; gives their places."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = list(dict.fromkeys(split for run in runs for row in run["stages"] for split in row["accuracy"]))
    title = ", ".join(str(runs[0][key]) for key in SAME)
    return [plots.save(make(title=title), folder / f"{name}.png") for name, make in pictures(runs, splits).items()]


def _read(file):
    if not file.is_file():
        raise FiguresError(f"{file}: no such file: name kept results, or the output_folder of a run that has ended")
    run = json.loads(file.read_text(encoding="utf-8"))
    if not {"stages", "arms", *SAME, "seed"} <= run.keys():
        raise FiguresError(f"{file}: task {run.get('task')} has no arms to draw: name runs of the task distil")
    return run


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="results.json of a run, or its output folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
