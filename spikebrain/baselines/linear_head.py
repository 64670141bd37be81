"""The linear head of emotion2vec: what a network for emotions has to beat on the same features.

    logits = W_2 mean_t ReLU(W_1 X_t + b_1) + b_2

The mean comes behind the first layer, not before. Source: Z. Ma et al., "emotion2vec", Findings of ACL 2024, and the authors' code for
IEMOCAP, where 768 channels, 256 hidden ones and 4 classes make 197,892 parameters and a weighted accuracy of 71.79 %.
"""

from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.blocks.spike_linear import SpikeLinear


class FrameLayer(nn.Module):
    """The first layer and its ReLU, frame by frame.

    Attributes
    ----------
    output_size : int
    model : FrameLayer
        Itself: recipes listen to a classifier's ``encoder.model``.
    """

    def __init__(self, input_size, hidden):
        super().__init__()
        self.linear, self.output_size = SpikeLinear(input_size, hidden), hidden

    @property
    def model(self):
        """Itself."""
        return self

    def forward(self, x, lengths=None):
        """(B, L, hidden) of features ``x`` (B, L, N) and relative lengths (B,); ValueError for another number of channels."""
        if x.shape[-1] != self.linear.in_features:
            known = self.linear.in_features
            raise ValueError(f"x has {x.shape[-1]} channels, the head expects {known}: set input_size: {x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        return self.linear(operands.Spikes.real(frames.zero_past(x, counts), counts)).relu()


class LinearHead(nn.Module):
    """The head.

    Arguments
    ---------
    input_size : int
        Channels of the features.
    classes : int
        K.
    hidden : int

    Example
    -------
    >>> import torch
    >>> LinearHead(80, 4)(torch.randn(3, 10, 80), torch.tensor([1.0, 0.5, 0.7])).shape
    torch.Size([3, 4])
    """

    def __init__(self, input_size, classes, hidden=256):
        super().__init__()
        self.encoder, self.head = FrameLayer(input_size, hidden), SpikeLinear(hidden, classes)

    def forward(self, x, lengths=None):
        """Logits (B, K) of features ``x`` (B, L, N) and relative lengths (B,)."""
        pooled = frames.masked_mean(self.encoder(x, lengths), lengths)
        once = frames.absolute(None, pooled.unsqueeze(1))
        return self.head(operands.Spikes.real(pooled.unsqueeze(1), once)).squeeze(1)
