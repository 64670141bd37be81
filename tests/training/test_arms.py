"""Arms of distillation runs: which stage is whose, and numbers over several seeds."""

import pytest

from spikebrain.training import arms


def run(kdcl, direct, first=90.0):
    """A run whose first stage both arms share."""
    stages = [
        {"name": "direct-100", "frames": 100, "accuracy": {"valid": first + 1, "test": first}, "mJ": 0.04},
        {"name": "kdcl-40", "frames": 40, "accuracy": {"valid": kdcl + 1, "test": kdcl}, "mJ": 0.02},
        {"name": "direct-40", "frames": 40, "accuracy": {"valid": direct + 1, "test": direct}, "mJ": None},
    ]
    return {"stages": stages, "arms": {"kdcl": ["direct-100", "kdcl-40"], "direct": ["direct-100", "direct-40"]}}


def test_a_stage_counts_in_every_arm_that_goes_through_it():
    found = arms.by_arm(run(80.0, 79.0), arms.accuracy("test"))
    assert found == {"kdcl": {100: 90.0, 40: 80.0}, "direct": {100: 90.0, 40: 79.0}}


def test_what_was_not_measured_or_not_trained_here_is_left_out():
    given = run(80.0, 79.0)
    assert arms.by_arm(given, arms.energy) == {"kdcl": {100: 0.04, 40: 0.02}, "direct": {100: 0.04}}
    del given["stages"][0]  # teacher_folder
    assert arms.by_arm(given, arms.accuracy("valid")) == {"kdcl": {40: 81.0}, "direct": {40: 80.0}}
    assert arms.by_arm(given, arms.accuracy("other")) == {"kdcl": {}, "direct": {}}


def test_runs_are_gathered_in_their_order():
    runs = [run(80.0, 79.0), run(82.0, 78.0)]
    del runs[1]["arms"]["direct"]
    found = arms.over_runs(runs, arms.accuracy("test"))
    assert found == {"kdcl": {100: [90.0, 90.0], 40: [80.0, 82.0]}, "direct": {100: [90.0], 40: [79.0]}}


def test_pictures_draw_the_accuracy_of_each_split_and_of_the_last_beside_energy():
    drawn = {name: make() for name, make in arms.pictures([run(80.0, 79.0)], ["valid", "test"]).items()}
    assert set(drawn) == {"accuracy_by_frames", "energy_by_frames"}
    valid, test = drawn["accuracy_by_frames"].axes
    assert [axes.get_title(loc="left") for axes in (valid, test)] == ["valid", "test"]
    _, over_energy = drawn["energy_by_frames"].axes
    (kdcl, direct) = over_energy.lines[0], over_energy.lines[1]
    assert kdcl.get_ydata().tolist() == [80.0, 90.0] and direct.get_ydata().tolist() == [90.0]
    assert kdcl.get_xdata().tolist() == pytest.approx([20, 40])  # µJ
