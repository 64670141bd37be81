"""Readout of a classifier that votes at every frame, and its loss (SpikeSCR Eq. 14-16).

    g = sum_t softmax(logits[t]) ;  L_CE = cross-entropy(g, y) ;  prediction = argmax_c g_c

``g`` is a count of votes, 0..T a class, that sums to the number of frames. The cross-entropy applies a second softmax to
it, as the paper does.
"""

import torch
import torch.nn.functional as F

from spikebrain import lengths as frames


def summed_softmax(logits, lengths=None):
    """Votes of every utterance: the softmax of each frame, summed over the utterance's own frames.

    Arguments
    ---------
    logits : Tensor (B, L, K)
    lengths : Tensor (B,), optional
        Relative lengths; frames past an utterance's end have no vote. The published code lets them vote, which is what
        None does.

    Returns
    -------
    Tensor (B, K), at least float32; every row sums to the utterance's number of frames.
    """
    votes = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    return frames.zero_padding(votes, lengths).sum(1)


def votes_loss(votes, labels):
    """Cross-entropy of ``votes`` (B, K) taken as logits, with ``labels`` (B,) int64; the mean over the batch."""
    return F.cross_entropy(votes, labels)
