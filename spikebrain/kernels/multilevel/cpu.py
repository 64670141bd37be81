"""Multi-level firing in C: one pass over memory each way, on torch's own threads. Same signatures as ``eager``."""

from pathlib import Path

import torch

from spikebrain.kernels import native

SOURCE = Path(__file__).with_name("multilevel.c")


def channel_max(x, counts):
    """Largest valid value of each channel of ``x`` (B, L, C), and the flat row where it is first reached."""
    x = x.contiguous()
    top = x.new_empty(x.shape[-1])
    row = torch.empty(x.shape[-1], dtype=torch.long)
    native.call(SOURCE, "channel_max", x.dtype, *native.dense(x, counts), *x.shape, top, row)
    return top, row


def forward(x, top, gain, counts, options):
    """``y`` like x, and the code bytes."""
    x = x.contiguous()
    y, code = torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8)
    settings = (options.levels, float(options.ratio), float(options.offset))
    native.call(SOURCE, "fire", x.dtype, *native.dense(x, top, gain, counts), *x.shape, *settings, y, code)
    return y, code


def backward(grad, code, slope, options):
    """Derivative by x, and per channel the sum of grad * middle(level) over the elements inside."""
    grad = grad.contiguous()
    dx, through = torch.empty_like(grad), torch.empty(grad.shape[-1], dtype=torch.float64)
    sizes = code.numel() // code.shape[-1], code.shape[-1], options.levels
    native.call(SOURCE, "fire_backward", grad.dtype, *native.dense(grad, code, slope), *sizes, float(options.offset), dx, through)
    return dx, through


def decode(code, gain):
    """Levels of ``code`` times ``gain`` (C,) or (B, 1, C)."""
    code = code.contiguous()
    out = torch.empty(code.shape, dtype=gain.dtype)
    rows = code.numel() // code.shape[-1]
    period = code.shape[1] if gain.dim() == 3 else rows
    native.call(SOURCE, "decode", gain.dtype, code, gain.contiguous(), rows, max(period, 1), code.shape[-1], out)
    return out
