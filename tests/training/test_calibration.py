"""What is said of neurons at several gains, over several folds together."""

import pytest

from spikebrain import plots
from spikebrain.training import calibration


def layer(pairs, silent, saturated, counts=(0, 4, 0)):
    current = {"band": [0.5, 1.0], "below": 0.25, "inside": 0.5, "above": 0.25, "edges": [0.0, 1.0], "counts": list(counts)}
    return {
        "rate": 0.1, "silent": silent, "nearly_silent": silent, "saturated": saturated, "entropy": 0.3,
        "pairs": pairs, "threshold": 1.0, "current": current,
    }  # fmt: skip


def fold(tested, wa, hidden, output):
    found = {"WA": wa, "layers": {"encoder.neuron": hidden, "readout.neuron": hidden, "readout.output": output}}
    return {"sizes": {"test": tested}, "calibration": {state: {"0.1": found, "1": found} for state in calibration.STATES}}


REPORTS = [fold(10, 50.0, layer(100, 0.2, 0.0), layer(4, 0.5, 0.5)), fold(30, 90.0, layer(300, 0.6, 0.2, (4, 4, 4)), layer(12, 0.0, 0.5))]


def test_folds_weigh_as_much_as_they_test():
    found = calibration.together(REPORTS)
    assert set(found) == {"untrained", "trained"} and set(found["trained"]) == {"0.1", "1"}
    one = found["trained"]["1"]
    assert one["WA"] == pytest.approx(80)
    assert one["hidden"]["silent"] == pytest.approx(0.5) and one["hidden"]["saturated"] == pytest.approx(0.15)
    assert one["hidden"]["silent_or_saturated"] == pytest.approx(0.65) and one["hidden"]["pairs"] == 800
    assert one["output"]["silent"] == pytest.approx(0.125) and one["output"]["saturated"] == pytest.approx(0.5)
    assert one["layers"]["encoder.neuron"]["current"]["counts"] == [4, 8, 4]
    assert one["layers"]["encoder.neuron"]["silent"] == pytest.approx(0.5)


def test_one_fold_is_itself():
    one = calibration.together(REPORTS[:1])["trained"]["1"]
    assert one["WA"] == 50 and one["layers"]["readout.output"]["silent"] == 0.5


def test_the_picture_has_a_row_for_each_model():
    pytest.importorskip("matplotlib")
    found = calibration.together(REPORTS)
    axes = plots.neuron_health({"vanilla": found, "pts": found}).axes
    assert [a.get_title(loc="left").split(":")[0] for a in axes] == ["vanilla"] * 3 + ["pts"] * 3
    trained = next(line for line in axes[0].lines if line.get_label() == "silent, trained")
    assert trained.get_xdata().tolist() == [0.1, 1.0] and trained.get_ydata() == pytest.approx([50, 50])
    # 12 of 24 currents of both hidden layers lie between the edges, of (4 + 12) * 2
    heights = axes[2].patches[0].get_data().values
    assert heights.tolist() == [50.0]


def test_a_kept_run_has_no_currents_and_is_drawn_without():
    pytest.importorskip("matplotlib")
    found = calibration.together(REPORTS)
    lean = {state: {gain: {k: v for k, v in at.items() if k != "layers"} for gain, at in gains.items()} for state, gains in found.items()}
    axes = plots.neuron_health({"pts": lean}).axes
    assert axes[0].lines and not axes[2].patches and "run's folder" in axes[2].texts[0].get_text()


def test_a_run_that_did_not_look_is_said():
    with pytest.raises(ValueError, match="--gains"):
        plots.neuron_health({})
