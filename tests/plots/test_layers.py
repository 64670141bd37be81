"""Pictures of energy and firing by layer, and of several runs."""

import pytest

from spikebrain import plots
from spikebrain.plots.layers import point_of, products


def line(name, operation, energy):
    return {"line": name, "operation": operation, "count": None if operation == "scope" else 10.0, "mJ": energy}


def report(model="snn", energy=0.4, **metrics):
    inner = {"mJ": 0.1, "twin_mJ": 1.0, "lines": [line("a.weight", "ac", 0.04), line("a.scores", "mac", 0.06)]}
    outer = {"mJ": energy, "twin_mJ": 2.0, "lines": [line("encoder_blocks", "scope", 0.1), line("head", "mac", energy - 0.1)]}
    return {"model": model, "split": "test", "metrics": metrics, "energy": {"encoder_blocks": inner, "full": outer, "counting": {}}}


def test_products_are_drawn_once_and_told_apart_by_what_they_do():
    found = products(report()["energy"])
    assert [one["line"] for one in found] == ["a.weight", "a.scores", "head"]
    assert [one["scope"] for one in found] == ["encoder_blocks", "encoder_blocks", "full"]
    (axes,) = plots.energy_by_layer(report()["energy"]).axes
    bars = axes.patches[:3]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.04, 0.06, 0.3])
    assert bars[1].get_facecolor() == bars[2].get_facecolor() != bars[0].get_facecolor()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a.weight", "a.scores", "head"]


def test_small_energies_are_in_microjoules():
    small = {"encoder_blocks": {"lines": [line("a", "ac", 2e-5)]}}
    (axes,) = plots.energy_by_layer(small).axes
    assert "µJ" in axes.get_xlabel() and axes.patches[0].get_width() == pytest.approx(0.02)


def test_firing_is_drawn_in_percent():
    (axes,) = plots.firing_by_layer({"a.neuron": {"mean": 0.2}, "b.neuron": {"mean": 0.05}}).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20.0, 5.0])


def test_runs_stand_where_their_numbers_say():
    figure = plots.quality_over_energy([report(WER=3.0), report("ann", 2.0, WER=2.5), report("snn", 0.5, WER=3.5)])
    (axes,) = figure.axes
    points = {drawn.get_label(): drawn.get_xydata().tolist() for drawn in axes.lines}
    assert points == {"snn": [[0.4, 3.0], [0.5, 3.5]], "ann": [[2.0, 2.5]]}
    assert axes.get_title(loc="left") == "WER, test" and point_of(report()) is None


def test_metrics_have_a_panel_each():
    assert [axes.get_ylabel() for axes in plots.quality_over_energy([report(WER=3.0), report(accuracy=90.0)]).axes] == [
        "WER, test (%)",
        "accuracy, test (%)",
    ]


@pytest.mark.parametrize(
    "draw, said",
    [
        (lambda: plots.energy_by_layer({"counting": {}}), "no scope with lines among"),
        (lambda: plots.firing_by_layer({}), "no layer fired"),
        (lambda: plots.quality_over_energy([report()]), "1 runs hold no metric"),
    ],
)
def test_nothing_to_draw_is_said(draw, said):
    with pytest.raises(ValueError, match=said):
        draw()
