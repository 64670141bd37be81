"""Convolutional subsampling in front of the encoder: 4x or 6x fewer frames.

    4    3x3 stride 2, 3x3 stride 2                                       frames (L - 3) // 2 + 1, twice
    6    3x3 stride 2, 5x5 stride 3                                       (L - 3) // 2 + 1, then (L - 5) // 3 + 1
    vgg  2 x [3x3, 3x3, max pooling 2x2], the convolutions padded         ceil(L / 2), twice

4 is the Transformers' on AISHELL-1, 6 on LibriSpeech (only with it 99.36 M parameters come out), vgg that of the recurrent networks they
are compared with. The convolutions of the first two are unpadded, and those of vgg see zeros past an utterance's end, so that a frame that
comes out has seen frames of its own utterance only, and an utterance has the same number of frames in any batch. The linear projection
to the model's width, which ESPnet counts to this layer, is SpeechBrain's ``custom_src_module``.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.neurons import MultiLevelSpike
from spikebrain.neurons.switches import check_word

GEOMETRY = {4: ((3, 2), (3, 2)), 6: ((3, 2), (5, 3))}
VGG = "vgg"


def make(subsampling=4, channels=256, n_mels=80, activation="relu"):
    """The front end that a recipe asks for.

    Arguments
    ---------
    subsampling : int or str
        4 or 6: a :class:`Conv2dSubsampling` of that factor; "vgg": a :class:`VGGSubsampling`.
    channels : int
        Filters of either; a VGG front end has a quarter of them before its first pooling and half behind it, so that 256, the width of
        the published recognisers, are its published 64 and 128.
    n_mels, activation
        As for :class:`Conv2dSubsampling`.

    Raises
    ------
    ValueError
        For another ``subsampling``, and for spikes in a VGG front end, which has none.
    """
    if subsampling != VGG:
        return Conv2dSubsampling(channels, subsampling, n_mels, activation)
    if activation != "relu":
        raise ValueError(f"activation is {activation!r}, but a VGG front end has ReLU: set relu, or subsampling: 4")
    return VGGSubsampling(n_mels, (channels // 4, channels // 2))


def subsampled_frames(count, factor):
    """Encoder frames of ``count`` feature frames (an int or a tensor), by formula; ``factor`` is 4, 6 or "vgg"."""
    if factor == VGG:
        return pooled(pooled(count))
    for kernel, stride in GEOMETRY[factor]:
        count = frames.conv_frames(count, kernel, stride)
    return count


class Conv2dSubsampling(nn.Module):
    """Two convolutions over time and mel bands.

    Arguments
    ---------
    channels : int
        Filters of both convolutions (the paper's models: d_model).
    factor : int
        4 or 6.
    n_mels : int
        Bands of the input.
    activation : str
        "relu" (an ordinary front end) or "spike": multi-level neurons after both convolutions, so that the second one
        and the projection behind it are fed by spikes (the paper's energy figures suggest it, its text is silent).
    levels : int
        T of those neurons.
    """

    def __init__(self, channels, factor=4, n_mels=80, activation="relu", levels=6):
        super().__init__()
        if factor not in GEOMETRY:
            raise ValueError(f"factor is {factor}: choose 4 (two 3x3, stride 2) or 6 (3x3 stride 2, 5x5 stride 3), or the front end vgg")
        check_word("activation", activation, ("relu", "spike"))
        self.channels, self.factor, self.n_mels, self.activation = channels, factor, n_mels, activation
        (kernel_1, stride_1), (kernel_2, stride_2) = GEOMETRY[factor]
        self.conv_1 = nn.Conv2d(1, channels, kernel_1, stride_1)
        self.conv_2 = nn.Conv2d(channels, channels, kernel_2, stride_2)
        if activation == "spike":
            bands = frames.conv_frames(n_mels, kernel_1, stride_1)
            self.sn_1 = MultiLevelSpike(channels * bands, levels)
            self.sn_2 = MultiLevelSpike(self.out_features, levels)

    @property
    def out_features(self):
        """Width of the output: channels times the bands that are left."""
        return self.channels * subsampled_frames(self.n_mels, self.factor)

    def forward(self, x, lengths=None):
        """Subsamples features.

        Arguments
        ---------
        x : Tensor (B, L, n_mels)
        lengths : Tensor (B,), optional
            Relative lengths.

        Returns
        -------
        (out, lengths') : out (B, L', out_features), 0 on padding; lengths' (B,) relative to L', None for None.

        Raises
        ------
        ValueError
            When x has other bands, or an utterance is too short to leave one frame.
        """
        if x.shape[-1] != self.n_mels:
            raise ValueError(f"x has {x.shape[-1]} mel bands, the front end expects {self.n_mels}: set n_mels={x.shape[-1]}")
        counts = [frames.absolute(lengths, x)]
        for kernel, stride in GEOMETRY[self.factor]:
            counts.append(frames.conv_frames(counts[-1], kernel, stride))
        self._check(counts)
        y = self.conv_1(x.unsqueeze(1))
        y = self._activate(y, getattr(self, "sn_1", None), counts[1])
        self._tell(y, counts)
        y = self._activate(self.conv_2(y), getattr(self, "sn_2", None), counts[2]).transpose(1, 2).flatten(2)
        if lengths is None:
            return y, None
        short = frames.relative(counts[2], y.shape[1])
        return frames.zero_padding(y, short), short

    def _check(self, counts):
        if not torch.compiler.is_compiling() and bool((counts[-1] < 1).any()):
            shortest = int(counts[0].min())
            needed = next(n for n in range(1, 64) if subsampled_frames(n, self.factor) >= 1)
            raise ValueError(
                f"an utterance has {shortest} feature frames, {self.factor}x subsampling needs {needed}: drop utterances that short"
            )

    def _activate(self, y, neuron, counts):
        """ReLU, or spikes of one neuron a (channel, band); y (B, C, L, F)."""
        if neuron is None:
            return torch.relu(y)
        flat = y.transpose(1, 2)
        return neuron.fire(flat.flatten(2), counts).value.view(flat.shape).transpose(1, 2)

    def _tell(self, y, counts):
        """Declares both products. The first hears real numbers; the second, behind neurons, spikes, each of which reaches at most
        kernel^2 / stride^2 outputs a filter."""
        if not operands.listening():
            return
        (first, step), (kernel, stride) = GEOMETRY[self.factor]
        operands.tell_real(self.conv_1, counts[1], frames.conv_frames(self.n_mels, first, step) * self.conv_1.weight.numel())
        bands = subsampled_frames(self.n_mels, self.factor)
        if self.activation != "spike":
            operands.tell_real(self.conv_2, counts[2], bands * self.conv_2.weight.numel())
            return
        macs = int(counts[2].sum()) * bands * self.conv_2.weight.numel()
        levels = (y.detach() * self.sn_1.levels).round()
        reach = nn.functional.unfold(levels.sum(1, keepdim=True), kernel, stride=stride).sum(1).view(len(y), -1, bands)
        accumulates = int(frames.zero_past(reach.sum(2), counts[2]).sum()) * self.channels
        operands.tell(operands.Product(self.conv_2, "weight", operands.Kind.LEVEL, operands.Kind.REAL, macs, accumulates))


def pooled(count):
    """Frames, or bands, behind a pooling by 2 whose last window may be half full (an int or a tensor)."""
    return (count + 1) // 2


class VGGSubsampling(nn.Module):
    """Four convolutions over time and mel bands, 4x fewer frames.

    Weights begin as K. He et al., "Delving Deep into Rectifiers", ICCV 2015, Eq. 10, biases with 0, so that maps keep their scale. Torch's
    own beginning leaves 1/30 of it behind four convolutions, and that the same in every frame: neurons with a threshold hear nothing of
    the utterance then. Ours; the paper names no initialisation.

    Arguments
    ---------
    n_mels : int
        Bands of the input.
    channels : (int, int)
        Filters of the convolutions before the first and before the second pooling.
    """

    factor = 4

    def __init__(self, n_mels=80, channels=(64, 128)):
        super().__init__()
        first, second = channels
        self.n_mels, self.channels = n_mels, (first, second)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((1, first, first, second, second)))
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    @property
    def out_features(self):
        """Width of the output: channels times the bands that are left."""
        return self.channels[1] * pooled(pooled(self.n_mels))

    def forward(self, x, lengths=None):
        """Subsamples features.

        Arguments
        ---------
        x : Tensor (B, L, n_mels)
        lengths : Tensor (B,), optional
            Relative lengths.

        Returns
        -------
        (out, lengths') : out (B, L', out_features), 0 on padding; an utterance of n frames has ceil(ceil(n / 2) / 2); lengths' (B,)
        relative to L', None for None.

        Raises
        ------
        ValueError
            When x has other bands.
        """
        if x.shape[-1] != self.n_mels:
            raise ValueError(f"x has {x.shape[-1]} mel bands, the front end expects {self.n_mels}: set n_mels={x.shape[-1]}")
        counts = frames.absolute(lengths, x)
        y = frames.zero_past(x, counts).unsqueeze(2)
        for conv, following in zip(self.convs[::2], self.convs[1::2], strict=True):
            y = self._convolve(following, self._convolve(conv, y, counts), counts)
            y = F.max_pool2d(y.transpose(1, 2), 2, ceil_mode=True).transpose(1, 2)  # past an end lie zeros, no more than what ReLU leaves
            counts = pooled(counts)
        return y.flatten(2), None if lengths is None else frames.relative(counts, y.shape[1])

    def _convolve(self, conv, y, counts):
        """ReLU of a convolution of maps ``y`` (B, L, C, F), 0 past the frame counts (B,), which the next one sees."""
        operands.tell_real(conv, counts, y.shape[-1] * conv.weight.numel(), "weight")
        return frames.zero_past(conv(y.transpose(1, 2)).transpose(1, 2).relu(), counts)
