"""URDU: pieces of Urdu television talk shows in four emotions, 29 speakers, 44.1 kHz.

S. Latif, A. Qayyum, M. Usman, J. Qadir, "Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages", FIT 2018,
arXiv:1812.10411. The corpus's page and PTS-SNN's table I say 38 speakers; the names of the 400 released files hold 29.

Three properties of the corpus decide what a result on it means. 26 of the 29 speakers are heard in one emotion only, so that to know
the speaker is nearly to know the label: random folds measure that too. Ten pairs of recordings share audio
(:mod:`spikebrain.data.duplicates`), two of them under the names of different speakers, SF1 and SF4. And speaker-disjoint
folds lack classes at times, since all of SF1 to SF8 are happy.
"""

from spikebrain.data import emotion, preparation
from spikebrain.data.emotion import EmotionCorpus, Names
from spikebrain.data.folds import Protocol
from spikebrain.data.preparation import Options

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
SPEAKERS = tuple(f"SF{number}" for number in range(1, 12)) + tuple(f"SM{number}" for number in (*range(1, 8), *range(17, 28)))
CLASSES = len(EMOTIONS)
OPTIONS = emotion.OPTIONS

LAYOUT = """\
  Angry/SM1_F1_A01.wav    S<M or F><number, speaker>_F<number, file>_<emotion A, H, N or S><number>.wav, or .flac
  Happy/... Neutral/... Sad/..."""

# As published, folds share nearly all speakers with training. "speaker" deals speakers out to five folds of nearly one size; there
# are too few of them to give up a whole fold for validation.
PROTOCOLS = {
    "paper": Protocol("id", 10),
    "random": emotion.RANDOM,
    "speaker": Protocol("speaker", 5, valid=0.15, valid_by="speaker"),
}

_NAMES = Names(
    folders=("Angry", "Happy", "Neutral", "Sad"),
    pattern=r"(?P<emotion>[A-Z])[a-z]+/(?P<id>(?P<speaker>S[MF]\d+)_F\d+_(?P=emotion)\d+)",
    expected="<emotion>/S<M or F><number, speaker>_F<number, file>_<the emotion's first letter><number>.wav",
)

_URDU = EmotionCorpus(
    name="URDU",
    layout=LAYOUT,
    codes=EMOTIONS,
    numbers={(label,): 100 for label in EMOTIONS.values()},
    group="speaker",
    groups=SPEAKERS,
    speakers=len(SPEAKERS),
    hours=0.277,
    source=_NAMES,
    protocols=PROTOCOLS,
    rates=(44100, emotion.RATE),
    remark="its files name 29 speakers; its page and PTS-SNN's table say 38",
)


def read(data_folder, split, *, emotions=None):
    """The utterances of ``all``, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(_URDU.corpus(emotions), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, emotions=None, **options):
    """Writes ``<save_folder>/all.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are those of :data:`spikebrain.data.emotion.COLUMNS`. ``emotions`` is a list of labels (None: all four); ``options``
    are ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.
    """
    return preparation.prepare(_URDU.corpus(emotions), data_folder, save_folder, splits, Options(**options))


CORPUS = _URDU.corpus()
