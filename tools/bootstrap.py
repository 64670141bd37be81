"""Compares models over folds: accuracies of all test utterances together, and how sure their differences are.

    python tools/bootstrap.py RUN_FOLDER RUN_FOLDER ... [--without SM5 ...] [--draws 10000] [--seed 0] [--out FILE.json]

Folders are output folders of runs of emotion recipes, whose save/predictions.csv is read. Runs of one model, by the name in
their results.json, are taken together: they may differ in seed and partition. The first folder's model is compared with every other one.
Speakers are drawn, the same for all models: see spikebrain/training/bootstrap.py. --without does all of it once more, without some
speakers.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tables import markdown

from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.training import bootstrap


def main(argv=None):
    """Does what the arguments say; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        report = compare(arguments.runs, arguments.without, arguments.draws, arguments.seed)
        if arguments.out:
            write_atomic(arguments.out, json.dumps(report, indent=2) + "\n")
    except (DataError, OSError) as error:
        print(f"bootstrap.py: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(show(found, report) for found in report["found"]))
    return 0


def compare(folders, without=(), draws=10_000, seed=0):
    """What :func:`spikebrain.training.bootstrap.compare` finds over all speakers and, where ``without`` names some, over the others.

    Arguments
    ---------
    folders : list of Path
    without : list of str
    draws, seed : int

    Returns
    -------
    dict
        ``draws``, ``seed``, ``level`` of the intervals, ``runs``, what the runs say of themselves, and ``found``, a list of what is
        found, each with ``without``, a list.

    Raises
    ------
    DataError
        Runs that cannot be compared, one model only, or an unknown speaker.
    """
    models = bootstrap.read(folders)
    if len(models) < 2:
        raise DataError(f"all {len(folders)} runs are of {', '.join(models)}: name runs of 2 models or more")
    counts = bootstrap.count(models)
    chosen = [[], list(without)] if without else [[]]
    found = [{"without": left, **bootstrap.compare(counts.without(left), draws, seed)} for left in chosen]
    return {"draws": draws, "seed": seed, "level": bootstrap.LEVEL, "runs": bootstrap.said(folders), "found": found}


def show(found, report):
    """One comparison as text: a table of the models, one of their differences."""
    who = f"without {', '.join(found['without'])}, " if found["without"] else ""
    interval = f"in brackets the middle {100 * report['level']:.0f} % of {report['draws']:,} draws of speakers"
    head = f"{found['utterances']:,} utterances of {found['speakers']} speakers, {who}in percent; {interval} (seed {report['seed']})."
    models = [[name, str(own["runs"]), *_cells(own, "{:.2f}")] for name, own in found["models"].items()]
    differences = [[f"{own['first']} - {own['second']}", *_cells(own, "{:+.2f}")] for own in found["differences"]]
    tables = markdown(["model", "runs", *bootstrap.METRICS], models), markdown(["difference", *bootstrap.METRICS], differences)
    return "\n\n".join([head, *tables])


def _cells(own, form):
    values = ([form.format(own[metric][name]) for name in ("value", "low", "high")] for metric in bootstrap.METRICS)
    return [f"{value} [{low}, {high}]" for value, low, high in values]


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="output folder of a run that has ended")
    parser.add_argument("--without", nargs="+", default=[], metavar="SPEAKER", help="once more without these speakers")
    parser.add_argument("--draws", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="writes what is found")
    return parser


if __name__ == "__main__":
    sys.exit(main())
