"""A synthetic twin of the Spiking Speech Commands: clips of Speech Commands' own twin through our artificial cochlea, in about two minutes.

As the corpus is Speech Commands turned into spikes, so is its twin: words, voices, splits and noise are those
of :mod:`spikebrain.data.synthetic.gsc`, of which validation and test voices do not occur in training. File names,
dataset names and types are the corpus's, so that its preparer runs on it unchanged. Spikes come from
:class:`spikebrain.frontend.cochlea.Cochlea`, not from the corpus's own model. The same seed gives the same bytes.
"""

from importlib.metadata import version

import numpy as np

from spikebrain.data.synthetic import event_file, gsc
from spikebrain.data.synthetic.folder import choose_utterances, make_folder

VERSION = 1

# Clips of each word.
UTTERANCES = {"train": 24, "valid": 4, "test": 6}
KEYS = tuple(
    "yes no up down left right on off stop go zero one two three four five six seven eight nine bed bird cat dog happy house marvin "
    "sheila tree wow backward forward follow learn visual".split()
)
# A speaker's number is the place of its voice here.
VOICES = [variant for split in UTTERANCES for variant in gsc.VOICES[split]]


def make(out, seed=1234, utterances=None):
    """Writes the twin into the folder ``out``: see :mod:`spikebrain.data.synthetic`. ``utterances``: split -> recordings of each word."""
    utterances = choose_utterances(utterances, UTTERANCES, "SSC", "recordings a word")
    settings = {"corpus": "ssc", "version": VERSION, "gsc": gsc.VERSION, "seed": seed, "utterances": utterances}
    return make_folder(out, {**settings, "espeak": version("espeakng-loader")}, lambda folder: _fill(folder, seed, utterances))


def _fill(folder, seed, utterances):
    noises = [gsc.background(name, seed) for name in gsc.RECORDINGS]
    for split, number in utterances.items():
        clips = gsc.clips(seed, split, number)
        clips = [clips[turn] for turn in np.random.default_rng(seed).permutation(len(clips))]
        labels = [KEYS.index(clip.word) for clip in clips]
        speakers = [VOICES.index(clip.voice.name.partition("+")[2]) for clip in clips]
        rows = (event_file.spikes(gsc.render(clip, noises)) for clip in clips)
        event_file.write(folder / f"ssc_{split}.h5", rows, labels, speakers, KEYS)
