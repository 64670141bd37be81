"""Augmentation of training data: parts of a spike train left out, and bands of a spectrogram masked.

All draw from torch's global generator, so that loaders with workers get draws of their own
and a seeded run repeats itself. None of them knows whether a model is training: call them
on training data only.
"""

import torch

from spikebrain import lengths as frames


class EventDrop:
    """Leaves out a stretch of time and a band of neighbouring channels of one utterance (SpikeSCR, arXiv 2412.12858, Table 4).

    Each of the two happens with ``probability``, independently. The stretch is of fixed size, int(time_share * L)
    frames, from a start in 0..L - size - 1; the band has 0..band - 1 channels (drawn evenly), from a start in
    0..C - band - 1. (The paper says "fixed ratio" of both; its published code draws the band.)

    Arguments
    ---------
    probability : float
        Of each, in [0, 1].
    time_share : float
        Of the frames, in [0, 1).
    band : int
        Channels; a band is narrower than this.

    Raises
    ------
    ValueError
        An argument out of its range.
    """

    def __init__(self, probability=0.5, time_share=0.2, band=20):
        if not (0 <= probability <= 1 and 0 <= time_share < 1 and band >= 1):
            raise ValueError(
                f"probability is {probability}, time_share {time_share}, band {band}: they lie in [0, 1], in [0, 1) and from 1 on"
            )
        self.probability, self.time_share, self.band = probability, time_share, band

    def __call__(self, x):
        """``x`` (L, C), one utterance before padding -> a copy with what was left out set to 0.

        Raises
        ------
        ValueError
            ``x`` is a batch, or has no more channels than ``band``.
        """
        if x.dim() != 2 or x.shape[1] <= self.band:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (frames, channels) with more than band = {self.band} channels")
        x = x.clone()
        if _happens(self.probability):
            span = int(self.time_share * x.shape[0])
            start = _below(x.shape[0] - span)
            x[start : start + span] = 0
        if _happens(self.probability):
            width, start = _below(self.band), _below(x.shape[1] - self.band)
            x[:, start : start + width] = 0
        return x


def event_drop_shd():
    """The EventDrop of SpikeSCR for SHD (Table 4)."""
    return EventDrop(probability=0.5, time_share=0.2, band=20)


def event_drop_ssc():
    """The EventDrop of SpikeSCR for SSC (Table 4)."""
    return EventDrop(probability=0.5, time_share=0.1, band=10)


def _happens(probability):
    return torch.rand(()).item() < probability


def _below(limit):
    """An integer of 0..limit - 1."""
    return int(torch.randint(limit, ()))


class SpecAugment:
    """One band of frequencies and one stretch of time of a batch, masked, as SpikeSCR does it on Speech Commands.

    The band is the same for the whole batch: int(u) channels, u uniform in [0, frequency_width), that begin at int(v),
    v uniform in [0, C - u). The stretch is drawn for each utterance in the same way, narrower than int(time_share * L).
    (That is what torchaudio's masks do with ``iid_masks``; SpecAugment itself is Park et al., Interspeech 2019.)

    Ours: the stretch is drawn from an utterance's own frames, L being their number, and padding is never masked, so
    that masks do not depend on how far the batch is padded; in Speech Commands all utterances are equally long.

    Arguments
    ---------
    frequency_width : int
        Channels; a band is narrower than this. 0: none.
    time_share : float
        Of an utterance's frames, in [0, 1]; a stretch is narrower than this. 0: none.
    mask_value : float
        What masked cells hold. 0 is SpikeSCR's, and means 0 dB on features in dB, not silence (-100).

    Raises
    ------
    ValueError
        An argument out of its range.
    """

    def __init__(self, frequency_width=10, time_share=0.25, mask_value=0.0):
        if frequency_width < 0 or not 0 <= time_share <= 1:
            raise ValueError(f"frequency_width is {frequency_width}, time_share {time_share}: they lie from 0 on and in [0, 1]")
        self.frequency_width, self.time_share, self.mask_value = frequency_width, time_share, mask_value

    def __call__(self, x, lengths=None):
        """Masks a batch.

        Arguments
        ---------
        x : Tensor (B, L, C)
        lengths : Tensor (B,) or None
            Relative lengths.

        Returns
        -------
        Tensor (B, L, C), a copy.

        Raises
        ------
        ValueError
            ``x`` has fewer channels than ``frequency_width``.
        """
        if x.dim() != 3 or x.shape[2] < self.frequency_width:
            least = f"at least frequency_width = {self.frequency_width} channels"
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, L, C) with {least}")
        channels = torch.tensor(x.shape[2], device=x.device)
        own = frames.absolute(lengths, x)
        masked = _stretch(torch.tensor(self.frequency_width, device=x.device), channels, x.shape[2])
        masked = masked | _stretch((self.time_share * own).long(), own, x.shape[1]).unsqueeze(2)
        valid = frames.valid_mask(lengths, x)
        if valid is not None:
            masked = masked & valid.unsqueeze(2)
        return x.masked_fill(masked, self.mask_value)


def _stretch(limit, total, size):
    """True on a stretch of each of ``total`` (...) cells, narrower than ``limit`` (...): bool (..., size)."""
    width = torch.rand(limit.shape, device=limit.device) * limit
    start = (torch.rand(limit.shape, device=limit.device) * (total - width)).long().unsqueeze(-1)
    at = torch.arange(size, device=limit.device)
    return (at >= start) & (at < start + width.long().unsqueeze(-1))
