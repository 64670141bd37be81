"""Spiking Heidelberg Digits: spikes of an artificial cochlea for spoken digits, English and German, 20 classes, 12 speakers.

B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the
Systematic Evaluation of Spiking Neural Networks", IEEE TNNLS 2020. Counts are those of the
released files (https://compneuro.net); the corpus's first page told 8,332 and 2,088.

The corpus has no validation split, and two of its speakers (4 and 5) are in the test file
alone. So there are two protocols, and results name theirs:

- ``heldout``: one whole speaker is taken out of the training file for validation, the one
  whose number of recordings is nearest to a tenth of the file's; of two that are equally near,
  the one with the lower number. Like most of the test set, it is a voice that training never heard.
- ``paper``: what the literature does (SpikeSCR, arXiv 2412.12858; DCLS-Delays; sparch): the test
  set is the validation set too. A model selected on it has seen the answers; only for comparisons.
"""

import logging
import os
from collections import Counter

from spikebrain.data import events, preparation
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Corpus, Options, Published

logger = logging.getLogger(__name__)

CLASSES = 20
TRAIN, TEST = "shd_train.h5", "shd_test.h5"
SHARE = 0.1  # of the training file's recordings, for validation

OPTIONS = {"protocol": "heldout"}  # what a recipe's YAML may set; results are filed under it

LAYOUT = """\
  shd_train.h5    (unpacked: no .gz, no .zip)
  shd_test.h5"""

PUBLISHED = {TRAIN: Published(8156, speakers=10), TEST: Published(2264, speakers=12)}
FILES = {
    "heldout": {"train": TRAIN, "valid": TRAIN, "test": TEST},
    "paper": {"train": TRAIN, "valid": TEST, "test": TEST},
}


def read(data_folder, split, *, protocol="heldout"):
    """The recordings of one split, in the file's order: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(corpus(protocol), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, protocol="heldout", skip_bad_audio=False, strict_counts=False):
    """Writes ``<save_folder>/<split>.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    Arguments
    ---------
    data_folder, save_folder, splits
        As for every corpus; splits are train, valid and test.
    protocol : str
        "heldout" or "paper", see above; it is told in the Preparation's settings.
    skip_bad_audio, strict_counts : bool
        As for every corpus. Every recording is read to its end, so there is no option to look at less.
    """
    return preparation.prepare(corpus(protocol), data_folder, save_folder, splits, Options(skip_bad_audio, strict_counts))


def corpus(protocol="heldout"):
    """The Corpus under ``protocol``; an unknown one is a DataError that lists the known ones."""
    if protocol not in FILES:
        raise DataError(f"protocol {protocol!r} is none of {', '.join(FILES)}")
    files = FILES[protocol]
    if protocol == "paper":
        logger.warning("SHD, protocol paper: validation is the test set, so what is selected on it is selected on the test set")
    return Corpus(
        name="SHD",
        published={split: PUBLISHED[name] for split, name in files.items()},
        layout=LAYOUT,
        sample_rate=0,  # spikes have none
        find=lambda data_folder, split, _: events.utterances(data_folder, files[split], CLASSES, _speakers(data_folder, split, protocol)),
        columns=events.COLUMNS,
        there=lambda data_folder: [split for split, name in files.items() if events.file_there(data_folder, name)],
        files=lambda data_folder, split: events.list_file(data_folder, files[split]),
        probe=events.duration,
        settings={"protocol": protocol, "validation": "one speaker of the training file" if protocol == "heldout" else "the test set"},
        compare=lambda data_folder, utterances: _compare(data_folder, utterances, files),
    )


def validation_speaker(speakers):
    """Who of ``speakers`` (one a recording) is held out: the one with nearest to a tenth of all, of equals the lowest number.

    Raises
    ------
    DataError
        Fewer than two speakers.
    """
    counts = Counter(speakers)
    if len(counts) < 2:
        raise DataError(
            f"{TRAIN}: has recordings of {len(counts)} speaker, held-out validation needs 2: "
            "restore the file, or pass protocol='paper' to validate on the test set"
        )
    return min(counts, key=lambda speaker: (abs(counts[speaker] - SHARE * len(speakers)), len(speaker), speaker))


def _speakers(data_folder, split, protocol):
    """The speakers of a split; None for all of its file's."""
    if protocol != "heldout" or split == "test":
        return None
    speakers = events.look(os.path.join(data_folder, TRAIN), CLASSES).speakers
    held_out = {validation_speaker(speakers)}
    return held_out if split == "valid" else set(speakers) - held_out


def _compare(data_folder, utterances, files):
    """What is not as published; the held-out splits, which nobody published, are compared together with their file's counts."""
    for split, good in utterances.items():
        keys = events.look(os.path.join(data_folder, files[split]), CLASSES).keys
        yield from events.silent_classes(split, good, keys)
    for splits, name in _parts(utterances, files).items():
        together = [utterance for split in splits for utterance in utterances[split]]
        difference = preparation.difference(" + ".join(splits), preparation.count(together), PUBLISHED[name])
        if difference:
            yield difference


def _parts(utterances, files):
    """Splits that are compared together, and the file that they share out."""
    if files["train"] != files["valid"]:
        return {(split,): files[split] for split in utterances}
    shared = tuple(split for split in utterances if files[split] == TRAIN)
    return {**({shared: TRAIN} if shared else {}), **({("test",): TEST} if "test" in utterances else {})}


CORPUS = corpus()
