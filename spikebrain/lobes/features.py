"""Log-mel features whose frames belong to one utterance alone, and front ends whose knob is the number of frames a second."""

import logging
import warnings
from dataclasses import dataclass, replace

import torch
from speechbrain.lobes.features import Fbank

from spikebrain import lengths as frames

logger = logging.getLogger(__name__)


class LogMel(torch.nn.Module):
    """Waveforms to log-mel energies, with exact frame counts.

    SpeechBrain's ``Fbank`` (Hamming window, centred frames, zeros outside of the signal), with three
    promises added: samples past an utterance's end are set to zero first, so that its features are the
    same alone and in any padded batch; the lengths that come back are frame counts by formula,
    ``1 + samples // hop``; and features are computed in float32 at least, under autocast too.

    Arguments
    ---------
    sample_rate : int
        Samples a second.
    n_fft : int
        Points of the Fourier transform.
    n_mels : int
        Mel bands.
    win_length, hop_length : float
        Window and shift, in milliseconds.
    f_min, f_max : float
        Edges of the lowest and the highest band in Hz; ``f_max=None`` is half the sample rate.
    pre_emphasis : float
        Share of each sample that is taken from the next one; 0: none.

    Raises
    ------
    ValueError
        When ``f_max`` lies above half the sample rate.
    """

    def __init__(self, sample_rate=16000, n_fft=400, n_mels=80, win_length=25, hop_length=10, f_min=0, f_max=None, pre_emphasis=0.0):
        super().__init__()
        if f_max is not None and not f_min < f_max <= sample_rate / 2:
            raise ValueError(
                f"f_max is {f_max} Hz, but must lie above f_min ({f_min}) and not above {sample_rate / 2:g}: set f_max: {sample_rate // 2}"
            )
        self.sample_rate = sample_rate
        self.pre_emphasis = pre_emphasis
        self.hop = round(sample_rate * hop_length / 1000)
        self.fbank = Fbank(
            sample_rate=sample_rate, n_fft=n_fft, n_mels=n_mels, win_length=win_length, hop_length=hop_length, f_min=f_min, f_max=f_max
        )

    def _apply(self, fn, recurse=True):
        # SpeechBrain keeps these as plain attributes, which `.to()` and `.double()` pass by.
        stft, bank = self.fbank.compute_STFT, self.fbank.compute_fbanks
        stft.window = fn(stft.window)
        bank.f_central, bank.band, bank.all_freqs_mat = fn(bank.f_central), fn(bank.band), fn(bank.all_freqs_mat)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, x, lengths=None):
        """Features of a padded batch.

        Arguments
        ---------
        x : Tensor (B, N)
            Samples.
        lengths : Tensor (B,) or None
            Relative lengths.

        Returns
        -------
        Tensor (B, L, n_mels), in dB, and Tensor (B,), relative lengths over L frames.
        """
        samples = frames.absolute(lengths, x)
        if self.pre_emphasis:
            x = torch.cat([x[:, :1], x[:, 1:] - self.pre_emphasis * x[:, :-1]], 1)
        x = frames.zero_padding(x, lengths)
        with torch.autocast(x.device.type, enabled=False):
            out = self.fbank(x if x.dtype == torch.float64 else x.float())
        return out, frames.relative(frames.stft_frames(samples, self.hop), out.shape[1])


@dataclass(frozen=True)
class MelOptions:
    """How :class:`FrameRateMel` analyses.

    rate : Hz, to which audio is resampled first
    window_s : seconds of the Hann window
    n_mels : bands, on the HTK scale, of height 1
    f_min, f_max : Hz, edges of the lowest and the highest band
    published : as SpikeSCR's code analyses: the signal is mirrored at its ends, the window is as long whatever the hop, values are
        dB of the sum of squares, silence is -100. False (ours): zeros around the signal; a window at least two hops long, so that
        every sample is heard where frames are few; a band's value is its part of the mean square of a full-scale signal, whatever
        the window, in bels above a floor of -100 dB, so that silence, padding and masked values are all 0.
    """

    rate: int
    window_s: float
    n_mels: int
    f_min: float
    f_max: float
    published: bool


PRESETS = {
    "paper": MelOptions(rate=8000, window_s=0.032, n_mels=140, f_min=50, f_max=14000, published=True),
    "sane": MelOptions(rate=16000, window_s=0.025, n_mels=40, f_min=50, f_max=4000, published=False),
}
FLOOR = 1e-10  # of power, -100 dB


class FrameRateMel(torch.nn.Module):
    """Waveforms to log-mel energies at a chosen number of frames a second, for keywords and curricula.

    ``preset="paper"`` is the front end of the SpikeSCR paper's Speech Commands experiments, with its numbers: 8 kHz, 256 points,
    hops of 20, 40, 80 and 200 samples for 401, 201, 101 and 41 frames of a second. It asks for 140 bands up to
    14 kHz of audio that ends at 4 kHz: the upper 53 are always silent, which the log says. ``preset="sane"`` is ours; see
    :class:`MelOptions`.

    Arguments
    ---------
    frames : int
        Frames a second; divides the preset's rate.
    sample_rate : int
        Hz of the waveforms.
    preset : str
        "sane" or "paper".
    **changes
        Fields of :class:`MelOptions` that differ from the preset.

    Attributes
    ----------
    domain : str
        "audio": what a data pipeline has to read for it.
    channels : int
        Bands.
    hop, window : int
        Samples at ``options.rate``.

    Raises
    ------
    ValueError
        An unknown preset, frames that do not divide the rate, or (but in the published analysis) an ``f_max`` above half of it.
    """

    domain = "audio"

    def __init__(self, frames, sample_rate=16000, preset="sane", **changes):
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"preset: {preset!r} is none of {', '.join(PRESETS)}")
        self.options = options = replace(PRESETS[preset], **changes)
        self.sample_rate, self.frames, self.channels = sample_rate, frames, options.n_mels
        self.hop = _hop(frames, options.rate)
        window = round(options.window_s * options.rate)
        self.window = window if options.published else max(window, 2 * self.hop)
        points = 1 << (self.window - 1).bit_length()
        # Not in the state: a teacher and its student of fewer frames share all of it.
        self.register_buffer("hann", torch.hann_window(self.window, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("bank", _mel_bank(points // 2 + 1, options), persistent=False)

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"frames={self.frames}, window={1000 * self.window / self.options.rate:g} ms, {self.options}"

    @torch.no_grad()
    def forward(self, x, lengths=None):
        """Features of a padded batch.

        Arguments
        ---------
        x : Tensor (B, N)
            Samples.
        lengths : Tensor (B,) or None
            Relative lengths.

        Returns
        -------
        Tensor (B, L, channels), at least float32, and Tensor (B,), relative lengths over L frames. An utterance of n samples (at
        ``options.rate``) has ``1 + n // hop`` frames.

        Raises
        ------
        ValueError
            Utterances of different length for the published analysis, which mirrors a signal at its end.
        """
        counts = frames.absolute(lengths, x)
        with torch.autocast(x.device.type, enabled=False):
            x = frames.zero_padding(x if x.dtype == torch.float64 else x.float(), lengths)
            x, counts = self._resample(x, counts)
            if self.options.published and int(counts.min()) < x.shape[1]:
                raise ValueError(
                    f"utterances of {int(counts.min())} to {x.shape[1]} samples: the published analysis mirrors a signal at its end, "
                    "so give all of them one length (seconds: 1.0 and pad: True), or use preset: sane"
                )
            out = self._analyse(x)
        return out, frames.relative(frames.stft_frames(counts, self.hop), out.shape[1])

    def _resample(self, x, counts):
        rate = self.options.rate
        if rate == self.sample_rate:
            return x, counts
        from torchaudio.functional import resample

        x, counts = resample(x, self.sample_rate, rate), (counts * rate + self.sample_rate - 1) // self.sample_rate
        # The filter rings on past an utterance's end, where there is nothing when it is alone.
        return frames.zero_padding(x, frames.relative(counts, x.shape[1])), counts

    def _analyse(self, x):
        mode = "reflect" if self.options.published else "constant"
        window, points = self.hann.to(x.dtype), 2 * (self.bank.shape[0] - 1)
        spectrum = torch.stft(x, points, self.hop, self.window, window, center=True, pad_mode=mode, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        if not self.options.published:
            power = power / (points * window.square().sum())
        level = 10 * (power.transpose(1, 2) @ self.bank.to(x.dtype)).clamp(min=FLOOR).log10()
        return level if self.options.published else (level + 100) / 10


class EventFrames(torch.nn.Module):
    """The front end of recordings that are spikes already: their frames are counts of spikes, made while they are read.

    Arguments
    ---------
    frames : int
        Frames a second: a frame holds the spikes of ``step_ms = 1000 / frames`` milliseconds.
    channels : int
        Bands of neighbouring units.

    Attributes
    ----------
    domain : str
        "events": what a data pipeline has to read for it.
    """

    domain = "events"

    def __init__(self, frames, channels=140):
        super().__init__()
        if frames <= 0:
            raise ValueError(f"frames is {frames}: give the number of frames a second, above 0")
        self.frames, self.channels, self.step_ms = frames, channels, 1000 / frames

    def forward(self, x, lengths=None):
        """Frames (B, L, channels) and relative lengths (B,), as they come. ValueError for another number of channels."""
        if x.shape[-1] != self.channels:
            raise ValueError(f"frames have {x.shape[-1]} channels, {self.channels} are expected: set channels: {x.shape[-1]}")
        return x, torch.ones(len(x), device=x.device) if lengths is None else lengths


def _hop(number, rate):
    if number < 1 or rate % number:
        near = min((d for d in range(1, rate + 1) if rate % d == 0), key=lambda d: abs(d - number))
        raise ValueError(f"frames: {number} a second do not divide the analysis rate of {rate} Hz: the nearest number that does is {near}")
    return rate // number


def _mel_bank(bins, options):
    """Triangular filters (bins, n_mels)."""
    from torchaudio.functional import melscale_fbanks

    half = options.rate / 2
    if not options.published and not options.f_min < options.f_max <= half:
        raise ValueError(
            f"f_max is {options.f_max} Hz, but must lie above f_min ({options.f_min}) and not above {half:g}: set f_max: {half:g}"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        bank = melscale_fbanks(bins, options.f_min, options.f_max, options.n_mels, options.rate)
    empty = int((bank.sum(0) == 0).sum())
    if empty:
        logger.warning("%d of %d mel bands hear nothing: audio at %d Hz ends at %g Hz", empty, options.n_mels, options.rate, half)
    return bank
