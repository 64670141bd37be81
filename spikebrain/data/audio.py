"""Reading and checking audio: one message for each way in which a recording can be bad."""

import os

import numpy as np
import soundfile
import torch
from speechbrain.dataio import audio_io

from spikebrain.data.manifest import DataError

# What writes a WAV file to a pipe cannot know its length: it promises 0xffffffff bytes of audio, or (SoX) just below 2 GiB.
OPEN = 0x7FFF0000


def check_audio(wav, name):
    """Returns ``wav`` when it has samples and all of them are finite.

    Arguments
    ---------
    wav : Tensor or array (S,) or (S, channels)
    name : str
        The file, for the message.

    Raises
    ------
    DataError
        No samples, or NaN or infinite samples (how many, and where the first one is).
    """
    wav = torch.as_tensor(wav)
    if wav.numel() == 0:
        raise DataError(f"{name}: holds 0 samples: restore the file or pass --skip_bad_audio=True to leave it out")
    # One pass without a mask: a sum is finite only where every sample is, and overflows only for samples near 1e38.
    if not torch.isfinite(wav.sum()):
        bad = (~torch.isfinite(wav)).flatten().nonzero().flatten()
        if len(bad):
            raise DataError(
                f"{name}: {len(bad)} of {wav.numel()} samples are NaN or infinite, the first at {int(bad[0])}: "
                "restore the file or pass --skip_bad_audio=True to leave it out"
            )
    return wav


def load(path, sample_rate):
    """The samples of a mono file: Tensor (S,), float32, in [-1, 1].

    Raises
    ------
    DataError
        The file is missing or unreadable, has another rate or several channels, is empty, or holds NaN.
    """
    try:
        wav, rate = audio_io.load(path, dtype=torch.float32)
    except RuntimeError as error:
        raise DataError(f"{_unreadable(path, error)}: restore the file or pass --skip_bad_audio=True to leave it out") from error
    problem = _format_problem(rate, wav.shape[0], sample_rate)
    if problem:
        raise DataError(f"{path}: {problem}")
    return check_audio(wav[0], path)


def probe(path, sample_rate, decode, mono=True):
    """Looks at a file before training: its number of samples and what is wrong with it.

    The decoder takes a WAV file cut short for a shorter one: it is found by the bytes of audio that its header promises.

    Arguments
    ---------
    path : str
    sample_rate : int
        The rate (Hz) it must have.
    decode : bool
        True decodes all of it. False reads the header and the last sample only (about a tenth of the
        time): that finds a file cut short, but not damage in its middle.
    mono : bool
        False takes any number of channels: for corpora whose reader averages them.

    Returns
    -------
    (samples, problem) : int and str or None
        ``problem`` says what is wrong and the repair; ``samples`` is 0 then.
    """
    if os.path.getsize(path) == 0:
        return 0, "is empty (0 bytes): restore the file"
    try:
        with soundfile.SoundFile(path) as file:
            channels = file.channels if mono else 1
            problem = _format_problem(file.samplerate, channels, sample_rate) or _content_problem(file, decode)
            return (0, problem) if problem else (file.frames, None)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        return 0, f"cannot be read ({_reason(error)}; {os.path.getsize(path)} bytes): restore the file"


def _format_problem(rate, channels, sample_rate):
    if rate != sample_rate:
        return f"has a sample rate of {rate} Hz, expected {sample_rate} Hz: resample it to {sample_rate} Hz"
    if channels != 1:
        return f"has {channels} channels, expected 1: mix it down to mono"
    return None


def _content_problem(file, decode):
    frames, problem = file.frames, _cut_wav(file)
    if problem:
        return problem
    if frames == 0:
        return "holds 0 samples: restore the file"
    try:
        if not decode:
            file.seek(frames - 1)
        wav = file.read(frames if decode else 1, dtype="float32")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return _truncated(file, 0, f"; the decoder says: {_reason(error)}")
    if len(wav) < (frames if decode else 1):
        return _truncated(file, len(wav) if decode else 0)
    return None if np.isfinite(wav.sum()) or np.isfinite(wav).all() else _not_finite(wav)


def _truncated(file, got, more=""):
    size = os.path.getsize(file.name)
    return (
        f"is truncated or damaged: its header promises {file.frames} samples ({file.frames / file.samplerate:.2f} s), "
        f"its {size} bytes give {got or 'fewer'}{more}: restore the file"
    )


def _cut_wav(file):
    if file.format not in ("WAV", "WAVEX"):
        return None
    promised, there = _audio_bytes(file.name)
    if there >= promised:
        return None
    left = f"{there} are there ({file.frames} samples, {file.frames / file.samplerate:.2f} s)"
    return f"is truncated or damaged: its header promises {promised} bytes of audio, {left}: restore the file"


def _audio_bytes(path):
    """Bytes of audio that a RIFF file promises, and that follow; (0, 0) where it does not say (a stream, another byte order)."""
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF":
            return 0, 0
        file.seek(12)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return (0 if size >= OPEN else size), os.path.getsize(path) - file.tell()
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0, 0


def _not_finite(wav):
    return f"holds {int((~np.isfinite(wav)).sum())} NaN or infinite samples of {len(wav)}: restore the file"


def _reason(error):
    text = str(error).removesuffix(".")
    # libsndfile leaves some messages empty (code 158 is a FLAC decoder that lost synchronisation).
    text = text.split(": ", 1)[-1] if text.startswith("Error opening") else text
    return text.removeprefix("Error : ").strip() or f"{type(error).__name__} {getattr(error, 'code', '')}".strip()


def _unreadable(path, error):
    if not os.path.exists(path):
        return f"{path}: there is no such file"
    return f"{path}: cannot be read ({_reason(error.__cause__ or error)}; {os.path.getsize(path)} bytes)"
