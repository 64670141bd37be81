"""Google Speech Commands v0.02: one-second recordings of 35 English words, 16 kHz.

P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition",
arXiv:1804.03209, 2018. A file is ``<word>/<speaker>_nohash_<number>.wav``, two text files
list those of validation and test, and all others are for training.

A task is chosen by ``classes``: all 35 words, the paper's 12 classes (ten commands, unknown
words, silence), or any words of the folder, also of another corpus in this layout.
"""

import logging
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, replace

from spikebrain.data import audio, preparation
from spikebrain.data.draw import draw
from spikebrain.data.manifest import CLASS_COLUMNS, DataError, Utterance
from spikebrain.data.preparation import Corpus, File, Options, Published, Skipped
from spikebrain.spelling import did_you_mean

logger = logging.getLogger(__name__)

NAME = "GSC"
RATE = 16000
CLIP = 16000  # samples of a piece of silence, as long as a recorded word
SPLITS = ("train", "valid", "test")
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"
COMMANDS = tuple("yes no up down left right on off stop go".split())
SILENCE, UNKNOWN = "_silence_", "_unknown_"
SHARE = 10  # percent of the command clips that are added as unknown words, and again as silence
SPLIT_BY = ("official", "speaker")
OPTIONS = {"classes": 35, "split_by": "official"}  # what a recipe's YAML may set; the seed stays, it decides what is tested

LAYOUT = f"""\
  yes/0a7c2a8d_nohash_0.wav        a folder for each word; <speaker>_nohash_<number>.wav
  validation_list.txt testing_list.txt    lines such as: yes/0a7c2a8d_nohash_0.wav
  {NOISE}/running_tap.wav ...      for the 12 classes only"""

# Clips of each word in train, valid and test: the paper's total of each word, shared out by the two lists of the release.
CLIPS = {
    "backward": (1346, 153, 165),
    "bed": (1594, 213, 207),
    "bird": (1697, 182, 185),
    "cat": (1657, 180, 194),
    "dog": (1711, 197, 220),
    "down": (3134, 377, 406),
    "eight": (3033, 346, 408),
    "five": (3240, 367, 445),
    "follow": (1275, 132, 172),
    "forward": (1256, 146, 155),
    "four": (2955, 373, 400),
    "go": (3106, 372, 402),
    "happy": (1632, 219, 203),
    "house": (1727, 195, 191),
    "learn": (1286, 128, 161),
    "left": (3037, 352, 412),
    "marvin": (1710, 195, 195),
    "nine": (3170, 356, 408),
    "no": (3130, 406, 405),
    "off": (2970, 373, 402),
    "on": (3086, 363, 396),
    "one": (3140, 351, 399),
    "right": (3019, 363, 396),
    "seven": (3205, 387, 406),
    "sheila": (1606, 204, 212),
    "six": (3088, 378, 394),
    "stop": (3111, 350, 411),
    "three": (2966, 356, 405),
    "tree": (1407, 159, 193),
    "two": (3111, 345, 424),
    "up": (2948, 350, 425),
    "visual": (1288, 139, 165),
    "wow": (1724, 193, 206),
    "yes": (3228, 397, 419),
    "zero": (3250, 384, 418),
}
WORDS = tuple(CLIPS)
# Speakers of all 35 words: those of the two lists, and the others of the paper's 2,618. No one is in two splits.
SPEAKERS = (2112, 256, 250)

_NAME = re.compile(r"(?P<speaker>.+?)_nohash_\d+")


def labels(classes=35):
    """The classes of a task in the order of their numbers, a tuple of str.

    Arguments
    ---------
    classes : 35, 12 or list of str
        35 gives the words in alphabetical order, and so does a list of words. 12 gives the order of TensorFlow's trainer,
        in which a model's outputs are numbered: ``_silence_``, ``_unknown_``, yes, no, up, down, left, right, on, off, stop, go.

    Raises
    ------
    DataError
        ``classes`` is something else, holds what is no word, holds a word twice, or holds fewer than 2 words.
    """
    if isinstance(classes, list | tuple):
        return _own_words(classes)
    if classes not in (35, 12):
        raise DataError(f"classes: {classes!r} is none of 35, 12 and a list of words such as [zero, one, two]: set one of them")
    return WORDS if classes == 35 else (SILENCE, UNKNOWN, *COMMANDS)


def _own_words(classes):
    for word in classes:
        if not isinstance(word, str) or not word or word.startswith(("_", ".")):
            hint = "; YAML reads yes, no, on and off as truth values: quote them" if isinstance(word, bool) else ""
            raise DataError(f"classes: {word!r} of {list(classes)} is no word{hint}")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise DataError(f"classes: {list(classes)} holds {len(set(classes))} different words of {len(classes)}: name 2 or more, each once")
    return tuple(sorted(classes))


def published(classes=35, split_by="official"):
    """Split -> Published, for the task ``classes``.

    The 12 classes follow from the words' own counts and the rule of the trainer, ceil(10 %) unknown and as many silent
    clips: 36,923 / 4,445 / 4,890, the last being also what the test archive of the release holds. Nothing is published
    for words of other corpora and for splits by speaker.
    """
    names = labels(classes)
    if split_by != "official" or not set(names) <= {*WORDS, SILENCE, UNKNOWN}:
        return dict.fromkeys(SPLITS, Published(None))
    clips = [sum(CLIPS[word][i] for word in names if word in CLIPS) for i in range(len(SPLITS))]
    if UNKNOWN in names:
        clips = [number + 2 * _share(number) for number in clips]
    speakers = SPEAKERS if names == WORDS else [None] * len(SPLITS)
    return {split: Published(*counts) for split, *counts in zip(SPLITS, clips, [None] * len(SPLITS), speakers)}


def _share(number):
    return math.ceil(number * SHARE / 100)


def read(data_folder, split, *, classes=35, split_by="official", seed=1234):
    """The utterances of one split, words by path and silence last: see :func:`spikebrain.data.preparation.read` and :func:`describe`."""
    return preparation.read(describe(classes, split_by, seed), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, classes=35, split_by="official", seed=1234, **options):
    """Writes ``<save_folder>/<split>.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are CLASS_COLUMNS of :mod:`spikebrain.data.manifest`; a clip lasts ``duration`` seconds from sample
    ``start``, which is 0 but for silence. ``classes``, ``split_by`` and ``seed`` are those of :func:`describe`;
    ``options`` are ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.
    """
    return preparation.prepare(describe(classes, split_by, seed), data_folder, save_folder, splits, Options(**options))


def describe(classes=35, split_by="official", seed=1234):
    """The Corpus for one task on Speech Commands.

    Arguments
    ---------
    classes : 35, 12 or list of str
        See :func:`labels`. 12 is the task of the paper's top-one error as TensorFlow's trainer sets it: clips of the ten
        commands, and for each split ceil(10 %) as many clips of other words (``_unknown_``) and one-second pieces of the
        background recordings (``_silence_``). The draws are ours: the trainer's depend on the order in which the file system
        lists files. Its silence is a muted clip under noise of random volume, drawn anew in each step; we cut fixed pieces, as
        SpeechBrain's recipe does, which draws both kinds at random and so has about as many. Pieces of all splits come
        from the same recordings, as there.
    split_by : str
        "official" follows the two lists of the release. "speaker" is a split of our own: see :func:`speaker_splits`.
    seed : int
        Of the unknown words, the silence and the split by speaker. Keep it when only the training's seed changes: it
        decides what is tested.

    Raises
    ------
    DataError
        A value that is none of these.
    """
    names = labels(classes)
    if split_by not in SPLIT_BY:
        raise DataError(f"split_by: {split_by!r} is none of {', '.join(SPLIT_BY)}{did_you_mean(split_by, SPLIT_BY)}")
    task = Task(names, split_by, seed)
    return Corpus(
        name=NAME,
        published=published(classes, split_by),
        layout=LAYOUT,
        sample_rate=RATE,
        find=task.find,
        columns=CLASS_COLUMNS,
        there=task.there,
        files=task.files,
        probe=probe,
        settings={"classes": list(names), "split_by": split_by, "seed": seed},
    )


def speaker_splits(speakers, seed=1234):
    """Shares speakers out: a tenth to test, a tenth to validation, rounded up, but 2 or more to test; the others to training.

    Ours. A tenth is the share of the official lists, which give 250 and 256 of 2,618 speakers; of so many this takes 262
    each. Of few speakers a tenth would be one voice, and a test on one voice measures that voice: of 6 it takes 2
    for test and 1 for validation. The order is that of a hash of seed and name, so it is the same everywhere.

    Arguments
    ---------
    speakers : iterable of str
    seed : int

    Returns
    -------
    dict
        Speaker -> split.

    Raises
    ------
    DataError
        Fewer than 4 speakers.
    """
    order = sorted(set(speakers), key=lambda speaker: draw(seed, speaker))
    test, valid = max(2, math.ceil(len(order) / 10)), math.ceil(len(order) / 10)
    if len(order) < 4:
        raise DataError(f"split_by: speaker needs 4 speakers or more (2 test, 1 valid), there are {len(order)}: use split_by: official")
    return {speaker: "test" if i < test else "valid" if i < test + valid else "train" for i, speaker in enumerate(order)}


@dataclass(frozen=True)
class Task:
    """What is read of the corpus, and which split it belongs to; its methods are the hooks of a Corpus.

    classes : labels, in order
    split_by : "official" or "speaker"
    seed : of what is drawn
    """

    classes: tuple
    split_by: str
    seed: int

    @property
    def words(self):
        """The words that are classes of their own."""
        return [name for name in self.classes if name not in (SILENCE, UNKNOWN)]

    def there(self, data_folder):
        """All splits, where ``data_folder`` has one of the lists or a folder with clips of one of the words; else none."""
        listed = any(os.path.isfile(os.path.join(data_folder, name)) for name in LISTS.values())
        return list(SPLITS) if listed or any(_clips(data_folder, word) for word in self.words) else []

    def files(self, data_folder, split):
        """What ``split`` is made from, as File: its clips, the lists, and the background recordings where silence is asked for."""
        folders = _word_folders(data_folder)
        self._require(data_folder, folders)
        clips = {word: _clips(data_folder, word) for word in folders}
        mine = self._member(data_folder, split, [path for paths in clips.values() for path in paths])
        chosen = [path for word in self._read(folders) for path in clips[word] if mine(path)]
        if self.split_by == "official":
            chosen += LISTS.values()
        if SILENCE in self.classes:
            chosen += _clips(data_folder, NOISE)
        return [_file(data_folder, path) for path in chosen]

    def _read(self, folders):
        return sorted(folders) if UNKNOWN in self.classes else self.words

    def _require(self, data_folder, folders):
        missing = [word for word in self.words if word not in folders]
        for word in missing:
            if word not in WORDS:
                hint = did_you_mean(word, {*WORDS, *folders})
                raise DataError(f"classes: {word!r} is no word of {NAME} and no folder of {data_folder}{hint}")
        have = f"; there are {len(folders)} word folders: [{', '.join(folders)}]"
        if missing:
            what = f"{len(missing)} of the {len(self.words)} class folders are missing, the first is {missing[0]!r}"
            raise DataError(f"{data_folder}: {what}: restore them, or set classes to words that are there{have}")
        if UNKNOWN in self.classes and len(folders) == len(self.words):
            raise DataError(f"{data_folder}: classes: 12 needs other words for {UNKNOWN}: restore them, or set classes to [yes, ...]{have}")

    def _member(self, data_folder, split, clips):
        """A function that says whether a clip's path belongs to ``split``."""
        if self.split_by == "official":
            listed = {name: _listed(data_folder, name) for name in LISTS}
            if split in LISTS:
                return listed[split].__contains__
            return lambda path: not any(path in paths for paths in listed.values())
        splits = speaker_splits(filter(None, map(_speaker, clips)), self.seed)
        # A clip whose speaker cannot be told is training's to complain about.
        return lambda path: splits.get(_speaker(path), "train") == split

    def find(self, data_folder, split, files):
        """The clips of a split: (utterances without durations, list of Skipped)."""
        paths = [file.path for file in files if "/" in file.path and not file.path.startswith(NOISE)]
        bad, doubled = self._list_faults(data_folder, split, set(paths)) if self.split_by == "official" else ([], set())
        clips, more = _named([path for path in paths if path not in doubled])
        bad += more
        spoken = [clip for clip in clips if clip.label in self.words]
        self._require_classes(split, spoken, bad)
        if UNKNOWN not in self.classes:
            return spoken, bad
        others = sorted((clip for clip in clips if clip.label not in self.words), key=lambda clip: draw(self.seed, clip.wav))
        unknown = [replace(clip, label=UNKNOWN) for clip in others[: _share(len(spoken))]]
        if not unknown:
            raise DataError(f"{split}: class {UNKNOWN!r} has 0 clips: add clips of other words, or set classes to [yes, ...]")
        silence, more = self._silence(data_folder, split, _share(len(spoken)), files)
        return sorted(spoken + unknown, key=lambda clip: clip.wav) + silence, bad + more

    def _list_faults(self, data_folder, split, paths):
        listed = {name: _listed(data_folder, name) for name in LISTS}
        doubled = listed["valid"].keys() & listed["test"].keys()
        bad = []
        for path, number in listed.get(split, {}).items():
            where = f"{LISTS[split]}:{number}"
            if path in doubled:
                other = next(f"{LISTS[name]}:{listed[name][path]}" for name in LISTS if name != split)
                reason = f"lists {path}, and so does {other}: a clip belongs to 1 split, remove one of the 2 lines"
                bad.append(Skipped(_id(path), where, reason))
            elif path not in paths and self._expected(data_folder, path):
                bad.append(Skipped(_id(path), where, f"lists {path}, which is not there: restore it, or mend or remove the line"))
        return bad, doubled

    def _expected(self, data_folder, path):
        """Whether a listed clip that was not found has to be there: not where its word is a class that was not asked for."""
        word = path.partition("/")[0]
        if word in self.words or (UNKNOWN in self.classes and word in _word_folders(data_folder)):
            return True
        return word not in WORDS and not os.path.isfile(os.path.join(data_folder, path))

    def _require_classes(self, split, clips, bad):
        numbers = Counter(clip.label for clip in clips)
        empty = next((word for word in self.words if not numbers[word]), None)
        if empty is None:
            return
        if self.split_by == "speaker":
            repair = f"none of the speakers that fall to {split} said it: set another seed"
        elif split in LISTS:
            repair = f"no line of {LISTS[split]} lists a usable one: add some"
        else:
            repair = "its folder is empty, or the lists give all of it to valid and test: restore it"
        faults = f" ({len(bad)} faults, the first: {bad[0].path} {bad[0].reason})" if bad else ""
        raise DataError(f"{split}: class {empty!r} has 0 of {len(clips)} clips: {repair}, or leave {empty!r} out of classes{faults}")

    def _silence(self, data_folder, split, number, files):
        recordings, bad = [], []
        for file in files:
            if not file.path.startswith(NOISE):
                continue
            samples, problem = audio.probe(os.path.join(data_folder, file.path), RATE, True)
            if not problem and samples < CLIP:
                problem = f"lasts {samples} samples, a piece of silence needs {CLIP}: restore the file"
            if problem:
                bad.append(Skipped(_id(file.path), file.path, problem))
            else:
                recordings.append((file.path, samples))
        if not recordings:
            first = f": {bad[0].path} {bad[0].reason}" if bad else ""
            raise DataError(f"{NOISE}: 0 of {len(bad)} recordings can be cut into {SILENCE}{first}. Restore it, or set classes to 35")
        return [self._piece(split, i, *recordings[i % len(recordings)]) for i in range(number)], bad

    def _piece(self, split, number, path, samples):
        start = draw(self.seed, f"{split}/{number}") % (samples - CLIP + 1)
        return Utterance(f"silence_{split}_{number:04d}", path, 0.0, label=SILENCE, start=start)


def _word_folders(data_folder):
    return sorted(entry.name for entry in os.scandir(data_folder) if entry.is_dir() and not entry.name.startswith(("_", ".")))


def _clips(data_folder, word):
    """Paths of the recordings in a folder, sorted; names that begin with a dot are left out."""
    folder = os.path.join(data_folder, word)
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [f"{word}/{name}" for name in sorted(names) if name.endswith(".wav") and not name.startswith(".")]


def _file(data_folder, path):
    status = os.stat(os.path.join(data_folder, path))
    return File(path, status.st_size, status.st_mtime_ns)


def _listed(data_folder, split):
    """Path -> line number of the clips that the list of ``split`` names."""
    path = os.path.join(data_folder, LISTS[split])
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file: restore it, or set split_by: speaker to split without the lists")
    with open(path, "rb") as file:
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    # yes/0a7c2a8d_nohash_0.wav
    return {line.strip(): number for number, line in enumerate(lines, 1) if line.strip()}


def _stem(path):
    return os.path.basename(path).removesuffix(".wav")


def _id(path):
    return path.removesuffix(".wav").replace("/", "_")


def _speaker(path):
    match = _NAME.fullmatch(_stem(path))
    return match["speaker"] if match else ""


def _named(paths):
    """(utterances, list of Skipped) of the paths of clips; as in the release, a file without ``_nohash_`` is no clip."""
    clips, bad, foreign = [], [], []
    for path in paths:
        if "_nohash_" not in os.path.basename(path):
            foreign.append(path)
        elif speaker := _speaker(path):
            clips.append(Utterance(_id(path), path, 0.0, speaker, label=path.partition("/")[0]))
        else:
            reason = f"is named {os.path.basename(path)!r}, expected <speaker>_nohash_<number>.wav: rename or remove it"
            bad.append(Skipped(_id(path), path, reason))
    if foreign:
        logger.warning("%s: left out %d files without _nohash_ in their names, the first is %s", NAME, len(foreign), foreign[0])
    return clips, bad


def probe(data_folder, utterance, whole):
    """Seconds of an utterance and what is wrong with it, or None; silence was looked at when it was cut."""
    if utterance.label == SILENCE:
        return CLIP / RATE, None
    samples, problem = audio.probe(os.path.join(data_folder, utterance.wav), RATE, whole)
    return samples / RATE, problem


CORPUS = describe()
