"""The spiking MLP of LIF neurons that IML-Spikeformer is compared with in speech recognition.

    s^l = LIF(W^l s^{l-1} + b^l) , l = 1..num_layers ,  s^0 = X
    out = tanh(W_out s^num_layers + b_out)

Membranes live over the frames of an utterance, one step a frame, so that a frame depends on itself and earlier ones only. Source: the
row "LIF" of Table I of arXiv 2507.07396, three layers of 1024 neurons; the linear layer with tanh that brings them to the
decoder's width, the decay of 0.95, the threshold of 0.8 and the triangular surrogate are of the same authors' published recipe for such
encoders (NEAT), which resets to 0 where the paper's Eq. 3 subtracts: soft reset here, ``reset: hard`` for the other.

The paper's 22.96 M parameters do not follow from its text: behind the front end of 2560 channels and with the 6-block decoder of width
256 (AISHELL-1) such a network has 17.98 M (:func:`aishell`). The row is not size-matched.
"""

from dataclasses import dataclass, replace

from torch import nn

from spikebrain import lengths as frames
from spikebrain.baselines import stack
from spikebrain.baselines.lif_network import LIFNetworkState
from spikebrain.baselines.vanilla_snn import VanillaLayer
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.neurons.neuron_switches import NeuronSwitches


@dataclass(frozen=True)
class LIFMLPConfig(NeuronSwitches):
    """Every switch of a :class:`LIFMLP`.

    Arguments
    ---------
    num_layers : int
        Layers of neurons.
    d_model : int
        Width of the output, which is the decoder's.
    d_ffn, hidden : int
        Neurons in each layer: ``hidden``, or d_ffn where it is None. Published: 1024.
    nhead, dropout, causal
        Taken as every encoder takes them: there are no heads and no dropout, and the network is causal whatever is asked.
    decay, threshold, reset, detach_reset, decay_input, surrogate, alpha
        As for :class:`spikebrain.neurons.LIF`.
    """

    model, beside = "LIFMLP", ("input_size",)
    num_layers: int = 3
    d_model: int = 256
    nhead: int | None = None
    d_ffn: int = 1024
    hidden: int | None = None
    dropout: float = 0.0
    causal: bool = True
    decay: float = 0.95
    threshold: float = 0.8
    reset: str = "soft"
    surrogate: str = "triangle"
    alpha: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1 or self.neurons < 1:
            raise ValueError(f"num_layers is {self.num_layers} and hidden {self.neurons}: choose 1 or more of each")

    @property
    def neurons(self):
        """Neurons in each layer."""
        return self.d_ffn if self.hidden is None else self.hidden


class LIFMLP(nn.Module):
    """The network. Keyword arguments beside ``input_size`` are the fields of :class:`LIFMLPConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of the features; d_model where it is None.

    Example
    -------
    >>> import torch
    >>> network = LIFMLP(input_size=8, d_model=4, hidden=16)
    >>> out, state = network(torch.randn(2, 10, 8))
    >>> out.shape, len(state.layers)
    (torch.Size([2, 10, 4]), 3)
    """

    position = "none"

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = LIFMLPConfig.of(**switches)
        self.input_size = input_size or config.d_model
        widths, layer = [self.input_size, *[config.neurons] * (config.num_layers - 1)], replace(config, d_model=config.neurons)
        self.layers = nn.ModuleList(VanillaLayer(width, layer) for width in widths)
        self.out, self.tanh = SpikeLinear(config.neurons, config.d_model), nn.Tanh()

    def forward(self, x, lengths=None, state=None):
        """What the decoder reads.

        Arguments
        ---------
        x : Tensor (B, L, N)
        lengths : Tensor (B,), optional
            Relative lengths.
        state : LIFNetworkState, optional
            Membranes before the first frame; zero where it is None.

        Returns
        -------
        (out, state) : out (B, L, d_model), real, -1..1, 0 past an utterance's end; LIFNetworkState

        Raises
        ------
        ValueError
            When x has another number of channels, or the state another number of layers or another shape.
        """
        train, after = stack.run(self, x, lengths, state)
        return frames.zero_past(self.tanh(self.out(train)), train.counts), LIFNetworkState(after)


def aishell(**changes):
    """The encoder as the text describes it, behind 2560 channels of a VGG front end: 4,984,064 parameters."""
    return LIFMLP(**{"input_size": 2560, "num_layers": 3, "d_model": 256, "hidden": 1024, **changes})
