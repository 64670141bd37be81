"""What every preparer does: find utterances, look at their audio, count, compare, write manifests, and remember.

A corpus is described by a :class:`Corpus`: its splits with their published counts, how
its folder looks, and one function that finds the utterances of a split. All else is
here, so that a new corpus is one short file in ``corpora/``.
"""

import csv
import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

from spikebrain.data import audio, manifest
from spikebrain.data.manifest import DataError

logger = logging.getLogger(__name__)

SKIP = "or pass --skip_bad_audio=True to leave it out"
# Below this size of audio (about nine hours of speech in FLAC) every file is decoded: 0.3 ms a second
# of speech and core. Above it only the last sample is, which finds files cut short for 0.1 ms a file.
DECODE_ALL_BYTES = 2**30
STAMP = "prepared.json"
VERSION = 2


@dataclass(frozen=True)
class Published:
    """What the corpus's authors say a split holds; None where they do not say.

    Hours and speakers that are not published are not compared. A split without published utterances (one of our own
    making) has nothing to be compared with, and so is never complete.
    """

    utterances: int | None
    hours: float | None = None
    speakers: int | None = None


@dataclass(frozen=True)
class Skipped:
    """One utterance (or file) that cannot be used: its id, its path in the data folder, and why."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class File:
    """A file of the data folder: path relative to it, bytes, and time of change in ns."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Corpus:
    """What a preparer knows of a corpus.

    name : as in its paper
    published : split -> Published, every split there is
    layout : the folder as it must look, for messages
    sample_rate : Hz
    find : (data_folder, split, files) -> (utterances with duration 0, list of Skipped)
    columns : CSV column -> field of Utterance
    there : data_folder -> list of the splits that it holds; by default those that are folders
    files : (data_folder, split) -> list of File; by default every file below the split's folder
    probe : (data_folder, Utterance, whole) -> (seconds, None or what is wrong); by default its audio is looked at
    settings : what else the manifests depend on, as plain values (classes, how splits are made)
    compare : (data_folder, split -> list of Utterance) -> list of lines that say what is not as published; by default each split is
        compared with its own published counts
    """

    name: str
    published: Mapping[str, Published]
    layout: str
    sample_rate: int
    find: Callable
    columns: Mapping[str, str] = field(default_factory=lambda: dict(manifest.SPEECH_COLUMNS))
    there: Callable | None = None
    files: Callable | None = None
    probe: Callable | None = None
    settings: Mapping = field(default_factory=dict)
    compare: Callable | None = None

    def splits_there(self, data_folder):
        """The splits that ``data_folder`` holds, in published order."""
        if self.there is not None:
            return self.there(data_folder)
        return [split for split in self.published if os.path.isdir(os.path.join(data_folder, split))]

    def list_files(self, data_folder, split):
        """The files that ``split`` is made from, as File."""
        return (self.files or list_files)(data_folder, split)

    def seconds(self, data_folder, utterance, whole):
        """Duration of an utterance and what is wrong with it, or None; ``whole`` reads all of its audio."""
        if self.probe is not None:
            return self.probe(data_folder, utterance, whole)
        samples, problem = audio.probe(os.path.join(data_folder, utterance.wav), self.sample_rate, whole)
        return (0.0 if problem else samples / self.sample_rate), problem

    def differences(self, data_folder, utterances):
        """What is not as published in ``utterances`` (split -> list of Utterance), a tuple of lines."""
        if self.compare is not None:
            return tuple(self.compare(data_folder, utterances))
        return tuple(d for split, good in utterances.items() if (d := difference(split, count(good), self.published[split])))


@dataclass(frozen=True)
class Options:
    """How a corpus is prepared.

    skip_bad_audio : leave out what cannot be used and list it in ``skipped.csv``, instead of stopping
    strict_counts : a difference from the published counts is an error
    decode : True decodes every file, False only its end, None decides by the size of the corpus
    """

    skip_bad_audio: bool = False
    strict_counts: bool = False
    decode: bool | None = None


@dataclass(frozen=True)
class Preparation:
    """What :func:`prepare` made.

    corpus : name
    manifests : split -> path of its CSV
    counts : split -> {"utterances", "hours", "speakers"}
    complete : whether every prepared split has its published counts
    differences : one line a split that has not
    skipped : what was left out, and why
    data_hash : SHA-256 of names, sizes and manifests: which data a result was measured on
    settings : those of the Corpus, which say what of it this is (classes, protocol)
    """

    corpus: str
    manifests: dict
    counts: dict
    complete: bool
    differences: tuple
    skipped: tuple
    data_hash: str
    settings: dict = field(default_factory=dict)

    def summary(self):
        """The part that belongs into ``results.json`` under ``data``: no path in it."""
        return {
            "corpus": self.corpus,
            "settings": self.settings,
            "complete": self.complete,
            "splits": self.counts,
            "differences": list(self.differences),
            "skipped": len(self.skipped),
            "hash": self.data_hash,
        }


def require_folder(corpus, data_folder):
    """The splits that ``data_folder`` has; a missing or wrong folder is a DataError that shows the layout."""
    if not data_folder or not os.path.isdir(data_folder):
        raise DataError(f"data_folder: {data_folder!r} is not a folder. {_help(corpus)}")
    there = corpus.splits_there(data_folder)
    if not there:
        hints = _nearby(corpus, data_folder) + _help(corpus)
        raise DataError(f"data_folder: {data_folder} holds none of the splits of {corpus.name}. {hints}")
    return there


def _help(corpus):
    return (
        f"Set --data_folder=/path/to/{corpus.name} to a folder that looks like this (every split is optional):\n{corpus.layout}\n"
        f"or pass --data_folder=synthetic to have a small synthetic twin made."
    )


def _nearby(corpus, data_folder):
    for name in sorted(os.listdir(data_folder)):
        inner = os.path.join(data_folder, name)
        if os.path.isdir(inner) and corpus.splits_there(inner):
            return f"Did you mean {inner}? "
    if os.path.basename(os.path.normpath(data_folder)) in corpus.published:
        return f"Did you mean {os.path.dirname(os.path.normpath(data_folder))}? "
    return ""


def choose_splits(corpus, data_folder, splits=None):
    """The splits to prepare: ``splits`` when all of them are there (else a DataError), by default those that are."""
    there = require_folder(corpus, data_folder)
    chosen = there if splits is None else list(splits)
    missing = [split for split in chosen if split not in there]
    if missing:
        folder = f"Unpack it as {os.path.join(data_folder, missing[0])}"
        place = folder if corpus.there is None else f"Complete the folder:\n{corpus.layout}\n"
        raise DataError(
            f"{data_folder}: split {missing[0]!r} is not there; there are {len(there)} of {len(corpus.published)}: {', '.join(there)}. "
            f"{place} or name only splits that are there"
        )
    return chosen


def list_files(data_folder, split):
    """Every file below ``<data_folder>/<split>`` as File, sorted by path; names that begin with a dot are left out."""
    return sorted(_walk(os.path.join(data_folder, split), split), key=lambda file: file.path)


def _walk(folder, relative):
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{relative}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, path)
            else:
                status = entry.stat()
                yield File(path, status.st_size, status.st_mtime_ns)


def read(corpus, data_folder, split, decode=None):
    """The utterances of one split, with durations.

    Raises
    ------
    DataError
        Wrong folder, missing split, or the first utterance that cannot be used.
    """
    choose_splits(corpus, data_folder, [split])
    good, bad = examine(corpus, data_folder, split, corpus.list_files(data_folder, split), decode)
    refuse(bad)
    manifest.validate(good, f"{corpus.name} {split}", corpus.columns)
    return good


def examine(corpus, data_folder, split, files, decode=None):
    """Finds the utterances of a split and looks at every recording, in threads: (utterances, list of Skipped)."""
    found, bad = corpus.find(data_folder, split, files)
    whole = sum(file.size for file in files) <= DECODE_ALL_BYTES if decode is None else decode
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        probes = pool.map(lambda u: corpus.seconds(data_folder, u, whole), found)
        good, bad = [], list(bad)
        for utterance, (seconds, problem) in zip(found, probes, strict=True):
            if problem:
                bad.append(Skipped(utterance.id, utterance.wav, problem))
            else:
                good.append(replace(utterance, duration=seconds))
    return good, bad


def refuse(bad):
    """Raises one DataError for a list of Skipped: the first in full, the others by name."""
    if not bad:
        return
    first, others = bad[0], bad[1:]
    names = ", ".join(item.path for item in others[:5]) + (", ..." if len(others) > 5 else "")
    more = f". {len(others)} more: {names}" if others else ""
    raise DataError(f"{first.path}: {first.reason} {SKIP}{more}")


def prepare(corpus, data_folder, save_folder, splits=None, options=None):
    """Writes one manifest a split into ``save_folder`` and says what the corpus holds.

    Running it again on the same tree with the same options reads its own notes
    (``prepared.json``) and does nothing; a file that was added, removed, resized or
    touched is noticed. Run it in one process (``run_on_main``).

    Arguments
    ---------
    corpus : Corpus
    data_folder, save_folder : str
    splits : list of str or None
        None takes every split that is there.
    options : Options or None

    Returns
    -------
    Preparation

    Raises
    ------
    DataError
        A wrong folder, a missing split, an utterance that cannot be used (unless ``skip_bad_audio``), counts that
        differ from the published ones (only with ``strict_counts``).
    """
    options = options or Options()
    chosen = choose_splits(corpus, data_folder, splits)
    files = {split: corpus.list_files(data_folder, split) for split in chosen}
    looks_like = {split: [asdict(file) for file in listing] for split, listing in files.items()}
    how = [corpus.name, corpus.sample_rate, dict(corpus.settings), options.skip_bad_audio, options.decode]
    key = _hash([VERSION, how, looks_like])
    done = _remembered(save_folder, key)
    if done is None:
        done = _prepare(corpus, data_folder, save_folder, files, options)
        _remember(save_folder, key, done)
    _report(corpus, done, options)
    return done


def _prepare(corpus, data_folder, save_folder, files, options):
    logger.info("%s: looking at %d files of %s", corpus.name, sum(map(len, files.values())), ", ".join(files))
    looks = {split: examine(corpus, data_folder, split, listing, options.decode) for split, listing in files.items()}
    # A fault of a file that splits share is told once.
    skipped = tuple(dict.fromkeys(item for _, bad in looks.values() for item in bad))
    if not options.skip_bad_audio:
        refuse(skipped)
    utterances = {split: good for split, (good, _) in looks.items()}
    manifests = {split: os.path.join(save_folder, f"{split}.csv") for split in utterances}
    for split, path in manifests.items():
        manifest.write(path, utterances[split], corpus.columns)
    if options.skip_bad_audio:
        manifest.write_atomic(os.path.join(save_folder, "skipped.csv"), skipped_csv(skipped))
    counts = {split: count(good) for split, good in utterances.items()}
    differences = corpus.differences(data_folder, utterances)
    data_hash = _data_hash(corpus, files, utterances)
    settings = json.loads(json.dumps(dict(corpus.settings)))  # as they come back from the notes
    return Preparation(corpus.name, manifests, counts, not differences, differences, skipped, data_hash, settings)


def skipped_csv(skipped):
    """``skipped.csv``: the columns ``ID,path,reason``."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["ID", "path", "reason"])
    writer.writerows((item.id, item.path, item.reason) for item in skipped)
    return buffer.getvalue()


def count(utterances):
    """Utterances, hours and (named) speakers of a list of Utterance."""
    return {
        "utterances": len(utterances),
        "hours": round(sum(u.duration for u in utterances) / 3600, 4),
        "speakers": len({u.speaker for u in utterances} - {""}),
    }


def difference(split, counted, published):
    """One line where a split differs from its published counts, else None.

    Utterances and speakers must be equal, where they are published. Hours only guard against shortened audio: tables
    round them, and LibriSpeech's gives 5.3 h and 5.1 h for dev-other and test-other where the released files last 5.1 h
    and 5.3 h.
    """
    close = published.hours is None or abs(counted["hours"] - published.hours) <= max(0.3, 1e-3 * published.hours)
    speakers = published.speakers is None or counted["speakers"] == published.speakers
    if close and speakers and counted["utterances"] == published.utterances:
        return None
    number, hours, people = ("none" if value is None else value for value in asdict(published).values())
    return (
        f"{split} has {counted['utterances']} utterances (published: {number}), {counted['hours']:.2f} h "
        f"({hours}), {counted['speakers']} speakers ({people})"
    )


def _report(corpus, done, options):
    for item in done.skipped:
        logger.warning("left out %s: %s", item.path, item.reason)
    if done.complete:
        return
    text = f"{corpus.name} differs from its published counts: {'; '.join(done.differences)}"
    if options.strict_counts:
        raise DataError(f"{text}. Restore the corpus, or set --strict_counts=False to go on with what is there")
    logger.warning("%s. Results are marked as made on an incomplete corpus", text)


def _hash(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _data_hash(corpus, files, utterances):
    sizes = {split: [(file.path, file.size) for file in listing] for split, listing in files.items()}
    return _hash([sizes, {split: manifest.to_csv(good, corpus.columns) for split, good in utterances.items()}])


def _file_hash(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _remember(save_folder, key, done):
    notes = {
        "key": key,
        "hashes": {split: _file_hash(path) for split, path in done.manifests.items()},
        "preparation": {**asdict(done), "manifests": list(done.manifests)},
    }
    manifest.write_atomic(os.path.join(save_folder, STAMP), json.dumps(notes, indent=1))


def _remembered(save_folder, key):
    """The Preparation in the folder's notes, when they are of the same tree and options and the manifests are untouched."""
    try:
        with open(os.path.join(save_folder, STAMP), encoding="utf-8") as file:
            notes = json.load(file)
        if notes["key"] != key:
            return None
        manifests = {split: os.path.join(save_folder, f"{split}.csv") for split in notes["preparation"]["manifests"]}
        if {split: _file_hash(path) for split, path in manifests.items()} != notes["hashes"]:
            return None
    except (OSError, ValueError, KeyError):
        return None
    saved = notes["preparation"]
    skipped = tuple(Skipped(**item) for item in saved["skipped"])
    return Preparation(**{**saved, "manifests": manifests, "differences": tuple(saved["differences"]), "skipped": skipped})
