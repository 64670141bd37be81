"""What scores cost in either order: queries and keys first, or one matrix a head (IML-Spikeformer Eq. 12).

    unfused            Q = S W_Q, K = S W_K, then Q K^T: accumulations of spikes, and a product of real numbers for every two frames
    re-parameterised   U = S W_QK of every head, then U S^T: accumulations alone, but H D^2 weights instead of 2 D^2

Both are worked out from one count of the same spikes. Which one a paper counted is rarely said; which one is cheaper hangs on the
number of heads, frames and spikes.
"""

from typing import NamedTuple

from spikebrain.convert import FusedRepSSA
from spikebrain.encoders.iml_spikeformer import RepSSA
from spikebrain.energy.ledger import Count


class Orders(NamedTuple):
    """The products of the scores of one attention ``layer``, two lists of :class:`Count`."""

    layer: str
    unfused: list
    reparameterised: list


class _Met(NamedTuple):
    """frames, pairs of frames, spikes, and spikes times the frames of their utterance, over a split."""

    frames: int
    pairs: int
    spikes: int
    met: int


def orders(positions):
    """:class:`Orders` of every attention whose other order is known from what was heard; see :meth:`Counter.listen`."""
    found = []
    for module, name in positions.counter.modules.items():
        known = _of(positions.counter, name, module)
        if known is not None:
            found.append(_both(name, *known, positions.micro_steps(name)))
    return found


def _of(counter, name, module):
    """(d_model, heads, biased, :class:`_Met`) of an attention, or None."""
    if isinstance(module, RepSSA) and name in counter.heard:
        d, heard = module.qk.in_features, counter.heard[name]
        frames = counter.products[f"{name}.qk", "weight"].macs // module.qk.weight.numel()
        pairs = counter.products[name, "scores"].macs // d
        return d, module.nhead, module.qk.bias is not None, _Met(frames, pairs, heard.spikes, heard.met)
    if isinstance(module, FusedRepSSA) and (name, "fused") in counter.products:
        heads, width, _ = module.fused.shape
        fused, scores, one = counter.products[name, "fused"], counter.products[name, "scores"], int(module.biased)
        frames, pairs = fused.macs // module.fused.numel(), scores.macs // (heads * width)
        met = _Met(frames, pairs, fused.accumulates // (heads * width) - one * frames, scores.accumulates // heads - one * pairs)
        return width - one, heads, module.biased, met
    return None


def _both(name, d, heads, biased, met, steps):
    """With biases S has a column of ones, which fires once in every frame."""
    width, fired, reached = d + int(biased), met.spikes + int(biased) * met.frames, met.met + int(biased) * met.pairs
    unfused = [
        Count(f"{name}.qk.weight", met.frames * 2 * d * d, met.spikes * 2 * d, steps),
        Count(f"{name}.scores", met.pairs * d, None, steps),
    ]
    fused = [
        Count(f"{name}.fused", met.frames * heads * width**2, fired * heads * width, steps),
        Count(f"{name}.scores", met.pairs * heads * width, reached * heads, steps),
    ]
    return Orders(name, unfused, fused)
