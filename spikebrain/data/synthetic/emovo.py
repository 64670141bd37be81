"""A synthetic twin of EMOVO: Italian sentences in seven emotions by six voices, 48 kHz, two channels, in the corpus's layout.

See :mod:`spikebrain.data.synthetic.emotion`.
"""

from spikebrain.data.corpora.emovo import EMOTIONS
from spikebrain.data.synthetic import emotion
from spikebrain.data.synthetic.emotion import Take

UTTERANCES = {"all": 7}
RATE, CHANNELS = 48000, 2

VOICES = {"f1": "f1", "f2": "f4", "f3": "Alicia", "m1": "m2", "m2": "m5", "m3": "m8"}
TEXTS = {
    "b1": "Il cane dorme sotto il tavolo.",
    "b2": "Domani mattina parte il treno per Torino.",
    "b3": "La finestra della cucina è aperta.",
    "l1": "In estate andiamo sempre al mare con gli amici e restiamo una settimana.",
    "l2": "Adesso prendo la giacca e vado a comprare il pane.",
    "l3": "Poco dopo si è fermato davanti alla porta.",
    "l4": "Mi serve l'indirizzo della signora Rossi.",
    "n1": "La luna verde canta nel forno.",
    "n2": "Il ponte mangia la neve calda.",
    "n3": "Una sedia corre dentro il fiume.",
    "n4": "Mela quaderno finestra martello.",
    "n5": "Sette ventidue nove quaranta undici.",
    "d1": "A che ora torni a casa?",
    "d2": "Hai visto le mie chiavi?",
}


def make(out, seed=1234, utterances=None):
    """Writes the twin into ``out``: see :func:`spikebrain.data.synthetic.emotion.make`."""
    return emotion.make("EMOVO", out, seed, utterances, UTTERANCES, _fill, len(TEXTS))


def _fill(folder, seed, number):
    takes = [
        Take(f"{speaker}/{code}-{speaker}-{sentence}.wav", TEXTS[sentence], label, voice, seed)
        for speaker, voice in emotion.voices(seed, VOICES, "it").items()
        for code, label in EMOTIONS.items()
        for sentence in list(TEXTS)[:number]
    ]
    emotion.write(folder, takes, RATE, CHANNELS)
