"""Recordings as users have them: any format that soundfile reads, any rate, several channels, hours long; read a stretch at a time.

    with opened([path, sys.stdin.buffer], sample_rate) as recordings:      # each a Recording, or the UseError that says what is wrong
        wav = recordings[0].mono(0, 16000)

Resampling and mixing down are SpeechBrain's own (``AudioNormalizer``), so that its interfaces hear the same.
"""

import io
import math
import os
import tempfile
from contextlib import contextmanager

import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from spikebrain.data import audio
from spikebrain.publishing.parts import BundleError

SHORTEST_S = 0.1  # 11 feature frames every 10 ms, what the subsampling by 6 needs for one
LONGEST_S = 100 * 3600
CHANNELS = 32
PHASES = 1000  # SpeechBrain's resampler has a filter for each; 44,101 Hz to 16 kHz would have 16,000, and needs more memory than there is
QUIET_S = 0.2  # a cut is made in the middle of the quietest stretch of this length


class UseError(BundleError):
    """What was given cannot be used; one message that names the recording or the argument, the numbers and the repair."""


class Recording:
    """A file that was looked at: what it holds can be read a stretch at a time.

    Arguments
    ---------
    path : str
    name : str
        What messages call it.
    sample_rate : int
        Hz of what :meth:`mono` gives.

    Attributes
    ----------
    rate, samples : int
        Hz, and samples of a channel, of the file.
    seconds : float

    Raises
    ------
    UseError
        No such file, no audio, cut short, shorter than 0.1 s, too many channels, or a rate that cannot be converted at little cost.
    """

    def __init__(self, path, name, sample_rate):
        self.path, self.name = path, name
        self.rate, self.samples, channels = _described(path, name)
        self.seconds = self.samples / self.rate
        self._normalise = AudioNormalizer(sample_rate)
        if channels > CHANNELS:
            raise UseError(f"{name}: has {channels} channels, at most {CHANNELS} are mixed down: choose one of them")
        _check_rate(name, self.rate, sample_rate)
        _check_seconds(name, self.samples, self.rate)

    def read(self, start, count):
        """Samples (count, channels) from ``start`` on, float32; UseError where they are not there, or not finite."""
        try:
            with soundfile.SoundFile(self.path) as file:
                file.seek(start)
                wav = torch.from_numpy(file.read(count, dtype="float32", always_2d=True))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise UseError(f"{self.name}: is damaged after {start / self.rate:.2f} s ({error}): restore the file") from error
        if len(wav) < count:
            raise UseError(f"{self.name}: promises {self.samples} samples, {start + len(wav)} are there: restore the file")
        return _finite(wav, self.name)

    def mono(self, start, count):
        """The same at the rate that was asked for, channels averaged: Tensor (S,)."""
        return self._normalise(self.read(start, count), self.rate)


class Samples:
    """Samples (S,) at the rate that is asked for, with the face of a :class:`Recording`; ``name`` is what messages call them."""

    def __init__(self, wav, sample_rate, name="samples"):
        self.name, self.wav = name, self.checked(wav, name)
        self.rate, self.samples = sample_rate, len(self.wav)
        self.seconds = self.samples / sample_rate
        _check_seconds(self.name, self.samples, sample_rate)

    @staticmethod
    def checked(wav, name="samples"):
        """``wav`` (S,) as a Tensor on the CPU; UseError for what is none of floating point and finite."""
        wav = torch.as_tensor(wav).detach().cpu()
        if wav.dim() != 1 or not wav.is_floating_point():
            raise UseError(f"{name}: {tuple(wav.shape)} of {wav.dtype}, expected (S,) of floating point from -1 to 1")
        return _finite(wav, name)

    def read(self, start, count):
        """Samples (count, 1) from ``start`` on."""
        return self.wav[start : start + count].unsqueeze(1)

    def mono(self, start, count):
        """Samples (count,) from ``start`` on."""
        return self.wav[start : start + count]


@contextmanager
def opened(recordings, sample_rate):
    """A list of Recording, Samples, or the UseError that says why one cannot be used; bytes lie in a temporary folder until the end.

    Arguments
    ---------
    recordings : list of path, bytes, open binary file, or samples (S,) at ``sample_rate``
    sample_rate : int
        Hz.
    """
    with tempfile.TemporaryDirectory() as place:
        yield [kept(_open, one, place, sample_rate) for one in recordings]


def kept(function, *arguments):
    """What ``function`` returns, or the UseError that it raises."""
    try:
        return function(*arguments)
    except UseError as error:
        return error


def stretches(recording, longest_s):
    """(first sample, number of samples) of the pieces of a recording, each at most ``longest_s`` long.

    Cuts are made where it is quietest, in the second half of what a piece may hold; no piece is shorter than 0.1 s, and ``longest_s`` is
    at least 1. Ours.
    """
    longest, start = int(longest_s * recording.rate), 0
    while recording.samples - start > longest:
        begin = longest // 2
        cut = begin + quietest(recording.read(start + begin, longest - begin), recording.rate)
        yield start, cut
        start += cut
    yield start, recording.samples - start


def quietest(wav, rate):
    """The sample in the middle of the quietest 0.2 s of ``wav`` (S, channels), at ``rate`` Hz: 0.1 s from either end; of equals the last.

    ``wav`` is at least 0.2 s long, in steps of 20 ms that are rounded up to whole samples.
    """
    step = math.ceil(QUIET_S * rate / 10)
    power = wav.double().square().mean(1)
    energy = power[: len(power) // step * step].view(-1, step).sum(1).unfold(0, 10, 1).sum(1)
    last = len(energy) - 1 - int(energy.flip(0).argmin())
    return (last + 5) * step


def _open(recording, place, sample_rate):
    if isinstance(recording, (str, os.PathLike)):
        return Recording(os.fspath(recording), os.fspath(recording), sample_rate)
    if isinstance(recording, Samples):
        return recording
    if isinstance(recording, (bytes, bytearray)):
        recording = io.BytesIO(recording)
    if not hasattr(recording, "read"):
        return Samples(recording, sample_rate)
    descriptor, path = tempfile.mkstemp(dir=place)
    with os.fdopen(descriptor, "wb") as file:
        while block := recording.read(1 << 20):
            file.write(block)
    return Recording(path, str(getattr(recording, "name", "<bytes>")), sample_rate)


def _described(path, name):
    """(rate, samples, channels) of a file; UseError for what is none, or cut short."""
    if not os.path.isfile(path):
        raise UseError(f"{name}: {'is a folder: name files' if os.path.isdir(path) else 'there is no such file'}")
    if os.path.getsize(path) == 0:
        raise UseError(f"{name}: is empty (0 bytes): restore the file")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
    except (soundfile.LibsndfileError, RuntimeError, OSError, TypeError) as error:
        raise UseError(f"{name}: is no audio that can be read ({os.path.getsize(path)} bytes): give WAV or FLAC") from error
    samples, problem = audio.probe(path, rate, decode=False, mono=False)
    if problem:
        raise UseError(f"{name}: {problem}")
    return rate, samples, channels


def _check_seconds(name, samples, rate):
    if samples < math.ceil(SHORTEST_S * rate):
        raise UseError(f"{name}: {samples} samples at {rate} Hz are {samples / rate:.3f} s: give {SHORTEST_S:g} s or more")
    if samples > LONGEST_S * rate:
        raise UseError(f"{name}: says that it is {samples / rate / 3600:,.0f} hours long, at most {LONGEST_S / 3600:g} are heard: cut it")


def _check_rate(name, rate, wanted):
    phases = wanted // math.gcd(rate, wanted)
    if phases > PHASES:
        ratio = f"{rate} to {wanted} Hz takes {phases} filters, at most {PHASES} are made"
        raise UseError(f"{name}: has a sample rate of {rate} Hz, and {ratio}: resample it to {wanted} Hz")


def _finite(wav, name):
    if not torch.isfinite(wav.sum()):
        bad = int((~wav.isfinite()).sum())
        if bad:
            raise UseError(f"{name}: {bad} of {wav.numel()} samples are NaN or infinite: restore the file")
    return wav
