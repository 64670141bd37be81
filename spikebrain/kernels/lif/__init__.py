"""The op of leaky integrate-and-fire neurons: membranes that add up their input over frames and fire where they reach a threshold.

``reference`` is the definition, ``eager`` runs it anywhere, ``cpu`` is compiled, ``triton`` runs on GPUs. For the backward
pass the op keeps its input, not its membranes, and computes these again where they fit into a cache. Both choices were built and
measured on two cores: this one took 0.79 to 0.98 of the time of the other, which writes one tensor more; and behind an affine map or
a normalisation (``normed``) the input has to be kept anyway.
"""

from typing import NamedTuple

import torch

from spikebrain.kernels import dispatch, surrogate
from spikebrain.kernels.lif import cpu, eager, reference, triton

_FAST = {"eager": eager, "cpu": cpu, "triton": triton}


class FireOptions(NamedTuple):
    """Constants of the op.

    threshold : membrane at which a neuron fires
    soft : reset by subtraction of the threshold instead of to 0
    detach : no derivative through the reset
    surrogate, alpha : see :mod:`spikebrain.kernels.surrogate`
    """

    threshold: float = 1.0
    soft: bool = False
    detach: bool = True
    surrogate: str = "arctan"
    alpha: float = 5.0


class Affine(NamedTuple):
    """What is done to the input first, x * scale + shift, channel by channel: scale, shift (C,)."""

    scale: torch.Tensor
    shift: torch.Tensor


def fast(x, implementation=None):
    """The module that runs on ``x``; asked for only where no tracer looks."""
    return _FAST[dispatch.choose(x, implementation, cpu.SOURCE, triton=True)]


def _affine(scale, shift):
    return None if scale is None else Affine(scale, shift)


def _gradients(grad, grad_end, inputs, options, wanted, implementation):
    """Derivatives by x, scale, shift, decay and start; None for those that are not wanted (bits 1: affine, 2: decay)."""
    x, scale, shift, decay, start, gain, counts = inputs
    kept = (x, _affine(scale, shift), decay, start, gain, counts)
    dx, grad_start, sums = fast(x, implementation).backward(grad, grad_end, kept, scale, options, wanted)
    by_shift, by_scale, by_decay = (None,) * 3 if sums is None else sums.to(x.dtype)
    return dx, by_scale if wanted & 1 else None, by_shift if wanted & 1 else None, by_decay if wanted & 2 else None, grad_start


class _Fire(torch.autograd.Function):
    """The op in eager mode: the registered one below costs several times the kernel on small layers."""

    @staticmethod
    def forward(ctx, x, scale, shift, decay, start, gain, counts, options, implementation):
        """(spikes, code, final membrane); keeps the inputs alone."""
        y, code, end = fast(x, implementation).forward(x, _affine(scale, shift), decay, start, gain, counts, options)
        ctx.save_for_backward(x, scale, shift, decay, start, gain, counts)
        ctx.options, ctx.implementation = options, implementation
        ctx.mark_non_differentiable(code)
        ctx.set_materialize_grads(False)
        return y, code, end

    @staticmethod
    def backward(ctx, grad, _, grad_end):
        """Derivatives by x, scale, shift, decay and start; membranes are computed again."""
        inputs = ctx.saved_tensors  # once: under activation checkpointing they may be asked for no second time
        wanted = int(any(ctx.needs_input_grad[1:3])) + 2 * int(ctx.needs_input_grad[3])
        grad = torch.zeros_like(inputs[0]) if grad is None else grad
        return *_gradients(grad, grad_end, inputs, ctx.options, wanted, ctx.implementation), None, None, None, None


# The same op for torch.compile, which cannot look into C: registered with what a tracer needs to know.


def to_numbers(options):
    """:class:`FireOptions` as the list of floats that a registered op takes."""
    return [float(n) for n in options._replace(surrogate=surrogate.NAMES.index(options.surrogate))]


def from_numbers(numbers):
    """The :class:`FireOptions` of such a list."""
    threshold, soft, detach, name, alpha = numbers
    return FireOptions(threshold, bool(soft), bool(detach), surrogate.NAMES[int(name)], alpha)


@torch.library.custom_op("spikebrain::lif", mutates_args=())
def _fire_op(
    x: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None, decay: torch.Tensor, start: torch.Tensor,
    gain: torch.Tensor | None, counts: torch.Tensor, numbers: list[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return fast(x).forward(x, _affine(scale, shift), decay, start, gain, counts, from_numbers(numbers))


@_fire_op.register_fake
def _(x, scale, shift, decay, start, gain, counts, numbers):
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.uint8), start.new_empty(start.shape)


@torch.library.custom_op("spikebrain::lif_backward", mutates_args=())
def _gradient_op(
    grad: torch.Tensor, grad_end: torch.Tensor, x: torch.Tensor, scale: torch.Tensor | None, shift: torch.Tensor | None,
    decay: torch.Tensor, start: torch.Tensor, gain: torch.Tensor | None, counts: torch.Tensor, numbers: list[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    inputs = (x, scale, shift, decay, start, gain, counts)
    dx, *by_channel, grad_start = _gradients(grad, grad_end, inputs, from_numbers(numbers), 3, None)
    return dx, *(by.clone() for by in by_channel), grad_start  # rows of one tensor, which a registered op may not return


@_gradient_op.register_fake
def _(grad, grad_end, x, scale, shift, decay, start, gain, counts, numbers):
    return x.new_empty(x.shape), *(decay.new_empty(decay.shape) for _ in range(3)), start.new_empty(start.shape)


def _keep(ctx, inputs, output):
    *tensors, ctx.numbers = inputs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(output[1])


def _back(ctx, grad, _, grad_end):
    inputs = ctx.saved_tensors
    dx, *by_affine, by_decay, by_start = _gradient_op(grad, grad_end, *inputs, ctx.numbers)
    by_affine = (None, None) if inputs[1] is None else by_affine
    return dx, *by_affine, by_decay, by_start, None, None, None


_fire_op.register_autograd(_back, setup_context=_keep)


def started(start, x):
    """``start``, as zeros (B, C) where it is None: a registered op returns a derivative for each of its inputs."""
    return x.new_zeros(len(x), x.shape[2]) if start is None else start


def _check(x, decay, start, counts):
    """Refuses what C would read past."""
    batch, _, channels = x.shape
    for name, tensor, shape in (("decay", decay, (channels,)), ("start", start, (batch, channels)), ("counts", counts, (batch,))):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, x {tuple(x.shape)} needs {shape}")
    if counts.dtype != torch.int64:
        raise ValueError(f"counts are {counts.dtype}: pass int64")


def fire(x, affine, decay, start, gain, counts, options, implementation=None):
    """Runs LIF neurons over a padded batch; ``reference`` holds the equations.

    Arguments
    ---------
    x : Tensor (B, L, C), float32 or float64
        Input currents.
    affine : Affine or None
        Applied to x first, in the same pass.
    decay : Tensor (C,)
        What is left of a membrane after a frame.
    start : Tensor (B, C) or None
        Membranes before the first frame, 0 where it is None.
    gain : Tensor (B, C) or None
        What a spike is worth in ``y``, 1 by default; gets no gradient. Dropout whose mask is constant over frames, in the same pass.
    counts : Tensor (B,), int64
        Valid frames; frames past them neither fire nor change the membrane.
    options : FireOptions
    implementation : str, optional
        See :func:`spikebrain.kernels.dispatch.choose`.

    Returns
    -------
    y : Tensor (B, L, C), spikes times gain in x's dtype, with gradient
    code : Tensor (B, L, C), uint8, spikes 0 or 1
    end : Tensor (B, C), membranes after each utterance's last frame, with gradient

    Raises
    ------
    ValueError
        A tensor of another shape, or counts that are not int64.
    """
    _check(x, decay, start, counts)
    if implementation == "reference":
        return reference.fire(x, affine, decay, start, gain, counts, options)
    scale, shift = (None, None) if affine is None else affine
    if torch.compiler.is_compiling():
        return _fire_op(x, scale, shift, decay, started(start, x), gain, counts, to_numbers(options))
    return _Fire.apply(x, scale, shift, decay, start, gain, counts, options, implementation)
