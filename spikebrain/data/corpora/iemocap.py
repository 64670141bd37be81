"""IEMOCAP: dialogues of ten actors, acted and improvised, English, 16 kHz; four classes, 5,531 utterances.

C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language Resources and Evaluation 42, 2008. Five
sessions of two speakers each, of whom no one is in two sessions. As usual, and as for emotion2vec and PTS-SNN, excited counts as
happy, and of the other labels none is used. The counts are those in general use, e.g. in emotion2vec's code.

The letter in a dialogue's name, the F of Ses01F_impro01, is who wears the markers; who speaks is told by the letter before an
utterance's number.
"""

import os
import re
from dataclasses import replace

from spikebrain.data import emotion, preparation
from spikebrain.data.emotion import EmotionCorpus
from spikebrain.data.folds import Protocol
from spikebrain.data.manifest import Utterance
from spikebrain.data.preparation import Options, Skipped

EMOTIONS = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
UNUSED = tuple("fru fea sur dis oth xxx".split())
CLASSES = 4
OPTIONS = emotion.OPTIONS

# Of each session: utterances.
NUMBERS = {
    "angry": (229, 137, 240, 327, 170),
    "happy": (278, 327, 286, 303, 442),
    "neutral": (384, 362, 320, 258, 384),
    "sad": (194, 197, 305, 143, 245),
}
SESSIONS = tuple("12345")
EVALUATION, SENTENCES = "dialog/EmoEvaluation", "sentences/wav"

LAYOUT = f"""\
  Session1/{EVALUATION}/Ses01F_impro01.txt    lines such as: [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5, 2.5, 2.5]
  Session1/{SENTENCES}/Ses01F_impro01/Ses01F_impro01_F000.wav    or .flac
  Session2/... Session3/... Session4/... Session5/..."""

# Leave one session out, a fifth of the other four validates at random: as published. Under "speaker" the next session validates.
PROTOCOLS = {
    "paper": Protocol("session", 5, each=True, valid=0.2),
    "random": emotion.RANDOM,
    "speaker": Protocol("session", 5, each=True),
}

_TURN = re.compile(r"\[\s*[\d.]+\s*-\s*[\d.]+\s*\]\s+(?P<id>\S+)\s+(?P<emotion>\S+)\s+\[[^\]]*\]")
_ID = re.compile(r"(?P<dialogue>Ses0(?P<session>\d)[FM]_\w+)_(?P<speaker>[FM])\d{3}")


class Sessions:
    """The evaluated turns of the dialogues, and the recordings of their sentences."""

    def there(self, data_folder):
        """Whether ``data_folder`` has a session."""
        return any(os.path.isdir(os.path.join(data_folder, f"Session{session}")) for session in SESSIONS)

    def files(self, data_folder):
        """The evaluations and sentences of every session, as File; what lies in folders beside the evaluations is not read."""
        found = []
        for session in SESSIONS:
            for place in (f"Session{session}/{EVALUATION}", f"Session{session}/{SENTENCES}"):
                if os.path.isdir(os.path.join(data_folder, place)):
                    listed = preparation.list_files(data_folder, place)
                    found += listed if place.endswith(SENTENCES) else [f for f in listed if _is_evaluation(f.path)]
        return found

    def find(self, data_folder, files):
        """(line of its rating, Utterance that has the corpus's own label) of each rated turn that is recorded, and a list of Skipped."""
        named, bad = emotion.recordings(files)
        evaluations = [file.path for file in files if _is_evaluation(file.path)]
        bad += _unrated(named, evaluations)
        turns = {}
        for path in evaluations:
            for number, line in _lines(data_folder, path):
                _add_turn(turns, bad, path, number, line)
        bad += [_unrecorded(*turn) for turn in turns.values() if turn[1].wav not in named and turn[1].label not in UNUSED]
        return [(where, replace(turn, wav=named[turn.wav])) for where, turn in turns.values() if turn.wav in named], bad


def _is_evaluation(path):
    return os.path.dirname(path).endswith(EVALUATION) and path.endswith(".txt")


def _unrated(named, evaluations):
    """Dialogues that are recorded and have no evaluation, each as Skipped."""
    rated = {os.path.basename(path).removesuffix(".txt") for path in evaluations}
    for folder in sorted({os.path.dirname(stem) for stem in named}):
        dialogue, session = os.path.basename(folder), folder.partition("/")[0]
        if dialogue not in rated:
            number = sum(stem.startswith(f"{folder}/") for stem in named)
            reason = f"has {number} recordings, but there is no {session}/{EVALUATION}/{dialogue}.txt: restore it"
            yield Skipped(dialogue, folder, reason)


def _unrecorded(where, turn):
    return Skipped(turn.id, where, f"rates {turn.id}, but there is no {turn.wav}.wav: restore the recording, or remove the line")


def _lines(data_folder, path):
    with open(os.path.join(data_folder, path), "rb") as file:
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    # Turns are rated in lines that begin with a bracket; the votes of each rater follow.
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.lstrip().startswith("[")]


def _add_turn(turns, bad, path, number, line):
    # [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
    where, dialogue = f"{path}:{number}", os.path.basename(path).removesuffix(".txt")
    turn = _TURN.fullmatch(line)
    if not turn:
        reason = f"is {line[:60]!r}, expected [start - end] <turn> <emotion> [valence, activation, dominance]: mend the line"
        bad.append(Skipped("", where, reason))
        return
    name, told = turn["id"], _ID.fullmatch(turn["id"])
    if not told or told["dialogue"] != dialogue or not path.startswith(f"Session{told['session']}/"):
        reason = f"rates {name!r}, expected {dialogue}_<F or M><three digits> of {path.partition('/')[0]}: mend the line or move the file"
        bad.append(Skipped(name, where, reason))
    elif name in turns:
        bad.append(Skipped(name, where, f"is the 2nd rating of {name}, the 1st is {turns[name][0]}: ids must be unique, remove one"))
    else:
        wav = f"Session{told['session']}/{SENTENCES}/{dialogue}/{name}"
        speaker = f"Ses0{told['session']}{told['speaker']}"
        turns[name] = where, Utterance(name, wav, 0.0, speaker, label=turn["emotion"], session=told["session"])


_IEMOCAP = EmotionCorpus(
    name="IEMOCAP",
    layout=LAYOUT,
    codes={**EMOTIONS, **dict.fromkeys(UNUSED)},
    numbers={(session, label): row[i] for label, row in NUMBERS.items() for i, session in enumerate(SESSIONS)},
    group="session",
    groups=SESSIONS,
    speakers=10,
    hours=6.989,
    source=Sessions(),
    protocols=PROTOCOLS,
)


def read(data_folder, split, *, emotions=None):
    """The utterances of ``all``, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(_IEMOCAP.corpus(emotions), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, emotions=None, **options):
    """Writes ``<save_folder>/all.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are those of :data:`spikebrain.data.emotion.COLUMNS`; ``session`` is 1 to 5, a speaker is Ses01F to Ses05M. ``emotions``
    is a list of labels (None: all four); ``options`` are ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.
    """
    return preparation.prepare(_IEMOCAP.corpus(emotions), data_folder, save_folder, splits, Options(**options))


CORPUS = _IEMOCAP.corpus()
