"""The class that every test utterance of a run was given: ``save/predictions.csv`` in the folder of the run and of each of its folds."""

import csv
import io
import os
from typing import NamedTuple

from spikebrain.data.manifest import DataError, write_atomic


class Prediction(NamedTuple):
    """fold, id, speaker : of a test utterance; label : its class; predicted : the class it was given."""

    fold: str
    id: str
    speaker: str
    label: str
    predicted: str


def place(folder):
    """Where the predictions of a run lie."""
    return os.path.join(folder, "save", "predictions.csv")


def write(folder, predictions):
    """Writes a list of Prediction."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Prediction._fields, *predictions])
    write_atomic(place(folder), text.getvalue())


def read(folder):
    """The list of Prediction of a run's folder; a DataError where there is none, or the file has other columns."""
    path = place(folder)
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file: a run with folds writes it when it has ended")
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    if tuple(header) != Prediction._fields:
        raise DataError(f"{path}: has the columns {', '.join(header)}, expected {', '.join(Prediction._fields)}: run the fold again")
    return [Prediction(*row) for row in rows]
