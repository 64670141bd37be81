"""Soft saturation: features of any range, squeezed into currents that no outlier leaves.

    X0 = tanh(scale * N(X))        (PTS-SNN Eq. 5)
"""

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain.neurons.switches import check_word

INPUT_NORMS = ("layer", "global", "none")


class GlobalNorm(nn.Module):
    """(x - mean) / std * weight + bias, with the mean and deviation of each channel over a training set (ours).

    Unlike a norm of each frame by itself it keeps what is loud and what is quiet apart, which filterbanks need. Until
    :meth:`set_statistics` was called they are 0 and 1: right for features that were normalised before.

    Attributes
    ----------
    mean, std : buffers (C,)
    weight, bias : Parameters (C,), as a layer norm has them
    """

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def set_statistics(self, mean, std):
        """Takes the statistics (C,) of a training set; a ValueError for another number of channels or a deviation that is not positive."""
        for name, given in (("mean", mean), ("std", std)):
            if given.shape != self.mean.shape:
                raise ValueError(f"{name} is {tuple(given.shape)}, the norm has {tuple(self.mean.shape)}: pass one number a channel")
        flat = (std <= 0).nonzero().flatten().tolist()
        if flat:
            raise ValueError(f"std is {std[flat[0]].item():g} in channel {flat[0]}, not more than 0: a channel that never changes gets 1")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x):
        """Normalises ``x`` (..., C)."""
        return (x - self.mean) / self.std * self.weight + self.bias


class SoftSaturation(nn.Module):
    """tanh(scale * norm(x)), frame by frame.

    Arguments
    ---------
    channels : int
        C.
    scale : float
        Inside the tanh, so that outliers of a norm come to lie where it is nearly linear; 0.1 in the paper, whose printed equation
        is lost: a second-hand account has the scale inside.
    norm : str
        "layer" (the paper: each frame by itself, with weights), "global" (see :class:`GlobalNorm`) or "none".
    """

    def __init__(self, channels, scale=0.1, norm="layer"):
        super().__init__()
        check_word("input_norm", norm, INPUT_NORMS)
        self.scale = scale
        self.norm = {"layer": nn.LayerNorm, "global": GlobalNorm, "none": lambda channels: nn.Identity()}[norm](channels)

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"scale={self.scale}"

    def forward(self, x, lengths=None):
        """(B, L, C) in -1..1 of features ``x`` (B, L, C) and relative lengths (B,); 0 past an utterance's end."""
        return self.saturate(x, frames.absolute(lengths, x))

    def saturate(self, x, counts):
        """The same, from frame counts (B,) int64."""
        with torch.autocast(x.device.type, enabled=False):
            wide = frames.zero_past(x if x.dtype == torch.float64 else x.float(), counts)
            return frames.zero_past(torch.tanh(self.scale * self.norm(wide)), counts).to(x.dtype)
