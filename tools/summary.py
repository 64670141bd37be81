"""What a run found, on one screen: ``python tools/summary.py FOLDER`` reads ``FOLDER/results.json``."""

import argparse
import json
import sys
from pathlib import Path


def of_run(results):
    """Which model was trained on what."""
    return f"{results['model']} on {results['corpus']} (protocol {results['protocol']}, seed {results['seed']})"


def of_metrics(metrics):
    """One line a metric: every split's value in percent."""
    names = dict.fromkeys(name for split in metrics.values() for name in split)
    for name in names:
        yield name, "   ".join(f"{split} {values[name]:.2f} %" for split, values in metrics.items() if name in values)


def of_parameters(parameters):
    """Total and trainable parameter counts."""
    return f"{parameters['total']:,} ({parameters['trainable']:,} trainable)"


def of_firing(layers):
    """The mean over all channels of all layers, and the range of the layers' means."""
    means = {name: layer["mean"] for name, layer in layers.items()}
    channels = sum(layer["channels"] for layer in layers.values())
    mean = sum(layer["mean"] * layer["channels"] for layer in layers.values()) / channels
    low, high = min(means, key=means.get), max(means, key=means.get)
    return f"{mean:.3f} spikes a frame and level (lowest {means[low]:.3f} in {low}, highest {means[high]:.3f} in {high})"


def of_energy(energy):
    """One line a scope: this network and its twin without spikes."""
    for scope, cost in energy.items():
        if "twin_mJ" in cost:
            share = f" ({100 * cost['mJ'] / cost['twin_mJ']:.0f} % of it)" if cost["twin_mJ"] else ""
            yield f"energy, {scope}", f"{cost['mJ']:.4g} mJ an utterance, twin without spikes {cost['twin_mJ']:.4g} mJ{share}"


def lines(results, folder):
    """(label, text) of everything that ``results`` holds; pictures are the PNG files of ``folder``."""
    yield "run", of_run(results)
    yield from of_metrics(results.get("metrics", {}))
    yield "parameters", of_parameters(results["parameters"])
    if results.get("firing_rate"):
        yield "firing rate", of_firing(results["firing_rate"])
    yield from of_energy(results.get("energy") or {})
    yield "time", f"{results['seconds'] / 60:.1f} minutes"
    for picture in sorted(folder.rglob("*.png")):
        yield "picture", str(picture)


def show(folder):
    """The summary of the run in ``folder`` as text.

    Raises
    ------
    FileNotFoundError
        The folder holds no ``results.json``.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file: name the output_folder of a run that has ended")
    found = list(lines(json.loads(file.read_text(encoding="utf-8")), folder))
    width = max(len(label) for label, _ in found)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in found)


def main(arguments=None):
    """Prints the summary; returns 1, and says why, where there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="output_folder of a run")
    try:
        print(show(parser.parse_args(arguments).folder))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
