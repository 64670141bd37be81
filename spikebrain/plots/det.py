"""Misses over false alarms on normal deviate axes (A. Martin et al., "The DET Curve in Assessment of Detection Task Performance", 1997)."""

from statistics import NormalDist

from spikebrain.plots.canvas import DASHES, FAINT, INK, SERIES, figure, plain

_TICKS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 99)  # percent
_LEAST = 0.0005  # share from which on is drawn, at the smallest


def det(systems, title="Detection error trade-off"):
    """Draws a line a detector, with its equal error rate and the point of its lowest detection cost.

    Both axes are stretched by the inverse of the normal distribution, on which scores that are normally distributed give a straight line.

    Arguments
    ---------
    systems : dict
        Name -> ``{"miss", "false_alarm"}``, sequences of shares 0..1 over thresholds, and ``"EER"``, a share, and ``"minDCF"``,
        (cost, (false alarm, miss)), either of which may be missing.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without a system, or for one whose two sequences are not equally long.
    """
    if not systems:
        raise ValueError("there is no system to draw: give name -> miss and false_alarm")
    curves = {name: _curve(name, system) for name, system in systems.items()}
    least, most = _range(curves.values(), [system["minDCF"][1] for system in systems.values() if "minDCF" in system])
    canvas = figure(5.6, 5.4)
    axes = plain(canvas.subplots(), title, "false alarms (%)", "misses (%)")
    axes.plot([_deviate(least), _deviate(most)], [_deviate(least), _deviate(most)], color=FAINT, linewidth=0.8)
    for number, (name, points) in enumerate(curves.items()):
        colour, dashes = SERIES[number % len(SERIES)], DASHES[number % len(DASHES)]
        x, y = ([_deviate(share) for share in shares] for shares in zip(*points, strict=True))
        axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.6, label=_label(name, systems[name]))
        _mark(axes, systems[name], colour, (least, most))
    _scaled(axes, least, most)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc="best")
    return canvas


def _curve(name, system):
    false_alarm, miss = ([float(share) for share in system[key]] for key in ("false_alarm", "miss"))
    if len(false_alarm) != len(miss) or not miss:
        raise ValueError(f"{name} has {len(false_alarm)} false alarms and {len(miss)} misses: give one of each a threshold")
    return list(zip(false_alarm, miss, strict=True))


def _range(curves, points):
    """The two ends of both axes: a little less than the smallest share that occurs, and 60 % or what ``points`` need."""
    smallest = min((share for curve in curves for point in curve for share in point if share > 0), default=1)
    return min(max(smallest / 1.5, _LEAST), 0.01), 0.6 if all(max(point) < 0.55 for point in points) else 0.99


def _deviate(share):
    """The inverse of the normal distribution, of 0 and 1 too, which lie outside of every picture."""
    return NormalDist().inv_cdf(min(max(share, _LEAST / 10), 1 - _LEAST / 10))


def _mark(axes, system, colour, edges):
    """Marks the points that a system has, at the edge of the picture where they lie outside."""
    marks = {"o": (system["EER"],) * 2} if "EER" in system else {}
    marks |= {"x": system["minDCF"][1]} if "minDCF" in system else {}
    for marker, point in marks.items():
        x, y = (_deviate(min(max(share, edges[0]), edges[1])) for share in point)
        axes.plot(x, y, marker=marker, color=colour, markersize=7, clip_on=False, zorder=3)


def _label(name, system):
    parts = [f"● EER {100 * system['EER']:.2f} %"] if "EER" in system else []
    parts += [f"× minDCF {system['minDCF'][0]:.3f}"] if "minDCF" in system else []
    return "\n".join([name, *parts])


def _scaled(axes, least, most):
    ticks = [tick for tick in _TICKS if least <= tick / 100 <= most]
    for axis, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        limits(_deviate(least), _deviate(most))
        axis.set_ticks([_deviate(tick / 100) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.grid(color="#eceff2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_aspect("equal")
