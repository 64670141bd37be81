"""Layers of LIF neurons, feed-forward: the plainest spiking network, and a causal one.

    s^l = Drop(LIF(BN(s^{l-1} W^l))) ,  l = 1..num_layers

This is the feed-forward LIF network that recurrent and adaptive ones are measured against on SHD, SSC and GSC (A. Bittar,
P. N. Garner, "A Surrogate Gradient Spiking Baseline for Speech Command Recognition", Frontiers in Neuroscience 16, 2022), with
this package's neurons and norms. A frame depends on itself and earlier ones only, so that state can be carried from chunk to chunk.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.baselines import stack
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.neurons import LIF, PLIF
from spikebrain.neurons.switches import Switches, one_of


@dataclass(frozen=True)
class LIFNetworkConfig(Switches):
    """Every switch of a :class:`LIFNetwork`.

    Arguments
    ---------
    num_layers, d_model : int
        Layers and neurons in each.
    dropout : float
        Between layers.
    neuron : str
        "lif", or "plif" with a decay learned for every neuron.
    decay : float
        What is left of a membrane after a frame (to begin with).
    input_kind : str
        What the input is, for counting energy: "real" features, or "level" counts of events.
    """

    model, beside = "LIFNetwork", ("input_size", "nhead", "d_ffn", "causal")
    num_layers: int = 3
    d_model: int = 128
    dropout: float = 0.1
    neuron: str = one_of("lif", "plif")
    decay: float = 0.9
    input_kind: str = one_of("real", "level")

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise ValueError(f"num_layers is {self.num_layers}: choose 1 or more")

    def make_neuron(self):
        """A layer of neurons."""
        return LIF(self.d_model, self.decay) if self.neuron == "lif" else PLIF(self.d_model, self.decay, decay_per="channel")


class LIFNetworkState(NamedTuple):
    """layers : tuple of LIFState, one a layer."""

    layers: tuple


class LIFLayer(nn.Module):
    """Linear layer, masked batch norm, LIF neurons, dropout."""

    FOLDS = (("linear", ("norm",)),)

    def __init__(self, input_size, config):
        super().__init__()
        self.linear = nn.Linear(input_size, config.d_model, bias=False)
        self.norm, self.neuron, self.dropout = MaskedBatchNorm(config.d_model), config.make_neuron(), nn.Dropout(config.dropout)

    def forward(self, x, counts, state, kind):
        """(spikes (B, L, C), LIFState) of x (B, L, N), a ``kind`` of operand."""
        spikes, state = self.neuron.run(self.current(x, counts, kind), counts, state, None, self.norm)
        return self.dropout(spikes.value), state

    def current(self, x, counts, kind):
        """What the neurons hear of ``x`` (B, L, N), before the norm."""
        if operands.listening():
            operands.tell(self._product(x, counts, kind))
        return self.linear(x)

    def _product(self, x, counts, kind):
        rows, width = int(counts.sum()), self.linear.out_features
        fired = None if kind is operands.Kind.REAL else int(frames.zero_past(x, counts).sum()) * width
        return operands.Product(self.linear, "weight", kind, operands.Kind.REAL, rows * self.linear.in_features * width, fired)


class LIFNetwork(nn.Module):
    """The network. Keyword arguments beside those below are the fields of :class:`LIFNetworkConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of the input; d_model where it is None.
    nhead, d_ffn, causal
        Taken as every encoder takes them: there are no heads and no second width, and the network is causal whatever is asked.
    """

    position = "none"

    def __init__(self, input_size=None, nhead=None, d_ffn=None, causal=True, **switches):
        super().__init__()
        self.config = config = LIFNetworkConfig.of(**switches)
        self.input_size = input_size or config.d_model
        widths = [self.input_size, *[config.d_model] * (config.num_layers - 1)]
        self.layers = nn.ModuleList(LIFLayer(width, config) for width in widths)

    def forward(self, x, lengths=None, state=None):
        """Spikes of the last layer.

        Arguments
        ---------
        x : Tensor (B, L, N)
        lengths : Tensor (B,), optional
            Relative lengths.
        state : LIFNetworkState, optional

        Returns
        -------
        (spikes, state) : spikes (B, L, d_model), 0 past an utterance's end; LIFNetworkState

        Raises
        ------
        ValueError
            When x has another number of channels, or the state another number of layers or another shape.
        """
        stack.check(self, x, state)
        counts, states, kind = frames.absolute(lengths, x), [], operands.Kind(self.config.input_kind)
        for layer, one in zip(self.layers, stack.before(self, state), strict=True):
            x, after = layer(x, counts, one, kind)
            states.append(after)
            kind = operands.Kind.BINARY
        return x, LIFNetworkState(tuple(states))
