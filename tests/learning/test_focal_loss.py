"""Focal loss and label smoothing: by hand, their limits, and their weighted sum."""

import math

import pytest
import torch
import torch.nn.functional as F

from spikebrain.learning.losses import FocalOptions, focal_label_smoothing_loss, focal_loss, label_smoothing_loss

LABELS = torch.tensor([2, 0, 3, 3, 1])


def logits():
    return 2 * torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_by_hand():
    """p_y = 1/4 and 3/4 of two classes: (3/4)^2 log 4 and (1/4)^2 log(4/3)."""
    two = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]], dtype=torch.float64)
    expected = (9 / 16 * math.log(4) + 1 / 16 * math.log(4 / 3)) / 2
    assert focal_loss(two, torch.tensor([0, 1])).item() == pytest.approx(expected)
    smoothed = -(0.95 * math.log(1 / 4) + 0.05 * math.log(3 / 4))
    assert label_smoothing_loss(two[:1], torch.tensor([0])).item() == pytest.approx(smoothed)


def test_limits_are_the_cross_entropy():
    plain = F.cross_entropy(logits(), LABELS)
    assert torch.allclose(focal_loss(logits(), LABELS, gamma=0.0, alpha=1.0), plain)
    assert torch.allclose(label_smoothing_loss(logits(), LABELS, smoothing=0.0), plain)
    focal = focal_loss(logits(), LABELS)
    assert focal < plain and torch.allclose(4 * focal_loss(logits(), LABELS, alpha=0.25), focal)


def test_the_sum_is_weighted():
    for options in (FocalOptions(), FocalOptions(0.2, 1.5, gamma=1.0, alpha=0.5, smoothing=0.3)):
        expected = options.focal_weight * focal_loss(logits(), LABELS, options.gamma, options.alpha)
        expected += options.smoothing_weight * label_smoothing_loss(logits(), LABELS, options.smoothing)
        assert torch.allclose(focal_label_smoothing_loss(logits(), LABELS, options), expected)
    assert focal_label_smoothing_loss(logits(), LABELS) == focal_label_smoothing_loss(logits(), LABELS, FocalOptions(0.7, 0.3, 2, 1, 0.1))


def test_log_probabilities_are_logits_too():
    for loss in (focal_loss, label_smoothing_loss, focal_label_smoothing_loss):
        assert torch.allclose(loss(logits().log_softmax(-1), LABELS), loss(logits(), LABELS), atol=1e-12)


def test_an_easy_utterance_counts_less_than_a_hard_one():
    leaf = torch.tensor([[3.0, 0, 0, 0], [-1.0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    easy, hard = torch.autograd.grad(focal_loss(leaf, torch.tensor([0, 0])), leaf)[0].norm(dim=1)
    plain_easy, plain_hard = torch.autograd.grad(F.cross_entropy(leaf, torch.tensor([0, 0])), leaf)[0].norm(dim=1)
    assert easy / hard < 0.2 * plain_easy / plain_hard


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certainty_has_a_finite_gradient(gamma):
    leaf = torch.tensor([[200.0, 0, 0], [0.0, 200, 0]], requires_grad=True)
    focal_loss(leaf, torch.tensor([0, 0]), gamma).backward()
    assert leaf.grad.isfinite().all() and leaf.grad[1].any()


def test_the_derivative_is_the_one_of_the_equation():
    leaf = logits().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_label_smoothing_loss(x, LABELS, FocalOptions(gamma=1.5)), leaf)


def test_half_precision_is_summed_in_float32():
    assert focal_label_smoothing_loss(logits().bfloat16(), LABELS).dtype == torch.float32


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gamma": -1}, "gamma: -1 is no weight: give 0 or more"),
        ({"focal_weight": float("nan")}, "focal_weight: nan is no weight"),
        ({"smoothing": 1.0}, "smoothing: 1.0 is no share: give 0 to below 1"),
    ],
)
def test_wrong_options_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        FocalOptions(**options)
