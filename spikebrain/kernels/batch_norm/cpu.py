"""The sums and mixtures of batch normalisation in C, on torch's own threads. Same signatures as ``eager``."""

from pathlib import Path

import torch

from spikebrain.kernels import native

SOURCE = Path(__file__).with_name("batch_norm.c")


def sums(a, b, counts):
    """Tensor (2 C + 1,), float64: sums over valid frames of a and of a * b, and the number of valid frames."""
    batch, _, channels = a.shape
    parts, total = torch.empty(2, batch, channels, dtype=torch.float64), torch.empty(2 * channels + 1, dtype=torch.float64)
    native.call(SOURCE, "sums", a.dtype, *native.dense(a, b, counts), *a.shape, parts, total)
    return total


def moments(total):
    """The row of Moments of such sums of x and its square."""
    found = torch.empty_like(total)
    native.call(SOURCE, "moments", total.dtype, total, len(total) // 2, found)
    return found


def affine(found, weight, bias, eps):
    """See :func:`spikebrain.kernels.batch_norm.affine`."""
    by = weight.new_empty(2, len(weight))
    native.call(SOURCE, "affine", weight.dtype, found, *native.dense(weight, bias), float(eps), len(weight), by)
    return by.unbind()


def by_parameters_(by, found, weight, eps):
    """Derivatives by weight and bias, of sums ``by`` (2, C) of the derivative and of its product with x, which turn into both."""
    by_weight, by_bias = torch.empty_like(weight), torch.empty_like(weight)
    native.call(SOURCE, "by_parameters", weight.dtype, by, found, float(eps), len(weight), by_weight, by_bias)
    return by_weight, by_bias


def by_input(by, found, weight, eps):
    """What the derivative by y, x and 1 are multiplied with to give that by x, from the derivatives ``by`` bias and weight."""
    factors = weight.new_empty(3, len(weight))
    native.call(SOURCE, "by_input", weight.dtype, by, found, *native.dense(weight), float(eps), len(weight), factors)
    return factors.unbind()


def update_(mean, var, found, momentum):
    """See :func:`spikebrain.kernels.batch_norm.update_`."""
    native.call(SOURCE, "update", mean.dtype, found, float(momentum), len(mean), mean, var)


def scaled(a, scale, shift, counts):
    """a * scale + shift on valid frames, 0 past them."""
    out = torch.empty_like(a, memory_format=torch.contiguous_format)
    native.call(SOURCE, "mix", a.dtype, *native.dense(a, scale, None, None, shift, counts), *a.shape, out)
    return out


def mix_(a, by_a, b, by_b, shift, counts):
    """a * by_a + b * by_b + shift on valid frames, 0 past them, written over the contiguous tensor a."""
    native.call(SOURCE, "mix", a.dtype, a, *native.dense(by_a, b, by_b, shift, counts), *a.shape, a)
    return a
