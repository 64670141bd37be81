"""Rotary position embedding (J. Su et al., "RoFormer", Neurocomputing 568, 2024), applied to spikes.

    (x_2j, x_2j+1) at frame m is turned by the angle m base^(-2j / D)

Neighbouring channels form a pair, and the whole head takes part, as in SpikeSCR. Rotated spikes are real numbers within
sqrt(2) of 0; a layer of neurons behind makes spikes of them again.
"""

import torch


def angles(frames, width, base=10000.0, device=None, dtype=torch.float32):
    """Angles (L, D / 2) of ``frames`` positions and a head of ``width`` D channels.

    Raises ValueError for an odd width.
    """
    _check(width)
    # In double precision whatever dtype asks: an angle of 1000 radians in float32 is off by 6e-5.
    frequencies = base ** (-torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)
    return torch.outer(torch.arange(frames, device=device, dtype=torch.float64), frequencies).to(dtype)


def _check(width):
    if width % 2:
        raise ValueError(f"a head has {width} channels: rotary positions turn pairs of channels, choose an even d_model / nhead")


def rotate(x, heads, base=10000.0):
    """``x`` (B, L, H * D) with the channels of each of its ``heads`` H turned by their frame's angles: same shape, at least float32.

    Half precision would round what is just below a threshold of 1 up to it. Raises ValueError for heads of an odd width.
    """
    _check(x.shape[-1] // heads)
    # A pair is a complex number: one multiplication, one pass over memory.
    wide = x if x.dtype == torch.float64 else x.float()
    pairs = torch.view_as_complex(wide.unflatten(-1, (heads, -1, 2)))
    turn = angles(x.shape[1], 2 * pairs.shape[-1], base, x.device, torch.float64).unsqueeze(1)
    turned = pairs * torch.polar(torch.ones_like(turn), turn).to(pairs.dtype)
    return torch.view_as_real(turned).flatten(2)


def sinusoids(frames, width, device=None, dtype=torch.float32):
    """Absolute positions (L, C) of "Attention Is All You Need", sines at even channels: what SpikeSCR's Table 2 compares with."""
    turn = angles(frames, width, device=device, dtype=torch.float64)
    return torch.stack([turn.sin(), turn.cos()], -1).flatten(1).to(dtype)
