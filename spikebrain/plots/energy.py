"""Energy of one utterance by scope, beside the non-spiking twin's."""

from spikebrain.plots.canvas import INK, SPIKING, TWIN, energy_unit, figure, plain


def energy(report, title="Energy of one utterance"):
    """Draws two bars a scope: this network and its twin.

    Arguments
    ---------
    report : dict
        As ``results.json`` holds it under ``energy``: scope -> ``{"mJ", "twin_mJ", ...}``; other keys are not drawn.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When there is no scope.
    """
    scopes = {name: entry for name, entry in report.items() if isinstance(entry, dict) and "twin_mJ" in entry}
    if not scopes:
        raise ValueError(f"no scope with mJ and twin_mJ among {sorted(report)}: pass results['energy']")
    largest = max(max(entry["mJ"], entry["twin_mJ"]) for entry in scopes.values())
    unit = energy_unit(largest)
    canvas = figure(8, 1.4 + 0.85 * len(scopes))
    axes = plain(canvas.add_subplot(), title, _axis_label(report.get("counting", {}), unit[0]))
    for row, entry in enumerate(scopes.values()):
        _bar(axes, row - 0.2, entry["twin_mJ"], TWIN, unit, "twin ")
        _bar(axes, row + 0.2, entry["mJ"], SPIKING, unit, "", _ratio(entry))
    axes.set_yticks(range(len(scopes)), list(scopes))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * largest * unit[1] or 1)
    return canvas


def _bar(axes, row, value_mJ, colour, unit, before="", after=""):
    name, factor = unit
    value = value_mJ * factor
    axes.barh(row, value, height=0.36, color=colour)
    label = f"{before}{value:.3g} {name}{after}"
    axes.annotate(label, (value, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color=INK)


def _ratio(entry):
    return f"  ({entry['mJ'] / entry['twin_mJ']:.0%} of the twin)" if entry["twin_mJ"] else ""


def _axis_label(counting, unit):
    if not counting:
        return f"energy ({unit})"
    prices = counting["prices"]
    costs = f"{prices['mac_pJ']} pJ a multiply-accumulate, {prices['ac_pJ']} pJ an accumulation"
    return f"energy ({unit}): {costs}, mean of {counting['utterances']} utterances"
