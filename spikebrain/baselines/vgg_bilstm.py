"""VGG-BiLSTM: convolutions with pooling and bidirectional LSTMs, the recurrent recogniser without spikes of Table I.

    front end   2 x [conv 3x3, ReLU, conv 3x3, ReLU, max pool 2x2]       80 mel bands -> 2560 channels, 4x fewer frames
    h^l = [LSTM(h^{l-1}) ; LSTM backwards(h^{l-1})]                      l = 1..3, 1024 cells a direction
    out = tanh(W h^3 + b)                                                2048 -> 256

IML-Spikeformer (arXiv 2507.07396, Table I) compares with it: 93.26 M parameters with the decoder of the Transformers. Its text speaks of
1024 hidden *and output* dimensions, which a decoder of width 256 contradicts; with an output of 256 and no projection between
layers the count is 93,256,914 exactly (:func:`spikebrain.lobes.published_asr`). The layers are those of ESPnet's VGG encoder; where
ESPnet convolves and pools over padding, here every map is 0 past an utterance's end, so that an utterance is the same in any batch.

As that of the Transformers, the front end is a module of its own, :class:`spikebrain.blocks.subsampling.VGGSubsampling`: encoders keep
the number of frames.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.neurons.switches import Switches


@dataclass(frozen=True)
class VGGBiLSTMConfig(Switches):
    """Every switch of a :class:`VGGBiLSTM`.

    Arguments
    ---------
    num_layers, d_model : int
        LSTM layers, and channels of the output.
    hidden : int, optional
        Cells of a layer in each of the two directions; 4 d_model where it is None: 1024 in the paper.
    nhead, d_ffn : int
        Of the decoder behind the encoder, which has neither.
    dropout : float
        Behind every layer (ours: the paper names none).
    causal : bool
        Only False: one of the directions reads an utterance from its end.
    """

    model, beside = "VGGBiLSTM", ("input_size",)
    num_layers: int = 3
    d_model: int = 256
    hidden: int | None = None
    nhead: int = 4
    d_ffn: int = 2048
    dropout: float = 0.1
    causal: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise ValueError(f"num_layers is {self.num_layers}: choose 1 or more")
        if self.causal:
            raise ValueError("causal is True, but a bidirectional LSTM reads the whole utterance: set causal: False")

    @property
    def widths(self):
        """Channels behind each layer, both directions together."""
        return (2 * (self.hidden or 4 * self.d_model),) * self.num_layers


class BiLSTMLayer(nn.Module):
    """An LSTM in either direction, and dropout.

    Arguments
    ---------
    channels, width : int
        Channels before and behind it; half of ``width`` are cells of one direction.
    dropout : float
    """

    def __init__(self, channels, width, dropout=0.0):
        super().__init__()
        self.lstm = nn.LSTM(channels, width // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, counts):
        """(B, L, width) of ``x`` (B, L, channels); the way back begins at each utterance's own end, past which all is 0."""
        gates = 8 * self.lstm.hidden_size  # of both directions
        operands.tell_real(self.lstm, counts, gates * self.lstm.input_size, "input")
        operands.tell_real(self.lstm, counts, gates * self.lstm.hidden_size, "recurrent")
        packed = pack_padded_sequence(x, counts.cpu(), batch_first=True, enforce_sorted=False)
        return self.dropout(pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0])


class VGGBiLSTM(nn.Module):
    """The encoder behind the front end. Keyword arguments beside ``input_size`` are the fields of :class:`VGGBiLSTMConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of what it reads, 2560 behind a ``VGGSubsampling`` of 80 bands; d_model where it is None.

    Example
    -------
    >>> from spikebrain.blocks.subsampling import VGGSubsampling
    >>> frontend = VGGSubsampling(n_mels=20, channels=(2, 4))
    >>> encoder = VGGBiLSTM(frontend.out_features, num_layers=2, d_model=8)
    >>> out, _ = encoder(*frontend(torch.randn(3, 30, 20), torch.tensor([1.0, 0.5, 0.7])))
    >>> out.shape
    torch.Size([3, 8, 8])
    """

    position = "none"  # an LSTM knows the order of frames

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = VGGBiLSTMConfig.of(**switches)
        self.input_size = input_size or config.d_model
        self.layers = nn.ModuleList(BiLSTMLayer(*pair, config.dropout) for pair in pairwise((self.input_size, *config.widths)))
        self.out = nn.Linear(config.widths[-1], config.d_model)

    def forward(self, x, lengths=None, state=None):
        """Encodes a padded batch.

        Arguments
        ---------
        x : Tensor (B, L, N)
        lengths : Tensor (B,), optional
            Relative lengths.
        state : None
            There is none: one of the directions begins at the end.

        Returns
        -------
        (out, None) : out (B, L, d_model), -1 to 1; 0 past an utterance's end

        Raises
        ------
        ValueError
            When x has another number of channels.
        """
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {self.input_size}: set input_size: {x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        hidden = frames.zero_past(x, counts)
        for layer in self.layers:
            hidden = layer(hidden, counts)
        operands.tell_real(self.out, counts, self.out.weight.numel(), "weight")
        return frames.zero_past(torch.tanh(self.out(hidden)), counts), None
