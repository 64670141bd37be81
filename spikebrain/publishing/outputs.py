"""What the parts of a published network say together: from samples to what a task is about, for both loaders.

``network`` is always a mapping of parts by name, as :data:`spikebrain.publishing.parts.NETWORKS` lists them; they are called as a recipe
calls them.
"""

import torch

from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.learning.losses import summed_softmax
from spikebrain.publishing import parts
from spikebrain.training import asr


def encoded(network, wavs, lengths=None):
    """What a recogniser's encoder gives of samples (B, S): (B, L, C), and relative lengths (B,) over L frames."""
    x, lengths = network["frontend"](*_normalised(network, wavs, lengths))
    return network["Transformer"](x, None, lengths, pad_idx=tokens.BLANK)[0], lengths


def ctc(network, hidden):
    """Log-probabilities (B, L, V), at least float32, of what the encoder gave (B, L, C)."""
    logits = network["ctc_lin"](hidden)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def search(network, decoding):
    """What searches a recogniser's words: (encoded (B, L, C), frame counts (B,)) -> a list of ids for each; None without a decoder.

    ``decoding`` is that of ``bundle.json``. Each utterance is searched alone: SpeechBrain's search ends for all of a batch at once.
    """
    beam = asr.beam_search({**decoding, "lm_folder": None, "lm_weight": 0.0, "modules": network})
    if beam is None:
        return None

    def searched(hidden, counts):
        """Ids of each utterance."""
        whole = hidden.new_ones(1)
        return [beam(one[None, :count], whole)[0][0] for one, count in zip(hidden, counts.tolist(), strict=True)]

    return searched


def shares(found):
    """Of votes (B, K) the share of each class, (B, K)."""
    return found / found.sum(-1, keepdim=True)


def votes(network, wavs, lengths=None, paper_padding=False):
    """Votes (B, K) of the frames of samples (B, S), or of frames of events (B, L, C); ``paper_padding``: padding votes too."""
    x, lengths = network["features"](wavs, lengths)
    return summed_softmax(network["classifier"](x, lengths), None if paper_padding else lengths)


def embedding(network, wavs, lengths=None):
    """Embeddings of speakers (B, 1, E) of samples (B, S)."""
    return network["embedding_model"](*_normalised(network, wavs, lengths))


def _normalised(network, wavs, lengths):
    """Normalised features (B, L, F) and their lengths. SpeechBrain keeps statistics beside its module's state, where ``.to`` passes by."""
    x, lengths = network["features"](wavs, lengths)
    normalize = network["normalize"]
    if parts.has_statistics(normalize):
        normalize.glob_mean, normalize.glob_std = normalize.glob_mean.to(x.device), normalize.glob_std.to(x.device)
    return normalize(x, lengths), lengths


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
