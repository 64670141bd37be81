"""Leaky integrate-and-fire neurons whose membranes live over the frames of an utterance.

    h_t = decay v_{t-1} + x_t ;  s_t = 1[h_t >= threshold] ;  v_t = h_t (1 - s_t), or h_t - threshold s_t

Frames are the neuron's time: what it has heard decays by ``decay`` a frame. State goes in and comes out; nothing of it
stays on the module. At an utterance's end its membrane freezes, so that padding changes nothing.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.kernels import lif, surrogate
from spikebrain.neurons.multilevel import firing_event
from spikebrain.neurons.switches import check_word

RESETS = ("hard", "soft")


class LIFState(NamedTuple):
    """membrane : Tensor (B, C), after the reset of the last frame."""

    membrane: torch.Tensor


class LIF(nn.Module):
    """A layer of LIF neurons with one fixed decay.

    Arguments
    ---------
    channels : int
        C, the number of neurons.
    decay : float
        What is left of a membrane after a frame, 0..1; 1 - 1/tau for a time constant of tau frames.
    threshold : float
    reset : str
        "hard", to 0, or "soft", by subtraction of the threshold.
    detach_reset : bool
        No derivative through the reset.
    decay_input : bool
        The input enters with the weight 1 - decay, as SpikeSCR prints it (Eq. 1); its published code gives it the
        weight 1, the default here.
    surrogate, alpha : str, float
        Surrogate derivative and its sharpness: see :mod:`spikebrain.kernels.surrogate`.

    Example
    -------
    >>> neuron = LIF(1, decay=0.5)
    >>> spikes, state = neuron(torch.tensor([[[1.0], [0.0], [0.5], [0.75]]]))
    >>> spikes.flatten().tolist(), state.membrane.item()
    ([1.0, 0.0, 0.0, 1.0], 0.0)
    """

    def __init__(
        self, channels, decay=0.5, threshold=1.0, reset="hard", detach_reset=True, decay_input=False, surrogate="arctan", alpha=5.0
    ):  # fmt: skip
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}: choose what is left of a membrane after a frame, 0 to 1")
        self.channels, self.decay, self.decay_input = channels, decay, decay_input
        self.options = _options(threshold, reset, detach_reset, surrogate, alpha)

    def extra_repr(self):
        """What it was built with, for ``print``; without the decay where it is learned."""
        o = self.options
        decay = f"decay={self.decay}, " if hasattr(self, "decay") else ""
        reset = "soft" if o.soft else "hard"
        return f"{self.channels}, {decay}threshold={o.threshold}, reset={reset!r}, surrogate={o.surrogate!r}, alpha={o.alpha}"

    def decays(self, like):
        """The decay of every neuron: Tensor (C,) with the dtype and device of ``like``."""
        return torch.full((self.channels,), self.decay, dtype=like.dtype, device=like.device)

    def forward(self, x, lengths=None, state=None):
        """Spikes of ``x``.

        Arguments
        ---------
        x : Tensor (B, L, C)
            Input currents.
        lengths : Tensor (B,), optional
            Relative lengths. Padding neither fires nor changes a membrane.
        state : LIFState, optional
            Membranes before the first frame; zero where it is None.

        Returns
        -------
        (spikes, state) : spikes (B, L, C), 0 or 1 in x's dtype; the LIFState after each utterance's last frame

        Raises
        ------
        ValueError
            When x has another number of channels, or the state another shape.
        """
        spikes, state = self.run(x, frames.absolute(lengths, x), state)
        return spikes.value, state

    def fire(self, x, counts, gain=None):
        """Declared :class:`operands.Spikes` from frame counts (B,) int64 and zero membranes; ``gain`` as for :meth:`run`."""
        return self.run(x, counts, None, gain)[0]

    def run(self, x, counts, state=None, gain=None, norm=None):
        """Spikes and state, for what stands around a neuron.

        Arguments
        ---------
        x : Tensor (B, L, C)
        counts : Tensor (B,), int64
            Valid frames.
        state : LIFState or None
        gain : Tensor (B, 1, C) or None
            What a spike is worth: dropout that is constant over frames.
        norm : MaskedBatchNorm or None
            Normalises x first, in the same pass.

        Returns
        -------
        (Spikes, LIFState)
        """
        if x.shape[-1] != self.channels:
            raise ValueError(f"x has {x.shape[-1]} channels, the neuron {self.channels}: set channels={x.shape[-1]}")
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            value, code, membrane = self._integrate(wide, counts, self._start(wide, state), gain, norm)
        gain = torch.ones(self.channels, dtype=wide.dtype, device=x.device) if gain is None else gain
        spikes = operands.Spikes(value.to(x.dtype), code, gain, 1, counts)
        if operands.listening():
            operands.tell(firing_event(self, spikes))
        return spikes, LIFState(membrane)

    def _integrate(self, x, counts, start, gain, norm):
        decay = self.decays(x)
        weight = 1 - decay if self.decay_input else None
        gain = None if gain is None else gain.squeeze(1).to(x.dtype)
        if norm is not None:
            return norm.normalise_and_fire(x, counts, weight, decay, start, gain, self.options)
        affine = None if weight is None else lif.Affine(weight, torch.zeros_like(weight))
        return lif.fire(x, affine, decay, start, gain, counts, self.options)

    def _start(self, x, state):
        if state is None:
            return None
        if state.membrane.shape != (x.shape[0], self.channels):
            raise ValueError(
                f"the state's membrane is {tuple(state.membrane.shape)}, x needs {(x.shape[0], self.channels)}: "
                "pass the state of the same utterances and layer"
            )
        return state.membrane.to(x.dtype)


class PLIF(LIF):
    """LIF neurons that learn their decay.

    Arguments
    ---------
    decay : float
        To begin with, inside 0..1.
    decay_per : str
        "layer", one for all neurons, or "channel".
    channels, options
        As for :class:`LIF`.

    Attributes
    ----------
    logit : Parameter (1,) or (C,)
        decay = sigmoid(logit), so that it stays inside 0..1 (W. Fang et al., "Incorporating Learnable Membrane Time Constant to
        Enhance Learning of Spiking Neural Networks", ICCV 2021, Eq. 9, whose k(a) = 1/tau is 1 - decay here).
    """

    def __init__(self, channels, decay=0.5, decay_per="layer", **options):
        super().__init__(channels, decay, **options)
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}: a decay that is learned begins inside 0 to 1")
        check_word("decay_per", decay_per, ("layer", "channel"))
        del self.decay  # the number it begins with
        self.logit = nn.Parameter(torch.full((1 if decay_per == "layer" else channels,), math.log(decay / (1 - decay))))

    def decays(self, like):
        """The decay of every neuron: Tensor (C,) with the dtype and device of ``like``."""
        return torch.sigmoid(self.logit).to(like.dtype).expand(self.channels).contiguous()


def _options(threshold, reset, detach_reset, name, alpha):
    check_word("reset", reset, RESETS)
    if threshold <= 0 or alpha <= 0:
        raise ValueError(f"threshold {threshold} and alpha {alpha} must be positive")
    return lif.FireOptions(float(threshold), reset == "soft", bool(detach_reset), surrogate.check(name), float(alpha))
