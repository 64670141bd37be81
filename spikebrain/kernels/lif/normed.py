"""Batch normalisation and LIF neurons as one op, with the numbers of both apart.

Between a normalisation over the batch and the neurons behind it lies one multiplication and one addition per channel. The
neurons do both as they read, so that the normalised input is never written, and the op keeps the input of the normalisation
alone.
"""

import torch

from spikebrain.kernels import batch_norm, lif


def _norm_on(implementation):
    """What normalises: the fastest there is where the neurons run in Triton, in which the normalisation is not written."""
    return None if implementation == "triton" else implementation


def _forward(x, weight, bias, decay, start, gain, counts, eps, options, implementation=None):
    """What is returned (spikes, code, membrane, moments), and the affine map that the neurons read through."""
    found = batch_norm.moments(x, counts, _norm_on(implementation))
    affine = lif.Affine(*batch_norm.affine(found, weight, bias, eps, _norm_on(implementation)))
    return (*lif.fast(x, implementation).forward(x, affine, decay, start, gain, counts, options), found), affine


def _backward(grad, grad_end, inputs, affine, found, eps, options, wanted, implementation=None):
    """Derivatives by x, weight, bias, decay and start."""
    x, weight, *rest, counts = inputs
    grad = torch.zeros_like(x) if grad is None else grad
    kept = (x, affine, *rest, counts)
    by_charge, grad_start, sums = lif.fast(x, implementation).backward(grad, grad_end, kept, None, options, wanted)
    gradients = batch_norm.input_gradient_(by_charge, x, sums[:2], found, weight, eps, counts, _norm_on(implementation))
    return *gradients, sums[2].to(x.dtype), grad_start


class _NormedFire(torch.autograd.Function):
    """The op in eager mode: the registered one below costs several times the kernel on small layers."""

    @staticmethod
    def forward(ctx, x, weight, bias, decay, start, gain, counts, eps, options, implementation):
        """(spikes, code, final membrane, row of Moments); keeps the inputs, that row and its affine map."""
        out, affine = _forward(x, weight, bias, decay, start, gain, counts, eps, options, implementation)
        ctx.save_for_backward(x, weight, decay, start, gain, counts, *affine, out[3])
        ctx.eps, ctx.options, ctx.implementation = eps, options, implementation
        ctx.mark_non_differentiable(out[1], out[3])
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx, grad, _, grad_end, __):
        """Derivatives by x, weight, bias, decay and start; membranes are computed again."""
        *inputs, scale, shift, found = ctx.saved_tensors
        wanted = 1 + 2 * int(ctx.needs_input_grad[3])
        gradients = _backward(grad, grad_end, inputs, lif.Affine(scale, shift), found, ctx.eps, ctx.options, wanted, ctx.implementation)
        return *gradients, *[None] * 5


# The same op for torch.compile, which cannot look into C: registered with what a tracer needs to know.


@torch.library.custom_op("spikebrain::normed_lif", mutates_args=())
def _fire_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, decay: torch.Tensor, start: torch.Tensor, gain: torch.Tensor | None,
    counts: torch.Tensor, eps: float, numbers: list[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return _forward(x, weight, bias, decay, start, gain, counts, eps, lif.from_numbers(numbers))[0]


@_fire_op.register_fake
def _(x, weight, bias, decay, start, gain, counts, eps, numbers):
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.uint8), start.new_empty(start.shape), batch_norm.no_moments(weight)


@torch.library.custom_op("spikebrain::normed_lif_backward", mutates_args=())
def _gradient_op(
    grad: torch.Tensor, grad_end: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, decay: torch.Tensor,
    start: torch.Tensor, gain: torch.Tensor | None, counts: torch.Tensor, found: torch.Tensor, eps: float, numbers: list[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    inputs = (x, weight, decay, start, gain, counts)
    affine = lif.Affine(*batch_norm.affine(found, weight, bias, eps))
    dx, *by_channel, grad_start = _backward(grad, grad_end, inputs, affine, found, eps, lif.from_numbers(numbers), 3)
    return dx, *(by.clone() for by in by_channel), grad_start  # views into one tensor, which a registered op may not return


@_gradient_op.register_fake
def _(grad, grad_end, x, weight, bias, decay, start, gain, counts, found, eps, numbers):
    return x.new_empty(x.shape), *(weight.new_empty(weight.shape) for _ in range(3)), start.new_empty(start.shape)


def _keep(ctx, inputs, output):
    *tensors, ctx.eps, ctx.numbers = inputs
    ctx.save_for_backward(*tensors, output[3])
    ctx.mark_non_differentiable(output[1], output[3])


def _back(ctx, grad, _, grad_end, __):
    return *_gradient_op(grad, grad_end, *ctx.saved_tensors, ctx.eps, ctx.numbers), *[None] * 4


_fire_op.register_autograd(_back, setup_context=_keep)


def fire(x, weight, bias, decay, start, gain, counts, eps, options, implementation=None):
    """Normalises a padded batch by its own moments and runs LIF neurons over it.

    Arguments
    ---------
    x : Tensor (B, L, C), float32 or float64
    weight, bias : Tensors (C,)
        Of the normalisation; ``eps`` is added to its variances.
    decay, start, gain, counts, options, implementation
        As for :func:`spikebrain.kernels.lif.fire`.

    Returns
    -------
    (y, code, end, Moments)
        As :func:`spikebrain.kernels.lif.fire`, and the batch's moments.
    """
    if implementation == "reference":
        normed, found = batch_norm.normalise(x, weight, bias, counts, eps, implementation)
        return *lif.fire(normed, None, decay, start, gain, counts, options, implementation), found
    if torch.compiler.is_compiling():
        y, code, end, found = _fire_op(x, weight, bias, decay, lif.started(start, x), gain, counts, eps, lif.to_numbers(options))
    else:
        y, code, end, found = _NormedFire.apply(x, weight, bias, decay, start, gain, counts, eps, options, implementation)
    return y, code, end, batch_norm.Moments(found)
