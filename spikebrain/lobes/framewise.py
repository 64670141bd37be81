"""Any registered encoder for utterance-level tasks: an embedding for SpeechBrain's keyword and speaker recipes, and a classifier.

    embedding_model: !new:spikebrain.lobes.SpikingEmbedding
        input_size: !ref <n_mels>
        embedding_size: 512
        encoder: spikescr
"""

import inspect

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import registry
from spikebrain.attention import rope


class FrameEncoder(nn.Module):
    """A registered encoder behind features of any width.

    Arguments
    ---------
    input_size : int
        Channels of the features.
    encoder : str
        A name of :mod:`spikebrain.registry`.
    encoder_kwargs : dict, optional
        Arguments of the encoder, e.g. ``{num_layers: 2, d_model: 256}``.

    Attributes
    ----------
    output_size : int
        Channels of the output.

    Notes
    -----
    An encoder that takes an ``input_size`` reads the features itself; before one that does not (it was made for the inside of
    ``TransformerASR``), a linear projection brings them to its width. One that needs absolute positions, as it says in its attribute
    ``position``, gets sines added, as from the host.

    Raises
    ------
    ValueError
        ``encoder`` names nothing, or a neuron.
    """

    def __init__(self, input_size, encoder="spikescr", encoder_kwargs=None):
        super().__init__()
        entry, arguments = registry.entry(encoder), dict(encoder_kwargs or {})
        if entry.kind == "neuron":
            raise ValueError(f"encoder is {encoder!r}, a layer of neurons: name an encoder, such as lif_network")
        constructor = entry.constructor
        reads_features = "input_size" in inspect.signature(constructor).parameters
        self.model = constructor(input_size=input_size, **arguments) if reads_features else constructor(**arguments)
        self.output_size = self.model.config.d_model
        self.projection = nn.Identity() if reads_features else nn.Linear(input_size, self.output_size)

    def forward(self, x, lengths=None):
        """(B, L, input_size) and relative lengths (B,) -> (B, L, output_size)."""
        x = self.projection(x)
        if getattr(self.model, "position", "none") == "abs":
            x = x + rope.sinusoids(x.shape[1], x.shape[2], x.device, x.dtype)
        return self.model(x, lengths)[0]


class SpikingClassifier(nn.Module):
    """An encoder and a linear layer that names a class at every frame.

    Arguments
    ---------
    input_size, encoder, encoder_kwargs
        As for :class:`FrameEncoder`.
    classes : int
        K.

    Notes
    -----
    The output layer has no bias (SpikeSCR section 3; its published code). :mod:`spikebrain.learning.losses` reads the logits
    out.
    """

    def __init__(self, input_size, classes, encoder="spikescr", encoder_kwargs=None):
        super().__init__()
        self.encoder = FrameEncoder(input_size, encoder, encoder_kwargs)
        self.head = nn.Linear(self.encoder.output_size, classes, bias=False)
        nn.init.xavier_uniform_(self.head.weight)

    def forward(self, x, lengths=None):
        """Logits (B, L, K) of features (B, L, input_size)."""
        return self.head(self.encoder(x, lengths))


class SpikingEmbedding(nn.Module):
    """One vector an utterance, with the contract of SpeechBrain's ``Xvector`` and ``ECAPA_TDNN``.

    Arguments
    ---------
    input_size, encoder, encoder_kwargs
        As for :class:`FrameEncoder`.
    embedding_size : int
        E.
    device : str
        Taken and ignored, as the stock modules take it: the Brain moves modules.

    Notes
    -----
    Mean and standard deviation of the encoder's output over the utterance's own frames, and a linear layer (statistics
    pooling, as in x-vectors; ours, SpikeSCR has no embedding).

    Example
    -------
    >>> embedding = SpikingEmbedding(20, 8, encoder="iml_spikeformer", encoder_kwargs={"num_layers": 1, "d_model": 16, "nhead": 2})
    >>> embedding(torch.rand(3, 10, 20), torch.tensor([1.0, 0.5, 0.8])).shape
    torch.Size([3, 1, 8])
    """

    def __init__(self, input_size, embedding_size=512, encoder="spikescr", encoder_kwargs=None, device="cpu"):
        super().__init__()
        self.encoder = FrameEncoder(input_size, encoder, encoder_kwargs)
        self.head = nn.Linear(2 * self.encoder.output_size, embedding_size)

    def forward(self, x, lengths=None):
        """Embeddings (B, 1, E) of features (B, L, input_size) and relative lengths (B,)."""
        hidden = self.encoder(x, lengths)
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        mean = frames.masked_mean(hidden, lengths)
        variance = frames.masked_mean((hidden - mean.unsqueeze(1)) ** 2, lengths)
        pooled = torch.cat([mean, (variance + 1e-5).sqrt()], -1)
        return self.head(pooled.to(x.dtype)).unsqueeze(1)
