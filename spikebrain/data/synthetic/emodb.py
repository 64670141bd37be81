"""A synthetic twin of EMODB: ten German sentences in seven emotions by ten voices, in the corpus's layout: see :mod:`.emotion`."""

from itertools import product
from string import ascii_lowercase

from spikebrain.data.corpora.emodb import EMOTIONS
from spikebrain.data.synthetic import emotion
from spikebrain.data.synthetic.emotion import Take

UTTERANCES = {"all": 6}

# Speakers as in the corpus: five women, five men.
VOICES = {
    "03": "m1",
    "08": "f1",
    "09": "f3",
    "10": "m3",
    "11": "m4",
    "12": "m6",
    "13": "f4",
    "14": "Annie",
    "15": "m7",
    "16": "linda",
}
TEXTS = {
    "a01": "Der Hund schläft unter der Bank.",
    "a02": "Am Freitag bringt er uns das Buch.",
    "a04": "Morgen früh fährt mein Bruder nach Bremen.",
    "a05": "Die grüne Lampe hängt über dem runden Tisch.",
    "a07": "In drei Tagen kommt der Brief an.",
    "b01": "Wem gehören die Schuhe, die vor der Tür stehen?",
    "b02": "Er hat den Korb geholt und stellt ihn jetzt in den Keller.",
    "b03": "Im Sommer waren wir immer am See und haben dort gezeltet.",
    "b09": "Ich gehe schnell einkaufen und dann koche ich uns etwas.",
    "b10": "Sie wird auf uns warten, wo wir uns immer treffen.",
}


def make(out, seed=1234, utterances=None):
    """Writes the twin into ``out``: see :func:`spikebrain.data.synthetic.emotion.make`."""
    return emotion.make("EMODB", out, seed, utterances, UTTERANCES, _fill, len(TEXTS) * len(ascii_lowercase))


def _fill(folder, seed, number):
    said = list(product(ascii_lowercase, TEXTS))[:number]
    takes = [
        Take(f"wav/{speaker}{sentence}{letter}{version}.wav", TEXTS[sentence], label, voice, seed)
        for speaker, voice in emotion.voices(seed, VOICES, "de").items()
        for letter, label in EMOTIONS.items()
        for version, sentence in said
    ]
    emotion.write(folder, takes)
