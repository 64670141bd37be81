"""Neurons at several gains of the features: silent, saturated, telling something, and what the classifier makes of it.

A network of spiking neurons answers to the level of its input. How much is measured by multiplying normalised features with a *gain*,
before and after training (PTS-SNN, arXiv 2602.08240, Fig. 1, shows neurons before and after its calibration; gains are ours).
"""

from spikebrain.neurons import health
from spikebrain.training import metrics

STATES = ("untrained", "trained")
SHARES = ("rate", "silent", "nearly_silent", "saturated", "entropy")  # means over (utterance, neuron) pairs
OUTPUT = "readout.output"  # the neurons of the classes; all others are hidden


def measure(brain, gains):
    """Looks at a Brain's network over its test utterances.

    Arguments
    ---------
    brain : Emotion
        Its front end is a :class:`spikebrain.lobes.stored.StoredFeatures`, whose gain is 1 afterwards.
    gains : sequence of float

    Returns
    -------
    dict
        Gain, as text -> ``WA`` in percent, and ``layers``, what :mod:`spikebrain.neurons.health` says of each.
    """
    front_end, found = brain.parts["features"], {}
    try:
        for gain in gains:
            front_end.gain = gain
            with health.Health(brain.parts["classifier"]) as heard:
                tally = brain.measure(brain.data.tests["test"])
            found[str(gain)] = {"WA": metrics.weighted_accuracy(tally.confusion), "layers": heard.report()}
    finally:
        front_end.gain = 1.0
    return found


def together(reports):
    """Several folds as one.

    Arguments
    ---------
    reports : list of dict
        Of folds, with ``calibration`` (state -> what :func:`measure` gives) and ``sizes``.

    Returns
    -------
    dict
        State -> gain -> ``WA`` of all test utterances; ``hidden`` and ``output``, shares of the neurons of each (``SHARES``, and
        ``silent_or_saturated``); and ``layers``, the same of each layer with its ``current``.
    """
    return {state: {gain: _at(reports, state, gain) for gain in reports[0]["calibration"][state]} for state in STATES}


def _at(reports, state, gain):
    found = [report["calibration"][state][gain] for report in reports]
    tested = [report["sizes"]["test"] for report in reports]
    layers = {name: _merged([fold["layers"][name] for fold in found]) for name in found[0]["layers"]}
    output = {name: layer for name, layer in layers.items() if name.startswith(OUTPUT)}
    hidden = {name: layer for name, layer in layers.items() if name not in output}
    return {
        "WA": sum(fold["WA"] * n for fold, n in zip(found, tested, strict=True)) / sum(tested),
        "hidden": _shares(hidden.values()),
        "output": _shares(output.values()),
        "layers": layers,
    }


def _shares(layers):
    """Means over all pairs of ``layers``."""
    layers = list(layers)
    pairs = sum(layer["pairs"] for layer in layers)
    means = {name: sum(layer[name] * layer["pairs"] for layer in layers) / pairs for name in SHARES}
    return {**means, "silent_or_saturated": means["silent"] + means["saturated"], "pairs": pairs}


def _merged(layers):
    """One layer of several folds, its currents added up; the band is the mean of the folds', whose decays differ."""
    currents = [layer["current"] for layer in layers]
    counts = [sum(numbers) for numbers in zip(*(current["counts"] for current in currents), strict=True)]
    weights = [sum(current["counts"]) for current in currents]
    mean = {
        name: sum(current[name] * weight for current, weight in zip(currents, weights, strict=True)) / sum(weights)
        for name in ("below", "inside", "above")
    }
    band = [sum(edges) / len(edges) for edges in zip(*(current["band"] for current in currents), strict=True)]
    current = {"band": band, **mean, "edges": currents[0]["edges"], "counts": counts}
    return {**_shares(layers), "threshold": layers[0]["threshold"], "current": current}
