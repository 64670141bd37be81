"""The op of multi-level spikes: an integer 0..T that stands for T binary steps of an integrate-and-fire neuron.

``reference`` is the definition, ``eager`` runs it anywhere, ``cpu`` is compiled. What a layer keeps for its backward
pass is one byte an element: bits 0-6 hold the level, bit 7 says whether the straight-through gradient passes. The
product that reads the spikes keeps the same bytes (see :func:`decode`), not a copy in floats.
"""

from typing import NamedTuple

import torch

from spikebrain.kernels import dispatch
from spikebrain.kernels.multilevel import cpu, eager, reference

_FAST = {"eager": eager, "cpu": cpu}


def _fast(x, implementation):
    """The module that runs on ``x``; asked for only where no tracer looks."""
    return _FAST[dispatch.choose(x, implementation, cpu.SOURCE)]


class FireOptions(NamedTuple):
    """Numbers of the op: u = x / top * ratio ; s = floor(clip(u + offset, 0, levels)).

    theta : d top / d maximum, where the derivative of ``top`` is followed to the arg-max.
    """

    levels: int
    ratio: float
    offset: float = 0.0
    theta: float = 1.0


def _gradient(grad, code, top, gain, row, options, implementation):
    """Derivative by x: straight through where u is inside, and on to the row whose element is the maximum."""
    dx, through = _fast(grad, implementation).backward(grad, code, gain * (options.ratio / top), options)
    at_peak = torch.where(row >= 0, through.to(grad.dtype) * gain / top * -options.theta, 0)
    dx.flatten(0, -2).scatter_add_(0, row.clamp(min=0).unsqueeze(0), at_peak.unsqueeze(0))
    return dx


class _Fire(torch.autograd.Function):
    """The op in eager mode: the registered one below costs several times the kernel on small layers."""

    @staticmethod
    def forward(ctx, x, top, gain, counts, row, options, implementation):
        """(y, code) of :func:`fire`; keeps ``code``, one byte an element, and no float copy of x (B, L, C)."""
        y, code = _fast(x, implementation).forward(x, top, gain, counts, options)
        ctx.save_for_backward(code, top, gain, row)
        ctx.options, ctx.implementation = options, implementation
        ctx.mark_non_differentiable(code)
        return y, code

    @staticmethod
    def backward(ctx, grad, _):
        """The gradient of x; what else it was given gets none, ``top`` only through x at the row that it follows."""
        return _gradient(grad, *ctx.saved_tensors, ctx.options, ctx.implementation), *[None] * 6


# The same op for torch.compile, which cannot look into C: registered with what a tracer needs to know.


@torch.library.custom_op("spikebrain::multilevel_fire", mutates_args=())
def _fire_op(
    x: torch.Tensor, top: torch.Tensor, gain: torch.Tensor, counts: torch.Tensor, row: torch.Tensor, numbers: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return _fast(x, None).forward(x, top, gain, counts, _options(numbers))


@_fire_op.register_fake
def _(x, top, gain, counts, row, numbers):
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.uint8)


@torch.library.custom_op("spikebrain::multilevel_fire_backward", mutates_args=())
def _gradient_op(
    grad: torch.Tensor, code: torch.Tensor, top: torch.Tensor, gain: torch.Tensor, row: torch.Tensor, numbers: list[float]
) -> torch.Tensor:  # fmt: skip
    return _gradient(grad, code, top, gain, row, _options(numbers), None)


@_gradient_op.register_fake
def _(grad, code, top, gain, row, numbers):
    return grad.new_empty(grad.shape)


def _keep(ctx, inputs, output):
    _, top, gain, _, row, ctx.numbers = inputs
    ctx.save_for_backward(output[1], top, gain, row)
    ctx.mark_non_differentiable(output[1])


def _back(ctx, grad, _):
    return _gradient_op(grad, *ctx.saved_tensors, ctx.numbers), *[None] * 5


_fire_op.register_autograd(_back, setup_context=_keep)


def _options(numbers):
    return FireOptions(int(numbers[0]), *numbers[1:])


@torch.library.custom_op("spikebrain::multilevel_channel_max", mutates_args=())
def _channel_max_op(x: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _fast(x, None).channel_max(x, counts)


@_channel_max_op.register_fake
def _(x, counts):
    return x.new_empty(x.shape[-1]), torch.empty(x.shape[-1], dtype=torch.long, device=x.device)


@torch.library.custom_op("spikebrain::multilevel_decode", mutates_args=())
def _decode_op(code: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return _fast(gain, None).decode(code, gain)


@_decode_op.register_fake
def _(code, gain):
    return torch.empty_like(code, dtype=gain.dtype)


def channel_max(x, counts, implementation=None):
    """Largest valid value of each channel, and where it is first reached.

    Arguments
    ---------
    x : Tensor (B, L, C), float32 or float64
    counts : Tensor (B,), int64, valid frames of each utterance
    implementation : str, optional
        See :func:`spikebrain.kernels.dispatch.choose`.

    Returns
    -------
    (top, row) : Tensors (C,); ``row`` is the index b * L + l, int64. Neither carries a gradient.
    """
    if implementation == "reference":
        return reference.channel_max(x.detach(), counts)
    if torch.compiler.is_compiling():
        return _channel_max_op(x.detach(), counts)
    return _fast(x, implementation).channel_max(x.detach(), counts)


def fire(x, top, gain, counts, row, options, implementation=None):
    """Fires ``s = floor(clip(x / top * ratio + offset, 0, levels))`` spikes and returns ``s * gain``.

    Arguments
    ---------
    x : Tensor (B, L, C), float32 or float64
        Presynaptic input.
    top : Tensor (C,), > 0
        Input that fires ``ratio`` spikes; gets no gradient of its own.
    gain : Tensor (C,)
        Value of one spike; gets no gradient.
    counts : Tensor (B,), int64
        Valid frames; frames past them emit nothing.
    row : Tensor (C,), int64
        Flat row whose element ``top`` follows (gradient ``options.theta``), or -1 where ``top`` is a constant.
    options : FireOptions
    implementation : str, optional

    Returns
    -------
    y : Tensor (B, L, C), with gradient
    code : Tensor (B, L, C), uint8: level in bits 0-6, bit 7 set where 0 <= u <= levels
    """
    if implementation == "reference":
        return reference.fire(x, top, gain, counts, row, options)
    if torch.compiler.is_compiling():
        return _fire_op(x, top, gain, counts, row, [float(n) for n in options])
    return _Fire.apply(x, top, gain, counts, row, options, implementation)


def decode(code, gain):
    """The spikes ``level * gain``, in gain's dtype, from code bytes (..., C) and ``gain`` (C,), or (B, L, C) and (B, 1, C)."""
    return _decode_op(code, gain) if torch.compiler.is_compiling() else _fast(gain, None).decode(code, gain)
