"""Firing rates: of every neuron of every layer, one band a layer (as figure 3 of the IML-Spikeformer paper, arXiv 2507.07396), of one run
or of several beside each other, and of chosen layers by epoch (as figure 6 of the SpikeSCR paper, arXiv 2412.12858)."""

import os.path

import numpy as np

from spikebrain.plots.canvas import ALERT, DASHES, INK, SERIES, SPIKING, figure, gridded, plain

SILENT, INACTIVE, SATURATED = 0.001, 0.01, 0.9
NOTE = 1.55  # inches that the numbers beside a band take


def firing_rates(rates, title="Firing rates"):
    """Draws one band a layer over the neuron's index, and the histogram of all rates.

    Arguments
    ---------
    rates : mapping of str to array (C,)
        Layer name -> firing rate of each channel, in [0, 1], as ``Counter.rates()`` gives them. Layers may differ in C.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Channels below 0.01 (inactive) are drawn in a colour of their own. Beside each band: mean rate and share of inactive channels.

    Raises
    ------
    ValueError
        Without layers, or when a layer has no channel, or a rate outside [0, 1]; names the layer.
    """
    bands = _all_checked(rates)
    canvas = figure(11, max(3.6, 1.6 + 0.2 * len(bands)))
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    grid = canvas.add_gridspec(2, 2, width_ratios=(3.2, 1), height_ratios=(1, max(0.01, len(bands) / 14 - 1)))
    image = _bands(canvas.add_subplot(grid[:, 0]), bands, _top([bands]), 1.28)
    _histogram(canvas.add_subplot(grid[0, 1]), np.concatenate(list(bands.values())))
    _scale(canvas, image, canvas.axes[0])
    return canvas


def firing_rates_of_runs(runs, title="Firing rates"):
    """Draws the bands of several runs beside each other, on one scale, and below each how its neurons spread over the rates.

    Arguments
    ---------
    runs : mapping of str to mapping
        Name of a run -> its rates, as :func:`firing_rates` takes them.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        Where all runs have the same layers, these are named at the first one.

    Raises
    ------
    ValueError
        Without a run; and as :func:`firing_rates`.
    """
    checked = {label: _all_checked(rates) for label, rates in runs.items()}
    if not checked:
        raise ValueError("no run to draw: give name -> layer -> rates")
    rows, alike = max(map(len, checked.values())), len({tuple(bands) for bands in checked.values()}) == 1
    heights = (0.35 + max(1.2, 0.19 * (rows + 1.2)), 1.7)
    canvas = figure(1.6 + 5 * len(checked), 1.6 + sum(heights))
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    panels = canvas.subplots(2, len(checked), squeeze=False, height_ratios=heights, sharey="row" if alike else False)
    top, most = _top(checked.values()), max(values.max() for bands in checked.values() for values in bands.values())
    for column, (label, bands) in enumerate(checked.items()):
        image = _bands(panels[0][column], bands, top, 4.2 / (4.2 - NOTE), named=not column or not alike)
        prefix = panels[0][column].get_title(loc="left")
        panels[0][column].set_title(f"{label}\n{prefix}", loc="left", fontsize=9, color=INK)
        _histogram(panels[1][column], np.concatenate(list(bands.values())), most, named=not column)
    highest = max(axes.get_ylim()[1] for axes in panels[1])
    for axes in panels[1]:
        axes.set_ylim(0, highest)
    _scale(canvas, image, list(panels[0]))
    return canvas


def firing_numbers(rates):
    """How the neurons of a whole network spread over the firing rates.

    Arguments
    ---------
    rates : mapping of str to array (C,)
        As :func:`firing_rates` takes them; each neuron counts once, whatever its layer.

    Returns
    -------
    dict
        ``mean`` and ``std`` of the rates; ``below_0.001`` (silent), ``below_0.01`` (inactive) and ``above_0.9`` (saturated), fractions of
        the neurons; ``channels``, how many there are.
    """
    values = np.concatenate(list(_all_checked(rates).values()))
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        f"below_{SILENT}": float((values < SILENT).mean()),
        f"below_{INACTIVE}": float((values < INACTIVE).mean()),
        f"above_{SATURATED}": float((values > SATURATED).mean()),
        "channels": values.size,
    }


def firing_by_epoch(epochs, title="Firing rate by epoch"):
    """Draws one line a layer over epochs.

    Arguments
    ---------
    epochs : sequence of dict
        One an epoch: ``"epoch"`` (int) and, where it was measured, ``"firing"``: layer name -> mean firing rate of its neurons, in [0, 1].
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When no epoch has a rate.
    """
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.get("firing", {})))
    if not names:
        raise ValueError(f"{len(epochs)} epochs hold no firing rate: name layers in firing_by_epoch")
    prefix = _common_prefix(names)
    canvas = figure(8, max(3.4, 1.2 + 0.18 * len(names)))
    canvas.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    axes = plain(canvas.add_subplot(), prefix, "epoch", "firing rate (%, spikes per frame and level)")
    for number, name in enumerate(names):
        x, y = zip(*((epoch["epoch"], 100 * epoch["firing"][name]) for epoch in epochs if name in epoch.get("firing", {})), strict=True)
        look = {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number // len(SERIES) % len(DASHES)]}
        label = f"{name[len(prefix) :]}, last {y[-1]:.1f} %"
        axes.plot(x, y, **look, linewidth=1.6, marker="o" if len(x) < 30 else None, markersize=3, label=label)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    canvas.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=INK)
    gridded(axes)
    return canvas


def _all_checked(rates):
    if not rates:
        raise ValueError("no layer told of its firing: listen with energy.Counter while the network is evaluated")
    return {name: _checked(name, values) for name, values in rates.items()}


def _checked(name, values):
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} has rates of shape {values.shape}: pass one rate a channel, (C,)")
    if not (values.min() >= 0 and values.max() <= 1 + 1e-9):
        span = f"from {values.min():.3g} to {values.max():.3g}"
        raise ValueError(f"{name} has rates {span}: a rate lies in [0, 1], divide counts by frames and levels")
    return values


def _top(runs):
    """Where the scale of colours ends: few neurons lie above, and one of them must not make all others pale."""
    return max(0.05, float(np.quantile(np.concatenate([values for bands in runs for values in bands.values()]), 0.995)))


def _bands(axes, bands, top, right, named=True):
    """Bands over 0 to 1; the axes end at ``right``, behind the numbers."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("spikes", ["#eef4f7", SPIKING, "#03293a"]).with_extremes(under=ALERT)
    for row, values in enumerate(bands.values()):
        edges = np.linspace(0, 1, values.size + 1)
        image = axes.pcolormesh(edges, [row - 0.42, row + 0.42], values[None], cmap=colours, vmin=INACTIVE, vmax=top, rasterized=True)
        _note(axes, row, f"{values.mean():6.1%}  {(values < INACTIVE).mean():8.1%}  {values.size:7d}")
    _note(axes, -1, "  mean  inactive  neurons")
    prefix = _common_prefix(list(bands))
    plain(axes, prefix, "neuron index / number of neurons in the layer")
    axes.set_yticks(range(len(bands)), [name[len(prefix) :] for name in bands], fontsize=7)
    axes.tick_params(labelleft=named)
    axes.set_ylim(len(bands) - 0.4, -1.6)
    axes.set_xlim(0, right)
    axes.spines["bottom"].set_bounds(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    return image


def _note(axes, row, text):
    axes.text(1.01, row, text, va="center", fontsize=7, family="monospace", color=INK)


def _common_prefix(names):
    """The dotted beginning that all names share, with its last dot; their last part is never in it."""
    shared = os.path.commonprefix([name.split(".")[:-1] for name in names])
    return "".join(f"{part}." for part in shared)


def _scale(canvas, image, axes):
    inch = 1 / canvas.get_figheight()
    bar = canvas.colorbar(image, ax=axes, location="bottom", fraction=0.3 * inch, pad=0.1 * inch, aspect=60, extend="max")
    bar.set_label(f"firing rate (spikes per frame and level); below {INACTIVE}: red", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)


def _histogram(axes, values, most=None, named=True):
    """Neurons by their rate, up to ``most``, by default the highest one."""
    axes.hist(values, bins=np.linspace(0, max(0.1, float(values.max() if most is None else most)), 41), color=SPIKING)
    axes.axvline(values.mean(), color=INK, linewidth=1)
    inactive = (values < INACTIVE).mean()
    plain(axes, f"all {values.size} neurons", "firing rate", "neurons" if named else "")
    saturated = (values > SATURATED).mean()
    text = f"mean {values.mean():.1%}\ninactive (<{INACTIVE}) {inactive:.1%}\nsaturated (>{SATURATED}) {saturated:.1%}"
    axes.text(0.97, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=8, color=INK)
