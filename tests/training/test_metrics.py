"""WA, UA and weighted F1 by hand, and as another library has them."""

import pytest
import torch

from spikebrain.training import metrics


def test_by_hand():
    confusion = torch.tensor([[6, 2], [1, 1]])  # recalls 3/4 and 1/2, precisions 6/7 and 1/3
    assert metrics.weighted_accuracy(confusion) == pytest.approx(70.0)
    assert metrics.unweighted_accuracy(confusion) == pytest.approx(62.5)
    assert metrics.weighted_f1(confusion) == pytest.approx(100 * (8 * 12 / 15 + 2 * 2 / 5) / 10)


def test_a_class_that_does_not_occur_has_no_recall():
    confusion = torch.tensor([[4, 0, 1], [0, 0, 0], [0, 0, 5]])
    assert metrics.unweighted_accuracy(confusion) == pytest.approx(90.0)
    assert metrics.missing(confusion) == [1]
    assert metrics.weighted_f1(confusion) == pytest.approx(100 * (5 * 8 / 9 + 5 * 10 / 11) / 10)


def test_a_report_of_random_counts_agrees_with_sums_over_utterances():
    generator = torch.Generator().manual_seed(0)
    true, named = torch.randint(5, (2, 400), generator=generator)
    confusion = torch.zeros(5, 5, dtype=torch.int64)
    for a, b in zip(true.tolist(), named.tolist()):
        confusion[a, b] += 1
    found = metrics.report(confusion)
    assert found["WA"] == pytest.approx(100 * float((true == named).double().mean()))
    recalls = [float((named[true == k] == k).double().mean()) for k in range(5)]
    assert found["UA"] == pytest.approx(100 * sum(recalls) / 5)
    f1 = []
    for k in range(5):
        precision, recall = float((true[named == k] == k).double().mean()), recalls[k]
        f1.append(2 * precision * recall / (precision + recall))
    assert found["WF1"] == pytest.approx(100 * sum(f1[k] * int((true == k).sum()) for k in range(5)) / 400)
