"""Surrogate derivatives of the Heaviside step, one table; x is the distance of the membrane from its threshold.

    arctan            (alpha / 2) / (1 + (pi alpha x / 2)^2)      W. Fang et al., ICCV 2021 (PLIF)
    sigmoid           alpha s (1 - s), s = 1 / (1 + exp(-alpha x))
    fast_sigmoid      1 / (1 + alpha |x|)^2                       F. Zenke, S. Ganguli, Neural Computation 30(6), 2018 (SuperSpike)
    triangle          alpha max(0, 1 - alpha |x|)                 S. Esser et al., PNAS 113(41), 2016
    rectangle         alpha where |x| <= 1 / (2 alpha), else 0    Y. Wu et al., Frontiers in Neuroscience 12, 2018 (STBP)
    straight_through  1                                           Y. Bengio et al., arXiv 1308.3432

All but ``fast_sigmoid`` and ``straight_through`` enclose an area of 1. The position of a name in ``NAMES`` is its number in
compiled kernels.
"""

import math

import torch

_TABLE = {
    "arctan": lambda x, alpha: (alpha / 2) / (1 + (math.pi * alpha / 2 * x) ** 2),
    "sigmoid": lambda x, alpha: alpha * torch.sigmoid(alpha * x) * (1 - torch.sigmoid(alpha * x)),
    "fast_sigmoid": lambda x, alpha: 1 / (1 + alpha * x.abs()) ** 2,
    "triangle": lambda x, alpha: alpha * (1 - alpha * x.abs()).clamp(min=0),
    "rectangle": lambda x, alpha: alpha * (x.abs() <= 1 / (2 * alpha)).to(x.dtype),
    "straight_through": lambda x, alpha: torch.ones_like(x),
}
NAMES = tuple(_TABLE)


def derivative(name, x, alpha):
    """The surrogate derivative ``name`` at distances ``x`` (any shape); ``alpha`` > 0 is its sharpness.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return _TABLE[check(name)](x, alpha)


class _Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, distance, name, alpha):
        """1 where ``distance`` to the threshold is not below 0."""
        ctx.save_for_backward(distance)
        ctx.name, ctx.alpha = name, alpha
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, grad):
        """By distance: the derivative of the surrogate called ``name``."""
        return grad * derivative(ctx.name, ctx.saved_tensors[0], ctx.alpha), None, None


def step(distance, name, alpha):
    """1 where ``distance`` (any shape) is not below 0, else 0, in its dtype; the derivative is that of :func:`derivative`."""
    return _Heaviside.apply(distance, name, alpha)


def check(name):
    """``name`` when the table has it; a ValueError lists the table."""
    if name not in _TABLE:
        raise ValueError(f"surrogate is {name!r}: choose one of {', '.join(NAMES)}")
    return name
