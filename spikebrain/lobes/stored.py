"""The front end of features that were extracted before: it normalises them, and nothing else."""

import torch
from torch import nn

from spikebrain import lengths as frames


class StoredFeatures(nn.Module):
    """gain * (x - mean) / std of features that a data pipeline reads from a cache.

    Arguments
    ---------
    channels : int
        C.
    frames : float
        A second, for the record.
    mean, std : Tensors (C,), optional
        Of a training set; without them features stay as they are.
    gain : float
        1, but where it is measured what a network does with features of another strength (PTS-SNN Fig. 1).

    Attributes
    ----------
    domain : str
        "features": what a data pipeline has to read for it.
    """

    domain = "features"

    def __init__(self, channels, frames, mean=None, std=None, gain=1.0):
        super().__init__()
        self.channels, self.frames, self.gain = channels, frames, gain
        self.register_buffer("mean", torch.zeros(channels) if mean is None else mean)
        self.register_buffer("std", torch.ones(channels) if std is None else std)

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"{self.channels}, frames={self.frames:g}, gain={self.gain:g}"

    def forward(self, x, lengths=None):
        """Features (B, L, C), 0 past an utterance's end, and relative lengths (B,). ValueError for another number of channels."""
        if x.shape[-1] != self.channels:
            raise ValueError(f"features have {x.shape[-1]} channels, {self.channels} are expected: extract them with one model")
        lengths = torch.ones(len(x), device=x.device) if lengths is None else lengths
        return frames.zero_padding(self.gain * (x - self.mean) / self.std, lengths), lengths
