"""Normalisation of features by an utterance's own statistics."""

import torch

from spikebrain import lengths as frames


class UtteranceNormalization(torch.nn.Module):
    """Every channel of an utterance at mean 0 and deviation 1 over its own frames, padding at 0.

    Instance normalisation without weights, as MFA-Conformer's code has it, but for lengths. SpeechBrain's ``InputNormalization`` of
    norm_type ``sentence`` is told of them in float32, where the end of a long utterance may be a frame off.

    Arguments
    ---------
    eps : float
        Added to the variance.
    """

    def __init__(self, eps=1e-5):
        super().__init__()
        self.eps = eps

    def forward(self, x, lengths=None, epoch=None):
        """``x`` (B, L, C) and relative lengths (B,) -> (B, L, C); ``epoch`` is taken for the host's sake and ignored."""
        del epoch
        centred = x - frames.masked_mean(x, lengths).unsqueeze(1)
        variance = frames.masked_mean(centred.square(), lengths).unsqueeze(1)
        return frames.zero_padding(centred * (variance + self.eps).rsqrt(), lengths)
