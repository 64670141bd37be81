"""Readout of a classifier that votes at every frame, and its loss (SpikeSCR Eq. 14-16); losses of one that answers once (PTS-SNN).

    g = sum_t softmax(logits[t]) ;  L_CE = cross-entropy(g, y) ;  prediction = argmax_c g_c

``g`` is a count of votes, 0..T a class, that sums to the number of frames. The cross-entropy applies a second softmax to
it, as the paper does.

    L = lambda_1 L_focal + lambda_2 L_smoothed          of logits (B, K): hard utterances count more, labels are trusted less
"""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class FocalOptions:
    """Weights of :func:`focal_label_smoothing_loss`. All of them are ours: the paper's are lost.

    focal_weight, smoothing_weight : lambda_1 and lambda_2, of the two terms
    gamma : how much less an utterance counts that is classified well already
    alpha : factor of the focal term
    smoothing : epsilon, share of the target that is spread over all classes

    Raises
    ------
    ValueError
        A number outside its range; names the key and the number.
    """

    focal_weight: float = 0.7
    smoothing_weight: float = 0.3
    gamma: float = 2.0
    alpha: float = 1.0
    smoothing: float = 0.1

    def __post_init__(self):
        for name in ("focal_weight", "smoothing_weight", "gamma", "alpha"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is no weight: give 0 or more")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing: {self.smoothing} is no share: give 0 to below 1")


def focal_loss(logits, labels, gamma=2.0, alpha=1.0):
    """-alpha (1 - p_y)^gamma log p_y, the mean over the batch (PTS-SNN Eq. 16, after T.-Y. Lin et al., ICCV 2017).

    ``logits`` (B, K), of which p is the softmax, and which may be log-probabilities; ``labels`` (B,) int64. gamma 0 and alpha 1 are the
    cross-entropy.
    """
    chosen = _log_probabilities(logits).gather(1, labels.unsqueeze(1)).squeeze(1)
    missed = (-torch.expm1(chosen)).clamp(min=torch.finfo(chosen.dtype).tiny)  # 0 has no derivative where gamma is below 1
    return -(alpha * missed**gamma * chosen).mean()


def label_smoothing_loss(logits, labels, smoothing=0.1):
    """Cross-entropy with targets (1 - smoothing) 1[k = y] + smoothing / K, the mean over the batch (PTS-SNN Eq. 17, 18).

    Shapes as for :func:`focal_loss`.
    """
    return F.cross_entropy(_log_probabilities(logits), labels, label_smoothing=smoothing)


def focal_label_smoothing_loss(logits, labels, options=None):
    """The weighted sum of :func:`focal_loss` and :func:`label_smoothing_loss` (PTS-SNN Eq. 15); ``options`` are :class:`FocalOptions`."""
    options = options or FocalOptions()
    focal = focal_loss(logits, labels, options.gamma, options.alpha)
    return options.focal_weight * focal + options.smoothing_weight * label_smoothing_loss(logits, labels, options.smoothing)


def _log_probabilities(logits):
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
