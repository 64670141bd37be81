"""What distillation runs found, arm by arm: numbers for tables, and pictures, of one run or of several that differ in their seed."""

from functools import partial

from spikebrain import plots


def by_arm(run, number):
    """What each arm gave at each number of frames.

    Arguments
    ---------
    run : dict
        ``stages`` and ``arms`` as ``results.json`` holds them.
    number : callable
        Entry of ``stages`` -> number, or None where it has none.

    Returns
    -------
    dict
        Arm -> frames a second -> number. A stage that was not trained in this run (``teacher_folder``) is left out.
    """
    rows = {row["name"]: row for row in run["stages"]}
    ways = {arm: [rows[name] for name in names if name in rows] for arm, names in run["arms"].items()}
    return {arm: {row["frames"]: number(row) for row in way if number(row) is not None} for arm, way in ways.items()}


def over_runs(runs, number):
    """Arm -> frames a second -> list of numbers, one a run that has it; see :func:`by_arm`."""
    gathered = {}
    for run in runs:
        for arm, numbers in by_arm(run, number).items():
            for frames, value in numbers.items():
                gathered.setdefault(arm, {}).setdefault(frames, []).append(value)
    return gathered


def accuracy(split):
    """Entry of ``stages`` -> percent on ``split``, for :func:`by_arm`."""
    return lambda row: row["accuracy"].get(split)


def energy(row):
    """Entry of ``stages`` -> mJ of an utterance in the whole network (scope ``full``), or None, for :func:`by_arm`."""
    return row.get("mJ")


def pictures(runs, splits):
    """Name -> what draws it: accuracy and energy by frames.

    Arguments
    ---------
    runs : list of dict
        As for :func:`by_arm`.
    splits : list of str
        What accuracy is drawn of; beside energy, that of the last.
    """
    scores = {split: over_runs(runs, accuracy(split)) for split in splits}
    return {
        "accuracy_by_frames": partial(plots.accuracy_by_frames, scores),
        "energy_by_frames": partial(plots.energy_by_frames, over_runs(runs, energy), scores[splits[-1]], splits[-1]),
    }
