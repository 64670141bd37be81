"""Whether neurons say anything, before and after training: as figure 1 of the PTS-SNN paper (arXiv 2602.08240), and by gain."""

import numpy as np

from spikebrain.plots.canvas import ALERT, FAINT, INK, SPIKING, TWIN, figure, gridded, plain

LOOKS = {"untrained": {"color": TWIN, "linestyle": "--"}, "trained": {"color": SPIKING, "linestyle": "-"}}
GROUPS = ("hidden", "output")


def neuron_health(calibrations, title="Silent and saturated neurons"):
    """Draws, for each model, the share of silent and of saturated neurons against the gain of features, and the currents that they hear.

    Arguments
    ---------
    calibrations : mapping of str to dict
        Model -> ``calibration`` of ``results.json``: see :func:`spikebrain.training.calibration.together`.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A row a model: hidden neurons, output neurons, and the histogram of hidden currents at the gain nearest to 1, in thresholds,
        with the band in which a constant current makes neither silence nor saturation.

    Raises
    ------
    ValueError
        Without a calibration.
    """
    if not calibrations or not all(calibrations.values()):
        raise ValueError("no run looked at its neurons: train with --gains=[0.1,1,3,10]")
    canvas = figure(12, 0.6 + 3.1 * len(calibrations))
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    panels = canvas.subplots(len(calibrations), len(GROUPS) + 1, squeeze=False)
    for row, (model, calibration) in zip(panels, calibrations.items(), strict=True):
        for axes, group in zip(row, GROUPS, strict=False):
            _by_gain(axes, calibration, group, f"{model}: {group} neurons")
        _currents(row[-1], calibration, f"{model}: currents of hidden neurons")
    panels[0][0].legend(fontsize=7, frameon=False, labelcolor=INK)
    return canvas


def _by_gain(axes, calibration, group, title):
    plain(axes, title, "gain of features", "% of (utterance, neuron) pairs")
    for state, found in calibration.items():
        gains = sorted(found, key=float)
        x = [float(gain) for gain in gains]
        for share, marker in (("silent", "o"), ("saturated", "^")):
            y = [100 * found[gain][group][share] for gain in gains]
            axes.plot(x, y, **LOOKS[state], linewidth=1.5, marker=marker, markersize=4, label=f"{share}, {state}")
    axes.set_xscale("log")
    axes.set_xticks(x, gains, minor=False)
    axes.set_ylim(-3, 103)
    gridded(axes)


def _currents(axes, calibration, title):
    plain(axes, title, "current (thresholds)", "% of frames and neurons")
    if not all("layers" in at for found in calibration.values() for at in found.values()):
        axes.text(0.5, 0.5, "not kept: name the run's folder", transform=axes.transAxes, ha="center", fontsize=8, color=INK)
        return
    for state, found in calibration.items():
        gain = min(found, key=lambda gain: abs(np.log(float(gain))))
        layers = [layer for name, layer in found[gain]["layers"].items() if not name.startswith("readout.output")]
        counts = np.sum([layer["current"]["counts"] for layer in layers], axis=0)
        edges = np.asarray(layers[0]["current"]["edges"]) / layers[0]["threshold"]
        drawn = 100 * counts[1:-1] / counts.sum()
        axes.stairs(drawn, edges, **LOOKS[state], linewidth=1.3, label=f"{state}, {100 - drawn.sum():.1f} % outside")
    low, high = np.mean([layer["current"]["band"] for layer in layers], axis=0) / layers[0]["threshold"]
    axes.axvspan(low, high, color=FAINT, alpha=0.5, linewidth=0)
    axes.axvline(1, color=ALERT, linewidth=0.8)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK, title=f"gain {gain}", title_fontsize=7)
