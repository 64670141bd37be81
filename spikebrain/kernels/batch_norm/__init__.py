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
    total, frames = _joined(total)[:-1].view(2, -1), total[-1].clone()  # a clone: a view would keep the whole vector alive
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


def _forward(x, weight, bias, counts, eps, implementation=None):
    found = moments(x, counts, implementation)
    return fast(x, implementation).scaled(x, *affine(found, weight, bias, eps), counts), *found


def _backward(grad, x, weight, counts, found, eps, implementation=None):
    grad = grad.clone(memory_format=torch.contiguous_format)
    by = fast(x, implementation).sums(grad, x, counts)
    return input_gradient_(grad, x, by, found, weight, eps, counts, implementation)


class _Normalise(torch.autograd.Function):
    """The op in eager mode: the registered one below costs several times the kernel on small layers."""

    @staticmethod
    def forward(ctx, x, weight, bias, counts, eps, implementation):
        y, *found = _forward(x, weight, bias, counts, eps, implementation)
        ctx.save_for_backward(x, weight, counts, *found)
        ctx.eps, ctx.implementation = eps, implementation
        ctx.mark_non_differentiable(*found)
        return y, *found

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, counts, *found = ctx.saved_tensors
        return *_backward(grad, x, weight, counts, Moments(*found), ctx.eps, ctx.implementation), None, None, None


# The same op for torch.compile, which cannot look into C: registered with what a tracer needs to know.


@torch.library.custom_op("spikebrain::batch_norm", mutates_args=())
def _normalise_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, counts: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return _forward(x, weight, bias, counts, eps)


@_normalise_op.register_fake
def _(x, weight, bias, counts, eps):
    return x.new_empty(x.shape), *no_moments(weight)


def no_moments(weight):
    """Empty :class:`Moments` for channels as of ``weight`` (C,), for tracers."""
    wide = {"dtype": torch.float64, "device": weight.device}
    return Moments(torch.empty(weight.shape, **wide), torch.empty(weight.shape, **wide), torch.empty((), **wide))


@torch.library.custom_op("spikebrain::batch_norm_backward", mutates_args=())
def _gradient_op(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor, mean: torch.Tensor, var: torch.Tensor,
    frames: torch.Tensor, eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    dx, *by_channel = _backward(grad, x, weight, counts, Moments(mean, var, frames), eps)
    return dx, *(by.clone() for by in by_channel)  # rows of one tensor, which a registered op may not return


@_gradient_op.register_fake
def _(grad, x, weight, counts, mean, var, frames, eps):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _keep(ctx, inputs, output):
    x, weight, _, counts, ctx.eps = inputs
    ctx.save_for_backward(x, weight, counts, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _back(ctx, grad, *_):
    return *_gradient_op(grad, *ctx.saved_tensors, ctx.eps), None, None


_normalise_op.register_autograd(_back, setup_context=_keep)


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
    if torch.compiler.is_compiling():
        y, *found = _normalise_op(x, weight, bias, counts, eps)
    else:
        y, *found = _Normalise.apply(x, weight, bias, counts, eps, implementation)
    return y, Moments(*found)
