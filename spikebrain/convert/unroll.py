"""Levels as bursts of binary spikes: the network as hardware without multipliers runs it, layer after layer, event by event.

    s = sum_t s_t ,  s_t in {0, 1} ,  t = 1..T           s W + b = sum_t (s_t W) + b              IML-Spikeformer Eq. 9

A layer first hears all T micro-steps of the one before, with its bias once, and fires its own burst only then (integrate, then fire):
a neuron that fired while it integrates would compute another function. Attention has three phases: the burst of S gives values and,
re-parameterised, U = S W_QK; S is heard again for the scores A = U S^T; and with the complete map the burst of values is mixed. A is
bilinear in S: adding up the scores of single micro-steps, S_t W_QK S_t^T, is something else.

Neurons that live over frames run frame by frame. What is real stays as it is: norms, softmax, decay mask, products of two real operands;
:mod:`spikebrain.convert.audit` lists them.
"""

import copy
import functools

import torch

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention import spike_attention
from spikebrain.baselines.lif_network import LIFLayer
from spikebrain.blocks.gated_convolution import DepthwiseConv, SeparableGatedConvolution
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.convert import events
from spikebrain.convert.ready import ConversionError, check
from spikebrain.convert.reparameterise import FusedRepSSA
from spikebrain.encoders.iml_spikeformer import SDSA3, RepSSA
from spikebrain.encoders.spikescr import RotarySpikingAttention, SpikeEmbedding
from spikebrain.kernels import lif
from spikebrain.neurons import LIF, MultiLevelSpike

REAL, LEVEL = operands.Kind.REAL, operands.Kind.LEVEL


class Driven:
    """What every unrolled layer does: tells of a product with the additions that were made, not with those that were worked out."""

    def told(self, part, left, right, macs, result, module=None):
        """``result`` (value, additions) -> value."""
        value, added = result
        if operands.listening():
            operands.tell(operands.Product(module or self, part, left, right, macs, added))
        return value


class DrivenLinear(Driven, SpikeLinear):
    """A :class:`SpikeLinear` that adds a row of weights for every event."""

    def forward(self, spikes):
        """Real (B, L, out_features) of declared spikes; real numbers are multiplied, as the declaration says."""
        if spikes.kind is REAL:
            return super().forward(spikes)
        macs = int(spikes.counts.sum()) * self.weight.numel()
        return self.told("weight", spikes.kind, REAL, macs, events.project(events.trimmed(spikes), self.weight, self.bias))


class DrivenDepthwise(Driven, DepthwiseConv):
    """A :class:`DepthwiseConv` that adds the taps of a channel for every event."""

    def forward(self, spikes):
        """Real (B, L, C) of declared spikes."""
        macs = int(spikes.counts.sum()) * self.weight.numel()
        return self.told("weight", spikes.kind, REAL, macs, events.convolve(events.trimmed(spikes), self.weight, self.bias))


class DrivenEmbedding(Driven, SpikeEmbedding):
    """A :class:`SpikeEmbedding` that adds the taps of a channel for every event, where its input is declared to be counts of events."""

    def convolve(self, x, valid):
        """Currents (B, L, d_model) of counts ``x`` (B, L, N); features are multiplied."""
        if self.input_kind is not LEVEL:
            return super().convolve(x, valid)
        macs = int(valid.sum()) * self.conv.weight.numel()
        return self.told("weight", LEVEL, REAL, macs, events.convolve(_counts(x, valid), self.conv.weight, self.conv.bias))


class DrivenLIFLayer(Driven, LIFLayer):
    """A :class:`LIFLayer` whose linear layer adds a row of weights for every event."""

    def current(self, x, counts, kind):
        """What the neurons hear of spikes or counts ``x`` (B, L, N)."""
        if kind is REAL:
            return super().current(x, counts, kind)
        macs, linear = int(counts.sum()) * self.linear.weight.numel(), self.linear
        return self.told("weight", kind, REAL, macs, events.project(_counts(x, counts), linear.weight, linear.bias), linear)


class DrivenGate(Driven, SeparableGatedConvolution):
    """A :class:`SeparableGatedConvolution` whose gate lets numbers pass, event by event."""

    def pass_through(self, content, gate):
        """``content`` (B, L, C) where the gate fires."""
        macs = int(gate.counts.sum()) * content.shape[-1]
        return self.told("gate", REAL, gate.kind, macs, events.passed(content, events.trimmed(gate)))


class DrivenRotaryAttention(Driven, RotarySpikingAttention):
    """A :class:`RotarySpikingAttention` whose three trains meet event by event."""

    def mix(self, q, k, v):
        """Integers (B, L, D)."""
        counts, width = q.counts, q.value.shape[-1]
        q, k, v = (events.trimmed(train) for train in (q, k, v))
        if self.order == "state":
            macs = int(counts.sum()) * (width // self.nhead) * width
            state = self.told("state", k.kind, v.kind, macs, events.gather(k, v, self.nhead))
            return self.told("read", q.kind, LEVEL, macs, events.read(q, state))
        macs = int((counts**2).sum()) * width
        keys = spike_attention.split_heads(k.value, self.nhead)
        scores = self.told("scores", q.kind, k.kind, macs, events.score(keys, q)).transpose(-2, -1)
        return self.told("values", LEVEL, v.kind, macs, events.attend(scores, v, self.nhead))


class DrivenSDSA3(Driven, SDSA3):
    """:class:`SDSA3` event by event."""

    def mix(self, q, k, v):
        """Real (B, L, D) of three trains of spikes."""
        macs = int(q.counts.sum()) * q.value.shape[-1] * (q.value.shape[-1] // self.nhead)
        q, k, v = (events.trimmed(train) for train in (q, k, v))
        state = self.told("state", k.kind, v.kind, macs, events.meet(k, v, self.nhead))
        y = self.told("read", q.kind, REAL, macs, events.read(q, state))
        return y * (q.value.shape[-1] // self.nhead) ** -0.5


class DrivenRepSSA(Driven, RepSSA):
    """:class:`RepSSA` whose values are mixed event by event; scores stay products of real numbers until they are re-parameterised."""

    def mix(self, q, k, values):
        """Real (B, L, D)."""
        macs = int((values.counts**2).sum()) * values.value.shape[-1]
        if operands.listening():
            operands.tell(operands.Product(self, "scores", REAL, REAL, macs))
        weights = spike_attention.attention_weights(q, k, values.counts, self.options)
        return self.told("values", REAL, values.kind, macs, events.attend(weights, events.trimmed(values), self.nhead))


class DrivenFusedRepSSA(Driven, FusedRepSSA):
    """:class:`FusedRepSSA` in three phases: U from the burst, scores from the same burst again, values from theirs."""

    def scores(self, spikes):
        """Raw scores (B, H, L, L), every product an addition of weights or of sums of them."""
        spikes, (heads, width, _) = events.trimmed(spikes), self.fused.shape
        if self.biased:
            spikes = _with_ones(spikes)
        length, counts = spikes.value.shape[1], spikes.counts
        joined = self.fused.transpose(1, 2).flatten(0, 1)  # (H * D', D'), as a linear layer's weight
        macs = int(counts.sum()) * heads * width**2
        known = self.told("fused", spikes.kind, REAL, macs, events.project(spikes, joined))
        known = known.view(-1, length, heads, width).transpose(1, 2)
        macs = int((counts**2).sum()) * heads * width
        return self.told("scores", REAL, spikes.kind, macs, events.score(known, spikes, heads))

    def mix(self, scores, values):
        """Real (B, L, D)."""
        heads = spike_attention.split_heads(values.value, self.nhead)
        weights = spike_attention.weights_of(scores.contiguous(), heads[..., : self.head_width], values.counts, self.options)
        macs = int((values.counts**2).sum()) * values.value.shape[-1]
        return self.told("values", REAL, values.kind, macs, events.attend(weights, events.trimmed(values), self.nhead))


class IntegrateThenFire(MultiLevelSpike):
    """A :class:`MultiLevelSpike` that fires its burst: T micro-steps of an integrate-and-fire neuron with soft reset."""

    def _spikes(self, x, counts, top, row=None, ratio=None):
        gain = super()._spikes(x[:, :1], counts.clamp(max=1), top, row, ratio).gain
        membrane, level = x / top * (self.levels if ratio is None else ratio), torch.zeros_like(x)
        membrane = membrane + (0.5 if self.options.rounding == "round" else 0.0)
        for _ in range(self.levels):
            fired = (membrane >= 1).to(x.dtype)
            membrane, level = membrane - fired, level + fired
        level = frames.zero_past(level, counts)
        return operands.Spikes(level * gain, level.to(torch.uint8), gain, self.levels, counts)


class FrameByFrame(LIF):
    """LIF neurons by their definition: membranes in a loop over frames. Mixed into the class of the neurons that it stands for."""

    def _integrate(self, x, counts, start, gain, norm):
        if norm is not None:
            raise ConversionError(f"a {type(norm).__name__} stands before neurons: fold_batchnorm(network) first")
        decay = self.decays(x)
        affine = lif.Affine(1 - decay, torch.zeros_like(decay)) if self.decay_input else None
        return lif.fire(x, affine, decay, start, gain, counts, self.options, "reference")


DRIVEN = {
    SpikeLinear: DrivenLinear,
    DepthwiseConv: DrivenDepthwise,
    SpikeEmbedding: DrivenEmbedding,
    LIFLayer: DrivenLIFLayer,
    SeparableGatedConvolution: DrivenGate,
    RotarySpikingAttention: DrivenRotaryAttention,
    SDSA3: DrivenSDSA3,
    RepSSA: DrivenRepSSA,
    FusedRepSSA: DrivenFusedRepSSA,
    MultiLevelSpike: IntegrateThenFire,
}


def unroll_levels(network):
    """A copy of ``network`` that runs on binary events: same parameters and names, other ways to compute.

    Arguments
    ---------
    network : nn.Module
        In evaluation mode, without batch norms: see :func:`spikebrain.convert.fold_batchnorm`. It stays as it is.

    Returns
    -------
    nn.Module
        ``forward`` as before; to be run without gradients, by :func:`spikebrain.convert.simulate`.

    Raises
    ------
    ConversionError
        As for :func:`spikebrain.convert.ready.check`; and for a batch norm that was not folded.
    """
    check(network)
    norm = next((name for name, module in network.named_modules() if isinstance(module, MaskedBatchNorm)), None)
    if norm is not None:
        raise ConversionError(f"{norm} is a batch norm: fold_batchnorm(network) first")
    network = copy.deepcopy(network)
    for module in network.modules():
        module.__class__ = _driven(type(module))
    return network


def check_unrolled(network):
    """Refuses what :func:`unroll_levels` has not given: run densely, it would equal itself and prove nothing.

    Raises
    ------
    ConversionError
        As for :func:`spikebrain.convert.ready.check`; and for a layer that is not unrolled. The message names it.
    """
    check(network)
    for name, module in network.named_modules():
        if _driven(type(module)) is not type(module):
            what = f"{name or 'the network'} ({type(module).__name__}) is not unrolled"
            raise ConversionError(f"{what}: convert(network), or unroll_levels(network), first")


@functools.cache
def _driven(kind):
    """The class that stands for ``kind``: a layer keeps its parameters, and its name in the network."""
    if kind in DRIVEN:
        return DRIVEN[kind]
    if issubclass(kind, LIF) and not issubclass(kind, FrameByFrame):  # also those that learn their decay, or begin anew at every frame
        return type(f"FrameByFrame{kind.__name__}", (FrameByFrame, kind), {})
    return kind


def _counts(x, counts):
    """Counts of events, or spikes, ``x`` (B, L, N), as a train. Raises ConversionError for what no train holds."""
    x = frames.zero_past(x, counts)
    if bool((x != x.round()).any()) or not 0 <= float(x.min()) <= float(x.max()) <= 127:
        numbers = f"{float(x.min()):g} to {float(x.max()):g}"
        raise ConversionError(
            f"input declared to be counts of events goes from {numbers}, but a train holds whole numbers, 0 to 127: "
            "set input_kind: real, or ask for more frames a second"
        )
    level = x.to(torch.uint8)
    most = max(1, int(level.amax()))
    return operands.Spikes(level.to(x.dtype), level, torch.ones_like(x[0, 0]), most, counts)


def _with_ones(spikes):
    """The train with one more channel, which fires once in every valid frame: what biases are multiplied with."""
    one = frames.zero_past(torch.ones_like(spikes.value[..., :1]), spikes.counts)
    gain = torch.cat([spikes.gain, torch.ones_like(spikes.gain[:1])])
    value, code = torch.cat([spikes.value, one], -1), torch.cat([spikes.code & 127, one.to(torch.uint8)], -1)
    return spikes._replace(value=value, code=code, gain=gain)
