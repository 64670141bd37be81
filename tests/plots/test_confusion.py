"""The confusion matrix: what is written in its cells, and on its axes."""

import pytest

from spikebrain import plots

pytest.importorskip("matplotlib")
COUNTS, LABELS = [[8, 2, 0], [1, 4, 0], [0, 0, 0]], ("angry", "happy", "sad")


def test_cells_hold_counts_and_colours_are_shares_of_the_true_class():
    axes, bar = plots.confusion(COUNTS, LABELS, "URDU").axes
    written = {tuple(map(round, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    assert written == {(i, j): n for i, row in enumerate(COUNTS) for j, n in enumerate(row)}
    assert axes.images[0].get_array().tolist() == [[80.0, 20.0, 0.0], [20.0, 80.0, 0.0], [0.0, 0.0, 0.0]]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [tick.get_text() for tick in axes.get_xticklabels()] == list(LABELS)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("named", "true", "URDU") and "%" in bar.get_ylabel()


def test_counts_that_do_not_fit_the_labels():
    with pytest.raises(ValueError, match="has 3 rows, there are 2 labels"):
        plots.confusion(COUNTS, LABELS[:2])
