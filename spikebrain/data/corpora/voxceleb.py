"""VoxCeleb: celebrities in interviews from YouTube, 16 kHz; identification of 1,251 speakers, verification of 40 unseen ones.

A. Nagrani et al., "VoxCeleb: a large-scale speaker identification dataset", Interspeech 2017, tables 3 and 4; J. S. Chung et al.,
"VoxCeleb2: deep speaker recognition", Interspeech 2018, table 2. A recording is ``<speaker>/<video>/<utterance>.wav``.

Identification shares the utterances of all speakers out by ``iden_split.txt``: ``iden-train``, ``iden-valid``, ``iden-test``.
Verification trains on ``vox1-dev`` (all of ``wav/`` but the speakers of the trial list) or ``vox2-dev``, and compares the
utterances ``vox1-o`` that the list of trials names: see :mod:`spikebrain.data.trials`. ``vox1-valid`` and ``vox2-valid``
are ours, whole videos of the development speakers: they are made, and taken out of the development split, only where they are asked for.
"""

import hashlib
import logging
import os
import re
import zipfile
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cached_property, partial

from spikebrain.data import preparation, trials
from spikebrain.data.draw import draw
from spikebrain.data.manifest import CLASS_COLUMNS, DataError, Utterance
from spikebrain.data.preparation import Corpus, File, Options, Published, Skipped

logger = logging.getLogger(__name__)

NAME = "VoxCeleb"
RATE = 16000
SEED = 1234  # of the videos that validate; fixed, for it decides what is trained on

IDEN_LIST, TRIAL_LIST = "iden_split.txt", "veri_test.txt"
PARTS = {"iden-train": "1", "iden-valid": "2", "iden-test": "3"}
DEVELOPMENT = {"vox1-dev": "wav", "vox2-dev": "vox2/wav"}  # split -> its recordings
VALIDATION = {"vox1-valid": "vox1-dev", "vox2-valid": "vox2-dev"}  # split -> the one that it is taken from
TRIALS = "vox1-o"
OPTIONS = {"trial_list": None, "valid_share": 0.03}

# The paper tells how many speakers train and test; validation's are not told apart from training's.
PUBLISHED = {
    "iden-train": Published(138361, None, 1251),
    "iden-valid": Published(6904),
    "iden-test": Published(8251, None, 1251),
    "vox1-dev": Published(148642, None, 1211),
    "vox1-valid": Published(None),
    "vox2-dev": Published(1092009, None, 5994),
    "vox2-valid": Published(None),
    "vox1-o": Published(4708, None, 40),
}
SPLITS = tuple(PUBLISHED)
PUBLISHED_TRIALS = 37720
RECORDINGS = {"wav": 153516, "vox2/wav": 1092009}  # of a whole folder

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/"
LAYOUT = f"""\
  wav/id10001/1zcIwhmdeo4/00001.wav    <speaker>/<video>/<utterance>, development and test part of VoxCeleb1 in one folder
  {IDEN_LIST}    for identification; lines such as: 1 id10001/1zcIwhmdeo4/00001.wav
  {TRIAL_LIST}    for verification; lines such as: 1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav
  vox2/wav/id00012/21Uxsk56VDQ/00001.wav    VoxCeleb2, converted to WAV; may be left out
Both lists are published in meta/ of {PAGE}"""

_ARCHIVE = re.compile(r".*\.zip|vox[12]_.*_part[a-z]+")


class Folder:
    """What lies in a data folder, each part looked at once, when it is first asked for.

    Arguments
    ---------
    data_folder : str
    trial_list : str
        Relative to it.
    """

    def __init__(self, data_folder, trial_list):
        self.path, self.trial_list, self._recordings = data_folder, trial_list, {}

    def has(self, name):
        """Whether there is a file or folder ``name``."""
        return os.path.exists(os.path.join(self.path, name))

    def file(self, name):
        """``name`` as File."""
        status = os.stat(os.path.join(self.path, name))
        return File(name, status.st_size, status.st_mtime_ns)

    def speakers(self, place):
        """Names of the folders in ``place``: the speakers, without a look at what they say."""
        path = os.path.join(self.path, place)
        return set(os.listdir(path)) if os.path.isdir(path) else set()

    def recordings(self, place):
        """Path below ``place`` (``wav`` or ``vox2/wav``) -> File of its WAV files."""
        return {path: file for path, file in self._listed(place).items() if path.endswith(".wav")}

    def unconverted(self, place):
        """The .m4a files of VoxCeleb2's release that have no WAV file of the same name, as File, wherever they lie."""
        return [file for path, file in self._listed(place).items() if path.endswith(".m4a")]

    def _listed(self, place):
        if place not in self._recordings:
            root = place.partition("/")[0]
            files = preparation.list_files(self.path, root) if self.has(root) else []
            found = {f.path.removeprefix(f"{place}/"): f for f in files if f.path.startswith(f"{place}/") and f.path.endswith(".wav")}
            waiting = [f for f in files if f.path.endswith(".m4a") and f"{_tail(f.path).removesuffix('.m4a')}.wav" not in found]
            self._recordings[place] = found | {file.path: file for file in waiting}
        return self._recordings[place]

    @cached_property
    def parts(self):
        """Path -> list of (line number, part) in which ``iden_split.txt`` names it."""
        path = os.path.join(self.path, IDEN_LIST)
        if not os.path.isfile(path):
            raise DataError(f"{path}: there is no such file, which splits identification: {_from_the_page(IDEN_LIST, self.path)}")
        named, bad = defaultdict(list), []
        for number, line in trials.read_lines(path):
            # 1 id10001/1zcIwhmdeo4/00001.wav
            problem = _part_problem(line)
            if problem:
                bad.append((number, problem))
            else:
                part, name = line.split()
                named[name].append((number, part))
        trials.refuse_lines(path, bad)
        return dict(named)

    @cached_property
    def trials(self):
        """The list of Trial."""
        path = os.path.join(self.path, self.trial_list)
        if not os.path.isfile(path):
            what = "the speakers in it are kept out of training" if self.trial_list == TRIAL_LIST else "set trial_list to one that is"
            raise DataError(f"{path}: there is no such list of trials ({what}): {_from_the_page(self.trial_list, self.path)}")
        return trials.read(path)

    @cached_property
    def tested(self):
        """The speakers of the trials."""
        return {trials.speaker_of(path) for path in trials.utterances(self.trials)}

    @cached_property
    def archives(self):
        """Archives that lie in the folder or beside VoxCeleb2's recordings: their names, sorted."""
        places = [place for place in ("", "vox2/") if os.path.isdir(os.path.join(self.path, place))]
        names = [place + name for place in places for name in os.listdir(os.path.join(self.path, place))]
        return sorted(name for name in names if _ARCHIVE.fullmatch(os.path.basename(name)))

    def archives_of(self, place):
        """The archives that belong to ``place``, told by their names."""
        return [name for name in self.archives if ("vox2" in name) == place.startswith("vox2")]

    def packed_hint(self, place):
        """What a message about an absent recording says of an archive beside it."""
        names = self.archives_of(place)
        return f"; {names[0]} lies there, unpack all of it" if names else ""


class Task:
    """What is read of the corpus; its methods are the hooks of a Corpus.

    Arguments
    ---------
    trial_list : str
    valid_share : float
    splits : collection of str or None
        Those asked for; None: all that are there, but for validation of verification.
    """

    def __init__(self, trial_list, valid_share, splits):
        self.trial_list, self.valid_share = trial_list, valid_share
        self.asked = None if splits is None else frozenset(splits)
        self._folders = {}

    def there(self, data_folder):
        """The splits of ``data_folder``; one that was asked for is there with its recordings, so that a missing list can be told."""
        folder = self._folders[data_folder] = Folder(data_folder, self.trial_list)
        found = [split for split in SPLITS if self._is_there(folder, split)]
        if not found and folder.archives and not (folder.has("wav") or folder.has("vox2")):
            raise DataError(f"{data_folder}: holds {folder.archives[0]} and no wav/: {_unpacking(folder.archives[0])}")
        return found

    def _is_there(self, folder, split):
        if not folder.has(_place(split).partition("/")[0]):
            return False
        if self.asked is not None and split in self.asked:
            return True
        return split not in VALIDATION and folder.has(IDEN_LIST if split in PARTS else self.trial_list)

    def _folder(self, data_folder):
        return self._folders.get(data_folder) or self._folders.setdefault(data_folder, Folder(data_folder, self.trial_list))

    def files(self, data_folder, split):
        """What ``split`` is made from, as File: its recordings, its list, and for development what is not converted or unpacked yet."""
        folder, place = self._folder(data_folder), _place(split)
        recordings = folder.recordings(place)
        if split in PARTS:
            mine = {path for path, lines in folder.parts.items() if PARTS[split] in {part for _, part in lines}}
            return [file for path, file in recordings.items() if path in mine] + [folder.file(IDEN_LIST)]
        listed = [folder.file(self.trial_list)]
        if split == TRIALS:
            mine = set(trials.utterances(folder.trials))
            return [file for path, file in recordings.items() if path in mine] + listed
        mine = self._member(folder, split)
        files = [file for path, file in recordings.items() if mine(path)] + listed
        return files if split in VALIDATION else [*files, *folder.unconverted(place), *map(folder.file, folder.archives_of(place))]

    def _member(self, folder, split):
        """A function that says whether a recording's path belongs to a development split or the validation split made of it."""
        tested, development = folder.tested, VALIDATION.get(split, split)
        valid = set()
        if split in VALIDATION or self._carved(split):
            paths = folder.recordings(DEVELOPMENT[development])
            valid = validation_videos([path for path in paths if trials.speaker_of(path) not in tested], self.valid_share)
        return lambda path: trials.speaker_of(path) not in tested and (os.path.dirname(path) in valid) == (split in VALIDATION)

    def _carved(self, development):
        return self.asked is not None and any(VALIDATION[split] == development for split in self.asked & VALIDATION.keys())

    def find(self, data_folder, split, files):
        """The utterances of a split: (utterances without durations, list of Skipped)."""
        folder, place = self._folder(data_folder), _place(split)
        paths = [file.path.removeprefix(f"{place}/") for file in files if file.path.startswith(f"{place}/") and file.path.endswith(".wav")]
        if split in PARTS:
            bad = self._identification_faults(folder, split)
        elif split == TRIALS:
            bad = _absent_in_trials(folder)
        else:
            bad = list(_development_faults(folder, split)) if split in DEVELOPMENT else []
        left_out = {item.path for item in bad} | {item.id for item in bad}
        good = [path for path in paths if not trials.path_problem(path)]
        found = [_utterance(place, path) for path in good]
        return [u for u in found if not {u.wav, u.speaker} & left_out], bad

    def _identification_faults(self, folder, split):
        there, bad = folder.recordings("wav"), []
        for path, lines in folder.parts.items():
            if PARTS[split] in {part for _, part in lines}:
                bad += _listed_badly(folder, path, lines, path in there)
        # Where training is not prepared, a model that was trained elsewhere is tested: the list says on whom.
        usable = {path: part for path, [(_, part), *more] in folder.parts.items() if not more and (path in there or not self._trains)}
        spoken = Counter(map(trials.speaker_of, usable))
        trained = {trials.speaker_of(path) for path, part in usable.items() if part == PARTS["iden-train"]}
        mine = {trials.speaker_of(path): path for path, part in usable.items() if part == PARTS[split] and path in there}
        for speaker, path in mine.items():
            if spoken[speaker] == 1:
                bad.append(_lonely(speaker, "wav", path))
            elif speaker not in trained:
                what = f"has {spoken[speaker]} utterances, none of them for training (part {PARTS['iden-train']} of {IDEN_LIST})"
                reason = f"{what}, but {split} tests this speaker: give it some to train on, or remove its lines"
                bad.append(Skipped(speaker, f"wav/{speaker}", reason))
        return bad

    @property
    def _trains(self):
        return self.asked is None or "iden-train" in self.asked

    def compare(self, data_folder, utterances):
        """What is not as published, a line each; a development split is taken together with the validation split made of it."""
        whole = {split: list(found) for split, found in utterances.items()}
        for split, development in VALIDATION.items():
            if split in whole and development in whole:
                whole[development] += whole.pop(split)
        published = published_counts(self.trial_list)
        for split, found in whole.items():
            told = preparation.difference(split, preparation.count(found), published[split])
            if told:
                yield told
        number = len(self._folder(data_folder).trials) if TRIALS in whole else PUBLISHED_TRIALS
        if self.trial_list == TRIAL_LIST and number != PUBLISHED_TRIALS:
            yield f"{TRIAL_LIST} has {number} trials (published: {PUBLISHED_TRIALS})"

    def settings(self, data_folder, splits):
        """What else results depend on, as plain values: see :func:`prepare`."""
        if set(splits) <= PARTS.keys():
            return {}
        folder = self._folder(data_folder)
        told = {"trial_list": self.trial_list, "trials": len(folder.trials)}
        with open(os.path.join(data_folder, self.trial_list), "rb") as file:
            told["trials_hash"] = hashlib.sha256(file.read()).hexdigest()
        if VALIDATION.keys() & set(splits):
            told["valid_share"] = self.valid_share
        told["removed_speakers"] = {}
        for split in splits:
            if split in DEVELOPMENT:
                names = sorted(folder.tested & folder.speakers(DEVELOPMENT[split]))
                told["removed_speakers"][split] = {"count": len(names), "names": names}
        return told


def _place(split):
    return DEVELOPMENT.get(VALIDATION.get(split, split), "wav")


def _tail(path):
    """The last three parts of a path: speaker, video, utterance."""
    return "/".join(path.split("/")[-3:])


def _from_the_page(name, data_folder):
    return f"it is published as meta/{name} at {PAGE}, put it into {data_folder}"


def _part_problem(line):
    words = line.split()
    if len(words) != 2:
        return f"has {len(words)} words, expected 2, <1|2|3> <speaker>/<video>/<utterance>.wav: mend the line"
    if words[0] not in PARTS.values():
        return f"begins with {words[0]!r}, expected 1 (training), 2 (validation) or 3 (test): mend the line"
    return trials.path_problem(words[1])


def _listed_badly(folder, path, lines, there):
    """What is wrong with a recording that ``iden_split.txt`` names, a list of at most one Skipped."""
    name, (number, _) = trials.utterance_id(path), lines[0]
    if len(lines) > 1:
        numbers = ", ".join(str(number) for number, _ in lines)
        reason = f"is named by lines {numbers} of {IDEN_LIST}: an utterance belongs to 1 part, remove the other lines"
        return [Skipped(name, f"wav/{path}", reason)]
    if not there:
        reason = f"is not there, but line {number} of {IDEN_LIST} names it: restore it, or remove the line{folder.packed_hint('wav')}"
        return [Skipped(name, f"wav/{path}", reason)]
    return []


def _lonely(speaker, place, path):
    reason = f"is the only utterance of {speaker}: a speaker needs 2 or more to be trained and recognised, add some or remove the speaker"
    return Skipped(trials.utterance_id(path), f"{place}/{path}", reason)


def _absent_in_trials(folder):
    """Recordings that trials name and that are not there, each as Skipped."""
    there, numbers = folder.recordings("wav"), trials.numbers(folder.trials)
    bad = []
    for path in trials.utterances(folder.trials):
        if path not in there:
            named = f"{numbers[path]} of {len(folder.trials)} trials of {folder.trial_list} name it"
            reason = f"is not there, but {named}: restore it, or remove those trials{folder.packed_hint('wav')}"
            bad.append(Skipped(trials.utterance_id(path), f"wav/{path}", reason))
    return bad


def _development_faults(folder, split):
    """What a folder of development recordings lacks or has too much, each as Skipped."""
    place = DEVELOPMENT[split]
    recordings = folder.recordings(place)
    mine = [path for path in recordings if trials.speaker_of(path) not in folder.tested]
    if recordings and not mine:
        number = len({trials.speaker_of(path) for path in recordings})
        raise DataError(
            f"{split}: all {number} speakers of {place}/ are in {folder.trial_list}, 0 are left to train on: train on another split, "
            f"or set trial_list to a list of fewer speakers ({TRIAL_LIST})"
        )
    for path in mine:
        if trials.path_problem(path):
            yield Skipped("", f"{place}/{path}", f"is no {place}/<speaker>/<video>/<utterance>.wav: move or remove it")
    alone = Counter(trials.speaker_of(path) for path in mine)
    yield from (_lonely(trials.speaker_of(path), place, path) for path in mine if alone[trials.speaker_of(path)] == 1)
    yield from _unconverted(folder.unconverted(place), place)
    for archive in folder.archives_of(place):
        reason = _packed(folder, archive, place)
        if reason:
            yield Skipped("", archive, reason)


def _unconverted(files, place):
    if files:
        first = files[0].path
        to = f"{place}/{_tail(first).removesuffix('.m4a')}.wav"
        what = f"is 1 of {len(files)} .m4a files without their .wav"
        yield Skipped("", first, f"{what}: convert each, for example ffmpeg -i {first} -ac 1 -ar {RATE} {to}")


def _packed(folder, archive, place):
    """What of an archive is not unpacked, or None."""
    there = {_tail(path).rpartition(".")[0] for path in [*folder.recordings(place), *(file.path for file in folder.unconverted(place))]}
    if not archive.endswith(".zip"):
        # A piece cannot be looked into: the number of recordings tells.
        if len(there) >= RECORDINGS[place]:
            return None
        return f"lies beside {len(there)} of {RECORDINGS[place]} recordings: {_unpacking(archive)}, or remove it"
    try:
        with zipfile.ZipFile(os.path.join(folder.path, archive)) as file:
            names = [_tail(name).rpartition(".")[0] for name in file.namelist() if name.endswith((".wav", ".m4a"))]
    except (zipfile.BadZipFile, OSError) as error:
        return f"cannot be looked into ({error}): download it again, or remove it where all of it is unpacked"
    absent = [name for name in names if name not in there]
    if not absent:
        return None
    return f"is half unpacked, {len(absent)} of its {len(names)} recordings are not there, the first is {absent[0]}: {_unpacking(archive)}"


def _unpacking(archive):
    if archive.endswith(".zip"):
        return f"run unzip -n {archive}"
    whole = re.sub(r"_part[a-z]+$", "", archive)
    return f"run cat {whole}_part* > {whole}.zip and unzip -n {whole}.zip"


def _utterance(place, path):
    speaker = trials.speaker_of(path)
    return Utterance(trials.utterance_id(path), f"{place}/{path}", 0.0, speaker, label=speaker)


def validation_videos(paths, share):
    """The videos that validate: of each speaker who has two or more, ``share`` of them, at least one and never all.

    Ours. Whole videos, because utterances of one video share its microphone and room, and a network that has trained on the video
    would be told the speaker by them. The draw is by a hash of the video's name, so it is the same everywhere.

    Arguments
    ---------
    paths : iterable of str
        ``<speaker>/<video>/<utterance>.wav``.
    share : float

    Returns
    -------
    set of str
        ``<speaker>/<video>``.
    """
    videos = defaultdict(set)
    for path in paths:
        videos[trials.speaker_of(path)].add(os.path.dirname(path))
    chosen = set()
    for mine in videos.values():
        number = min(len(mine) - 1, max(1, round(share * len(mine))))
        chosen.update(sorted(mine, key=partial(draw, SEED))[:number])
    return chosen


def published_counts(trial_list=None):
    """Split -> Published; with another list of trials than VoxCeleb1's original one, what depends on the list has no published counts."""
    if trial_list in (None, TRIAL_LIST):
        return PUBLISHED
    return PUBLISHED | {split: Published(None) for split in ("vox1-dev", TRIALS)}


def describe(trial_list=None, valid_share=OPTIONS["valid_share"], splits=None):
    """The Corpus.

    Arguments
    ---------
    trial_list : str or None
        Path of the list of trials, relative to the data folder; None: ``veri_test.txt``. The development splits lose its speakers.
    valid_share : float
        Share of the development videos of each speaker that validates, where ``splits`` names ``vox1-valid`` or ``vox2-valid``.
    splits : list of str or None
        The splits that will be read.

    Raises
    ------
    DataError
        A list outside of the data folder, or a share that is not between 0 and 1.
    """
    return _corpus(_task(trial_list, valid_share, splits))


def _task(trial_list, valid_share, splits):
    trial_list = TRIAL_LIST if trial_list is None else trial_list
    if not isinstance(trial_list, str) or not trial_list or os.path.isabs(trial_list) or ".." in trial_list.split("/"):
        raise DataError(f"trial_list: {trial_list!r} is no path inside the data folder: put the list there and name it relative to it")
    if not isinstance(valid_share, int | float) or not 0 < valid_share < 1:
        raise DataError(f"valid_share: {valid_share!r} is no share of the videos: give more than 0 and less than 1, e.g. 0.03")
    return Task(trial_list, valid_share, splits)


def _corpus(task):
    return Corpus(
        name=NAME,
        published=published_counts(task.trial_list),
        layout=LAYOUT,
        sample_rate=RATE,
        find=task.find,
        columns=CLASS_COLUMNS,
        there=task.there,
        files=task.files,
        compare=task.compare,
    )


def read(data_folder, split, *, trial_list=None, valid_share=OPTIONS["valid_share"]):
    """The utterances of one split, development whole: see :func:`spikebrain.data.preparation.read` and :func:`describe`."""
    return preparation.read(describe(trial_list, valid_share, [split]), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, trial_list=None, valid_share=OPTIONS["valid_share"], **options):
    """Writes ``<save_folder>/<split>.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are CLASS_COLUMNS of :mod:`spikebrain.data.manifest`; the label is the speaker. ``splits=None`` takes every published
    split that is there. ``trial_list`` and ``valid_share`` are those of :func:`describe`, ``options`` are ``skip_bad_audio``,
    ``strict_counts`` and ``decode``, as for every corpus.

    With a split of verification, ``settings`` of the Preparation (``data.settings`` of ``results.json``) hold

    - ``trial_list``, relative to the data folder, the number of its ``trials`` and ``trials_hash``, its SHA-256;
    - ``removed_speakers``: development split -> ``count`` and ``names`` of speakers of the trials that lay in it, who are not
      trained on; they are logged, too. In a folder as published, ``vox1-dev`` loses the 40 speakers of the trials so, ``vox2-dev`` none;
    - ``valid_share``, where validation was taken out of development.
    """
    task = _task(trial_list, valid_share, splits)
    corpus = _corpus(task)
    chosen = preparation.choose_splits(corpus, data_folder, splits)
    corpus = replace(corpus, settings=task.settings(data_folder, chosen))
    done = preparation.prepare(corpus, data_folder, save_folder, chosen, Options(**options))
    for split, removed in done.settings.get("removed_speakers", {}).items():
        if removed["count"]:
            what = f"removed {removed['count']} speakers that {done.settings['trial_list']} tests"
            logger.warning("%s: %s: %s from training: %s", NAME, split, what, ", ".join(removed["names"]))
    return done


CORPUS = describe()
