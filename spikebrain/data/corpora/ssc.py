"""Spiking Speech Commands: spikes of an artificial cochlea for the 35 words of Speech Commands v0.02.

B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the
Systematic Evaluation of Spiking Neural Networks", IEEE TNNLS 2020; counts are those of its
released files (https://compneuro.net).
"""

import os

from spikebrain.data import events, preparation
from spikebrain.data.preparation import Corpus, Options, Published

CLASSES = 35
FILES = {"train": "ssc_train.h5", "valid": "ssc_valid.h5", "test": "ssc_test.h5"}

LAYOUT = """\
  ssc_train.h5    (unpacked: no .gz, no .zip)
  ssc_valid.h5
  ssc_test.h5"""

PUBLISHED = {"train": Published(75466), "valid": Published(9981), "test": Published(20382)}


def read(data_folder, split):
    """The recordings of one split, in the file's order: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(CORPUS, data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, skip_bad_audio=False, strict_counts=False):
    """Writes ``<save_folder>/<split>.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    Every recording is read to its end, so there is no option to look at less.
    """
    return preparation.prepare(CORPUS, data_folder, save_folder, splits, Options(skip_bad_audio, strict_counts))


def _compare(data_folder, utterances):
    for split, good in utterances.items():
        keys = events.look(os.path.join(data_folder, FILES[split]), CLASSES).keys
        yield from events.silent_classes(split, good, keys)
        difference = preparation.difference(split, preparation.count(good), PUBLISHED[split])
        if difference:
            yield difference


CORPUS = Corpus(
    name="SSC",
    published=PUBLISHED,
    layout=LAYOUT,
    sample_rate=0,  # spikes have none
    find=lambda data_folder, split, _: events.utterances(data_folder, FILES[split], CLASSES),
    columns=events.COLUMNS,
    there=lambda data_folder: [split for split, name in FILES.items() if events.file_there(data_folder, name)],
    files=lambda data_folder, split: events.list_file(data_folder, FILES[split]),
    probe=events.duration,
    compare=_compare,
)
