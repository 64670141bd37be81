"""The sums and mixtures of batch normalisation in C, on torch's own threads. Same signatures as ``eager``."""

from pathlib import Path

import torch

from spikebrain.kernels import native

SOURCE = Path(__file__).with_name("batch_norm.c")


def sums(a, b, counts):
    """Sums over valid frames of a and of a * b: Tensors (C,), float64."""
    out = torch.empty(2, a.shape[0], a.shape[2], dtype=torch.float64)
    native.call(SOURCE, "sums", a.dtype, *native.dense(a, b, counts), *a.shape, out)
    return out.sum(1)


def scaled(a, scale, shift, counts):
    """a * scale + shift on valid frames, 0 past them."""
    out = torch.empty_like(a, memory_format=torch.contiguous_format)
    native.call(SOURCE, "mix", a.dtype, *native.dense(a, scale, None, None, shift, counts), *a.shape, out)
    return out


def mix_(a, by_a, b, by_b, shift, counts):
    """a * by_a + b * by_b + shift on valid frames, 0 past them, written over the contiguous tensor a."""
    native.call(SOURCE, "mix", a.dtype, a, *native.dense(by_a, b, by_b, shift, counts), *a.shape, a)
    return a
