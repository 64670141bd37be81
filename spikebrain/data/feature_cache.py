"""Features of utterances, extracted once, one utterance at a time, and kept on disk.

A frozen model costs more than what is trained on it, and its features of an utterance depend on the padding beside it: so they are
extracted from one utterance alone and written to a file of their own, which knows the extractor and the recording it is from. What is
read back is checked; whatever does not fit is made again.
"""

import hashlib
import json
import logging
import os
import re
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from speechbrain.dataio import audio_io

from spikebrain.data import audio
from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.data.preparation import Skipped, refuse

logger = logging.getLogger(__name__)

# Of how audio is read and entries are written: entries of another version are made again.
VERSION = "1"
# Seconds between two lines of progress.
PROGRESS_S = 10.0
# What an entry says of itself, in the order in which it is looked at -> what is said where it does not fit.
MARKS = {
    "version": "is of another version of spikebrain",
    "extractor": "is of another model or of other options",
    "audio": "is of another recording",
    "samples": "is of another part of the recording",
}
DAMAGED = "is damaged"


class Stretch(NamedTuple):
    """The part of a recording that an utterance is.

    path : of the audio file
    first : number of its first sample
    samples : how many there are, at ``rate``
    rate : Hz of the file
    whole : how many there were before it was cropped
    """

    path: str
    first: int
    samples: int
    rate: int
    whole: int


@dataclass(frozen=True)
class Filled:
    """What :meth:`FeatureCache.fill` did.

    made : utterances that were extracted
    kept : utterances that were there
    remade : why an entry that was there was made again -> how many
    cropped : utterances longer than ``max_seconds``
    skipped : what was left out, and why
    """

    made: int
    kept: int
    remade: dict
    cropped: int
    skipped: tuple


class FeatureCache:
    """Features of utterances, from disk where they are there, else from the extractor.

    Use a folder for each extractor: two that share one make each other's entries again.

    Arguments
    ---------
    folder : str
        Where entries are kept, one file an utterance (safetensors).
    extractor : object
        With ``sample_rate`` (Hz), ``channels``, ``frames_per_second``, ``shortest`` (samples that one frame needs), ``fingerprint``
        (str, another one for another model or other options) and a call samples (S,) -> (L, channels): one of
        :mod:`spikebrain.lobes.utterance_features`.
    min_seconds : float
        Shorter utterances are refused, as are those in which no frame fits.
    max_seconds : float or None
        Longer ones are cropped to their beginning, with a warning.
    root : str or None
        Where given, entries are named by paths relative to it, so that a corpus can be moved without losing them.

    Raises
    ------
    DataError
        ``max_seconds`` that is not more than ``min_seconds``.

    Notes
    -----
    Audio of any rate is resampled to the extractor's, and channels are averaged.
    """

    def __init__(self, folder, extractor, min_seconds=0.0, max_seconds=None, root=None):
        if max_seconds is not None and not max_seconds > min_seconds:
            raise DataError(f"max_seconds: {max_seconds} is not more than min_seconds: {min_seconds}: give more, or null for no limit")
        self.folder, self.extractor, self.root = os.fspath(folder), extractor, root
        self.min_seconds, self.max_seconds = min_seconds, max_seconds
        self.channels, self.frames_per_second = extractor.channels, extractor.frames_per_second
        self._hashes, self._crop_told = {}, False

    def get(self, path, start=0, duration=None):
        """Features of one utterance.

        Arguments
        ---------
        path : str
            Its audio file.
        start : int
            Number of its first sample in the file, at the file's rate.
        duration : float or None
            Seconds; None is until the file ends.

        Returns
        -------
        Tensor (L, channels), float32, on the CPU.

        Raises
        ------
        DataError
            The audio is missing, cannot be read, is shorter than ``duration`` says or than ``min_seconds``, or is not finite.
        """
        stretch = self._stretch(path, start, duration)
        self._tell_crop(stretch)
        features, why = self._stored(stretch)
        if why:
            logger.warning("%s %s: made again", self._entry(stretch), why)
        return self._make(stretch, self._read(stretch)) if features is None else features

    def fill(self, utterances, skip_bad_audio=False):
        """Extracts whatever is missing or does not fit. Run it in one process (``run_on_main``).

        Arguments
        ---------
        utterances : list of Utterance
            With paths that can be opened: see :func:`spikebrain.data.manifest.rooted`.
        skip_bad_audio : bool
            Leave out what cannot be used, with a warning each, instead of stopping.

        Returns
        -------
        Filled

        Raises
        ------
        DataError
            An utterance that cannot be used, the first in full and the others by name; all lengths are looked at before anything is
            extracted.
        """
        wanted, short = self._plan(utterances)
        if not skip_bad_audio:
            refuse(short)
        longest = max((stretch for _, stretch in wanted), key=lambda stretch: stretch.whole / stretch.rate, default=None)
        cropped = sum(stretch.samples < stretch.whole for _, stretch in wanted)
        if cropped:
            lasts = f"{longest.path}, lasts {longest.whole / longest.rate:.2f} s"
            logger.warning("max_seconds: %g crops %d of %d utterances; the longest, %s", self.max_seconds, cropped, len(wanted), lasts)
        self._crop_told = True
        missing, remade = self._missing(wanted)
        unread = self._extract(missing, skip_bad_audio)
        for item in (*short, *unread):
            logger.warning("left out %s: %s", item.path, item.reason)
        return Filled(len(missing) - len(unread), len(wanted) - len(missing), dict(remade), cropped, (*short, *unread))

    def _plan(self, utterances):
        """(list of (Utterance, Stretch), list of Skipped), by the headers of the files."""
        wanted, bad = [], []
        for utterance in utterances:
            try:
                wanted.append((utterance, self._stretch(utterance.wav, utterance.start, utterance.duration)))
            except DataError as error:
                bad.append(_skipped(utterance, error))
        return wanted, bad

    def _missing(self, wanted):
        """Those of ``wanted`` whose entry is absent or does not fit, and a Counter of what did not."""
        missing, remade = [], Counter()
        for utterance, stretch in wanted:
            features, why = self._stored(stretch)
            if features is None:
                missing.append((utterance, stretch))
            if why:
                remade[why] += 1
        for why, number in remade.items():
            logger.warning("%s: %d of %d entries made again: each %s", self.folder, number, len(wanted), why)
        return missing, remade

    def _extract(self, missing, skip_bad_audio):
        """Extracts ``missing``; returns a list of Skipped, of audio that cannot be read."""
        unread, began = [], time.monotonic()
        told = began
        for number, (utterance, stretch) in enumerate(missing, 1):
            try:
                samples = self._read(stretch)
            except DataError as error:
                if not skip_bad_audio:
                    raise
                unread.append(_skipped(utterance, error))
                continue
            self._make(stretch, samples)
            if number == len(missing) or time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                _tell_progress(number, len(missing), told - began)
        return unread

    def _stretch(self, path, start, duration):
        """Where the utterance lies in its file, by the file's header."""
        frames, rate = _header(path)
        whole = frames - start if duration is None else round(duration * rate)
        shortest, wanted_rate = self.extractor.shortest, self.extractor.sample_rate
        if whole * wanted_rate < shortest * rate or whole / rate < self.min_seconds:
            needed = max(self.min_seconds, shortest / wanted_rate)
            short = f"lasts {max(whole, 0) / rate:.4f} s ({max(whole, 0)} samples), at least {needed:.4f} s are needed"
            raise DataError(f"{path}: {short}: remove it or restore its audio")
        if start + whole > frames:
            ends = f"holds {frames} samples ({frames / rate:.3f} s), the utterance goes from sample {start} to {start + whole}"
            raise DataError(f"{path}: {ends}: restore the file or prepare the corpus again")
        samples = whole if self.max_seconds is None else min(whole, round(self.max_seconds * rate))
        return Stretch(path, start, samples, rate, whole)

    def _tell_crop(self, stretch):
        if stretch.samples < stretch.whole and not self._crop_told:
            self._crop_told = True
            lasts = f"{stretch.whole / stretch.rate:.2f} s, is cropped to max_seconds: {self.max_seconds:g}"
            logger.warning("%s lasts %s; others are cropped without a line", stretch.path, lasts)

    def _entry(self, stretch):
        """The entry's file, named by the audio file and the first sample alone, so that audio that has changed finds the old entry."""
        path = stretch.path if self.root is None else os.path.relpath(stretch.path, self.root)
        stem = re.sub(r"[^\w.-]", "_", os.path.splitext(os.path.basename(path))[0])[:80]
        key = hashlib.sha256(f"{path}#{stretch.first}".encode()).hexdigest()[:16]
        return os.path.join(self.folder, f"{stem}-{key}.safetensors")

    def _marks(self, stretch):
        samples = f"{stretch.first}+{stretch.samples}"
        return {"version": VERSION, "extractor": self.extractor.fingerprint, "audio": self._hash(stretch.path), "samples": samples}

    def _hash(self, path):
        """SHA-256 of a file; read again only where its size or time of change is another."""
        status = os.stat(path)
        known = self._hashes.get(path)
        if known is None or known[0] != (status.st_size, status.st_mtime_ns):
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            known = self._hashes[path] = (status.st_size, status.st_mtime_ns), digest.hexdigest()
        return known[1]

    def _stored(self, stretch):
        """(features, "") from disk, or (None, why the entry that is there is of no use)."""
        try:
            with safe_open(self._entry(stretch), "pt") as file:
                # A copy: the tensor itself would hold the file mapped for as long as it lives.
                marks, features = file.metadata() or {}, file.get_tensor("features").clone()
        except FileNotFoundError:
            return None, ""
        except (OSError, SafetensorError):
            return None, DAMAGED
        wanted = self._marks(stretch)
        unlike = [what for mark, what in MARKS.items() if marks.get(mark) != wanted[mark]]
        if not unlike and marks.get("content") != _content(features):
            unlike = [DAMAGED]
        return (None, unlike[0]) if unlike else (features, "")

    def _read(self, stretch):
        """The samples of a stretch at the extractor's rate: Tensor (S,), float32."""
        path, wanted = stretch.path, self.extractor.sample_rate
        try:
            wav, _ = audio_io.load(path, dtype=torch.float32, frame_offset=stretch.first, num_frames=stretch.samples)
        except RuntimeError as error:
            raise _unreadable(path, error) from error
        if wav.shape[1] != stretch.samples:
            there = f"its header promises {stretch.samples} samples from {stretch.first} on, {wav.shape[1]} can be read"
            raise DataError(f"{path}: is truncated or damaged: {there}: restore the file")
        wav = audio.check_audio(wav, path).mean(0)
        if stretch.rate == wanted:
            return wav
        from torchaudio.functional import resample

        return resample(wav, stretch.rate, wanted)

    def _make(self, stretch, samples):
        """Extracts, checks and keeps the features of ``samples``."""
        features = self.extractor(samples).to("cpu", torch.float32).contiguous()
        if features.dim() != 2 or features.shape[1] != self.channels or not len(features):
            shapes = f"its features are {tuple(features.shape)}, expected (frames, {self.channels})"
            raise DataError(f"{stretch.path}: {shapes}: mend the extractor")
        bad = int((~features.isfinite()).sum())
        if bad:
            raise DataError(f"{stretch.path}: {bad} of {features.numel()} features are NaN or infinite: mend the extractor or its weights")
        marks = {**self._marks(stretch), "content": _content(features)}
        write_atomic(self._entry(stretch), safetensors.torch.save({"features": features}, marks))
        return features


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation (C,) of every channel, float32, and the number of frames that they are of."""

    mean: torch.Tensor
    std: torch.Tensor
    frames: int


def channel_statistics(features):
    """Mean and standard deviation of each channel over all frames of the training utterances of a fold.

    For features whose level means something (filter banks), where normalising each utterance by itself would lose it. They are for
    ``(x - mean) / std``, and must not see the fold's validation or test utterances.

    Arguments
    ---------
    features : iterable of Tensor (L, C)

    Returns
    -------
    ChannelStatistics
        Of all frames alike, so that a long utterance counts more (ours). Summed up in float64; the deviation is that of the frames
        themselves (divided by their number), and 1 for a channel that does not vary.

    Raises
    ------
    DataError
        No frame at all.
    """
    frames, mean, spread = 0, 0.0, 0.0
    for utterance in features:
        x = utterance.double()
        centre, both = x.mean(0), frames + len(x)
        away = centre - mean
        spread = spread + (x - centre).square().sum(0) + away.square() * (frames * len(x) / both)
        mean, frames = mean + away * (len(x) / both), both
    if not frames:
        raise DataError("statistics of 0 frames: the training part of the fold holds no utterance, look at the fold")
    std = (spread / frames).sqrt()
    varies = std > 1e-6 * mean.abs()  # below it, differences are roundings of float32
    return ChannelStatistics(mean.float(), torch.where(varies, std, 1.0).float(), frames)


def _header(path):
    """(samples, Hz) that an audio file promises."""
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file: restore it or set the data folder")
    try:
        info = audio_io.info(path)
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return info.frames, info.sample_rate


def _unreadable(path, error):
    return DataError(f"{path}: cannot be read ({error.__cause__ or error}; {os.path.getsize(path)} bytes): restore the file")


def _skipped(utterance, error):
    return Skipped(utterance.id, utterance.wav, str(error).removeprefix(f"{utterance.wav}: "))


def _content(features):
    """A checksum of a tensor's shape, type and bytes."""
    shape = json.dumps([list(features.shape), str(features.dtype)]).encode()
    return f"{zlib.crc32(features.contiguous().reshape(-1).view(torch.uint8).numpy(), zlib.crc32(shape)):08x}"


def _tell_progress(number, total, seconds):
    left = seconds / number * (total - number)
    logger.info("features: %d of %d utterances in %.0f s, about %.0f s left", number, total, seconds, left)
