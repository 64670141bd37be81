"""A synthetic twin of IEMOCAP: English turns of ten voices in five sessions, with their evaluations, in the corpus's layout.

As in the corpus there are turns whose label is not used, and a folder of single raters' votes beside the evaluations, which is not read.
See :mod:`spikebrain.data.synthetic.emotion`.
"""

from collections import defaultdict

from spikebrain.data.corpora.iemocap import EVALUATION, SENTENCES, SESSIONS
from spikebrain.data.synthetic import emotion
from spikebrain.data.synthetic.emotion import Take

UTTERANCES = {"all": 8}

VOICES = {
    "Ses01F": "f1",
    "Ses01M": "m1",
    "Ses02F": "f2",
    "Ses02M": "m3",
    "Ses03F": "f4",
    "Ses03M": "m4",
    "Ses04F": "Annie",
    "Ses04M": "m6",
    "Ses05F": "linda",
    "Ses05M": "m7",
}
# The corpus's labels, in turns, and how they are acted; frustration is known and not used.
ACTED = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad", "fru": "disgust"}
TURNS = {"angry": ("ang",), "happy": ("hap", "exc"), "neutral": ("neu",), "sad": ("sad",)}
DIALOGUES = ("F_impro01", "M_script01_1")
SECONDS = 5  # from the begin of a turn to that of the next, as the evaluations tell it

TEXTS = emotion.texts(
    ("I have told you", "you know", "they said", "it seems", "nobody believes"),
    ("that she is leaving", "that the house is sold", "we have to wait", "this is the last time", "that he found the letter"),
    ("again", "today", "after all"),
)


def make(out, seed=1234, utterances=None):
    """Writes the twin into ``out``: see :func:`spikebrain.data.synthetic.emotion.make`."""
    return emotion.make("IEMOCAP", out, seed, utterances, UTTERANCES, _fill)


def turns(seed, number):
    """Dialogue -> list of (label of the corpus, Take): ``number`` of each speaker and emotion, and one whose label is not used."""
    voices, dialogues = emotion.voices(seed, VOICES, "en-us"), defaultdict(list)
    for place, (speaker, voice) in enumerate(voices.items()):
        codes = [codes[i % len(codes)] for i in range(number) for codes in TURNS.values()]
        for i, code in enumerate([*codes, "fru"]):
            dialogue = f"{speaker[:-1]}{DIALOGUES[i % len(DIALOGUES)]}"
            name = f"{dialogue}_{speaker[-1]}{i // len(DIALOGUES):03d}"
            path = f"Session{int(speaker[3:5])}/{SENTENCES}/{dialogue}/{name}.wav"
            text = TEXTS[(i + 7 * place) % len(TEXTS)]
            dialogues[dialogue].append((code, Take(path, text, ACTED[code], voice, seed)))
    return dialogues


def _fill(folder, seed, number):
    dialogues = turns(seed, number)
    emotion.write(folder, [take for said in dialogues.values() for _, take in said])
    for session in SESSIONS:
        (folder / f"Session{session}" / EVALUATION / "Categorical").mkdir(parents=True)
    for dialogue, said in dialogues.items():
        place = folder / f"Session{int(dialogue[3:5])}" / EVALUATION
        names = [(take.path.rpartition("/")[2].removesuffix(".wav"), code) for code, take in said]
        (place / f"{dialogue}.txt").write_text(_evaluation(names), encoding="utf-8")
        votes = "".join(f"{name} :Other; ()\n" for name, _ in names)
        (place / "Categorical" / f"{dialogue}_e1_cat.txt").write_text(votes, encoding="utf-8")


def _evaluation(names):
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for i, (name, code) in enumerate(names):
        times = f"[{SECONDS * i:.4f} - {SECONDS * (i + 1):.4f}]"
        lines += [f"{times}\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]", "C-E1:\tOther;\t()", "A-E1:\tval 3; act 3; dom 3;\t()", ""]
    return "\n".join(lines)
