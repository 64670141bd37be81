"""LIF neurons as torch operations, on any device: a loop over frames each way, and no graph of it."""

import torch

from spikebrain import lengths as frames
from spikebrain.kernels import surrogate


def _membranes(x, affine, decay, start, counts, options):
    """Membranes before the reset, their spikes, what was left of the frame before, all (L, B, C), and the final membrane (B, C)."""
    charge = x if affine is None else x * affine.scale + affine.shift
    h = torch.empty_like(x.transpose(0, 1), memory_format=torch.contiguous_format)
    left, v = torch.empty_like(h), x.new_zeros(h.shape[1:]) if start is None else start
    for t in range(len(h)):
        left[t] = v
        torch.add(decay * v, charge[:, t], out=h[t])
        fired = h[t] >= options.threshold
        reset = torch.where(fired, h[t] - options.threshold if options.soft else 0, h[t])
        v = torch.where((t < counts).unsqueeze(1), reset, v)
    return h, (h >= options.threshold) & _valid(h, counts), left, v


def _valid(h, counts):
    return (torch.arange(len(h), device=h.device).unsqueeze(1) < counts).unsqueeze(-1)


def forward(x, affine, decay, start, gain, counts, options):
    """``y`` like x, the code bytes, and the final membrane."""
    _, spikes, _, end = _membranes(x, affine, decay, start, counts, options)
    spikes = spikes.transpose(0, 1).contiguous()
    y = spikes.to(x.dtype)
    return y if gain is None else y.mul_(gain.unsqueeze(1)), spikes.to(torch.uint8), end


def backward(grad, grad_end, kept, factor, options, wanted):
    """See :func:`spikebrain.kernels.lif.cpu.backward`."""
    x, affine, decay, start, gain, counts = kept
    h, _, left, _ = _membranes(x, affine, decay, start, counts, options)
    slope = surrogate.derivative(options.surrogate, h - options.threshold, options.alpha)
    passed, valid = (grad if gain is None else grad * gain.unsqueeze(1)).transpose(0, 1) * slope, _valid(h, counts)
    keeps = torch.ones_like(h) if options.soft else (h < options.threshold).to(h.dtype)
    if not options.detach:
        keeps -= slope * (options.threshold if options.soft else h)
    g, by_charge = h.new_zeros(h.shape[1:]) if grad_end is None else grad_end, torch.empty_like(h)
    for t in reversed(range(len(h))):
        by_charge[t] = torch.where(valid[t], passed[t] + keeps[t] * g, 0)
        g = torch.where(valid[t], decay * by_charge[t], g)
    dx = by_charge.transpose(0, 1).contiguous()
    sums = torch.stack([by_charge.sum(0), (dx * frames.zero_past(x, counts)).sum(1), (by_charge * left).sum(0)]) if wanted else None
    grad_start = None if start is None else g
    return (dx if factor is None else dx.mul_(factor)), grad_start, None if sums is None else sums.sum(1, dtype=torch.float64)
