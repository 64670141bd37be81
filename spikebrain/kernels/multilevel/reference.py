"""The definition of multi-level firing, in plain torch operations that autograd differentiates.

    u = x / top * ratio
    s = floor(clip(u + offset, 0, levels))               IML-Spikeformer Eq. 7, second line
    y = s * gain

The derivative is that of the generalised straight-through estimator (Eq. 8): ``y`` has the slope of ``gain * u`` where
0 <= u <= levels and none elsewhere. Where ``top`` is the maximum of its own channel (Eq. 10), its derivative goes to the
element that reaches the maximum, ``row``. The paper does not mention that path; it makes training markedly more stable.
In it, u is taken at the middle of its level: an error of at most half a level, averaged over all frames, for which
nothing but the level itself has to be kept (ours).
"""

import torch

from spikebrain import lengths as frames


def middles(levels, offset, like):
    """The middle of the part of [0, levels] that fires s spikes, for s = 0..levels."""
    edges = torch.arange(levels + 2, dtype=like.dtype, device=like.device) - offset
    edges = edges.clamp(0, levels)
    return (edges[:-1] + edges[1:]) / 2


def channel_max(x, counts):
    """Largest valid value of each channel of ``x`` (B, L, C), and the flat row b * L + l where it is first reached."""
    valid = frames.valid(counts, x)
    rows = x.masked_fill(~valid.unsqueeze(-1), -torch.inf).flatten(0, 1)
    top = rows.amax(0)
    return top, (rows == top).to(torch.uint8).argmax(0)


def fire(x, top, gain, counts, row, options):
    """See :func:`spikebrain.kernels.multilevel.fire`."""
    valid = frames.valid(counts, x).unsqueeze(-1)
    u = x / top * options.ratio
    s = (u + options.offset).clamp(0, options.levels).floor() * valid
    inside = (u >= 0) & (u <= options.levels) & valid
    at_peak = x.flatten(0, 1).gather(0, row.clamp(min=0).unsqueeze(0)).squeeze(0)
    moving_top = top + torch.where(row >= 0, options.theta * (at_peak - at_peak.detach()), torch.zeros_like(top))
    middle = middles(options.levels, options.offset, x)[s.long()]
    smooth = inside * (x / top * options.ratio - middle * (moving_top / top))
    y = gain * (s.detach() + smooth - smooth.detach())
    return y, s.to(torch.uint8) | (inside.to(torch.uint8) << 7)
