"""Lays recordings of spoken digits out as VoxCeleb, as Speech Commands, or, joined to strings, as LibriSpeech: real voices for three tasks.

The source is the Free Spoken Digit Dataset (Z. Jackson et al., 2016-2018): six people say each digit 50 times, 8 kHz. Its folder holds
``metadata.csv`` (one line a recording: path, speaker, gender, label, split, split_official) and the recordings.

Recordings become 16 kHz (nothing above 4 kHz: set ``f_max: 4000`` for mel bands) and keep their length. The split is the corpus's own:
takes 0 to 4 of each speaker and digit test; of the others 5 to 9 validate (ours) and the rest trains.

As VoxCeleb a recording is ``wav/<speaker>/<video>/<utterance>.wav``. The corpus knows no sessions: a "video" here is a range of takes, of
all digits, that are used alike. ``iden_split.txt`` holds the split. ``veri_test.txt`` is ours: trials of the speakers that the column
``split`` tests, who are to be kept out of training for it.

As Speech Commands it is ``<word>/<speaker>_nohash_<take>.wav``, the speaker as eight hexadecimal digits, with the two lists of the split;
there is no background noise, so that the task of 12 classes is not to be had. As LibriSpeech: :mod:`spikebrain.data.connected_digits`.
"""

import csv
import hashlib
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from spikebrain.data import connected_digits, trials
from spikebrain.data.corpora.gsc import LISTS
from spikebrain.data.corpora.voxceleb import IDEN_LIST, PARTS, RATE, TRIAL_LIST
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic.folder import make_folder
from spikebrain.data.synthetic.speech import resample

VERSION = 1
LIST = "metadata.csv"
COLUMNS = ("path", "speaker", "gender", "label", "split", "split_official")
FIRST = 10001  # of the speakers' numbers
VALID = range(5, 10)  # takes
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Takes that make a video, as its name says.
VIDEOS = {"takes-00-04": range(5), "takes-05-09": VALID, **{f"takes-{i}-{i + 9}": range(i, i + 10) for i in range(10, 100, 10)}}

_NAME = re.compile(r".*?(?P<digit>\d)_(?P<speaker>[^/]+)_(?P<take>\d{1,2})\.(wav|flac)")


@dataclass(frozen=True)
class Recording:
    """One recording: its path in the source, its path as VoxCeleb's lists write it, and its part of identification."""

    source: str
    path: str
    part: str


def make(out, source, layout="voxceleb"):
    """Writes the recordings of the folder ``source`` into ``out``, or keeps what was made of them: see :func:`make_folder`.

    Arguments
    ---------
    out, source : str or Path
    layout : str
        One of LAYOUTS.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    DataError
        ``source`` is no such folder, its list lacks a column or names what is no recording or is not there, or ``out`` holds something
        that was not made here.
    """
    source = Path(source)
    rows = read_list(source)
    made_of = hashlib.sha256((source / LIST).read_bytes()).hexdigest()
    settings = {"corpus": layout, "made_of": "spoken digits", "list": made_of, "version": VERSION}
    return make_folder(out, settings, lambda folder: LAYOUTS[layout](folder, source, rows))


def read_list(source):
    """The rows of a source's list, dicts of COLUMNS.

    Raises
    ------
    DataError
        No list, no such columns, no rows, a name that tells no digit, speaker and take, or an absent recording.
    """
    path = Path(source) / LIST
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such file: name the folder of a corpus of spoken digits, which holds {LIST} and its recordings"
        )
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        rows = list(reader)
    if missing or not rows:
        raise DataError(f"{path}: holds {len(rows)} recordings and lacks the columns {missing}: it needs {', '.join(COLUMNS)}")
    strange = [row["path"] for row in rows if not _NAME.fullmatch(row["path"])]
    absent = [row["path"] for row in rows if not (path.parent / row["path"]).is_file()]
    for what, names, repair in (
        ("are not named <digit>_<speaker>_<take>", strange, "rename them"),
        ("are not there", absent, "restore them, or remove their lines"),
    ):
        if names:
            raise DataError(f"{path}: {len(names)} of its {len(rows)} recordings {what}, the first is {names[0]}: {repair}")
    return rows


def recordings(rows):
    """What the rows of a list become as VoxCeleb, a list of Recording sorted by path."""
    numbers = {name: f"id{FIRST + i}" for i, name in enumerate(sorted({row["speaker"] for row in rows}))}
    made = []
    for row in rows:
        digit, take, split = _told(row)
        video = next(name for name, takes in VIDEOS.items() if take in takes)
        path = f"{numbers[row['speaker']]}/{video}/{digit}{take:04d}.wav"
        made.append(Recording(row["path"], path, PARTS[f"iden-{split}"]))
    return sorted(made, key=lambda recording: recording.path)


def words(rows):
    """What the rows of a list become as Speech Commands, a list of Recording sorted by path; ``part`` is train, valid or test."""
    made = []
    for row in rows:
        digit, take, split = _told(row)
        speaker = f"{zlib.crc32(row['speaker'].encode()):08x}"
        made.append(Recording(row["path"], f"{WORDS[digit]}/{speaker}_nohash_{take}.wav", split))
    return sorted(made, key=lambda recording: recording.path)


def _told(row):
    """(digit, take, train, valid or test) of a row."""
    digit, take = (int(_NAME.fullmatch(row["path"])[key]) for key in ("digit", "take"))
    return digit, take, "test" if row["split_official"] == "test" else "valid" if take in VALID else "train"


def _write_all(folder, source, made):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda recording: _write(folder / recording.path, source / recording.source), made))


def _fill_gsc(folder, source, rows):
    made = words(rows)
    _write_all(folder, source, made)
    for split, name in LISTS.items():
        (folder / name).write_text("".join(f"{one.path}\n" for one in made if one.part == split), encoding="utf-8")


def _fill_voxceleb(folder, source, rows):
    made = recordings(rows)
    _write_all(folder / "wav", source, made)
    (folder / IDEN_LIST).write_text("".join(f"{recording.part} {recording.path}\n" for recording in made), encoding="utf-8")
    people = _people(rows)
    (folder / "vox1_meta.csv").write_text(_meta(people), encoding="utf-8")
    tested = [number for number, (_, _, part) in people.items() if part == "test"]
    if tested:
        female = [number for number, (_, sex, _) in people.items() if sex == "f"]
        trials.write(folder / TRIAL_LIST, trials.balanced([r.path for r in made if trials.speaker_of(r.path) in tested], female))


def _write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    wav, rate = soundfile.read(source, dtype="float32")
    wav = wav if rate == RATE else np.clip(resample(wav, rate, RATE), -1, 1)
    soundfile.write(path, wav, RATE, subtype="PCM_16")


def _people(rows):
    """Speaker's id -> (name, sex, whether dev or test of verification)."""
    told = {row["speaker"]: (row["gender"], "test" if row["split"] == "test" else "dev") for row in rows}
    return {f"id{FIRST + i}": (name, *told[name]) for i, name in enumerate(sorted(told))}


def _meta(people):
    # The source does not say which nations they are of.
    lines = ["VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"]
    lines += [f"{number}\t{name}\t{sex}\t\t{part}" for number, (name, sex, part) in people.items()]
    return "".join(f"{line}\n" for line in lines)


def _fill_librispeech(folder, source, rows):
    told = []
    for row in rows:
        digit, take, _ = _told(row)
        told.append((row["path"], row["speaker"], digit, take, row["split"] == "test"))
    connected_digits.write(folder, source, told)


# Corpus -> what fills a folder in its layout.
LAYOUTS = {"gsc": _fill_gsc, "librispeech": _fill_librispeech, "voxceleb": _fill_voxceleb}
