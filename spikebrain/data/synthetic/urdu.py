"""A synthetic twin of URDU: Urdu sentences in four emotions, 44.1 kHz, in the corpus's layout and with its faults.

As in the corpus, most speakers are heard in one emotion only, and here and there a recording begins with the end of the one
before it, so that two recordings share audio. See :mod:`spikebrain.data.synthetic.emotion`.
"""

from collections import Counter

from spikebrain.data.corpora.urdu import EMOTIONS
from spikebrain.data.synthetic import emotion
from spikebrain.data.synthetic.emotion import Take

UTTERANCES = {"all": 10}
RATE = 44100
SHARES = 20  # of so many recordings of an emotion, the last begins with the end of the one before it

SPEAKERS = {
    "angry": ("SM1", "SM2", "SM3", "SM4"),
    "happy": ("SF1", "SF2", "SF6", "SM5"),
    "neutral": ("SF9", "SM3", "SM5", "SM20"),
    "sad": ("SF10", "SF11", "SM24", "SM25"),
}
VOICES = {
    "SF1": "f1",
    "SF2": "f2",
    "SF6": "f3",
    "SF9": "f4",
    "SF10": "Annie",
    "SF11": "linda",
    "SM1": "m1",
    "SM2": "m2",
    "SM3": "m3",
    "SM4": "m4",
    "SM5": "m5",
    "SM20": "m6",
    "SM24": "m7",
    "SM25": "m8",
}
TEXTS = emotion.texts(
    ("آج شام", "کل صبح", "اس ہفتے", "کبھی کبھی"),
    ("ہم بازار جائیں گے", "وہ گھر پر کھانا پکاتی ہے", "بچے باغ میں کھیلتے ہیں", "میرا دوست خط لکھتا ہے", "ہم سب چائے پیتے ہیں"),
)


def make(out, seed=1234, utterances=None):
    """Writes the twin into ``out``: see :func:`spikebrain.data.synthetic.emotion.make`."""
    return emotion.make("URDU", out, seed, utterances, UTTERANCES, _fill)


def takes(seed, number):
    """What is said: ``number`` Takes of each speaker and emotion."""
    voices, files, made = emotion.voices(seed, VOICES, "ur"), Counter(), []
    for letter, label in EMOTIONS.items():
        for i in range(number * len(SPEAKERS[label])):
            speaker = SPEAKERS[label][i // number]
            files[speaker] += 1
            path = f"{label.capitalize()}/{speaker}_F{files[speaker]}_{letter}{i + 1:02d}.wav"
            after = made[-1] if i % SHARES == SHARES - 1 and i % number else None  # of the same speaker
            made.append(Take(path, TEXTS[len(made) % len(TEXTS)], label, voices[speaker], seed, after))
    return made


def _fill(folder, seed, number):
    emotion.write(folder, takes(seed, number), RATE)
