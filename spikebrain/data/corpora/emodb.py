"""EMODB, the Berlin Database of Emotional Speech: ten German sentences in seven acted emotions, ten speakers, 16 kHz.

F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier, B. Weiss, "A database of German emotional speech", Interspeech 2005. Released are
the 535 recordings that listeners found natural, so that not every speaker says every sentence in every emotion.
"""

from spikebrain.data import emotion, preparation
from spikebrain.data.emotion import EmotionCorpus, Names
from spikebrain.data.folds import Protocol
from spikebrain.data.preparation import Options

# The first letter of the German word.
EMOTIONS = {"W": "angry", "L": "boredom", "E": "disgust", "A": "fear", "F": "happy", "T": "sad", "N": "neutral"}
NUMBERS = {"angry": 127, "boredom": 81, "disgust": 46, "fear": 69, "happy": 71, "neutral": 79, "sad": 62}
SPEAKERS = tuple("03 08 09 10 11 12 13 14 15 16".split())
CLASSES = len(EMOTIONS)
OPTIONS = emotion.OPTIONS

LAYOUT = """\
  wav/03a01Wa.wav    <speaker 03><sentence a01><emotion W, L, E, A, F, T or N><version a>.wav, or .flac"""

# As published, folds share speakers and sentences with training; "speaker" leaves one speaker out.
PROTOCOLS = {"paper": Protocol("id", 10), "random": emotion.RANDOM, "speaker": Protocol("speaker", 10, each=True)}

_NAMES = Names(
    folders=("wav",),
    pattern=r"wav/(?P<id>(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z])",
    expected="wav/<two digits, speaker><a or b and two digits, sentence><letter, emotion><letter, version>.wav",
)

_EMODB = EmotionCorpus(
    name="EMODB",
    layout=LAYOUT,
    codes=EMOTIONS,
    numbers={(label,): number for label, number in NUMBERS.items()},
    group="speaker",
    groups=SPEAKERS,
    speakers=len(SPEAKERS),
    hours=0.413,
    source=_NAMES,
    protocols=PROTOCOLS,
)


def read(data_folder, split, *, emotions=None):
    """The utterances of ``all``, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(_EMODB.corpus(emotions), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, emotions=None, **options):
    """Writes ``<save_folder>/all.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are those of :data:`spikebrain.data.emotion.COLUMNS`; ``sentence`` is one of a01 to b10. ``emotions`` is a list of
    labels (None: all seven); ``options`` are ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.
    """
    return preparation.prepare(_EMODB.corpus(emotions), data_folder, save_folder, splits, Options(**options))


CORPUS = _EMODB.corpus()
