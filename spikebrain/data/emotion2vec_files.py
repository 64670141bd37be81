"""Features that emotion2vec's authors (or their scripts) extracted: ``train.npy``, ``train.lengths`` and ``train.emo``.

The three files of the IEMOCAP experiment of https://github.com/ddlBoJack/emotion2vec (iemocap_downstream) hold, in one order, the frames of
all utterances one after another, the number of frames of each (one a line), and a line ``Ses01F_impro01_F000<TAB>neu`` for each. They
are read in place of a model: :class:`Emotion2VecFiles` has the face of :class:`spikebrain.data.feature_cache.FeatureCache`.

    features: !new:spikebrain.data.emotion2vec_files.Emotion2VecFiles
        prefix: /path/to/train

In a recipe it stands where an extractor would; nothing is kept of it, since it is files already.
"""

import copy
import hashlib
import logging
import os

import numpy as np
import torch

from spikebrain.data.feature_cache import Filled
from spikebrain.data.manifest import DataError
from spikebrain.data.preparation import Skipped, refuse
from spikebrain.lengths import conv_frames

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
# Samples of one frame and from frame to frame: what emotion2vec's seven convolutions come to.
WINDOW, HOP = 400, 320
# Frames that an utterance may have more or fewer than its duration gives, for rounded durations (ours).
TOLERANCE = 2
# Rows of the features that go into the fingerprint.
SAMPLED = 256


class Emotion2VecFiles:
    """Pre-extracted features of utterances, by the name of their audio file; the audio itself is not needed.

    Arguments
    ---------
    prefix : str
        Path of the three files without their endings, e.g. ``features/train``.
    max_seconds : float or None
        Longer utterances are cropped to their beginning; the model has heard all of them nevertheless.
    min_seconds : float
        Shorter ones are refused.

    Attributes
    ----------
    folder : str
        Where the files lie.
    channels : int
    frames_per_second : float
    fingerprint : str
        Hash of names, lengths, labels and of 256 rows spread over the features.
    labels : dict
        Utterance -> label, as in the third file.

    Raises
    ------
    DataError
        A file is missing or cannot be read, an utterance is there twice, the three do not belong together, or ``max_seconds`` is not
        more than ``min_seconds``.

    Notes
    -----
    A number of frames that is more than two away from what the duration gives is refused: such features are of another recording.
    """

    frames_per_second = SAMPLE_RATE / HOP

    def __init__(self, prefix, max_seconds=None, min_seconds=0.0):
        self.prefix, self.folder = os.fspath(prefix), os.path.dirname(os.path.abspath(prefix))
        self._limit(min_seconds, max_seconds)
        self._features = _open_features(f"{self.prefix}.npy")
        self.channels = self._features.shape[1]
        lengths = _read_lengths(f"{self.prefix}.lengths")
        self.labels = _read_labels(f"{self.prefix}.emo")
        self._check_together(lengths)
        self._ends = dict(zip(self.labels, np.cumsum(lengths).tolist()))
        self._lengths = dict(zip(self.labels, lengths))
        rows = self._features[:: max(1, len(self._features) // SAMPLED)]
        told = repr((list(self.labels.items()), lengths, self._features.shape, str(self._features.dtype)))
        self.fingerprint = hashlib.sha256(told.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()

    def limited(self, min_seconds, max_seconds):
        """The same features within a recipe's limits, and its own: see above."""
        lengths = [seconds for seconds in (self.max_seconds, max_seconds) if seconds is not None]
        other = copy.copy(self)
        other._limit(max(self.min_seconds, min_seconds), min(lengths, default=None))
        return other

    def get(self, path, start=0, duration=None):
        """Features of one utterance.

        Arguments
        ---------
        path : str
            Its audio file, of which only the name is looked at.
        start : int
            0: the files hold whole recordings.
        duration : float or None
            Seconds, to be compared with the number of frames.

        Returns
        -------
        Tensor (L, channels), float32.

        Raises
        ------
        DataError
            The utterance is not in the files, is shorter than ``min_seconds``, has other frames than its duration gives, or features
            that are not finite.
        """
        name = self._find(path, start, duration)
        end = self._ends[name]
        first = end - self._lengths[name]
        rows = self._features[first:end][: self.max_frames]
        features = torch.from_numpy(np.array(rows, np.float32))
        bad = int((~features.isfinite()).sum())
        if bad:
            raise DataError(f"{self.prefix}.npy: {bad} of {features.numel()} features of {name} are NaN or infinite: fetch the files again")
        return features

    def fill(self, utterances, skip_bad_audio=False):
        """Looks whether all utterances are there; nothing is extracted.

        Arguments
        ---------
        utterances : list of Utterance
        skip_bad_audio : bool
            Leave out what is not there, with a warning each, instead of stopping.

        Returns
        -------
        spikebrain.data.feature_cache.Filled

        Raises
        ------
        DataError
            An utterance without features, of another duration, or too short; or labels that contradict those of the files.
        """
        bad, found = [], []
        for utterance in utterances:
            try:
                found.append((utterance, self._find(utterance.wav, utterance.start, utterance.duration)))
            except DataError as error:
                bad.append(Skipped(utterance.id, utterance.wav, str(error).removeprefix(f"{utterance.wav}: ")))
        if not skip_bad_audio:
            refuse(bad)
        for item in bad:
            logger.warning("left out %s: %s", item.path, item.reason)
        self._check_labels(found)
        cropped = sum(self.max_frames is not None and self._lengths[name] > self.max_frames for _, name in found)
        if cropped:
            logger.warning("%s: %d of %d utterances are cropped to %d frames", self.prefix, cropped, len(found), self.max_frames)
        return Filled(0, len(found), {}, cropped, tuple(bad))

    def __getstate__(self):
        # A mapped array would be pickled with all of its rows.
        return {**self.__dict__, "_features": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._features = _open_features(f"{self.prefix}.npy")

    def _limit(self, min_seconds, max_seconds):
        if max_seconds is not None and not max_seconds > min_seconds:
            raise DataError(f"max_seconds: {max_seconds} is not more than min_seconds: {min_seconds}: give more, or null for no limit")
        self.min_seconds, self.max_seconds = min_seconds, max_seconds
        self.max_frames = None if max_seconds is None else max(1, conv_frames(round(max_seconds * SAMPLE_RATE), WINDOW, HOP))

    def _find(self, path, start, duration):
        name = os.path.splitext(os.path.basename(path))[0]
        if name not in self._ends:
            known = f"it holds {len(self._ends)} utterances, the first is {next(iter(self._ends))}"
            raise DataError(f"{path}: {self.prefix}.emo has no line for {name}; {known}: extract the features of this corpus")
        if start:
            whole = f"begins at sample {start}, but {self.prefix}.npy holds whole recordings"
            raise DataError(f"{path}: {whole}: use the features of a model instead")
        if not self._lengths[name]:
            raise DataError(f"{path}: {self.prefix}.lengths gives it 0 frames: leave it out, or extract its features again")
        seconds = self._lengths[name] / self.frames_per_second if duration is None else duration
        if seconds < self.min_seconds:
            raise DataError(f"{path}: lasts {seconds:.3f} s, at least {self.min_seconds:g} s are needed: remove it or restore its audio")
        if duration is not None:
            expected = conv_frames(round(duration * SAMPLE_RATE), WINDOW, HOP)
            if abs(expected - self._lengths[name]) > TOLERANCE:
                has = f"{self.prefix}.lengths says {self._lengths[name]} frames, {duration:.3f} s give {expected}"
                raise DataError(f"{path}: {has}: the features are of another recording, extract them again")
        return name

    def _check_together(self, lengths):
        frames = len(self._features)
        if len(lengths) != len(self.labels):
            told = f"{len(lengths)} lengths, {len(self.labels)} labels"
        elif sum(lengths) != frames:
            told = f"the lengths sum to {sum(lengths)}, there are {frames} frames"
        else:
            return
        raise DataError(f"{self.prefix}.npy, .lengths and .emo do not belong together: {told}: fetch the three files again")

    def _check_labels(self, found):
        """Refuses a manifest in the files' own words (ang, hap, neu, sad) that names other ones."""
        if not {utterance.label for utterance, _ in found} <= set(self.labels.values()):
            return
        unlike = [(utterance, self.labels[name]) for utterance, name in found if utterance.label != self.labels[name]]
        if unlike:
            utterance, there = unlike[0]
            more = f" ({len(unlike)} such utterances)" if len(unlike) > 1 else ""
            has = f"{self.prefix}.emo calls it {there!r}, the manifest {utterance.label!r}{more}"
            raise DataError(f"{utterance.id}: {has}: prepare the corpus again, or fetch the files again")


def _open_features(path):
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file: fetch the three files, or set the path without their endings") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}; {os.path.getsize(path)} bytes): fetch the file again") from error
    if features.ndim != 2 or features.dtype.kind != "f" or not len(features):
        holds = f"holds {features.dtype} of shape {features.shape}, expected floats (frames, channels)"
        raise DataError(f"{path}: {holds}: fetch the file again")
    return features


def _read_lengths(path):
    lengths = []
    for number, line in enumerate(_read_lines(path), 1):
        if not line.strip().isdecimal():
            raise DataError(f"{path}:{number}: {line!r} is no number of frames: fetch the file again")
        lengths.append(int(line))
    return lengths


def _read_labels(path):
    labels = {}
    for number, line in enumerate(_read_lines(path), 1):
        parts = line.split()
        if len(parts) != 2:
            raise DataError(f"{path}:{number}: {line!r} is not an utterance and its label: fetch the file again")
        if parts[0] in labels:
            raise DataError(f"{path}:{number}: {parts[0]} is there twice: fetch the file again")
        labels[parts[0]] = parts[1]
    return labels


def _read_lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file: it lies beside the .npy of the same name, fetch all three") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}; {os.path.getsize(path)} bytes): fetch the file again") from error
