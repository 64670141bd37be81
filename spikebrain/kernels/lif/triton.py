"""LIF neurons in Triton, for GPUs: a program takes the whole time of one utterance and BLOCK channels. Same signatures as ``eager``.

On the way back the membranes are computed again, into the memory of dx, which the sweep back then writes over: no other
memory is taken. What moves, in bytes an element of float32 (x, y, grad, dx, membrane 4, code 1; no cache counted):

    computed again   forward  9 (x | y code)              backward  8 (x | membrane) + 16 (x grad membrane | dx)    33
    kept             forward 13 (x | y code membrane)     backward                     16 (x grad membrane | dx)    29

A seventh more traffic for half the memory held between the passes, then: x is held for its normalisation in any case. No GPU
has measured it yet. That takes no other code: :func:`membranes` is a launch of its own, whose time is what computing again
costs. BLOCK, WARPS and STAGES are ours, meant for many small programs with a few loads each under way, and untuned as well.
"""

from __future__ import annotations  # the kernels' name tl before it is there

import functools

import torch

BLOCK = 32  # channels a program: a warp's width, so that a frame is one access of 128 bytes
WARPS = 1
STAGES = 4  # a frame is read three ahead of its turn: without that, each of L frames would wait for memory

tl = _frames = None  # triton.language and its range, from the first use on: importing this module needs no Triton


def _charge(v, x, scale, shift, decay):
    """Membranes decay v + (x scale + shift), in the definition's order."""
    if scale is not None:
        x = x * scale + shift
    return decay * v + x


def _slope(h, threshold: tl.constexpr, surrogate: tl.constexpr, alpha: tl.constexpr):
    """Surrogate derivatives at membranes h: the table of surrogate.py."""
    distance = h - threshold
    if surrogate == "arctan":
        u = 3.141592653589793 * alpha / 2 * distance
        slope = alpha / 2 / (1 + u * u)
    elif surrogate == "sigmoid":
        s = 1 / (1 + tl.exp(-alpha * distance))
        slope = alpha * s * (1 - s)
    elif surrogate == "fast_sigmoid":
        u = 1 + alpha * tl.abs(distance)
        slope = 1 / (u * u)
    elif surrogate == "triangle":
        u = 1 - alpha * tl.abs(distance)
        slope = alpha * tl.where(u > 0, u, 0.0)
    elif surrogate == "rectangle":
        slope = alpha * (tl.abs(distance) <= 1 / (2 * alpha)).to(h.dtype)
    else:
        tl.static_assert(surrogate == "straight_through")
        slope = tl.full(h.shape, 1.0, h.dtype)
    return slope


def _lif_charge(
    x, scale, shift, decay, start, gain, counts, y, code, end, before, frames, channels,
    threshold: tl.constexpr, soft: tl.constexpr, block: tl.constexpr, stages: tl.constexpr,
):  # fmt: skip
    """Through the frames. Writes spikes (y, code) and last membranes (end), or the membranes that each frame finds (before)."""
    chunks = (channels + block - 1) // block
    b = (tl.program_id(0) // chunks).to(tl.int64)
    c = tl.program_id(0) % chunks * block + tl.arange(0, block)
    inside = c < channels
    at = b * frames * channels + c
    valid = tl.load(counts + b)
    v = tl.full([block], 0.0, x.dtype.element_ty) if start is None else tl.load(start + b * channels + c, mask=inside, other=0.0)
    keep = tl.load(decay + c, mask=inside, other=0.0)
    by = None if scale is None else tl.load(scale + c, mask=inside, other=0.0)
    offset = None if scale is None else tl.load(shift + c, mask=inside, other=0.0)
    one = tl.full([block], 1.0, x.dtype.element_ty) if gain is None else tl.load(gain + b * channels + c, mask=inside, other=0.0)
    for t in _frames(0, valid, num_stages=stages):
        xt = tl.load(x + at + t * channels, mask=inside, other=0.0)
        if before is not None:
            tl.store(before + at + t * channels, v, mask=inside)
        h = _charge(v, xt, by, offset, keep)
        fired = h >= threshold
        if y is not None:
            tl.store(y + at + t * channels, tl.where(fired, one, 0.0), mask=inside)
            tl.store(code + at + t * channels, fired.to(tl.uint8), mask=inside)
        v = tl.where(fired, h - threshold if soft else 0.0, h)
    if y is not None:
        for t in _frames(valid, frames):
            tl.store(y + at + t * channels, tl.full([block], 0.0, x.dtype.element_ty), mask=inside)
            tl.store(code + at + t * channels, tl.full([block], 0, tl.uint8), mask=inside)
        tl.store(end + b * channels + c, v, mask=inside)


def _lif_discharge(
    grad, grad_end, x, scale, shift, decay, gain, factor, counts, dx, grad_start, sums, batch, frames, channels,
    threshold: tl.constexpr, soft: tl.constexpr, detach: tl.constexpr, surrogate: tl.constexpr, alpha: tl.constexpr,
    wanted: tl.constexpr, block: tl.constexpr, stages: tl.constexpr,
):  # fmt: skip
    """Back through the frames: dx holds the membrane that each frame found, and is written over with the derivative by x."""
    chunks = (channels + block - 1) // block
    b = (tl.program_id(0) // chunks).to(tl.int64)
    c = tl.program_id(0) % chunks * block + tl.arange(0, block)
    inside = c < channels
    place, at = b * channels + c, b * frames * channels + c
    valid = tl.load(counts + b)
    zero = tl.full([block], 0.0, x.dtype.element_ty)
    keep = tl.load(decay + c, mask=inside, other=0.0)
    by = None if scale is None else tl.load(scale + c, mask=inside, other=0.0)
    offset = None if scale is None else tl.load(shift + c, mask=inside, other=0.0)
    one = zero + 1 if gain is None else tl.load(gain + place, mask=inside, other=0.0)
    g = zero if grad_end is None else tl.load(grad_end + place, mask=inside, other=0.0)
    out = zero + 1 if factor is None else tl.load(factor + c, mask=inside, other=0.0)
    total, by_x, by_v = zero, zero, zero
    for i in _frames(0, valid, num_stages=stages):
        spot = at + (valid - 1 - i) * channels
        xt = tl.load(x + spot, mask=inside, other=0.0)
        v = tl.load(dx + spot, mask=inside, other=0.0)
        h = _charge(v, xt, by, offset, keep)
        k = _slope(h, threshold, surrogate, alpha)
        passed = g if soft else tl.where(h >= threshold, 0.0, g)
        charge = tl.load(grad + spot, mask=inside, other=0.0) * one * k + passed
        if not detach:
            charge = charge - g * (threshold if soft else h) * k
        tl.store(dx + spot, charge * out, mask=inside)
        if wanted & 1:
            total += charge
            by_x += charge * xt
        if wanted & 2:
            by_v += charge * v
        g = charge * keep
    for t in _frames(valid, frames):
        tl.store(dx + at + t * channels, zero, mask=inside)
    if grad_start is not None:
        tl.store(grad_start + place, g, mask=inside)
    if wanted:
        tl.store(sums + place, total, mask=inside)
        tl.store(sums + batch * channels + place, by_x, mask=inside)
        tl.store(sums + 2 * batch * channels + place, by_v, mask=inside)


def _interpreted_range(first, last, num_stages=1):
    """``tl.range`` in the interpreter, whose own (Triton 3.6 and before) asks numpy for an index as numpy 2.4 no longer gives it."""
    return range(*(int(n.handle.data.item()) if isinstance(n, tl.tensor) else n for n in (first, last)))


_SOURCES = (_charge, _slope, _lif_charge, _lif_discharge)


@functools.cache
def _kernels():
    """The two sweeps, compiled, or interpreted where TRITON_INTERPRET=1 is set before the first of them runs in this process.

    A kernel finds what it calls, ``tl`` too, among the globals of this module. Of ``tl`` it may use what is built into the
    language, not its library: that was compiled or not when Triton was imported.
    """
    global tl, _frames
    import triton
    import triton.language as tl

    made = {source.__name__: triton.jit(source) for source in _SOURCES}
    _frames = tl.range if isinstance(made["_charge"], triton.JITFunction) else _interpreted_range
    globals().update(made)
    return made["_lif_charge"], made["_lif_discharge"]


def _launch(kernel, x, *arguments, **constants):
    """Runs ``kernel`` over the utterances and channels of ``x``, on its device, with no product fused into an addition.

    Fused, the two round once where the definition rounds twice: a membrane next to the threshold fires in one of them only.
    """
    grid = (x.shape[0] * -(-x.shape[2] // BLOCK),)
    with torch.cuda.device_of(x):
        kernel[grid](*arguments, **constants, block=BLOCK, stages=STAGES, num_warps=WARPS, enable_fp_fusion=False)


def _rows(*tensors):
    """The tensors with their elements in a row, as the kernels count them; None stays None."""
    return (t if t is None else t.contiguous() for t in tensors)


def _charge_with(x, affine, decay, start, gain, counts, options, y=None, code=None, end=None, before=None):
    inputs = _rows(x, *(affine or (None, None)), decay, start, gain, counts)
    fires = {"threshold": float(options.threshold), "soft": bool(options.soft)}
    _launch(_kernels()[0], x, *inputs, y, code, end, before, *x.shape[1:], **fires)


def forward(x, affine, decay, start, gain, counts, options):
    """``y`` like x, the code bytes, and the final membrane."""
    y, code, end = x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.uint8), x.new_empty(len(x), x.shape[2])
    _charge_with(x, affine, decay, start, gain, counts, options, y, code, end)
    return y, code, end


def membranes(x, affine, decay, start, gain, counts, options):
    """The membranes (B, L, C) that each valid frame finds; past an utterance's end nothing is written."""
    before = x.new_empty(x.shape)
    _charge_with(x, affine, decay, start, gain, counts, options, before=before)
    return before


def backward(grad, grad_end, kept, factor, options, wanted):
    """See :func:`spikebrain.kernels.lif.cpu.backward`."""
    x, affine, decay, start, gain, counts = kept
    dx, grad_start = membranes(*kept, options), None if start is None else start.new_empty(start.shape)
    sums = x.new_empty(3, len(x), x.shape[2]) if wanted else None
    inputs = _rows(grad, grad_end, x, *(affine or (None, None)), decay, gain, factor, counts)
    constants = options._asdict() | {"soft": bool(options.soft), "detach": bool(options.detach), "wanted": wanted}
    _launch(_kernels()[1], x, *inputs, dx, grad_start, sums, *x.shape, **constants)
    return dx, grad_start, None if sums is None else sums.sum(1, dtype=torch.float64)
