"""Speaker embeddings from every block of an encoder (MFA), and the losses with a margin that they are trained with.

    h   = LayerNorm([h_1 ; ... ; h_M])                     outputs of the blocks, joined frame by frame
    e_t = W_2 tanh(BN(ReLU(W_1 [h_t ; mean ; std] + b_1))) + b_2 ,   a = softmax_t(e)
    z   = W BN([sum_t a_t h_t ; sqrt(sum_t a_t h_t^2 - mean^2)]) + b

The head of MFA-Conformer (Zhang et al., Interspeech 2022), which IML-Spikeformer (arXiv 2507.07396, Table IV) puts behind its blocks
for speaker verification; Transformer and IML-Spikeformer have the same one, without spikes. With 6 blocks of width 256, all biases, and
an embedding of 192 it has 11,116,096 parameters. In a YAML, with the contract of SpeechBrain's ``ECAPA_TDNN``:

    embedding_model: !new:spikebrain.lobes.SpeakerEmbedding
        encoder: iml_spikeformer
        encoder_kwargs: {num_layers: 6, d_model: 256, nhead: 4, final_norm: False}
    classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
        input_size: 192
        out_neurons: 1211
    compute_cost: !new:spikebrain.lobes.SpeakerLoss
        loss: am
"""

import copy
import warnings

import torch
from speechbrain.nnet.losses import AdditiveAngularMargin, AngularMargin, LogSoftmaxWrapper
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.blocks.subsampling import Conv2dSubsampling
from spikebrain.lobes.framewise import FrameEncoder
from spikebrain.neurons.switches import check_word


def _statistics(x, share):
    """Mean and deviation, both (B, C), of ``x`` (B, L, C), of whose frames each has a ``share`` (B, L, 1 or C)."""
    mean = (share * x).sum(1)
    variance = (share * (x - mean.unsqueeze(1)) ** 2).sum(1)
    return mean, variance.clamp(min=1e-12).sqrt()


class AttentiveStatisticsPooling(nn.Module):
    """Mean and deviation of an utterance, its frames weighted by an attention of each channel's own.

    That of SpeechBrain's ECAPA-TDNN with global context, to the parameter, but for its batch norm, which counts padding in training,
    and for its mask, which a relative length in float32 may let one frame of padding through: both know lengths here.

    Arguments
    ---------
    channels : int
        C.
    attention_channels : int
        A, the width inside of the attention.
    """

    def __init__(self, channels, attention_channels=128):
        super().__init__()
        self.frame = nn.Linear(channels, attention_channels)
        self.context = nn.Linear(2 * channels, attention_channels, bias=False)
        self.norm = MaskedBatchNorm(attention_channels)
        self.score = nn.Linear(attention_channels, channels)

    def forward(self, x, lengths=None):
        """(B, 2 C), at least float32, of ``x`` (B, L, C) and relative lengths (B,)."""
        counts = frames.absolute(lengths, x)
        x, valid = frames.zero_past(x, counts), frames.valid(counts, x).unsqueeze(-1)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        context = torch.cat(_statistics(wide, valid / counts.view(-1, 1, 1).to(wide.dtype)), -1).to(x.dtype)
        for layer, rows in ((self.frame, counts.sum()), (self.context, len(x)), (self.score, counts.sum())):
            operands.tell_real(layer, rows, layer.weight.numel())
        hidden = self.frame(x) + self.context(context).unsqueeze(1)
        scores = self.score(self.norm.normalise(hidden.relu(), counts).tanh()).to(wide.dtype)
        return torch.cat(_statistics(wide, scores.masked_fill(~valid, float("-inf")).softmax(1)), -1)


class UtteranceNorm(MaskedBatchNorm):
    """Batch normalisation of one vector an utterance."""

    def forward(self, x):
        """Normalises ``x`` (B, C)."""
        return self.normalise(x.unsqueeze(1), torch.ones(len(x), dtype=torch.long, device=x.device)).squeeze(1)


def layer_outputs(encoder, x, lengths=None):
    """What every block of a :class:`FrameEncoder` gives: a list of Tensors (B, L, C_l); frames past an utterance's end may hold anything.

    Spikes are given as the values that the next block reads; where micro-steps are folded into the batch, their mean.

    Raises
    ------
    ValueError
        For an encoder without ``layers``.
    """
    layers = getattr(encoder.model, "layers", None)
    if not layers:
        raise ValueError(f"{type(encoder.model).__name__} has no layers whose outputs could be joined: name an encoder that has some")
    found = []
    hooks = [layer.register_forward_hook(lambda module, given, out: found.append(_values(out, len(x)))) for layer in layers]
    try:
        encoder(x, lengths)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _values(out, batch):
    """The Tensor (batch, L, C) of what a block returns: a tensor or a declared train, alone or before its state."""
    if isinstance(out, operands.Spikes):
        out = out.value
    if isinstance(out, tuple):
        return _values(out[0], batch)
    return out if len(out) == batch else out.unflatten(0, (-1, batch)).mean(0)


def _widths(encoder, channels):
    """Channels of :func:`layer_outputs` for features of ``channels``, from two frames of silence through a copy of the encoder."""
    encoder = copy.deepcopy(encoder).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neurons say that they were not trained yet
        return [out.shape[-1] for out in layer_outputs(encoder, torch.zeros(1, 2, channels))]


class SpeakerEmbedding(nn.Module):
    """One vector an utterance from the joined outputs of all blocks, with the contract of SpeechBrain's ``ECAPA_TDNN``.

    Arguments
    ---------
    input_size : int
        Channels of the features.
    embedding_size : int
        E.
    encoder : str
        A name of :mod:`spikebrain.registry`, of an encoder with ``layers``.
    encoder_kwargs : dict, optional
        Arguments of the encoder. What it computes behind its blocks is not heard and has no gradient: ``final_norm: False`` leaves
        IML-Spikeformer's out.
    subsampling : int, optional
        4 or 6: a :class:`Conv2dSubsampling` of as many filters as the encoder is wide before it; None: the encoder reads the
        features, through a linear layer where it needs one (speaker identification).
    attention_channels : int
        Of the pooling.
    device : str
        Taken and ignored, as the stock modules take it: the Brain moves modules.

    Raises
    ------
    ValueError
        As :class:`FrameEncoder` and :class:`Conv2dSubsampling` do; for an encoder without layers.

    Example
    -------
    >>> size = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 32, "final_norm": False}
    >>> embedding = SpeakerEmbedding(20, 8, encoder_kwargs=size)
    >>> embedding(torch.rand(3, 30, 20), torch.tensor([1.0, 0.5, 0.8])).shape
    torch.Size([3, 1, 8])
    """

    def __init__(
        self,
        input_size=80,
        embedding_size=192,
        encoder="iml_spikeformer",
        encoder_kwargs=None,
        subsampling=4,
        attention_channels=128,
        device="cpu",
    ):
        super().__init__()
        self.frontend, channels = None, input_size
        if subsampling is not None:
            with torch.device("meta"):
                width = FrameEncoder(input_size, encoder, encoder_kwargs).output_size
            self.frontend = Conv2dSubsampling(width, subsampling, input_size)
            channels = self.frontend.out_features
        self.encoder = FrameEncoder(channels, encoder, encoder_kwargs)
        joined = sum(_widths(self.encoder, channels))
        self.norm = nn.LayerNorm(joined, eps=1e-6)
        self.pooling = AttentiveStatisticsPooling(joined, attention_channels)
        self.pooled_norm = UtteranceNorm(2 * joined)
        self.head = nn.Linear(2 * joined, embedding_size)

    def forward(self, x, lengths=None):
        """Embeddings (B, 1, E) of features (B, L, input_size) and relative lengths (B,)."""
        features = x
        if self.frontend is not None:
            x, lengths = self.frontend(x, lengths)
        hidden = self.norm(torch.cat(layer_outputs(self.encoder, x, lengths), -1))
        pooled = self.pooled_norm(self.pooling(hidden, lengths))
        operands.tell_real(self.head, len(pooled), self.head.weight.numel())
        return self.head(pooled.to(features.dtype)).unsqueeze(1)


class SpeakerLoss(LogSoftmaxWrapper):
    """Softmax over scaled cosines, that of the right speaker made smaller by a margin: SpeechBrain's own losses under one switch.

        am    scale (cos(theta) - margin)                AM-softmax, MFA-Conformer's code and default
        aam   scale cos(theta + margin)                  AAM-softmax, ECAPA-TDNN's

    Arguments
    ---------
    loss : str
        "am" or "aam".
    margin, scale : float
        0.2 and 30 are those of MFA-Conformer's code.

    Called with cosines (B, 1, N) of ``speechbrain.lobes.models.ECAPA_TDNN.Classifier`` and speakers (B, 1) it gives the mean loss.

    Raises
    ------
    ValueError
        For another ``loss``, a scale that is not positive or a negative margin.
    """

    def __init__(self, loss="am", margin=0.2, scale=30.0):
        check_word("loss", loss, ("am", "aam"))
        if not (margin >= 0 and scale > 0):
            raise ValueError(f"margin is {margin} and scale {scale}: choose 0 or more, and more than 0")
        super().__init__({"am": AngularMargin, "aam": AdditiveAngularMargin}[loss](margin, scale))
