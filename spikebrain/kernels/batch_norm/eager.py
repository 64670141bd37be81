"""The sums and mixtures of batch normalisation as torch operations, on any device."""

import torch

from spikebrain import lengths as frames


def sums(a, b, counts):
    """Tensor (2 C + 1,), float64: sums over valid frames of a and of a * b (B, L, C), and the number of valid frames."""
    a = frames.zero_past(a, counts).double()
    return torch.cat([a.sum((0, 1)), (a * frames.zero_past(b, counts)).sum((0, 1)), counts.sum().view(1)])


def moments(total):
    """The row of Moments of such sums of x and its square."""
    mean, square = (total[:-1] / total[-1]).view(2, -1)
    return torch.cat([mean, (square - mean**2).clamp(min=0), total[-1:]])


def affine(found, weight, bias, eps):
    """See :func:`spikebrain.kernels.batch_norm.affine`."""
    mean, var = found[:-1].view(2, -1)
    scale = weight.double() / (var + eps).sqrt()
    return scale.to(weight.dtype), (bias.double() - mean * scale).to(weight.dtype)


def by_parameters_(by, found, weight, eps):
    """Derivatives by weight and bias, of sums ``by`` (2, C) of the derivative and of its product with x, which turn into both."""
    mean, var = found[:-1].view(2, -1)
    by[1] = (by[1] - mean * by[0]) / (var + eps).sqrt()
    by_bias, by_weight = by.to(weight.dtype, copy=True)
    return by_weight, by_bias


def by_input(by, found, weight, eps):
    """What the derivative by y, x and 1 are multiplied with to give that by x, from the derivatives ``by`` bias and weight."""
    (mean, var), (by_bias, by_weight) = found[:-1].view(2, -1), by / found[-1]
    rstd = (var + eps).rsqrt()
    scale = weight.double() * rstd
    by_x = -scale * rstd * by_weight
    return [factor.to(weight.dtype) for factor in (scale, by_x, -scale * by_bias - by_x * mean)]


def update_(mean, var, found, momentum):
    """See :func:`spikebrain.kernels.batch_norm.update_`."""
    batch_mean, batch_var = found[:-1].view(2, -1)
    unbiased = batch_var * (found[-1] / (found[-1] - 1).clamp(min=1))
    mean.lerp_(batch_mean.to(mean.dtype), momentum)
    var.lerp_(unbiased.to(var.dtype), momentum)


def scaled(a, scale, shift, counts):
    """a * scale + shift on valid frames, 0 past them."""
    return frames.zero_past(a * scale + shift, counts)


def mix_(a, by_a, b, by_b, shift, counts):
    """a * by_a + b * by_b + shift on valid frames, 0 past them, written over a."""
    return a.mul_(by_a).add_(b * by_b).add_(shift).masked_fill_(~frames.valid(counts, a).unsqueeze(-1), 0)
