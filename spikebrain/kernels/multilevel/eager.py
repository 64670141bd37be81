"""Multi-level firing as few torch operations, on any device; one byte an element is kept for the way back."""

import torch

from spikebrain import lengths as frames
from spikebrain.kernels.multilevel.reference import channel_max, middles  # channel_max: nothing to gain over the definition

__all__ = ["backward", "channel_max", "decode", "forward"]


def forward(x, top, gain, counts, options):
    """``y`` like x, and the code bytes; see the package for their meaning."""
    padding = ~frames.valid(counts, x)
    u = torch.div(x, top).mul_(options.ratio)
    inside = (u >= 0) & (u <= options.levels)
    s = u.add_(options.offset).clamp_(0, options.levels).floor_()
    code = s.to(torch.uint8).bitwise_or_(inside.to(torch.uint8).mul_(128))
    return s.mul_(gain).masked_fill_(padding.unsqueeze(-1), 0), code.masked_fill_(padding.unsqueeze(-1), 0)


def backward(grad, code, slope, options):
    """Derivative by x, and per channel the sum of grad * middle(level) over the elements inside."""
    middle = middles(options.levels, options.offset, grad)
    passed = grad * (code >> 7)
    through = (passed * middle[(code & 127).int()]).flatten(0, -2).sum(0, dtype=torch.float64)
    return passed.mul_(slope), through


def decode(code, gain):
    """Levels of ``code`` times ``gain`` (C,) or (B, 1, C)."""
    return (code & 127).to(gain.dtype).mul_(gain)
