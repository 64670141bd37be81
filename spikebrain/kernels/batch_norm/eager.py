"""The sums and mixtures of batch normalisation as torch operations, on any device."""

import torch


def _padding(a, counts):
    return (torch.arange(a.shape[1], device=a.device) >= counts.unsqueeze(1)).unsqueeze(-1)


def sums(a, b, counts):
    """Sums over valid frames of a and of a * b (B, L, C): Tensor (2, C), float64."""
    a = a.masked_fill(_padding(a, counts), 0).double()
    return torch.stack([a.sum((0, 1)), (a * b.masked_fill(_padding(b, counts), 0)).sum((0, 1))])


def scaled(a, scale, shift, counts):
    """a * scale + shift on valid frames, 0 past them."""
    return (a * scale + shift).masked_fill_(_padding(a, counts), 0)


def mix_(a, by_a, b, by_b, shift, counts):
    """a * by_a + b * by_b + shift on valid frames, 0 past them, written over a."""
    return a.mul_(by_a).add_(b * by_b).add_(shift).masked_fill_(_padding(a, counts), 0)
