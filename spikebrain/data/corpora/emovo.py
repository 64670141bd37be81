"""EMOVO: fourteen Italian sentences in seven acted emotions, six speakers, 48 kHz.

G. Costantini, I. Iadarola, A. Paoloni, M. Todisco, "EMOVO Corpus: an Italian Emotional Speech Database", LREC 2014. Every speaker says
every sentence once in every emotion: 6 x 7 x 14 = 588. Recordings are read at the released 48 kHz or at 16 kHz, of one channel or two.
"""

from itertools import product

from spikebrain.data import emotion, preparation
from spikebrain.data.emotion import EmotionCorpus, Names
from spikebrain.data.folds import Protocol
from spikebrain.data.preparation import Options

EMOTIONS = {"dis": "disgust", "gio": "happy", "neu": "neutral", "pau": "fear", "rab": "angry", "sor": "surprise", "tri": "sad"}
SPEAKERS = ("f1", "f2", "f3", "m1", "m2", "m3")
CLASSES = len(EMOTIONS)
OPTIONS = emotion.OPTIONS

LAYOUT = """\
  f1/dis-f1-b1.wav    <speaker>/<emotion dis, gio, neu, pau, rab, sor or tri>-<speaker>-<sentence>.wav, or .flac
  f2/... f3/... m1/... m2/... m3/..."""

# As published, folds share speakers and sentences with training; "speaker" leaves one speaker out.
PROTOCOLS = {"paper": Protocol("id", 10), "random": emotion.RANDOM, "speaker": Protocol("speaker", 6, each=True)}

_NAMES = Names(
    folders=SPEAKERS,
    pattern=r"(?P<speaker>[fm]\d)/(?P<id>(?P<emotion>[a-z]+)-(?P=speaker)-(?P<sentence>[a-z]\d))",
    expected="<speaker>/<emotion>-<the same speaker>-<letter and digit, sentence>.wav",
)

_EMOVO = EmotionCorpus(
    name="EMOVO",
    layout=LAYOUT,
    codes=EMOTIONS,
    numbers=dict.fromkeys(product(SPEAKERS, EMOTIONS.values()), 14),
    group="speaker",
    groups=SPEAKERS,
    speakers=len(SPEAKERS),
    hours=0.510,
    source=_NAMES,
    protocols=PROTOCOLS,
    rates=(48000, emotion.RATE),
)


def read(data_folder, split, *, emotions=None):
    """The utterances of ``all``, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(_EMOVO.corpus(emotions), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, emotions=None, **options):
    """Writes ``<save_folder>/all.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are those of :data:`spikebrain.data.emotion.COLUMNS`; ``sentence`` is one of the fourteen, such as b1. ``emotions`` is
    a list of labels (None: all seven); ``options`` are ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.
    """
    return preparation.prepare(_EMOVO.corpus(emotions), data_folder, save_folder, splits, Options(**options))


CORPUS = _EMOVO.corpus()
