"""Temporal shift: some channels look one frame back, as many one frame ahead, and a linear layer behind mixes three frames.

It has no parameters and multiplies nothing. PTS-SNN Eq. 6 (Shift), after J. Lin et al., "TSM: Temporal Shift Module for Efficient
Video Understanding", ICCV 2019, whose share of 1/8 each way is taken, since PTS-SNN does not say its own (ours).
"""

import torch
import torch.nn.functional as F
from torch import nn

from spikebrain import lengths as frames


def shift(x, width):
    """``x`` (B, L, C) with channels [0, width) from the frame before and [width, 2 width) from the one behind; 0 from outside."""
    late = F.pad(x[:, :-1, :width], (0, 0, 1, 0))
    early = F.pad(x[:, 1:, width : 2 * width], (0, 0, 0, 1))
    return torch.cat([late, early, x[..., 2 * width :]], -1)


def shifted_channels(channels, ratio):
    """How many of ``channels`` go each way when ``ratio``, 0..1, of all are shifted; ValueError for another ratio."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"shift is {ratio}: choose the share of channels that are shifted, 0 to 1")
    return int(channels * ratio / 2)


class TemporalShift(nn.Module):
    """The shift as a module.

    Arguments
    ---------
    ratio : float
        Share of channels that are shifted, half of them each way; 0 leaves everything where it is.

    Example
    -------
    >>> x = torch.tensor([[[1.0, 10.0, 100.0, 7.0], [2.0, 20.0, 200.0, 8.0]]])
    >>> TemporalShift(0.5)(x).tolist()
    [[[0.0, 20.0, 100.0, 7.0], [1.0, 0.0, 200.0, 8.0]]]
    """

    def __init__(self, ratio=0.25):
        super().__init__()
        shifted_channels(0, ratio)
        self.ratio = ratio

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"ratio={self.ratio}"

    def forward(self, x, lengths=None):
        """(B, L, C) of ``x`` (B, L, C) and relative lengths (B,); an utterance's last frame has 0 behind it, whatever the padding holds."""
        counts = frames.absolute(lengths, x)
        return frames.zero_past(shift(frames.zero_past(x, counts), shifted_channels(x.shape[-1], self.ratio)), counts)
