"""Pictures of a run: every function takes numbers and returns a matplotlib figure (extra ``[plots]``).

    figure = plots.firing_rates(counter.rates())                    # {layer: (C,)}
    figure = plots.attention_maps([map.numpy() for map in maps])    # per block (H, L, L), one utterance
    figure = plots.curves([{"epoch": 1, "train_loss": 3.1, "valid_loss": 2.9, "valid_WER": 88.0}, ...])
    figure = plots.energy(results["energy"])
    figure = plots.firing_by_epoch([{"epoch": 1, "firing": {"layers.0.gate": 0.2}}, ...])
    figure = plots.accuracy_by_frames({"test": {"kdcl": {100: [94.1, 93.8], 40: [91.0, 91.4]}, ...}})    # split -> arm -> frames -> runs
    figure = plots.energy_by_layer(results["energy"])
    figure = plots.firing_by_layer(results["firing_rate"])
    figure = plots.quality_over_energy([json.load(open(run / "energy.json")) for run in runs])
    figure = plots.neuron_health({"pts_snn": results["calibration"]})
    plots.save(figure, run_folder / "firing_rates.png")

matplotlib is imported when a figure is drawn, never by ``import spikebrain.plots``; no
display and no global state is needed.
"""

from spikebrain.plots.arms import accuracy_by_frames, energy_by_frames
from spikebrain.plots.attention import attention_maps, attention_numbers
from spikebrain.plots.canvas import save
from spikebrain.plots.confusion import confusion
from spikebrain.plots.curves import curves
from spikebrain.plots.energy import energy
from spikebrain.plots.firing import firing_by_epoch, firing_rates
from spikebrain.plots.layers import energy_by_layer, firing_by_layer, quality_over_energy
from spikebrain.plots.neuron_health import neuron_health

__all__ = [
    "accuracy_by_frames",
    "attention_maps",
    "attention_numbers",
    "confusion",
    "curves",
    "energy",
    "energy_by_frames",
    "energy_by_layer",
    "firing_by_epoch",
    "firing_by_layer",
    "firing_rates",
    "neuron_health",
    "quality_over_energy",
    "save",
]
