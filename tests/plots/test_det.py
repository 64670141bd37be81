"""The DET curve: normal scores give a straight line, points lie where they were measured, labels tell them."""

from statistics import NormalDist

import numpy as np
import pytest

from spikebrain import plots

NORMAL = NormalDist()
THRESHOLDS = [4 - step / 50 for step in range(400)]


def normal(distance, **more):
    """A detector whose scores are normal, ``distance`` deviations apart."""
    false_alarm, miss = ([NORMAL.cdf(-t) for t in THRESHOLDS], [NORMAL.cdf(t - distance) for t in THRESHOLDS])
    return {"false_alarm": false_alarm, "miss": miss, **more}


def test_normal_scores_give_a_straight_line_with_its_points_on_it():
    rate = NORMAL.cdf(-1.0)
    figure = plots.det({"one": normal(2.0, EER=rate, minDCF=(0.8, (NORMAL.cdf(-2.0), 0.5))), "two": normal(3.0)}, title="Trials")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    x, y = (np.array(values) for values in lines["one\n● EER 15.87 %\n× minDCF 0.800"].get_data())
    inside = (np.abs(x) < 2.5) & (np.abs(y) < 2.5)
    assert inside.sum() > 50 and np.allclose(x[inside] + y[inside], -2.0)
    marks = {line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in axes.get_lines() if line.get_marker() in "ox"}
    assert marks["o"] == pytest.approx((-1.0, -1.0)) and marks["x"] == pytest.approx((-2.0, 0.0), abs=1e-9)
    assert "two" in lines and axes.get_xlabel() == "false alarms (%)" and axes.get_ylabel() == "misses (%)"
    ticks = dict(zip([tick.get_text() for tick in axes.get_xticklabels()], axes.get_xticks(), strict=True))
    assert ticks["5"] == pytest.approx(NORMAL.inv_cdf(0.05)) and axes.get_xlim() == axes.get_ylim()


def test_a_detector_without_errors_and_one_of_few_trials_can_be_drawn(tmp_path):
    perfect = {"false_alarm": [1, 0, 0], "miss": [0, 0, 1], "EER": 0.0, "minDCF": (0.0, (0.0, 0.0))}
    hopeless = {"false_alarm": [1.0, 0.0], "miss": [0.0, 1.0], "EER": 0.5, "minDCF": (1.0, (0.0, 1.0))}
    file = plots.save(plots.det({"perfect": perfect, "hopeless": hopeless}), tmp_path / "det.png")
    assert file.stat().st_size > 5000
    (axes,) = plots.det({"perfect": perfect}).axes
    low, high = axes.get_xlim()
    for line in axes.get_lines():
        if line.get_marker() in "ox":
            assert low <= line.get_xdata()[0] <= high and low <= line.get_ydata()[0] <= high


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="no system"):
        plots.det({})
    with pytest.raises(ValueError, match="one has 2 false alarms and 1 misses"):
        plots.det({"one": {"false_alarm": [1, 0], "miss": [0]}})
