"""What training costs as a neuron has more levels: time and memory of a step (as figure 5 of the IML-Spikeformer paper, 2507.07396)."""

from spikebrain.plots.canvas import ALERT, INK, SPIKING, TWIN, figure, gridded, plain

PANELS = {"ms": "time of a training step (ms)", "saved_mib": "kept for the backward pass (MiB)"}
_WIDTH = 0.36


def training_cost(costs, ratios=None, paper=None, title="Training cost"):
    """Draws bars of time and of memory over T, the levels of a neuron.

    Arguments
    ---------
    costs : mapping of str to mapping
        Name of a way of firing -> T -> ``{"ms": float or {"median", "low", "high"}, "saved_mib": float}``. Two of them: what is compared,
        and what it is compared with.
    ratios : mapping of int to mapping, optional
        T -> ``{"ms", "saved_mib"}``, the first to the second, as it was measured; written above the bars. By default it is worked out.
    paper : mapping, optional
        ``{"ms", "saved_mib"}``: the same ratios as a paper gives them, drawn as a line that many times as high as the bars of the second.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When there are not two ways of firing, or they were not measured at the same T.
    """
    if len(costs) != 2 or len({tuple(sorted(values)) for values in costs.values()}) != 1 or not all(costs.values()):
        measured = "; ".join(f"{name} at T = {sorted(values)}" for name, values in costs.items()) or "nothing"
        raise ValueError(f"training_cost got {measured}: give two ways of firing, measured at the same T")
    canvas = figure(8.6, 3.8)
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    panels = canvas.subplots(1, len(PANELS))
    for axes, (key, label) in zip(panels, PANELS.items(), strict=True):
        found = {name: {levels: row[key] for levels, row in sorted(values.items())} for name, values in costs.items()}
        _bars(plain(axes, label, "T"), found, {levels: row[key] for levels, row in (ratios or {}).items()}, (paper or {}).get(key))
    handles, names = panels[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside lower left", ncols=3, fontsize=8, frameon=False, labelcolor=INK)
    return canvas


def _bars(axes, costs, ratios, paper):
    """Bars of both ways of firing, with quartiles where there are some, and the ratio above the first."""
    first, second = costs
    base, levels = costs[second], list(costs[second])
    for place, (name, values) in enumerate(costs.items()):
        at = [number + (place - 0.5) * (_WIDTH + 0.02) for number in range(len(levels))]
        middle = [_middle(values[level]) for level in levels]
        axes.bar(at, middle, _WIDTH, color=TWIN if name == first else SPIKING, label=name)
        for x, level in zip(at, levels, strict=True):
            _whisker(axes, x, values[level])
    for number, level in enumerate(levels):
        times = ratios.get(level, _middle(costs[first][level]) / _middle(base[level]))
        text, height = f"{times:.2f} x", _high(costs[first][level])
        axes.annotate(text, (number - 0.19, height), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8, color=INK)
        if paper:
            height = paper * _middle(base[level])
            axes.hlines(height, number - 0.42, number + 0.42, colors=ALERT, linestyles="--", linewidth=1.2)
            if number == len(levels) - 1:
                note = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 8, "color": ALERT}
                axes.annotate(f"paper {paper:g} x", (number + 0.21, height), **note)
    axes.set_xticks(range(len(levels)), levels)
    heights = [_high(value) for values in costs.values() for value in values.values()]
    axes.set_ylim(0, 1.12 * max(*heights, (paper or 0) * max(map(_middle, base.values()))))
    gridded(axes)


def _whisker(axes, x, value):
    if isinstance(value, dict):
        axes.vlines(x, value["low"], value["high"], colors=INK, linewidth=1)


def _middle(value):
    return value["median"] if isinstance(value, dict) else value


def _high(value):
    return value["high"] if isinstance(value, dict) else value
