"""Where in a network energy is spent and spikes are fired, layer by layer; and what several runs give for their energy."""

from spikebrain.plots.canvas import ALERT, INK, SERIES, SPIKING, energy_unit, figure, gridded, plain

ADDS = "ac"


def products(report):
    """The lines of a report's products, in the order of the scopes, those that stand for an inner scope left out.

    Arguments
    ---------
    report : dict
        As ``results.json`` holds it under ``energy``.

    Returns
    -------
    list of dict
        Lines, each with the ``"scope"`` that it was added by.
    """
    scopes = {name: entry for name, entry in report.items() if isinstance(entry, dict) and "lines" in entry}
    return [{**line, "scope": name} for name, entry in scopes.items() for line in entry["lines"] if line["operation"] != "scope"]


def energy_by_layer(report, title="Energy by layer"):
    """Draws one bar a product of the network.

    Arguments
    ---------
    report : dict
        As ``results.json`` holds it under ``energy``: scope -> ``{"mJ", "lines", ...}``.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Products that are additions and those that are multiply-accumulates in two colours; the unit is µJ below 0.1 mJ.

    Raises
    ------
    ValueError
        Without a line.
    """
    lines = products(report)
    if not lines:
        raise ValueError(f"no scope with lines among {sorted(report)}: pass results['energy']")
    name, factor = energy_unit(max(line["mJ"] for line in lines))
    colours = [SPIKING if line["operation"] == ADDS else ALERT for line in lines]
    canvas, axes = _bars([line["line"] for line in lines], [line["mJ"] * factor for line in lines], colours, title)
    axes.set_xlabel(f"energy of one utterance ({name})", fontsize=9, color=INK)
    _legend(axes, {"additions (a spike is an operand)": SPIKING, "multiply-accumulates": ALERT})
    return canvas


def firing_by_layer(summaries, title="Firing by layer"):
    """Draws the mean firing rate of every layer of neurons.

    Arguments
    ---------
    summaries : dict
        Layer -> ``{"mean", ...}``, as ``results.json`` holds it under ``firing_rate``.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Without a layer.
    """
    if not summaries:
        raise ValueError("no layer fired: a network without neurons has no firing rate")
    canvas, axes = _bars(list(summaries), [100 * layer["mean"] for layer in summaries.values()], SPIKING, title)
    axes.set_xlabel("firing rate (%, spikes per frame, neuron and level)", fontsize=9, color=INK)
    return canvas


def quality_over_energy(reports, title="What a run gives for its energy"):
    """Draws a point a run: its first metric over the energy of the whole network.

    Arguments
    ---------
    reports : list of dict
        Runs as ``tools/energy.py`` writes them: ``model``, ``split``, ``metrics`` (name -> percent) and ``energy``.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each metric; energy on a scale of ratios, points of one model in one colour.

    Raises
    ------
    ValueError
        When no run has a metric.
    """
    points = [point for point in map(point_of, reports) if point is not None]
    if not points:
        raise ValueError(f"{len(reports)} runs hold no metric: give reports with metrics and energy")
    metrics = list(dict.fromkeys(point["metric"] for point in points))
    models = list(dict.fromkeys(point["model"] for point in points))
    unit, factor = energy_unit(max(point["mJ"] for point in points))
    canvas = figure(2.4 + 4.6 * len(metrics), 3.8)
    panels = canvas.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics):
        plain(axes, metric, f"energy of an utterance, whole network ({unit})", f"{metric} (%)")
        for number, model in enumerate(models):
            own = [(point["mJ"] * factor, point["value"]) for point in points if (point["metric"], point["model"]) == (metric, model)]
            if own:
                marker = "osD^v"[number // len(SERIES) % 5]
                axes.plot(*zip(*own), marker, color=SERIES[number % len(SERIES)], markersize=6, label=model)
        axes.set_xscale("log")
        axes.margins(0.15)
        gridded(axes)
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    return canvas


def point_of(report):
    """Where a run stands: ``{"model", "metric", "value", "mJ"}``, or None without a metric."""
    for name, value in report["metrics"].items():
        return {"model": report["model"], "metric": f"{name}, {report['split']}", "value": value, "mJ": report["energy"]["full"]["mJ"]}
    return None


def _bars(names, values, colours, title):
    """Horizontal bars, the first one on top, and what each is worth beside it."""
    canvas = figure(9, 1.2 + 0.21 * len(names))
    axes = plain(canvas.add_subplot(), title)
    axes.barh(range(len(names)), values, height=0.7, color=colours)
    for row, value in enumerate(values):
        axes.annotate(f"{value:.3g}", (value, row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=6.5, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * max(values) or 1)
    return canvas, axes


def _legend(axes, colours):
    for label, colour in colours.items():
        axes.barh(0, 0, color=colour, label=label)
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, loc="lower right")
