"""What the parts of a published network say together: from samples to what a task is about, for both loaders.

``network`` is always a mapping of parts by name, as :data:`spikebrain.publishing.parts.NETWORKS` lists them; they are called as a recipe
calls them.
"""

import torch

from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.learning.losses import summed_softmax


def encoded(network, wavs, lengths=None):
    """What a recogniser's encoder gives of samples (B, S): (B, L, C), and relative lengths (B,) over L frames."""
    x, lengths = network["features"](wavs, lengths)
    x, lengths = network["frontend"](network["normalize"](x, lengths), lengths)
    return network["Transformer"](x, None, lengths, pad_idx=tokens.BLANK)[0], lengths


def ctc(network, hidden):
    """Log-probabilities (B, L, V), at least float32, of what the encoder gave (B, L, C)."""
    logits = network["ctc_lin"](hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def votes(network, wavs, lengths=None, paper_padding=False):
    """Votes (B, K) of the frames of samples (B, S), or of frames of events (B, L, C); ``paper_padding``: padding votes too."""
    x, lengths = network["features"](wavs, lengths)
    return summed_softmax(network["classifier"](x, lengths), None if paper_padding else lengths)


def embedding(network, wavs, lengths=None):
    """Embeddings of speakers (B, 1, E) of samples (B, S)."""
    x, lengths = network["features"](wavs, lengths)
    return network["embedding_model"](network["normalize"](x, lengths), lengths)


def cut(wavs, counts, size, pad):
    """Clips as training heard them: at most ``size`` samples, and with ``pad`` just as many, the shorter ones filled with silence.

    Arguments
    ---------
    wavs : Tensor (B, S)
    counts : Tensor (B,), int64
        Samples of each.
    size : int or None
        None: they stay as they are.
    pad : bool

    Returns
    -------
    (wavs, counts)
    """
    if size is None:
        return wavs, counts
    wavs = frames.zero_past(wavs, counts)[:, :size]
    if not pad:
        return wavs, counts.clamp(max=size)
    return torch.nn.functional.pad(wavs, (0, size - wavs.shape[1])), torch.full_like(counts, size)
