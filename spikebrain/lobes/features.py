"""Log-mel features whose frames belong to one utterance alone."""

import torch
from speechbrain.lobes.features import Fbank

from spikebrain import lengths as frames


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

    Raises
    ------
    ValueError
        When ``f_max`` lies above half the sample rate.
    """

    def __init__(self, sample_rate=16000, n_fft=400, n_mels=80, win_length=25, hop_length=10, f_min=0, f_max=None):
        super().__init__()
        if f_max is not None and not f_min < f_max <= sample_rate / 2:
            raise ValueError(
                f"f_max is {f_max} Hz, but must lie above f_min ({f_min}) and not above {sample_rate / 2:g}: set f_max: {sample_rate // 2}"
            )
        self.sample_rate = sample_rate
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
        x = frames.zero_padding(x, lengths)
        with torch.autocast(x.device.type, enabled=False):
            out = self.fbank(x if x.dtype == torch.float64 else x.float())
        return out, frames.relative(frames.stft_frames(samples, self.hop), out.shape[1])
