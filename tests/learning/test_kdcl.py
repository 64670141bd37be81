"""Distillation of votes: zero at agreement, never negative, one-way, and a curriculum that goes one way too."""

import math

import pytest
import torch

from spikebrain.learning.kdcl import DistillationOptions, check_curriculum, distillation_loss, kdcl_loss
from spikebrain.learning.losses import summed_softmax, votes_loss


def votes(frames, batch=6, classes=5, seed=0, requires_grad=False):
    torch.manual_seed(seed)
    logits = torch.randn(batch, frames, classes, dtype=torch.float64, requires_grad=requires_grad)
    return logits, summed_softmax(logits)


@pytest.mark.parametrize("kd_logits", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_zero_where_student_and_teacher_agree_and_positive_elsewhere(kd_logits, temperature):
    options = DistillationOptions(temperature=temperature, kd_logits=kd_logits)
    _, student = votes(40)
    assert distillation_loss(student, student, options) == 0
    for seed in range(1, 20):
        assert distillation_loss(student, votes(100, seed=seed)[1], options) > 0


def test_by_hand():
    # Two classes; softmax of (log 3, 0) is (3/4, 1/4), of (0, 0) it is (1/2, 1/2).
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distillation_loss(student, teacher).item() == pytest.approx(wanted)
    other_way = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert distillation_loss(teacher, student).item() == pytest.approx(other_way) != pytest.approx(wanted)


def test_temperature_softens_and_its_square_is_given_back():
    teacher, student = 2 * torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    at_one = distillation_loss(student, teacher / 2)
    assert distillation_loss(student, teacher, DistillationOptions(temperature=2.0)) == pytest.approx(4 * at_one.item())


def test_means_forget_the_number_of_frames_and_sums_do_not():
    logits, once = votes(20)
    twice = summed_softmax(torch.cat([logits, logits], 1))
    mean = DistillationOptions(kd_logits="mean")
    assert distillation_loss(once, twice, mean) == pytest.approx(0, abs=1e-15)
    assert distillation_loss(once, twice) > 0.01


@pytest.mark.parametrize("frames, least", [(40, 0.97), (100, 0.99999)])
def test_a_mean_confidence_of_a_fifth_is_nearly_certain_once_summed(frames, least):
    """With 35 classes: why distillation of sums is close to the teacher's decision (docstring of the module)."""
    share = torch.full((35,), 0.8 / 34)
    share[3] = 0.2
    assert (frames * share).softmax(-1)[3] > least
    assert share.softmax(-1)[3] < 0.04


def test_the_teacher_gets_no_gradient():
    teacher_logits, teacher = votes(100, seed=1, requires_grad=True)
    student_logits, student = votes(40, seed=2, requires_grad=True)
    kdcl_loss(student, teacher, torch.arange(6) % 5).backward()
    assert teacher_logits.grad is None and student_logits.grad.abs().sum() > 0


def test_the_whole_loss_is_the_weighted_sum():
    _, student = votes(40)
    _, teacher = votes(100, seed=1)
    labels = torch.arange(6) % 5
    loss = kdcl_loss(student, teacher, labels)
    assert loss == votes_loss(student, labels) + 0.5 * distillation_loss(student, teacher)
    alone = kdcl_loss(student, None, labels, DistillationOptions(ce_weight=2.0, kd_weight=0.0))
    assert alone == 2 * votes_loss(student, labels)


def test_half_precision_votes_lose_nothing_that_matters():
    logits = torch.randn(4, 400, 35).bfloat16()
    assert summed_softmax(logits).dtype == torch.float32
    assert distillation_loss(summed_softmax(logits), summed_softmax(logits)) == 0


def test_another_shape_is_refused_with_both():
    with pytest.raises(ValueError, match=r"student votes \(2, 10\), the teacher \(2, 35\)"):
        distillation_loss(torch.zeros(2, 10), torch.zeros(2, 35))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ce_weight": -1.0}, "ce_weight: -1.0 is no weight"),
        ({"kd_weight": float("nan")}, "kd_weight: nan"),
        ({"temperature": 0.0}, "temperature: 0.0 is not more than 0"),
        ({"kd_logits": "max"}, "kd_logits: 'max' is none of sum, mean"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        DistillationOptions(**options)


def test_a_curriculum_goes_from_easy_to_hard():
    assert check_curriculum([400, 200, 100, 40]) == (400, 200, 100, 40)
    assert check_curriculum([100]) == (100,)


@pytest.mark.parametrize(
    "frames, message",
    [
        ([100, 40, 40], "stage 2 has 40 frames after 40"),
        ([40, 100], "stage 1 has 100 frames after 40.*smaller than the one before"),
        ([], "holds no stage"),
        ([100, 0], "holds 0"),
        ([100, 12.5], "holds 12.5"),
    ],
)
def test_what_is_no_curriculum_is_refused_with_both_numbers(frames, message):
    with pytest.raises(ValueError, match=message):
        check_curriculum(frames)
