"""Noise, rooms and loudness for waveforms of one utterance, before it is padded into a batch.

SpeechBrain's ``AddNoise`` and ``AddReverb`` work on padded batches: the place in the noise depends on the longest utterance beside it, the
room is one for all of them, its echo wraps around to the beginning, and where they are in their list of files is forgotten by a run that
resumes. Here an utterance is changed by itself, and every draw is of torch's global generator, which recipes save.
"""

import torch

SILENCE = 1e-10  # mean square, below which there is nothing to set a ratio to


def add_noise(wav, noise, snr_db):
    """``wav`` with ``noise``, both (S,), scaled so that the signal's mean square lies ``snr_db`` dB above the noise's.

    The signal stays as it is. Where either is silent there is no such ratio, and nothing is added.

    Raises
    ------
    ValueError
        For noise of another length.
    """
    if noise.shape != wav.shape:
        raise ValueError(f"the noise has {len(noise)} samples, the signal {len(wav)}: cut or repeat it first, see random_crop")
    signal, power = wav.square().mean(), noise.square().mean()
    if min(signal, power) < SILENCE:
        return wav
    return wav + noise * (signal / power * 10 ** (-snr_db / 10)).sqrt()


def gaussian_noise(wav, snr_db):
    """``wav`` (S,) with white noise, ``snr_db`` dB below it."""
    return add_noise(wav, torch.randn_like(wav), snr_db)


def reverberate(wav, response):
    """``wav`` (S,) as it sounds in the room of an impulse ``response`` (R,), as long and as loud as before.

    The response begins with its largest sample, the direct sound, so that nothing moves in time.

    Raises
    ------
    ValueError
        For a response without a sound.
    """
    response = response[int(response.abs().argmax()) :]
    if not bool(response.any()):
        raise ValueError("the impulse response is silent: leave the file out")
    size = len(wav) + len(response) - 1
    points = 1 << (size - 1).bit_length()
    heard = torch.fft.irfft(torch.fft.rfft(wav, points) * torch.fft.rfft(response, points), points)[: len(wav)]
    return heard * (wav.square().mean() / heard.square().mean().clamp(min=SILENCE * 1e-10)).sqrt()


def change_volume(wav, gain_db):
    """``wav`` (S,) at ``gain_db`` dB."""
    return wav * 10 ** (gain_db / 20)


def random_crop(wav, samples):
    """``samples`` samples of ``wav`` (S,), from a place that torch's generator draws; repeated from its beginning where it is shorter.

    Raises
    ------
    ValueError
        For an empty ``wav``.
    """
    if len(wav) == 0:
        raise ValueError("wav has 0 samples: there is nothing to cut or to repeat")
    if len(wav) < samples:
        wav = wav.repeat(-(-samples // len(wav)))[:samples]
    start = int(torch.randint(len(wav) - samples + 1, ()))
    return wav[start : start + samples]


def uniform(low, high):
    """A number of [low, high), drawn by torch's generator."""
    return low + (high - low) * float(torch.rand(()))


def happens(probability):
    """True with ``probability``, drawn by torch's generator."""
    return float(torch.rand(())) < probability
