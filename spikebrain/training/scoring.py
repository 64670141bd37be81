"""Scores of speaker verification: cosines of trials, their normalisation, and what is reported of them.

    scores = cosines(embeddings, trials)                                  or: normalised(embeddings, trials, cohort, "as", top=300)
    curve = Curve.of(scores, same)
    curve.eer, curve.min_dcf(0.01)

Why not SpeechBrain's ``EER`` and ``minDCF``: its EER is the mean of both error rates at the threshold where they are nearest to each other,
with a lone same-speaker score of 0.5 against others of 0.9, 0.4 and 0.3 that is 1/6, where the curve crosses the diagonal at 1/3; its
thresholds lie half-way between scores in float32; its minDCF is not normalised and holds a matrix of thresholds by scores, 5 GB for the
37,720 trials of Vox1-O.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

NORMALISATIONS = ("none", "z", "s", "as")


@dataclass(frozen=True)
class Curve:
    """Error rates of a detector over all thresholds.

    A trial is accepted where its score lies above the threshold. Equal scores are accepted or refused together, so that the order in
    which they stand makes no difference.

    miss : Tensor (N + 1,), float64, share of the same-speaker trials that are refused: from 0 (all are accepted) up to 1
    false_alarm : Tensor (N + 1,), float64, share of the others that are accepted: from 1 down to 0
    """

    miss: torch.Tensor
    false_alarm: torch.Tensor

    @classmethod
    def of(cls, scores, same):
        """The curve of ``scores`` (N,) of trials, of which those in ``same`` (N,), bool, are of one speaker.

        Raises
        ------
        ValueError
            Without a trial of either kind, for another number of scores than of trials, and for scores that are NaN.
        """
        scores, same = torch.as_tensor(scores, dtype=torch.float64), torch.as_tensor(same, dtype=torch.bool)
        if scores.shape != same.shape:
            raise ValueError(f"there are {len(scores)} scores of {len(same)} trials: give one a trial")
        pairs = int(same.sum())
        if not 0 < pairs < len(same):
            raise ValueError(f"{pairs} of {len(same)} trials are of one speaker: error rates need trials of both kinds")
        if bool(scores.isnan().any()):
            raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} scores are NaN")
        values, place = scores.unique(return_inverse=True)
        refused = torch.zeros(2, len(values) + 1, dtype=torch.float64)
        refused[0, 1:] = torch.bincount(place[same], minlength=len(values)).double().cumsum(0) / pairs
        refused[1, 1:] = torch.bincount(place[~same], minlength=len(values)).double().cumsum(0) / (len(same) - pairs)
        return cls(refused[0], 1 - refused[1])

    @cached_property
    def eer(self):
        """The equal error rate, 0..1: where the curve, its points joined by straight lines, meets ``miss = false_alarm``.

        (No convex hull: that is the rate of a detector that chooses between two thresholds by chance, and never larger.)
        """
        ahead = self.miss - self.false_alarm  # rises from -1 to 1, at every point
        after = int((ahead >= 0).nonzero()[0])
        before = after - 1
        share = -ahead[before] / (ahead[after] - ahead[before])
        return float(self.miss[before] + share * (self.miss[after] - self.miss[before]))

    def min_dcf(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """The lowest detection cost over all thresholds, normalised (NIST, "Speaker Recognition Evaluation Plan", 2016, section 3.1).

        min (c_miss p miss + c_fa (1 - p) false_alarm) / min(c_miss p, c_fa (1 - p)), at most 1: that of accepting all or none.
        """
        costs = self._costs(p_target, c_miss, c_fa)
        return float(costs.min() / min(c_miss * p_target, c_fa * (1 - p_target)))

    def point(self, p_target=0.01, c_miss=1.0, c_fa=1.0):
        """(false_alarm, miss) at which :meth:`min_dcf` is reached."""
        lowest = int(self._costs(p_target, c_miss, c_fa).argmin())
        return float(self.false_alarm[lowest]), float(self.miss[lowest])

    def _costs(self, p_target, c_miss, c_fa):
        if not (0 < p_target < 1 and c_miss > 0 and c_fa > 0):
            raise ValueError(f"p_target is {p_target}, c_miss {c_miss}, c_fa {c_fa}: they lie between 0 and 1, and above 0")
        return c_miss * p_target * self.miss + c_fa * (1 - p_target) * self.false_alarm


def unit(x, mean=None):
    """``x`` (N, E), less ``mean`` (E,), scaled to length 1: float64; a vector of zeros stays one."""
    x = x.double() if mean is None else x.double() - mean.double()
    return torch.nn.functional.normalize(x, dim=-1)


def cosines(enrol, test):
    """Scores (N,) of trials, from the unit vectors of both sides (N, E)."""
    return (enrol * test).sum(-1)


def normalised(embeddings, trials, cohort, how="none", top=300):
    """Scores of trials by cosine, normalised by what each side scores against a cohort of other speakers.

        z     (s - mean_e) / deviation_e, of the enrolment's scores against the cohort
        s     the mean of that and of (s - mean_t) / deviation_t, of the test's
        as    the same, of the ``top`` highest scores of either side: adaptive S-norm 1

    P. Matejka et al., "Analysis of Score Normalization in Multilingual Speaker Recognition", Interspeech 2017, Eq. 1-4.

    Arguments
    ---------
    embeddings : Tensor (U, E)
        Unit vectors.
    trials : Tensor (N, 2), int64
        Rows of both sides in ``embeddings``, the enrolment first.
    cohort : Tensor (S, E) or None
        Unit vectors of other speakers; not looked at by "none".
    how : str
        "none", "z", "s" or "as".
    top : int
        Of "as"; a smaller cohort is taken whole.

    Returns
    -------
    Tensor (N,), float64.

    Raises
    ------
    ValueError
        For another ``how``, or a cohort or a ``top`` of fewer than 2, which have no deviation.
    """
    if how not in NORMALISATIONS:
        raise ValueError(f"score_norm: {how!r} is none of {', '.join(NORMALISATIONS)}")
    enrol, test = trials.T
    scores = cosines(embeddings[enrol], embeddings[test])
    if how == "none":
        return scores
    if len(cohort) < 2 or (how == "as" and top < 2):
        raise ValueError(f"score_norm: {how}: a cohort of {len(cohort)} speakers, of which the top {top}: both need 2 or more")
    against = embeddings @ cohort.T
    if how == "as":
        against = against.topk(min(top, len(cohort)), dim=1).values
    mean, deviation = against.mean(1), against.std(1).clamp(min=1e-9)
    by_enrolment = (scores - mean[enrol]) / deviation[enrol]
    return by_enrolment if how == "z" else (by_enrolment + (scores - mean[test]) / deviation[test]) / 2


def speaker_means(embeddings, speakers):
    """Mean of the unit vectors of each speaker: (S, E), unit vectors, speakers in the order of their numbers.

    Arguments
    ---------
    embeddings : Tensor (N, E)
        Unit vectors.
    speakers : Tensor (N,), int64
        From 0 on; a number that does not occur has no mean, and is left out.
    """
    sums = torch.zeros(int(speakers.max()) + 1, embeddings.shape[1], dtype=embeddings.dtype).index_add_(0, speakers, embeddings)
    return unit(sums[torch.bincount(speakers) > 0])
