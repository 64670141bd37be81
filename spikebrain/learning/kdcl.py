"""Knowledge distillation along a curriculum of frame rates (KDCL, SpikeSCR paper, Algorithm 1, Eq. 11-13 and 17).

    L    = lambda_1 L_CE(z_S, y) + lambda_2 L_KD
    L_KD = tau^2 mean_batch KL(softmax(z_T / tau) || softmax(z_S / tau))

``z_S`` and ``z_T`` are the votes of student and teacher, the softmax of each frame summed over an utterance's frames
(:func:`spikebrain.learning.losses.summed_softmax`). The paper's equations call them output logits; its published code
distils the sums.

A sum over more frames is larger: the teacher of 100 frames has votes up to 100, and with 35 classes a mean share of 0.2 for one
of them already gives it 0.97 of ``softmax(z_T)`` at 40 frames, and more than 0.99999 at 100. Distilling sums at tau = 1 is thus
close to a second cross-entropy towards the class that the teacher names. ``kd_logits="mean"`` (ours) divides the votes by
the number of frames first.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F

from spikebrain.learning.losses import votes_loss

LOGITS = ("sum", "mean")


@dataclass(frozen=True)
class DistillationOptions:
    """Weights and temperature of the loss; the defaults are the paper's.

    ce_weight : lambda_1, of the labels
    kd_weight : lambda_2, of the teacher; 0 leaves it out
    temperature : tau
    kd_logits : "sum" (as published) or "mean" over the utterance's frames (ours)

    Raises
    ------
    ValueError
        A negative weight, a temperature that is not positive, another kind of logits; names the key and the number.
    """

    ce_weight: float = 1.0
    kd_weight: float = 0.5
    temperature: float = 1.0
    kd_logits: str = "sum"

    def __post_init__(self):
        for name in ("ce_weight", "kd_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is no weight: give 0 or more")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} is not more than 0: the paper's is 1.0")
        if self.kd_logits not in LOGITS:
            raise ValueError(f"kd_logits: {self.kd_logits!r} is none of {', '.join(LOGITS)}")


def distillation_loss(student, teacher, options=None):
    """L_KD: how far the student's opinion is from the teacher's, 0 where both agree.

    Arguments
    ---------
    student, teacher : Tensor (B, K)
        Votes, each over its own number of frames. No gradient goes to the teacher.
    options : DistillationOptions or None

    Returns
    -------
    Tensor (), nats times tau^2, the mean over the batch.

    Raises
    ------
    ValueError
        Another batch or number of classes, with both shapes.
    """
    options = options or DistillationOptions()
    if student.shape != teacher.shape:
        shapes = f"the student votes {tuple(student.shape)}, the teacher {tuple(teacher.shape)}"
        raise ValueError(f"{shapes}: both need one row an utterance and one column a class")
    scores = [_scores(votes, options).log_softmax(-1) for votes in (student, teacher.detach())]
    return options.temperature**2 * F.kl_div(*scores, reduction="batchmean", log_target=True)


def kdcl_loss(student, teacher, labels, options=None):
    """L: the weighted sum of the cross-entropy with ``labels`` (B,) int64 and of :func:`distillation_loss`; shapes as there."""
    options = options or DistillationOptions()
    loss = options.ce_weight * votes_loss(student, labels)
    return loss + options.kd_weight * distillation_loss(student, teacher, options) if options.kd_weight else loss


def check_curriculum(frames):
    """The curriculum ``frames`` as a tuple of int, checked: frames a second, from easy (many) to hard (few).

    Raises
    ------
    ValueError
        An empty list, a number below 1, or one that is not smaller than the one before: both numbers.
    """
    frames = tuple(frames)
    if not frames:
        raise ValueError("frames: [] holds no stage: name at least one number of frames a second")
    for number in frames:
        if isinstance(number, bool) or int(number) != number or number < 1:
            raise ValueError(f"frames: {list(frames)} holds {number}: give whole numbers of frames a second, 1 or more")
    for stage in range(1, len(frames)):
        if frames[stage] >= frames[stage - 1]:
            raise ValueError(
                f"frames: {list(frames)} is no curriculum: stage {stage} has {frames[stage]} frames after {frames[stage - 1]}; "
                "it goes from easy to hard, so make each number smaller than the one before"
            )
    return tuple(int(number) for number in frames)


def _scores(votes, options):
    # Votes sum to the number of frames, whether or not padding has a vote.
    if options.kd_logits == "mean":
        votes = votes / votes.sum(-1, keepdim=True)
    return votes / options.temperature
