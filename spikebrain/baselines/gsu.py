"""Gated spiking units: neurons whose leak is a gate that hears the input and their own layer's last spikes.

    [f_t ; g_t] = W x_t + b + U s_{t-1}                        f_t <- sigmoid(f_t)
    c_t = f_t c_{t-1} + (1 - f_t) g_t ;  s_t = 1[c_t >= threshold]          no reset

and a network of such layers, the row "GSU" of Tables I and II of IML-Spikeformer (arXiv 2507.07396): three layers of 1024 units. The
equations are those of the published code of Spiking-FullSubNet, which the paper cites: a threshold of 0, a triangular surrogate of width
1, 2 H (N + H) + 2 H parameters a layer of H units that hears N channels. Its optional batch norm and shared weights are left out. The
linear layer with tanh that brings spikes to the decoder's width is that of :mod:`spikebrain.baselines.lif_mlp`.

The paper's 60.74 M parameters do not follow from its text: behind the front end of 2560 channels and with the 6-block decoder of width
256 (AISHELL-1) such a network has 28.99 M (:func:`aishell`). The row is not size-matched.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.baselines import stack
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.kernels import surrogate
from spikebrain.neurons.multilevel import firing_event
from spikebrain.neurons.switches import Switches, one_of


class GatedState(NamedTuple):
    """spikes, membrane : Tensors (B, H), of the last frame."""

    spikes: torch.Tensor
    membrane: torch.Tensor


class GSUState(NamedTuple):
    """layers : tuple of GatedState, one a layer."""

    layers: tuple


@dataclass(frozen=True)
class GSUConfig(Switches):
    """Every switch of a :class:`GSU`.

    Arguments
    ---------
    num_layers : int
        Layers of units.
    d_model : int
        Width of the output, which is the decoder's.
    d_ffn, hidden : int
        Units in each layer: ``hidden``, or d_ffn where it is None. Published: 1024.
    nhead, dropout, causal
        Taken as every encoder takes them: there are no heads and no dropout, and the network is causal whatever is asked.
    threshold : float
        Where a membrane fires.
    surrogate, alpha : str, float
        Surrogate derivative and its sharpness: see :mod:`spikebrain.kernels.surrogate`.
    """

    model, beside = "GSU", ("input_size",)
    num_layers: int = 3
    d_model: int = 256
    nhead: int | None = None
    d_ffn: int = 1024
    hidden: int | None = None
    dropout: float = 0.0
    causal: bool = True
    threshold: float = 0.0
    surrogate: str = one_of("triangle", *(name for name in surrogate.NAMES if name != "triangle"))
    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1 or self.units < 1:
            raise ValueError(f"num_layers is {self.num_layers} and hidden {self.units}: choose 1 or more of each")
        if self.alpha <= 0:
            raise ValueError(f"alpha {self.alpha} must be positive")

    @property
    def units(self):
        """Units in each layer."""
        return self.d_ffn if self.hidden is None else self.hidden


class GatedNeuron(nn.Module):
    """The neurons of a layer of gated spiking units: a loop over frames, in plain torch operations.

    Arguments
    ---------
    channels : int
        H.
    threshold, surrogate, alpha
        As for :class:`GSUConfig`.
    """

    def __init__(self, channels, threshold=0.0, surrogate="triangle", alpha=1.0):
        super().__init__()
        self.channels, self.threshold, self.surrogate, self.alpha = channels, threshold, surrogate, alpha

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"{self.channels}, threshold={self.threshold}, surrogate={self.surrogate!r}, alpha={self.alpha}"

    def run(self, x, counts, recurrent, state=None):
        """Spikes and state.

        Arguments
        ---------
        x : Tensor (B, L, 2 H)
            What the gates, and then the membranes, hear of the layer's input.
        counts : Tensor (B,), int64
            Valid frames; past them nothing fires, and the state stays as it is.
        recurrent : callable
            Declared spikes (B, 1, H) of the frame before -> what gates and membranes hear of them, (B, 1, 2 H).
        state : GatedState or None
            Of the frame before the first; zeros where it is None.

        Returns
        -------
        (Spikes, GatedState)

        Raises
        ------
        ValueError
            When the state has another shape.
        """
        wide = x if x.dtype == torch.float64 else x.float()
        (spikes, membrane), train = self._start(wide, state), []
        for current, alive in zip(wide.unbind(1), frames.valid(counts, x).unbind(1), strict=True):
            heard = recurrent(self._declared(spikes.unsqueeze(1), alive.long())).squeeze(1)
            new = self._step(current + heard.to(wide.dtype), membrane)
            spikes, membrane = (torch.where(alive.unsqueeze(1), *both) for both in zip(new, (spikes, membrane), strict=True))
            train.append(spikes)
        declared = self._declared(torch.stack(train, 1).to(x.dtype), counts)
        if operands.listening():
            operands.tell(firing_event(self, declared))
        return declared, GatedState(spikes, membrane)

    def _step(self, current, membrane):
        """(spikes, membrane) (B, H) of a frame, from the current (B, 2 H) and the membrane before."""
        gate, content = current.chunk(2, -1)
        gate = torch.sigmoid(gate)
        membrane = gate * membrane + (1 - gate) * content
        return surrogate.step(membrane - self.threshold, self.surrogate, self.alpha), membrane

    def _declared(self, value, counts):
        value = frames.zero_past(value, counts)
        return operands.Spikes(value, value.detach().to(torch.uint8), torch.ones_like(value[0, 0]), 1, counts)

    def _start(self, x, state):
        shape = (x.shape[0], self.channels)
        if state is None:
            return GatedState(x.new_zeros(shape), x.new_zeros(shape))
        for name, tensor in zip(state._fields, state, strict=True):
            if tensor.shape != shape:
                what = f"the state's {name} has shape {tuple(tensor.shape)}, x needs {shape}"
                raise ValueError(f"{what}: pass the state of the same utterances and layer")
        return GatedState(*(tensor.to(x.dtype) for tensor in state))


class GSULayer(nn.Module):
    """A layer of gated spiking units: weights from its input and from its own last spikes, and neurons."""

    def __init__(self, channels, config):
        super().__init__()
        units = config.units
        self.linear, self.recurrent = SpikeLinear(channels, 2 * units), SpikeLinear(units, 2 * units, bias=False)
        self.neuron = GatedNeuron(units, config.threshold, config.surrogate, config.alpha)

    def forward(self, train, state):
        """(declared spikes, GatedState) of the operands ``train`` and the state before."""
        return self.neuron.run(self.linear(train), train.counts, self.recurrent, state)


class GSU(nn.Module):
    """The network: layers of gated spiking units, a linear layer and tanh. Keyword arguments are the fields of :class:`GSUConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of the features; d_model where it is None.

    Example
    -------
    >>> network = GSU(input_size=8, d_model=4, hidden=16)
    >>> out, state = network(torch.randn(2, 10, 8))
    >>> out.shape, len(state.layers)
    (torch.Size([2, 10, 4]), 3)
    """

    position = "none"

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = GSUConfig.of(**switches)
        self.input_size = input_size or config.d_model
        widths = [self.input_size, *[config.units] * (config.num_layers - 1)]
        self.layers = nn.ModuleList(GSULayer(width, config) for width in widths)
        self.out, self.tanh = SpikeLinear(config.units, config.d_model), nn.Tanh()

    def forward(self, x, lengths=None, state=None):
        """What the decoder reads.

        Arguments
        ---------
        x : Tensor (B, L, N)
        lengths : Tensor (B,), optional
            Relative lengths.
        state : GSUState, optional
            Spikes and membranes before the first frame; zero where it is None.

        Returns
        -------
        (out, state) : out (B, L, d_model), real, -1..1, 0 past an utterance's end; GSUState

        Raises
        ------
        ValueError
            When x has another number of channels, or the state another number of layers or another shape.
        """
        train, after = stack.run(self, x, lengths, state)
        return frames.zero_past(self.tanh(self.out(train)), train.counts), GSUState(after)


def aishell(**changes):
    """The encoder as the text describes it, behind 2560 channels of a VGG front end: 15,997,184 parameters."""
    return GSU(**{"input_size": 2560, "num_layers": 3, "d_model": 256, "hidden": 1024, **changes})
