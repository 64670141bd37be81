"""Pictures: what is drawn is what was measured, bad numbers are refused, and a file is whole or not there."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from spikebrain import plots

RATES = {
    "Transformer.encoder.layers.0.attention.sn_in": torch.tensor([0.0, 0.2, 0.95, 0.25]),
    "Transformer.encoder.layers.0.mlp.sn_2": torch.full((9,), 0.1),
}
HISTORY = [
    {"epoch": 1, "lr": 0.1, "train_loss": 4.0, "valid_loss": 3.5, "WER": 90.0},
    {"epoch": 2, "lr": 0.2, "train_loss": 2.0, "valid_loss": 2.5, "WER": None},
    {"epoch": 3, "lr": 0.1, "train_loss": 1.0, "valid_loss": 1.5, "WER": 12.5},
]
ENERGY = {
    "encoder_blocks": {"mJ": 0.5, "twin_mJ": 2.0},
    "full": {"mJ": 1.5, "twin_mJ": 3.0},
    "counting": {"utterances": 7, "prices": {"mac_pJ": 4.6, "ac_pJ": 0.9}},
}
ACCURACY = {
    "kdcl": {100: [94.0, 95.0, 96.0], 40: [91.0, 92.0, 93.0], 20: [85.0, 86.0, 87.0]},
    "direct": {100: [94.0, 95.0, 96.0], 40: [90.0, 91.0, 95.0], 20: [80.0, 81.0, 82.0]},
    "oneshot": {100: [94.0, 95.0, 96.0], 20: [83.0, 84.0, 85.0]},
}
COST = {arm: {frames: [frames / 1000 + 0.001 * run for run in range(3)] for frames in values} for arm, values in ACCURACY.items()}
TRAINING = {
    "iterative": {
        levels: {"ms": {"median": 100.0 * levels, "low": 95.0 * levels, "high": 110.0 * levels}, "saved_mib": 50 * levels}
        for levels in (4, 6)
    },
    "IMLS": {levels: {"ms": {"median": 120.0 + levels, "low": 118.0, "high": 130.0}, "saved_mib": 70} for levels in (4, 6)},
}
FIRING = [{"epoch": 1}, {"epoch": 2, "firing": {"net.0.gate": 0.1}}, {"epoch": 3, "firing": {"net.0.gate": 0.25, "net.1.gate": 0.5}}]


def one_run(arms, run=0):
    """The arms as one run gives them."""
    return {arm: {frames: values[run : run + 1] for frames, values in numbers.items()} for arm, numbers in arms.items()}


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def overlapping(figure):
    """Pairs of visible texts whose boxes overlap by more than a pixel each way."""
    from matplotlib.text import Text

    figure.canvas.draw()
    hidden = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in unseen_labels(axis)}
    drawn = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible() and id(text) not in hidden]
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn]
    return [
        (a, b)
        for i, (a, one) in enumerate(boxes)
        for b, other in boxes[i + 1 :]
        if min(one.x1, other.x1) - max(one.x0, other.x0) > 1 and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    ]


def unseen_labels(axis):
    """Labels of ticks beyond the axis's ends, which matplotlib keeps and does not draw."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]


def softmax(scores):
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


def many_layers(blocks):
    generator = np.random.default_rng(0)
    parts = ("attention.sn_in", "attention.sn_v", "attention.sn_a", "mlp.sn_1", "mlp.sn_2")
    return {f"Transformer.encoder.layers.{b}.{part}": generator.beta(1, 7, 64) for b in range(blocks) for part in parts}


def some_maps(blocks=5, heads=3, frames=12):
    return [softmax(np.random.default_rng(b).normal(size=(heads, frames, frames))) for b in range(blocks)]


def figures():
    return {
        "firing": plots.firing_rates(many_layers(4)),
        "attention": plots.attention_maps(some_maps()),
        "curves": plots.curves(HISTORY),
        "energy": plots.energy(ENERGY),
        "firing by epoch": plots.firing_by_epoch(FIRING),
        "accuracy by frames": plots.accuracy_by_frames({"valid": ACCURACY, "test": ACCURACY}),
        "energy by frames": plots.energy_by_frames(COST, ACCURACY, "test"),
        "firing of runs": plots.firing_rates_of_runs({"iterative": many_layers(4), "imls": many_layers(4), "other": RATES}),
        "firing of one run": plots.firing_rates_of_runs({"imls": many_layers(2)}),
        "attention of runs": plots.attention_of_runs({"with mask": some_maps(), "without": some_maps(2, 4, 30)}),
        "raw attention of runs": plots.attention_of_runs({"with mask": some_maps(), "without": some_maps()}, signed=True),
        "training cost": plots.training_cost(TRAINING, paper={"ms": 2.24, "saved_mib": 3.31}),
        "of one run": plots.energy_by_frames(one_run(COST), one_run(ACCURACY), "test"),
    }


def test_nothing_overlaps_and_everything_is_on_the_canvas():
    for name, figure in figures().items():
        assert overlapping(figure) == [], name
        assert figure.get_tightbbox().x0 > -0.05 and figure.get_tightbbox().x1 < figure.get_figwidth() + 0.05, name


def test_the_overlap_check_can_fail():
    figure = plots.energy(ENERGY)
    figure.text(0.5, 0.5, "over"), figure.text(0.5, 0.5, "under")
    assert ("over", "under") in overlapping(figure)


def test_firing_rates_shows_means_inactive_and_sizes():
    shown = texts(plots.firing_rates(RATES))
    bands = [text.split() for text in shown if text.strip().endswith((" 4", " 9"))]
    assert bands == [["35.0%", "25.0%", "4"], ["10.0%", "0.0%", "9"]]
    assert "Transformer.encoder.layers.0." in shown and "attention.sn_in" in shown
    assert any("saturated (>0.9) 7.7%" in text for text in shown)  # one of thirteen


def test_every_neuron_has_its_place():
    bands = [mesh.get_array() for mesh in plots.firing_rates(RATES).axes[0].collections]
    assert [band.size for band in bands] == [4, 9]
    assert np.asarray(bands[0]).ravel() == pytest.approx(RATES["Transformer.encoder.layers.0.attention.sn_in"].numpy())


@pytest.mark.parametrize(
    "rates, message",
    [
        ({}, "no layer told of its firing"),
        ({"neuron": [0.1, 1.3]}, "neuron has rates from 0.1 to 1.3"),
        ({"neuron": [0.1, float("nan")]}, "neuron has rates from nan"),
        ({"neuron": [[0.1]]}, r"neuron has rates of shape \(1, 1\)"),
    ],
)
def test_impossible_rates_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        plots.firing_rates(rates)


def test_runs_share_a_scale_and_every_neuron_has_its_place():
    left, right, *below = plots.firing_rates_of_runs({"pale": {"a.x": [0.0, 0.1]}, "dark": {"a.x": [0.9, 0.8], "a.y": [0.5]}}).axes[:4]
    assert [[np.asarray(mesh.get_array()).ravel().tolist() for mesh in axes.collections] for axes in (left, right)] == [
        [[0.0, 0.1]],
        [[0.9, 0.8], [0.5]],
    ]
    assert len({mesh.get_clim() for axes in (left, right) for mesh in axes.collections}) == 1
    assert len({axes.get_ylim() for axes in below}) == 1 and [sum(bar.get_height() for bar in axes.patches) for axes in below] == [2, 3]
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["pale\na.", "dark\na."]
    assert [[label.get_text() for label in axes.get_yticklabels() if label.get_visible()] for axes in (left, right)] == [["x"], ["x", "y"]]
    with pytest.raises(ValueError, match="no run to draw"):
        plots.firing_rates_of_runs({})
    with pytest.raises(ValueError, match="no layer told of its firing"):
        plots.firing_rates_of_runs({"ann": {}})


def test_firing_numbers_count_each_neuron_once():
    numbers = plots.firing_numbers({"a": [0.0, 0.005, 0.95, 0.045], "b": [1.0]})
    assert numbers == pytest.approx(
        {"mean": 0.4, "std": np.std([0, 0.005, 0.95, 0.045, 1]), "below_0.001": 0.2, "below_0.01": 0.4, "above_0.9": 0.4, "channels": 5}
    )


def test_attention_numbers_of_a_diagonal_and_of_uniform_attention():
    assert plots.attention_numbers(np.eye(20)) == pytest.approx({"distance": 0, "entropy": 0, "diagonal": 1})
    frames = 20
    uniform = plots.attention_numbers(np.ones((frames, frames)))
    # mean |i-j| of two uniform draws is (L^2 - 1) / 3L; within 3 of the diagonal lie 7L - 12 of L^2 cells.
    assert uniform["distance"] == pytest.approx((frames**2 - 1) / (3 * frames))
    assert uniform["entropy"] == pytest.approx(np.log(frames))
    assert uniform["diagonal"] == pytest.approx((7 * frames - 12) / frames**2)


def test_signed_maps_are_compared_by_magnitude():
    signed = np.array([[2.0, -2.0], [0.0, 0.0]])
    numbers = plots.attention_numbers(signed)
    assert (numbers["distance"], numbers["entropy"]) == pytest.approx((0.25, np.log(2) / 2))


def test_attention_maps_takes_first_middle_last_or_the_blocks_asked_for():
    def titles(figure):
        return [text for text in (axes.get_title(loc="left") for axes in figure.axes) if text]

    maps = some_maps()
    assert titles(plots.attention_maps(maps)) == [f"block {block}, head {head}" for block in (1, 3, 5) for head in (1, 2, 3)]
    assert titles(plots.attention_maps(maps, blocks=[2])) == [f"block 2, head {head}" for head in (1, 2, 3)]
    assert titles(plots.attention_maps(maps[:1])) == [f"block 1, head {head}" for head in (1, 2, 3)]


def test_attention_maps_refuses_what_is_not_there():
    with pytest.raises(ValueError, match=r"5 maps, blocks \[6\] asked for"):
        plots.attention_maps(some_maps(), blocks=[6])
    with pytest.raises(ValueError, match=r"block 1 has shape \(2, 3, 12, 12\)"):
        plots.attention_maps([np.zeros((2, 3, 12, 12))])
    with pytest.raises(ValueError, match="0 maps"):
        plots.attention_maps([])


def images(figure):
    return [(axes.get_title(loc="left"), axes.images[0]) for axes in figure.axes if axes.get_visible() and axes.get_title(loc="left")]


def test_maps_of_runs_stand_beside_each_other_on_one_scale():
    runs = {"many": some_maps(), "few": some_maps(2, 2, 7)}
    drawn = images(plots.attention_of_runs(runs))
    expected = [f"block {block}, head {head}" for block in (1, 3, 5) for head in (1, 2, 3)]
    assert [title for title, _ in drawn] == expected + [f"block {block}, head {head}" for block in (1, 2) for head in (1, 2)]
    assert {image.get_array().shape for _, image in drawn} == {(12, 12), (7, 7)} and len({image.get_clim() for _, image in drawn}) == 1
    assert {"many", "few"} <= set(texts(plots.attention_of_runs(runs)))
    with pytest.raises(ValueError, match=r"of few has 2 maps, blocks \[5\] asked for"):
        plots.attention_of_runs(runs, blocks=[1, 5])
    with pytest.raises(ValueError, match="no run to draw"):
        plots.attention_of_runs({})


def test_raw_maps_keep_their_signs_and_say_their_scale():
    scores = np.array([[[4.0, -2.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    (_, first), (_, zeros) = images(plots.attention_maps([scores], signed=True))
    end = float(np.quantile(np.abs(scores[0]), 0.995))
    assert np.asarray(first.get_array()) * end == pytest.approx(scores[0]) and not np.asarray(zeros.get_array()).any()
    assert first.get_clim() == (-1, 1) and first.axes.get_xlabel().startswith(f"± {end:.3g}")
    weights = np.asarray(images(plots.attention_maps([scores]))[0][1].get_array())
    assert weights == pytest.approx(np.array([[2 / 3, 1 / 3], [0, 1]]))


def test_training_cost_draws_what_was_measured_and_what_was_published():
    figure = plots.training_cost(
        TRAINING, {4: {"ms": 3.5, "saved_mib": 2.9}, 6: {"ms": 5.0, "saved_mib": 4.3}}, {"ms": 2.24, "saved_mib": 3.31}
    )
    time, memory = figure.axes
    assert [bar.get_height() for bar in time.patches] == [400, 600, 124, 126] and [bar.get_height() for bar in memory.patches] == [
        200,
        300,
        70,
        70,
    ]
    published = [
        line.get_segments()[0][0, 1]
        for line in memory.collections
        if len(line.get_segments()) == 1 and np.ptp(line.get_segments()[0][:, 0])
    ]
    assert published == pytest.approx([3.31 * 70] * 2)
    assert {"3.50 x", "5.00 x", "paper 2.24 x", "iterative", "IMLS"} <= set(texts(figure))
    assert {f"{400 / 124:.2f} x", f"{300 / 70:.2f} x"} <= set(texts(plots.training_cost(TRAINING)))
    with pytest.raises(ValueError, match=r"got a at T = \[4\]; b at T = \[6\]: give two"):
        plots.training_cost({"a": {4: {}}, "b": {6: {}}})
    with pytest.raises(ValueError, match="got nothing"):
        plots.training_cost({})


def test_curves_draws_every_measured_number_and_no_other():
    loss, error = plots.curves(HISTORY).axes
    lines = {line.get_label().partition(",")[0]: line.get_xydata().tolist() for line in (*loss.lines, *error.lines)}
    assert lines["train loss"] == [[1, 4.0], [2, 2.0], [3, 1.0]]
    assert lines["WER"] == [[1, 90.0], [3, 12.5]]
    assert set(lines) == {"train loss", "valid loss", "WER"}


def test_curves_without_losses_is_an_error_and_without_error_rates_one_panel():
    assert len(plots.curves([{"epoch": 1, "train_loss": 1.0}]).axes) == 1
    with pytest.raises(ValueError, match="1 epochs hold no loss"):
        plots.curves([{"epoch": 1, "WER": 3.0}])


def test_energy_draws_both_networks_in_every_scope():
    axes = plots.energy(ENERGY).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [2.0, 0.5, 3.0, 1.5]
    shown = texts(axes.figure)
    assert "0.5 mJ  (25% of the twin)" in shown and "twin 3 mJ" in shown
    assert any("4.6 pJ" in text and "7 utterances" in text for text in shown)
    with pytest.raises(ValueError, match=r"no scope with mJ and twin_mJ among \['counting'\]"):
        plots.energy({"counting": {}})


def test_small_energies_are_drawn_in_microjoules():
    axes = plots.energy({"full": {"mJ": 0.003, "twin_mJ": 0.004}}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([4.0, 3.0])
    assert {"energy (µJ)", "twin 4 µJ", "3 µJ  (75% of the twin)"} <= set(texts(axes.figure))


def test_firing_by_epoch_draws_a_line_a_layer_from_where_it_was_measured():
    figure = plots.firing_by_epoch(FIRING)
    (axes,) = figure.axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axes.lines} == {
        "0.gate, last 25.0 %": [[2, 10.0], [3, 25.0]],
        "1.gate, last 50.0 %": [[3, 50.0]],
    }
    assert axes.get_title(loc="left") == "net." and axes.get_xlabel() == "epoch" and "%" in axes.get_ylabel() and axes.get_ylim()[0] == 0
    with pytest.raises(ValueError, match="1 epochs hold no firing rate: name layers in firing_by_epoch"):
        plots.firing_by_epoch(FIRING[:1])


def test_no_two_layers_look_alike():
    rows = [{"epoch": 1, "firing": {f"net.{number}.neuron": 0.1 for number in range(24)}}]
    lines = plots.firing_by_epoch(rows).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 24


def drawn(axes):
    """arm -> points of its line."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith("_")}


def test_accuracy_by_frames_draws_means_and_one_deviation_to_each_side():
    valid, test = plots.accuracy_by_frames({"valid": one_run(ACCURACY), "test": ACCURACY}).axes
    assert {arm: points.tolist() for arm, points in drawn(valid).items()} == {
        arm: [[frames, values[frames][0]] for frames in sorted(values)] for arm, values in ACCURACY.items()
    }
    # Bars of several arms stand beside each other.
    means = {arm: points[:, 1].tolist() for arm, points in drawn(test).items()}
    assert means == {"kdcl": [86.0, 92.0, 95.0], "direct": [81.0, 92.0, 95.0], "oneshot": [84.0, 95.0]}
    assert all(points[:, 0] == pytest.approx(sorted(ACCURACY[arm]), rel=0.05) for arm, points in drawn(test).items())
    bars = [tuple(line.get_segments()[0][:, 1]) for line in test.collections]
    spread = 7**0.5  # of 90, 91, 95
    assert bars[:3] == [(85.0, 87.0), (91.0, 93.0), (94.0, 96.0)] and bars[4] == pytest.approx((92 - spread, 92 + spread))
    assert not valid.collections and len({points[0, 0] for points in drawn(test).values()}) == 3
    assert [axes.get_xlabel() + ", " + axes.get_ylabel() for axes in (valid, test)] == ["frames a second, accuracy (%)"] * 2
    assert [tick.get_text() for tick in test.get_xticklabels()] == ["20", "40", "100"] and test.get_xscale() == "log"


def test_an_arm_looks_the_same_in_every_picture_and_like_no_other():
    from spikebrain.training.distil import ARMS

    def looks(axes):
        return {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines if line.get_label() in ARMS}

    every = looks(plots.accuracy_by_frames({"test": {arm: {20: [1.0]} for arm in ARMS}}).axes[0])
    assert len(every) == len({colour for colour, _ in every.values()}) == len({marker for _, marker in every.values()}) == len(ARMS)
    few = looks(plots.energy_by_frames(one_run(COST), one_run(ACCURACY), "test").axes[1])
    assert few == {arm: every[arm] for arm in ACCURACY}


def test_energy_by_frames_draws_energy_and_what_it_buys():
    figure = plots.energy_by_frames(COST, ACCURACY, "test")
    cost, bought = figure.axes
    assert drawn(cost)["kdcl"][:, 1] == pytest.approx([0.021, 0.041, 0.101])  # frames / 1000 + 0, 1 and 2 / 1000
    assert drawn(bought)["oneshot"] == pytest.approx(np.array([[0.021, 84.0], [0.101, 95.0]]))
    assert {"energy of an utterance (mJ)", "frames a second", "accuracy, test (%)", "20", "40", "100"} <= set(texts(figure))
    assert "mean and standard deviation of 3 runs" in figure.get_suptitle()
    small = plots.energy_by_frames({"kdcl": {20: [0.004]}}, {"kdcl": {20: [80.0], 40: [90.0]}}, "test")
    assert drawn(small.axes[1])["kdcl"].tolist() == [[4.0, 80.0]] and "energy of an utterance (µJ)" in texts(small)
    assert small.get_suptitle() == "Energy by frames"


def test_nothing_to_draw_by_frames_is_an_error():
    with pytest.raises(ValueError, match=r"no accuracy among the splits \[valid, test\]"):
        plots.accuracy_by_frames({"valid": {}, "test": {"kdcl": {}}})
    with pytest.raises(ValueError, match=r"no energy among the arms \[kdcl\]"):
        plots.energy_by_frames({"kdcl": {}}, ACCURACY, "test")


def test_save_writes_a_png_and_leaves_nothing_else(tmp_path):
    from matplotlib.image import imread

    path = plots.save(plots.energy(ENERGY), tmp_path / "energy.png")
    pixels = imread(path)
    assert pixels.shape[0] > 200 and pixels[..., :3].std() > 0.01 and pixels[0, 0, :3].tolist() == [1, 1, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["energy.png"]
    with pytest.raises(ValueError, match="energy.pdf: pictures are written as PNG: name the file energy.png"):
        plots.save(plots.energy(ENERGY), tmp_path / "energy.pdf")


def test_a_failed_save_keeps_the_older_picture(tmp_path):
    path = plots.save(plots.energy(ENERGY), tmp_path / "energy.png")
    before = path.read_bytes()
    broken = plots.energy(ENERGY)
    broken.axes[0].set_title(r"$\nonsense{$")  # matplotlib fails while it draws
    with pytest.raises(ValueError):
        plots.save(broken, path)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["energy.png"]


def test_importing_plots_imports_no_matplotlib_and_drawing_needs_no_display():
    code = (
        "import sys, spikebrain.plots as p; assert 'matplotlib' not in sys.modules; "
        "p.curves([{'epoch': 1, 'train_loss': 1.0}]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install spikebrain\[plots\]"):
        plots.curves(HISTORY)
