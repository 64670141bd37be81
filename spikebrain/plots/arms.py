"""Arms of a distillation run beside each other, over the number of frames (as figures 4 and 5 of the SpikeSCR paper, arXiv 2412.12858)."""

from statistics import fmean, stdev

from spikebrain.plots.canvas import INK, SERIES, energy_unit, figure, gridded, plain

# An arm looks the same in every picture, whichever stand beside it; marker and dashes tell it where colours do not.
_STYLES = {
    "kdcl": (SERIES[0], "o", "-"),
    "direct": (SERIES[1], "s", "--"),
    "direct_long": (SERIES[2], "D", "-."),
    "oneshot": (SERIES[3], "^", ":"),
    "init": (SERIES[4], "v", (0, (5, 1, 1, 1, 1, 1))),
}
_OTHER = (INK, "x", "-")


def accuracy_by_frames(accuracy, title="Accuracy by frames"):
    """Draws a panel a split, with a line an arm.

    Arguments
    ---------
    accuracy : dict
        Split -> arm -> frames a second -> list of accuracies in percent, one a run. Several runs are drawn as their mean, with a bar of
        one standard deviation between them to each side.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without a number.
    """
    if not any(values for arms in accuracy.values() for values in arms.values()):
        raise ValueError(f"no accuracy among the splits [{', '.join(accuracy)}]: give split -> arm -> frames -> list of percent")
    canvas = figure(2.2 + 4.2 * len(accuracy), 3.6)
    panels = canvas.subplots(1, len(accuracy), squeeze=False)[0]
    for axes, (split, arms) in zip(panels, accuracy.items()):
        _by_frames(plain(axes, split, "frames a second", "accuracy (%)"), arms, 1)
    return _titled(canvas, panels, title, [values for arms in accuracy.values() for values in arms.values()])


def energy_by_frames(energy, accuracy, split, title="Energy by frames"):
    """Draws the energy of an utterance over the number of frames, and accuracy over energy; a line an arm in both.

    Arguments
    ---------
    energy : dict
        Arm -> frames a second -> list of mJ an utterance, one a run.
    accuracy : dict
        Arm -> frames a second -> list of percent, one a run; numbers of frames without an energy are not drawn.
    split : str
        What the accuracy is of.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Energies below 0.1 mJ in µJ. On the right, the number of frames a second stands below its lowest point.

    Raises
    ------
    ValueError
        Without an energy.
    """
    largest = max((value for arm in energy.values() for values in arm.values() for value in values), default=None)
    if largest is None:
        raise ValueError(f"no energy among the arms [{', '.join(energy)}]: give arm -> frames -> list of mJ")
    name, factor = energy_unit(largest)
    canvas = figure(10.6, 3.6)
    panels = canvas.subplots(1, 2)
    label = f"energy of an utterance ({name})"
    _by_frames(plain(panels[0], "energy", "frames a second", label), energy, factor)
    panels[0].set_ylim(bottom=0)
    plain(panels[1], f"accuracy over energy, {split}", label, f"accuracy, {split} (%)")
    _over_energy(panels[1], energy, accuracy, factor)
    return _titled(canvas, panels, title, [*energy.values(), *accuracy.values()])


def _by_frames(axes, arms, factor):
    """Lines over frames, on a scale of ratios; with spread, arms stand a little beside each other, so that their bars can be seen."""
    spread = _runs(arms.values()) > 1
    for place, (arm, values) in enumerate(arms.items()):
        shift = 1 + (0.02 * (place - (len(arms) - 1) / 2) if spread else 0)
        points = [(frames * shift, *_mean_and_spread(numbers, factor)) for frames, numbers in sorted(values.items()) if numbers]
        if points:
            _line(axes, arm, [(x, mean) for x, mean, _ in points])
        for x, mean, half in points if spread else ():
            axes.vlines(x, mean - half, mean + half, colors=_style(arm)[0], linewidth=1.2)
    frames = sorted({number for values in arms.values() for number in values})
    axes.set_xscale("log")
    axes.set_xticks(frames, [str(number) for number in frames])
    axes.minorticks_off()
    gridded(axes)


def _over_energy(axes, energy, accuracy, factor):
    """Lines over energy: means of both, with a bar each way."""
    lowest = {}
    for arm, energies in energy.items():
        known = [frames for frames in sorted(energies) if energies[frames] and accuracy.get(arm, {}).get(frames)]
        points = [(*_mean_and_spread(energies[frames], factor), *_mean_and_spread(accuracy[arm][frames], 1)) for frames in known]
        if points:
            x, dx, y, dy = zip(*points)
            _line(axes, arm, list(zip(x, y)))
            axes.errorbar(x, y, dy, dx, fmt="none", ecolor=_style(arm)[0], elinewidth=1.2)
            lowest |= {frames: min((b - db, a), lowest.get(frames, (b, a))) for frames, a, b, db in zip(known, x, y, dy)}
    for frames, (y, x) in lowest.items():
        axes.annotate(str(frames), (x, y), xytext=(0, -13), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    gridded(axes)


def _line(axes, arm, points):
    colour, marker, dashes = _style(arm)
    axes.plot(*zip(*points), color=colour, linestyle=dashes, marker=marker, linewidth=1.6, markersize=4.5, label=arm)


def _style(arm):
    return _STYLES.get(arm, _OTHER)


def _mean_and_spread(values, factor):
    return fmean(values) * factor, (stdev(values) * factor if len(values) > 1 else 0.0)


def _runs(arms):
    """The most runs that a point is the mean of."""
    return max((len(values) for arm in arms for values in arm.values()), default=0)


def _titled(canvas, panels, title, arms):
    runs = _runs(arms)
    fewer = any(len(values) < runs for arm in arms for values in arm.values())
    spread = f": mean and standard deviation of {'up to ' if fewer else ''}{runs} runs" if runs > 1 else ""
    canvas.suptitle(f"{title}{spread}", x=0.01, ha="left", fontsize=12, color=INK)
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False, labelcolor=INK, title="arm", title_fontsize=8)
    return canvas
