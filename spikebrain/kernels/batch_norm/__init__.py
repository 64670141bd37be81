"""The op of batch normalisation over the valid frames of a padded batch, shared between processes.

``reference`` is the definition, ``eager`` runs anywhere, ``cpu`` is compiled. Sums are taken in float64. Several processes
share sum, square sum and count, so that n of them equal one on the joined batch.
"""

from typing import NamedTuple

import torch

from spikebrain.kernels import dispatch
from spikebrain.kernels.batch_norm import cpu, eager, reference

_FAST = {"eager": eager, "cpu": cpu}


def fast(x, implementation=None):
    """The module that runs on ``x``; asked for only where no tracer looks."""
    return _FAST[dispatch.choose(x, implementation, cpu.SOURCE)]


class Moments(NamedTuple):
    """What a batch says about its channels.

    mean, var : Tensors (C,), float64; ``var`` is biased
    frames : Tensor (), float64, number of valid frames, of all processes
    """

    mean: torch.Tensor
    var: torch.Tensor
    frames: torch.Tensor


def moments(x, counts, implementation=None):
    """The :class:`Moments` of ``x`` (B, L, C) over the valid frames of all processes; no gradient."""
    total = torch.cat([fast(x, implementation).sums(x, x, counts).flatten(), counts.sum().double().view(1)])
    total, frames = _joined(total)[:-1].view(2, -1), total[-1]
    mean = total[0] / frames
    return Moments(mean, (total[1] / frames - mean**2).clamp(min=0), frames)


def _joined(total):
    """The sum over processes of a vector, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def affine(found, weight, bias, eps):
    """(scale, shift) with which x * scale + shift is the normalised x: Tensors (C,) in the weight's dtype; no gradient."""
    scale = weight.double() / (found.var + eps).sqrt()
    return scale.to(weight.dtype), (bias.double() - found.mean * scale).to(weight.dtype)


def input_gradient_(grad, x, by, found, weight, eps, counts, implementation=None):
    """The derivative by x, from that by y and its sums, written over ``grad``.

    Arguments
    ---------
    grad : Tensor (B, L, C)
        Derivative by y, contiguous.
    x : Tensor (B, L, C)
    by : Tensor (2, C), float64
        Sums over this process's valid frames of grad and of grad * x.
    found : Moments
    weight : Tensor (C,)
    eps : float
    counts : Tensor (B,), int64
    implementation : str, optional

    Returns
    -------
    (dx, by_weight, by_bias)
        dx is ``grad``; the others (C,) are of this process alone, as those of every parameter are.
    """
    rstd = (found.var + eps).rsqrt()
    by_bias, by_weight = by[0], (by[1] - found.mean * by[0]) * rstd
    shared = _joined(torch.stack([by_bias, by_weight])) / found.frames
    scale = weight.double() * rstd
    by_x = -scale * rstd * shared[1]
    numbers = [n.to(weight.dtype) for n in (scale, by_x, -scale * shared[0] - by_x * found.mean)]
    dx = fast(x, implementation).mix_(grad, numbers[0], x, numbers[1], numbers[2], counts)
    return dx, by_weight.to(weight.dtype), by_bias.to(weight.dtype)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, counts, eps, implementation):
        found = moments(x, counts, implementation)
        y = fast(x, implementation).scaled(x, *affine(found, weight, bias, eps), counts)
        ctx.save_for_backward(x, weight, counts, *found)
        ctx.eps, ctx.implementation = eps, implementation
        ctx.mark_non_differentiable(*found)
        return y, *found

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, counts, *found = ctx.saved_tensors
        grad = grad.clone(memory_format=torch.contiguous_format)
        by = fast(x, ctx.implementation).sums(grad, x, counts)
        return *input_gradient_(grad, x, by, Moments(*found), weight, ctx.eps, counts, ctx.implementation), None, None, None


def normalise(x, weight, bias, counts, eps, implementation=None):
    """Normalises a padded batch by its own moments; ``reference`` holds the equations.

    Arguments
    ---------
    x : Tensor (B, L, C), float32 or float64
    weight, bias : Tensors (C,)
    counts : Tensor (B,), int64
        Valid frames; frames past them count nowhere and come out as 0.
    eps : float
    implementation : str, optional
        See :func:`spikebrain.kernels.dispatch.choose`.

    Returns
    -------
    (y, Moments)
    """
    if implementation == "reference":
        y, mean, var = reference.normalise(x, weight, bias, counts, eps)
        return y, Moments(mean, var, counts.sum().to(mean.dtype))
    y, *found = _Normalise.apply(x, weight, bias, counts, eps, implementation)
    return y, Moments(*found)
