"""Scores of trials: error rates of cases worked out by hand, equal scores, normalisation by a cohort, and what the host would say."""

import math

import pytest
import torch
from speechbrain.utils import metric_stats

from spikebrain.training import scoring
from spikebrain.training.scoring import Curve


@pytest.mark.parametrize(
    "same, others, eer",
    [
        ([0.6, 0.7, 0.8], [0.4, 0.3], 0.0),
        ([0.4, 0.3], [0.6, 0.7, 0.8], 1.0),
        # Refused up to 0.4 none of the one is lost and 1 of 3 comes through; up to 0.5 all of it, and still 1 of 3.
        ([0.5], [0.9, 0.4, 0.3], 1 / 3),
        # Points (miss, false alarm): (0, 1), (0, 1/2) at 0.3, (1/2, 1/2) at 0.4: met exactly.
        ([0.4, 0.8], [0.3, 0.5], 0.5),
        # All alike are refused at once: from (0, 1) straight to (1, 0).
        ([0.5, 0.5], [0.5], 0.5),
        # 0.5 is refused at once: from (0, 1/2) to (1/4, 1/4) after both equal scores.
        ([0.5, 0.9, 0.8, 0.7], [0.5, 0.1, 0.1, 0.9], 0.25),
        # From (1/4, 1/2) after 0.5 to (3/4, 0) after 0.6: miss = 1/4 + s/2, false alarm = 1/2 - s/2, equal at s = 1/4.
        ([0.4, 0.6, 0.6, 0.9], [0.1, 0.6], 3 / 8),
    ],
)
def test_equal_error_rates_worked_out_by_hand(same, others, eer):
    scores, labels = same + others, [True] * len(same) + [False] * len(others)
    assert Curve.of(scores, labels).eer == pytest.approx(eer, abs=1e-12)
    # Neither order nor a monotonous change of scores makes a difference.
    assert Curve.of(scores[::-1], labels[::-1]).eer == pytest.approx(eer, abs=1e-12)
    assert Curve.of([math.exp(3 * s) for s in scores], labels).eer == pytest.approx(eer, abs=1e-12)
    assert Curve.of([-s for s in scores], [not one for one in labels]).eer == pytest.approx(eer, abs=1e-12)


def test_detection_costs_worked_out_by_hand():
    curve = Curve.of([0.9, 0.6, 0.2, 0.7, 0.1], [True, True, True, False, False])
    # Thresholds from the top: all are refused; 0.9 accepted; 0.7 too; 0.6 too.
    assert list(zip(curve.miss.tolist(), curve.false_alarm.tolist(), strict=True))[-4:] == [
        (pytest.approx(1 / 3), 0.5), (pytest.approx(2 / 3), 0.5), (pytest.approx(2 / 3), 0.0), (1.0, 0.0)
    ]  # fmt: skip
    assert curve.min_dcf(0.01) == pytest.approx(2 / 3) and curve.point(0.01) == (0.0, pytest.approx(2 / 3))
    # At p = 1/2 accepting from 0.2 on costs 0 + 0.5, from 0.6 on 1/3 + 1/2, from 0.9 on 2/3: of 1/2 each, normalised by 1/2.
    assert curve.min_dcf(0.5) == pytest.approx(0.5)
    assert curve.min_dcf(0.01, c_miss=10.0) == pytest.approx(min(10 * 0.01 * 2 / 3, 10 * 0.01 / 3 + 0.99 / 2) / 0.1)
    backwards = Curve.of([0.1, 0.9], [True, False])
    assert backwards.min_dcf() == 1.0, "accepting none costs no more"
    assert Curve.of([0.9, 0.1], [True, False]).min_dcf() == 0.0


def test_equal_scores_cannot_be_told_apart():
    """Where a detector says one thing of all, an order of the trials must not make it look good."""
    for labels in ([True] * 5 + [False] * 5, [False] * 5 + [True] * 5):
        curve = Curve.of([0.3] * 10, labels)
        assert curve.eer == 0.5 and curve.min_dcf() == 1.0 and len(curve.miss) == 2


def test_many_trials_are_quick_and_agree_with_the_host_where_it_is_exact():
    generator = torch.Generator().manual_seed(0)
    scores = torch.cat([torch.randn(300, generator=generator) + 2, torch.randn(300, generator=generator)])
    same = torch.arange(600) < 300
    curve = Curve.of(scores, same)
    host, _ = metric_stats.EER(scores[same], scores[~same])
    cost, _ = metric_stats.minDCF(scores[same], scores[~same])
    assert curve.eer == pytest.approx(host, abs=1 / 300) and curve.min_dcf() == pytest.approx(cost / 0.01, abs=1e-4)
    # Normal scores, one deviation to either side of the threshold.
    assert curve.eer == pytest.approx(0.5 * math.erfc(1 / math.sqrt(2)), abs=0.03)
    host, _ = metric_stats.EER(torch.tensor([0.5]), torch.tensor([0.9, 0.4, 0.3]))
    assert host == pytest.approx(1 / 6), "the host's is exact now: use it"
    assert 0 < Curve.of(torch.rand(200_000, generator=generator), torch.arange(200_000) % 2 == 0).eer < 1


@pytest.mark.parametrize(
    "scores, same, message",
    [
        ([0.1, 0.2], [True, True], "2 of 2 trials are of one speaker: error rates need trials of both kinds"),
        ([0.1, 0.2], [False, False], "0 of 2 trials"),
        ([0.1, 0.2], [True, False, True], "2 scores of 3 trials"),
        ([float("nan"), 0.2], [True, False], "1 of 2 scores are NaN"),
    ],
)
def test_what_has_no_error_rate_is_said(scores, same, message):
    with pytest.raises(ValueError, match=message):
        Curve.of(scores, same)
    with pytest.raises(ValueError, match="p_target is 1"):
        Curve.of([0.1, 0.2], [True, False]).min_dcf(1)


EMBEDDINGS = scoring.unit(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]))
COHORT = scoring.unit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
TRIALS = torch.tensor([[0, 2], [1, 2], [2, 1]])


def test_cosines_and_a_mean_that_is_taken_away():
    assert scoring.normalised(EMBEDDINGS, TRIALS, None).tolist() == pytest.approx([0.6, 0.8, 0.8])
    moved = scoring.unit(torch.tensor([[2.0, 5.0], [4.0, 3.0]]), torch.tensor([1.0, 3.0]))
    assert moved.tolist() == [pytest.approx([1 / 5**0.5, 2 / 5**0.5]), pytest.approx([1.0, 0.0])]
    assert scoring.unit(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_normalisation_worked_out_by_hand():
    """Against the cohort, utterance 0 scores 1, 0, -1 and utterance 2 scores 0.6, 0.8, -0.6."""
    mean, deviation = (0.6 + 0.8 - 0.6) / 3, math.sqrt(sum((s - 0.8 / 3) ** 2 for s in (0.6, 0.8, -0.6)) / 2)
    z = scoring.normalised(EMBEDDINGS, TRIALS, COHORT, "z")
    assert z[0].item() == pytest.approx(0.6) and z[2].item() == pytest.approx((0.8 - mean) / deviation)
    s = scoring.normalised(EMBEDDINGS, TRIALS, COHORT, "s")
    assert s[0].item() == pytest.approx((0.6 + (0.6 - mean) / deviation) / 2)
    assert s[1].item() == pytest.approx(s[2].item()), "both sides weigh alike"
    # The two highest of utterance 0 are 1, 0, of utterance 2 they are 0.8, 0.6.
    adaptive = scoring.normalised(EMBEDDINGS, TRIALS, COHORT, "as", top=2)
    assert adaptive[0].item() == pytest.approx(((0.6 - 0.5) / math.sqrt(0.5) + (0.6 - 0.7) / math.sqrt(0.02)) / 2)
    assert torch.allclose(scoring.normalised(EMBEDDINGS, TRIALS, COHORT, "as", top=50), s)
    with pytest.raises(ValueError, match="score_norm: 't' is none of none, z, s, as"):
        scoring.normalised(EMBEDDINGS, TRIALS, COHORT, "t")
    with pytest.raises(ValueError, match="a cohort of 1 speakers"):
        scoring.normalised(EMBEDDINGS, TRIALS, COHORT[:1], "s")


def test_normalisation_repairs_speakers_who_score_high_with_everybody():
    """Two groups whose scores lie at different heights: one threshold fits both only after normalisation."""
    torch.manual_seed(0)
    common = torch.nn.functional.normalize(torch.randn(32), dim=0)
    shift = (torch.arange(40) % 2).unsqueeze(1)  # every second person's embeddings lie near one direction
    people = torch.randn(40, 32) / 32**0.5 + 1.5 * shift * common
    utterances = (people.repeat_interleave(4, 0) + 0.7 * torch.randn(160, 32) / 32**0.5).float()
    unit = scoring.unit(utterances)
    cohort = scoring.unit(torch.randn(200, 32) / 32**0.5 + 1.5 * (torch.arange(200) % 2).unsqueeze(1) * common)
    pairs = torch.combinations(torch.arange(160))
    same = pairs[:, 0] // 4 == pairs[:, 1] // 4
    rates = {how: Curve.of(scoring.normalised(unit, pairs, cohort, how, 50), same).eer for how in scoring.NORMALISATIONS}
    assert rates["as"] < rates["s"] + 0.01 and rates["as"] < 0.7 * rates["none"], rates


def test_means_of_speakers_leave_out_those_who_say_nothing():
    vectors = scoring.unit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0]]))
    means = scoring.speaker_means(vectors, torch.tensor([0, 0, 3]))
    assert torch.allclose(means, scoring.unit(torch.tensor([[1.0, 1.0], [0.0, 1.0]])))
