"""One vector an utterance from what an encoder gives last: a mean over frames, or attentive statistics.

    embedding_model: !name:spikebrain.lobes.pooled.PooledEmbedding
        input_size: 80
        encoder: iml_spikeformer
        encoder_kwargs: {num_layers: 3, d_model: 128, nhead: 4, d_ffn: 512}
        pooling: mean

The embedding of speaker identification with IML-Spikeformer (arXiv 2507.07396, Table III), whose text names neither features nor
pooling: both are ours. Its encoders have 594,816, 1,189,632 and 1,784,448 parameters, which leave no room for a convolution.
"""

from torch import nn

from spikebrain import lengths as frames
from spikebrain.lobes.framewise import FrameEncoder
from spikebrain.lobes.speaker import AttentiveStatisticsPooling
from spikebrain.neurons.switches import check_word


class PooledEmbedding(nn.Module):
    """An encoder and its output pooled, with the contract of SpeechBrain's ``Xvector`` and ``ECAPA_TDNN``.

    Arguments
    ---------
    input_size, encoder, encoder_kwargs
        As for :class:`FrameEncoder`.
    pooling : str
        "mean": over an utterance's own frames; "attentive": :class:`AttentiveStatisticsPooling`, twice as wide.
    attention_channels : int
        Of the attentive pooling.
    device : str
        Taken and ignored, as the stock modules take it: the Brain moves modules.

    Raises
    ------
    ValueError
        As :class:`FrameEncoder` does; for another ``pooling``.

    Example
    -------
    >>> import torch
    >>> size = {"num_layers": 1, "d_model": 16, "nhead": 2, "d_ffn": 32}
    >>> embedding = PooledEmbedding(20, encoder_kwargs=size)
    >>> embedding(torch.rand(3, 10, 20), torch.tensor([1.0, 0.5, 0.8])).shape
    torch.Size([3, 1, 16])
    """

    def __init__(
        self, input_size=80, encoder="iml_spikeformer", encoder_kwargs=None, pooling="mean", attention_channels=128, device="cpu"
    ):
        super().__init__()
        check_word("pooling", pooling, ("mean", "attentive"))
        self.encoder = FrameEncoder(input_size, encoder, encoder_kwargs)
        attentive = pooling == "attentive"
        self.pooling = AttentiveStatisticsPooling(self.encoder.output_size, attention_channels) if attentive else None

    def forward(self, x, lengths=None):
        """Embeddings (B, 1, E) of features (B, L, input_size) and relative lengths (B,)."""
        hidden = self.encoder(x, lengths)
        pooled = frames.masked_mean(hidden, lengths) if self.pooling is None else self.pooling(hidden, lengths)
        return pooled.to(hidden.dtype).unsqueeze(1)
