"""LibriSpeech: read English audio books, 16 kHz.

V. Panayotov, G. Chen, D. Povey, S. Khudanpur, "LibriSpeech: an ASR corpus based on
public domain audio books", ICASSP 2015; counts are those of its Table 1 and README.
"""

import os
import re

from spikebrain.data import preparation
from spikebrain.data.manifest import Utterance
from spikebrain.data.preparation import Corpus, Options, Published, Skipped

TRANSCRIPT = ".trans.txt"
AUDIO = ".flac"

LAYOUT = """\
  train-clean-100/103/1240/103-1240-0000.flac
  train-clean-100/103/1240/103-1240.trans.txt    lines such as: 103-1240-0000 CHAPTER ONE
  dev-clean/... dev-other/... test-clean/... test-other/... train-clean-360/... train-other-500/..."""

PUBLISHED = {
    "train-clean-100": Published(28539, 100.6, 251),
    "train-clean-360": Published(104014, 363.6, 921),
    "train-other-500": Published(148688, 496.7, 1166),
    "dev-clean": Published(2703, 5.4, 40),
    "dev-other": Published(2864, 5.3, 33),
    "test-clean": Published(2620, 5.4, 40),
    "test-other": Published(2939, 5.1, 33),
}

_ID = re.compile(r"[^-\s]+-[^-\s]+-[^-\s]+")


def read(data_folder, split):
    """The utterances of one split, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(CORPUS, data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, skip_bad_audio=False, strict_counts=False, decode=None):
    """Writes ``<save_folder>/<split>.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`."""
    return preparation.prepare(CORPUS, data_folder, save_folder, splits, Options(skip_bad_audio, strict_counts, decode))


def find(data_folder, split, files):
    """Pairs the transcripts of a split with its recordings: (utterances without durations, list of Skipped)."""
    audio, bad = _recordings(files)
    texts, more = _transcripts(data_folder, files)
    bad += more
    faulty = {item.id for item in bad}
    for name in sorted(audio.keys() - texts.keys() - faulty):
        bad.append(Skipped(name, audio[name], f"has no transcript: no line of a {TRANSCRIPT} file begins with {name}: add it"))
    for name in sorted(texts.keys() - audio.keys() - faulty):
        text, where = texts[name]
        bad.append(Skipped(name, where, f"transcribes {name}, but there is no {name}{AUDIO} in {split}: restore the recording"))
    both = sorted(texts.keys() & audio.keys() - faulty)
    return [Utterance(name, audio[name], 0.0, name.split("-")[0], texts[name][0]) for name in both], bad


def _recordings(files):
    audio, bad = {}, []
    for file in files:
        if not file.path.endswith(AUDIO):
            continue
        name = os.path.basename(file.path).removesuffix(AUDIO)
        if name in audio:
            bad.append(Skipped(name, file.path, f"has the id of {audio[name]}: ids must be unique, rename or remove one of the 2 files"))
        audio.setdefault(name, file.path)
    return audio, bad


def _transcripts(data_folder, files):
    texts, bad = {}, []
    for file in files:
        if not file.path.endswith(TRANSCRIPT):
            continue
        for number, line in _lines(data_folder, file.path, bad):
            _add_line(texts, bad, f"{file.path}:{number}", line)
    return texts, bad


def _lines(data_folder, path, bad):
    with open(os.path.join(data_folder, path), "rb") as file:
        content = file.read()
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        bad.append(Skipped("", path, f"is not UTF-8 text (byte {error.start} of {len(content)}): restore the file"))
        return []
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _add_line(texts, bad, where, line):
    # 103-1240-0000 CHAPTER ONE MISSUS RACHEL LYNDE IS SURPRISED
    name, _, text = line.partition(" ")
    if not _ID.fullmatch(name):
        bad.append(Skipped("", where, f"begins with {name[:40]!r}, expected <speaker>-<chapter>-<number> and the words: mend the line"))
    elif name in texts:
        bad.append(Skipped(name, where, f"is the 2nd transcript of {name}, the 1st is {texts[name][1]}: ids must be unique, remove one"))
    elif not text.strip():
        bad.append(Skipped(name, where, f"{name} has an empty transcript (0 words): write its words or remove line and recording"))
    else:
        texts[name] = (" ".join(text.split()), where)


CORPUS = Corpus("LibriSpeech", PUBLISHED, LAYOUT, 16000, find)
