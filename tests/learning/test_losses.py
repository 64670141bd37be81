"""Votes of frames: they sum to the frames, padding has none, and chance costs log K."""

import math

import pytest
import torch

from spikebrain.learning.losses import summed_softmax, votes_loss


@pytest.mark.parametrize("classes, chance", [(20, 2.996), (35, 3.555)])
def test_uniform_logits_cost_the_logarithm_of_the_classes(classes, chance):
    votes = summed_softmax(torch.zeros(4, 100, classes, dtype=torch.float64))
    loss = votes_loss(votes, torch.arange(4))
    assert loss == pytest.approx(math.log(classes)) == pytest.approx(chance, abs=1e-3)


def test_perfect_confidence_costs_nearly_nothing():
    logits = torch.zeros(1, 40, 35, dtype=torch.float64)
    logits[..., 7] = 1000.0
    assert votes_loss(summed_softmax(logits), torch.tensor([7])) == pytest.approx(math.log1p(34 * math.exp(-40)), abs=1e-12)


def test_votes_sum_to_the_valid_frames_and_padding_has_none():
    torch.manual_seed(0)
    logits, lengths = torch.randn(3, 20, 5, dtype=torch.float64), torch.tensor([1.0, 0.5, 0.05])
    votes = summed_softmax(logits, lengths)
    assert torch.allclose(votes.sum(-1), torch.tensor([20.0, 10.0, 1.0], dtype=torch.float64))
    for row, count in enumerate((20, 10, 1)):
        assert torch.allclose(votes[row], summed_softmax(logits[row : row + 1, :count])[0])
    assert (votes >= 0).all() and (votes <= 20).all()


def test_without_lengths_padding_votes_too_as_in_the_published_code():
    logits = torch.randn(2, 20, 5)
    assert torch.allclose(summed_softmax(logits).sum(-1), torch.full((2,), 20.0))


def test_the_class_that_most_frames_name_wins():
    logits = torch.zeros(1, 5, 3)
    for frame, name in enumerate((0, 2, 2, 1, 2)):
        logits[0, frame, name] = 9.0
    assert summed_softmax(logits).argmax(-1).item() == 2
