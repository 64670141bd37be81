"""LIF neurons in C: one pass over memory each way, threads over neurons and time inside. Same signatures as ``eager``."""

from pathlib import Path

import torch

from spikebrain.kernels import native, surrogate

SOURCE = Path(__file__).with_name("lif.c")


def _dense(x, affine, *others):
    """The inputs of the op as C reads them, with the two parts of ``affine`` in its place."""
    return native.dense(x, *((None, None) if affine is None else affine), *others)


def forward(x, affine, decay, start, gain, counts, options):
    """``y`` like x, the code bytes, and the final membrane."""
    inputs = _dense(x, affine, decay, start, gain, counts)
    y, code, end = torch.empty_like(inputs[0]), torch.empty_like(inputs[0], dtype=torch.uint8), x.new_empty(len(x), x.shape[2])
    native.call(SOURCE, "lif", x.dtype, *inputs, *x.shape, float(options.threshold), int(options.soft), y, code, end)
    return y, code, end


def backward(grad, grad_end, kept, factor, options, wanted):
    """The way back, for which every membrane is computed again.

    Arguments
    ---------
    grad : Tensor (B, L, C)
    grad_end : Tensor (B, C) or None
        Derivative by the final membrane.
    kept : (x, affine, decay, start, gain, counts)
        The inputs of the op.
    factor : Tensor (C,) or None
        What the derivative by the charge is multiplied with.
    options : FireOptions
    wanted : int
        Bits of the sums that are needed: 1 for those over x, 2 for that over the membrane.

    Returns
    -------
    (dx, grad_start, sums)
        dx (B, L, C); grad_start (B, C), None without a start; sums (3, C), float64, over all valid frames: of the derivative by
        the charge, of its product with x, of its product with the membrane of the frame before; None where nothing is wanted.
    """
    *inputs, counts = _dense(*kept)
    grad, grad_end, factor = native.dense(grad, grad_end, factor)
    x, start = inputs[0], inputs[4]
    batch, _, channels = x.shape
    dx, grad_start = torch.empty_like(x), None if start is None else start.new_empty(start.shape)
    parts, sums = (x.new_empty(3, batch, channels), x.new_empty(3, channels, dtype=torch.float64)) if wanted else (None, None)
    numbers = (float(options.threshold), int(options.soft), int(options.detach), surrogate.NAMES.index(options.surrogate))
    native.call(
        SOURCE, "lif_backward", x.dtype, grad, grad_end, *inputs, factor, counts, *x.shape, *numbers,
        float(options.alpha), wanted, dx, grad_start, parts, sums,
    )  # fmt: skip
    return dx, grad_start, sums
