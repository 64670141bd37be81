"""An artificial cochlea: speech to the spikes of 700 cells, in a tenth of the time that the speech lasts, on one core.

It imitates the conversion behind the Spiking Heidelberg Digits (B. Cramer, Y. Stradmann,
J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the Systematic Evaluation of
Spiking Neural Networks", IEEE TNNLS 2020): basilar membrane, hair cells, bushy cells.

What is theirs: 700 places, unit 0 at the base (7.1 kHz), along a membrane of 3.5 cm whose
stiffness falls as exp(-3 x / cm); half-wave rectifying hair cells that tire; bushy cells
as leaky integrate-and-fire neurons with a membrane of 1 ms and 1 ms of refractory time.

What is ours, so that it takes milliseconds: gammatone filters in place of the membrane's
hydrodynamic equation, their envelopes at 4 kHz in place of the waveform (fine structure is kept
below 1 kHz, where hearing follows it too), a power law with first-order adaptation in
place of transmitter pools, and the mean of a cell's afferents in place of 40 random
spike trains a cell. So it is repeatable, and no replacement for the released recordings.
"""

import functools
import math
from dataclasses import dataclass

import torch

LENGTH, STIFFNESS = 3.5, 3.0  # cm, and 1/cm


@dataclass(frozen=True)
class Cochlea:
    """Waveform -> spikes. An instance is called with samples; its numbers are the model's.

    units : cells along the membrane
    top : Hz, the best frequency of unit 0; unit u hears top * exp(-STIFFNESS / 2 * LENGTH * u / (units - 1))
    tick : ticks a second at which cells are followed, and the resolution of spike times
    follow : Hz, up to which a hair cell follows single periods; above it follows the envelope
    tilt : exponent of frequency (over 1 kHz) by which sound is weighted before the membrane, as outer and middle ear do; ours
    power : exponent of the compression of a hair cell's input
    adaptation, adaptation_s : share of its recent input that a hair cell subtracts, and over how long
    gain : of a hair cell's output to its bushy cell, whose threshold is 1; set so that a word makes several thousand spikes, as in SHD
    tau_s, refractory_s : time constant of the bushy cell's membrane, and how long it rests after a spike
    """

    units: int = 700
    top: float = 7118.0
    tick: int = 4000
    follow: float = 1000.0
    tilt: float = 0.5
    power: float = 0.5
    adaptation: float = 0.8
    adaptation_s: float = 0.02
    gain: float = 0.9
    tau_s: float = 0.001
    refractory_s: float = 0.001

    def best_frequencies(self):
        """Hz that each unit answers to most: Tensor (units,), falling."""
        place = torch.linspace(0, LENGTH, self.units, dtype=torch.float64)
        return self.top * torch.exp(-STIFFNESS / 2 * place)

    @torch.no_grad()
    def __call__(self, wav, sample_rate):
        """Spikes of a recording.

        The recording's level does not matter: it is scaled to a mean square of 1 first. Time is that of the
        recording; a filter's answer comes later by its group delay (most at low frequencies), as in the ear.

        Arguments
        ---------
        wav : Tensor (N,)
        sample_rate : int
            Hz. Units whose best frequency is well above half of it stay silent.

        Returns
        -------
        (times, units) : Tensor (E,), float64, seconds, rising; Tensor (E,), int64, 0..units - 1
            Empty for silence.

        Raises
        ------
        ValueError
            Not one channel of finite samples.
        """
        wav = torch.as_tensor(wav).to("cpu", torch.float32)
        if wav.dim() != 1 or wav.numel() == 0 or not torch.isfinite(wav).all():
            raise ValueError(f"wav has shape {tuple(wav.shape)}: pass the finite samples of one channel, (N,) with N > 0")
        level = wav.square().mean().sqrt()
        if level == 0:
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        fired = self.fire(self.rectified(wav / level, sample_rate))
        ticks, units = fired.nonzero(as_tuple=True)
        return ticks.double() / self.tick, units

    def rectified(self, wav, sample_rate):
        """What hair cells receive: the half-wave rectified answer of the filters to ``wav`` (N,), a Tensor (ticks, units)."""
        ticks = math.ceil(len(wav) * self.tick / sample_rate)
        blocks = _blocks(ticks + self.tick // 20, self.tick, sample_rate)
        bank = _filters(self, blocks, sample_rate)
        padded = torch.nn.functional.pad(wav, (0, bank.samples - len(wav)))
        spectrum = torch.fft.rfft(padded) * bank.weight
        # The mean of a half-wave rectified tone of amplitude A is A / pi; a filter's one-sided answer has amplitude A / 2.
        envelope = torch.fft.ifft(spectrum[bank.bins] * bank.high)[:, :ticks].abs() * (2 / math.pi)
        wave = torch.fft.irfft(spectrum[: bank.low.shape[1]] * bank.low, n=bank.ticks)[:, :ticks].clamp_min(0)
        return torch.cat([envelope, wave]).t().contiguous()

    def fire(self, rectified):
        """Runs hair cells and bushy cells over ``rectified`` (ticks, units): Tensor (ticks, units), bool, True where a cell fires.

        With x the compressed input, per tick: a += (x - a) * slow, v = v * keep + gain * max(0, x - adaptation * a),
        and v >= 1 fires, sets v to 0 and keeps it there for the refractory time.
        """
        import numpy as np  # a tick costs half of what it would with torch

        drive = (rectified.pow(self.power) * self.gain).numpy()
        keep, slow = math.exp(-1 / (self.tick * self.tau_s)), 1 - math.exp(-1 / (self.tick * self.adaptation_s))
        rest = round(self.tick * self.refractory_s)
        recent, v, step = np.zeros_like(drive[0]), np.zeros_like(drive[0]), np.zeros_like(drive[0])
        ready = np.zeros(drive.shape[1], np.int32)
        fired = np.zeros(drive.shape, bool)
        for tick, x in enumerate(drive):
            np.subtract(x, recent, out=step)
            step *= slow
            recent += step
            np.multiply(recent, -self.adaptation, out=step)
            step += x
            np.maximum(step, 0, out=step)
            v *= keep
            v += step
            v *= ready <= tick
            now = np.greater_equal(v, 1, out=fired[tick])
            if now.any():
                v[now] = 0
                ready[now] = tick + 1 + rest
        return torch.from_numpy(fired)


@dataclass(frozen=True)
class _Bank:
    """Filters for recordings of up to ``samples`` samples, or ``ticks`` ticks: those above ``follow`` over the ``bins`` around each."""

    samples: int
    ticks: int
    weight: torch.Tensor
    bins: torch.Tensor
    high: torch.Tensor
    low: torch.Tensor


def _blocks(ticks, tick, sample_rate):
    # A whole number of ticks must last a whole number of samples; few different sizes, so that few filter banks are made.
    least = math.ceil(ticks * math.gcd(tick, sample_rate) / tick)
    power = 1 << max(0, least - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= least else power


@functools.lru_cache(maxsize=4)  # 25 MB for a second of sound
def _filters(model, blocks, sample_rate):
    """Gammatone filters of order 4, ERB wide (Glasberg and Moore 1990), in the frequency domain."""
    common = math.gcd(model.tick, sample_rate)
    samples, ticks = blocks * sample_rate // common, blocks * model.tick // common
    step, top_bin = sample_rate / samples, samples // 2
    best = model.best_frequencies().float()
    width = 1.019 * 24.7 * (4.37 * best / 1000 + 1)
    fast = best >= model.follow
    bins = (best[fast] / step).round().long().unsqueeze(1) + torch.fft.fftfreq(ticks, 1 / ticks).long()
    high = _gammatone(bins * step, best[fast], width[fast])
    high[(bins < 0) | (bins > top_bin)] = 0
    low = _gammatone(torch.arange(min(ticks // 2, top_bin) + 1) * step, best[~fast], width[~fast])
    weight = ticks / samples * (torch.arange(top_bin + 1) * step / 1000) ** model.tilt
    return _Bank(samples, ticks, weight, bins.clamp(0, top_bin), high, low)


def _gammatone(frequency, best, width):
    return torch.complex(torch.ones(()), (frequency - best.unsqueeze(1)) / width.unsqueeze(1)).reciprocal().square().square()
