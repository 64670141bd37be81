"""CASIA: Mandarin sentences in six acted emotions, four speakers, 16 kHz.

Institute of Automation, Chinese Academy of Sciences; what is passed on are the 50 sentences that every speaker says in every
emotion, 4 x 6 x 50 = 1,200. PTS-SNN's table I says 1,200 utterances and 4 emotions, which contradict each other: four
emotions are 800. We take all six; ``emotions`` chooses others.
"""

from itertools import product

from spikebrain.data import emotion, preparation
from spikebrain.data.emotion import EmotionCorpus, Names
from spikebrain.data.folds import Protocol
from spikebrain.data.preparation import Options

EMOTIONS = tuple("angry fear happy neutral sad surprise".split())
SPEAKERS = ("liuchanhg", "wangzhe", "zhaoquanyin", "zhaozuoxiang")
CLASSES = len(EMOTIONS)
OPTIONS = emotion.OPTIONS

LAYOUT = """\
  liuchanhg/angry/201.wav    <speaker>/<emotion>/<sentence>.wav, or .flac
  wangzhe/... zhaoquanyin/... zhaozuoxiang/..."""

# Leave one speaker out, as published; the validation share is ours.
PROTOCOLS = {
    "paper": Protocol("speaker", 4, each=True, valid=0.1),
    "random": emotion.RANDOM,
    "speaker": Protocol("speaker", 4, each=True),
}

_CASIA = EmotionCorpus(
    name="CASIA",
    layout=LAYOUT,
    codes={name: name for name in EMOTIONS},
    numbers=dict.fromkeys(product(SPEAKERS, EMOTIONS), 50),
    group="speaker",
    groups=SPEAKERS,
    speakers=len(SPEAKERS),
    hours=0.635,
    source=Names(SPEAKERS, r"(?P<speaker>[^/]+)/(?P<emotion>[^/]+)/(?P<sentence>\d+)", "<speaker>/<emotion>/<sentence>.wav"),
    protocols=PROTOCOLS,
    remark="it has 6 emotions of 200 utterances; PTS-SNN's table says 4, which are 800 of the 1,200 that it says too",
)


def read(data_folder, split, *, emotions=None):
    """The utterances of ``all``, sorted by id: see :func:`spikebrain.data.preparation.read`."""
    return preparation.read(_CASIA.corpus(emotions), data_folder, split)


def prepare(data_folder, save_folder, splits=None, *, emotions=None, **options):
    """Writes ``<save_folder>/all.csv`` and returns a Preparation: see :func:`spikebrain.data.preparation.prepare`.

    The columns are those of :data:`spikebrain.data.emotion.COLUMNS`; ``sentence`` is the number of the sentence. ``emotions`` is a
    list of labels (None: all six); ``options`` are ``skip_bad_audio``, ``strict_counts`` and ``decode``, as for every corpus.
    """
    return preparation.prepare(_CASIA.corpus(emotions), data_folder, save_folder, splits, Options(**options))


CORPUS = _CASIA.corpus()
