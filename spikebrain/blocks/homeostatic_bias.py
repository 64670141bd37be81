"""Homeostatic bias: from what is known of a whole utterance, one current for each neuron, to bring its input into range.

    b = scale * tanh(W_up ReLU(W_down c + b_down) + b_up) ,   W_up = 0, b_up = 0 to begin with        (PTS-SNN Eq. 11, 12)
"""

import torch
from torch import nn

from spikebrain import operands
from spikebrain.blocks.spike_linear import SpikeLinear


class HomeostaticBias(nn.Module):
    """The bottleneck that makes the bias. At first it is exactly 0, and only the upper layer has a gradient.

    Arguments
    ---------
    channels : int
        C.
    bottleneck : int
        Channels between the two layers; C / 16 in PTS-SNN as we size it (ours, see there).
    scale : float
        Largest absolute bias; 0.5 (ours: the paper's optimum is lost).

    Notes
    -----
    The nonlinearity of the bottleneck is not named; ReLU is ours.
    """

    def __init__(self, channels, bottleneck, scale=0.5):
        super().__init__()
        self.scale = scale
        self.down, self.up = SpikeLinear(channels, bottleneck), SpikeLinear(bottleneck, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"scale={self.scale}"

    def forward(self, context):
        """Biases (B, C) in -scale..scale of the ``context`` (B, C) of each utterance."""
        hidden = _applied(self.down, context).relu()
        return self.scale * torch.tanh(_applied(self.up, hidden))


def _applied(linear, x):
    """``linear`` of one vector an utterance, (B, N), real numbers all of them."""
    once = torch.ones(len(x), dtype=torch.long, device=x.device)
    return linear(operands.Spikes.real(x.unsqueeze(1), once)).squeeze(1)
