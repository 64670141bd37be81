"""Batch normalisation and LIF neurons as one op, with the numbers of both apart.

Between a normalisation over the batch and the neurons behind it lies one multiplication and one addition per channel. The
neurons do both as they read, so that the normalised input is never written, and the op keeps the input of the normalisation
alone.
"""

import torch

from spikebrain.kernels import batch_norm, lif


class _NormedFire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, decay, start, gain, counts, eps, options, implementation):
        found = batch_norm.moments(x, counts, implementation)
        affine = lif.Affine(*batch_norm.affine(found, weight, bias, eps))
        y, code, end = lif.fast(x, implementation).forward(x, affine, decay, start, gain, counts, options)
        ctx.save_for_backward(x, weight, decay, start, gain, counts, *affine, *found)
        ctx.eps, ctx.options, ctx.implementation = eps, options, implementation
        ctx.mark_non_differentiable(code, *found)
        ctx.set_materialize_grads(False)
        return y, code, end, *found

    @staticmethod
    def backward(ctx, grad, _, grad_end, *__):
        x, weight, decay, start, gain, counts, scale, shift, *found = ctx.saved_tensors
        kept = (x, lif.Affine(scale, shift), decay, start, gain, counts)
        wanted = 1 + 2 * int(ctx.needs_input_grad[3])
        grad = torch.zeros_like(x) if grad is None else grad
        by_charge, grad_start, sums = lif.fast(x, ctx.implementation).backward(grad, grad_end, kept, None, ctx.options, wanted)
        by, found = sums.sum(1, dtype=torch.float64), batch_norm.Moments(*found)
        by_x = batch_norm.input_gradient_(by_charge, x, by[:2], found, weight, ctx.eps, counts, ctx.implementation)
        return *by_x, by[2].to(x.dtype) if wanted & 2 else None, grad_start, *[None] * 5


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
    y, code, end, *found = _NormedFire.apply(x, weight, bias, decay, start, gain, counts, eps, options, implementation)
    return y, code, end, batch_norm.Moments(*found)
