"""The sums and mixtures of batch normalisation as torch operations, on any device."""

import torch

from spikebrain import lengths as frames


def sums(a, b, counts):
    """Sums over valid frames of a and of a * b (B, L, C): Tensor (2, C), float64."""
    a = frames.zero_past(a, counts).double()
    return torch.stack([a.sum((0, 1)), (a * frames.zero_past(b, counts)).sum((0, 1))])


def scaled(a, scale, shift, counts):
    """a * scale + shift on valid frames, 0 past them."""
    return frames.zero_past(a * scale + shift, counts)


def mix_(a, by_a, b, by_b, shift, counts):
    """a * by_a + b * by_b + shift on valid frames, 0 past them, written over a."""
    return a.mul_(by_a).add_(b * by_b).add_(shift).masked_fill_(~frames.valid(counts, a).unsqueeze(-1), 0)
