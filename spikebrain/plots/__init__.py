"""Pictures of a run: every function takes numbers and returns a matplotlib figure (extra ``[plots]``).

    figure = plots.firing_rates(counter.rates())                    # {layer: (C,)}
    figure = plots.firing_rates_of_runs({"iml_spikeformer": counter.rates(), "mls": ...})
    figure = plots.attention_maps([map.numpy() for map in maps])    # per block (H, L, L), one utterance
    figure = plots.attention_of_runs({"with decay mask": maps, "without": others}, signed=True)
    figure = plots.curves([{"epoch": 1, "train_loss": 3.1, "valid_loss": 2.9, "valid_WER": 88.0}, ...])
    figure = plots.energy(results["energy"])
    figure = plots.firing_by_epoch([{"epoch": 1, "firing": {"layers.0.gate": 0.2}}, ...])
    figure = plots.accuracy_by_frames({"test": {"kdcl": {100: [94.1, 93.8], 40: [91.0, 91.4]}, ...}})    # split -> arm -> frames -> runs
    figure = plots.energy_by_layer(results["energy"])
    figure = plots.firing_by_layer(results["firing_rate"])
    figure = plots.quality_over_energy([json.load(open(run / "energy.json")) for run in runs])
    figure = plots.neuron_health({"pts_snn": results["calibration"]})
    figure = plots.det({"cosine": {"miss": [...], "false_alarm": [...], "EER": 0.05}})
    figure = plots.training_cost({"iterative": {4: {"ms": 1700.0, "saved_mib": 190.0}, 6: ...}, "imls": ...})
    plots.save(figure, run_folder / "firing_rates.png")

matplotlib is imported when a figure is drawn, never by ``import spikebrain.plots``; no
display and no global state is needed.
"""

from spikebrain.plots.arms import accuracy_by_frames, energy_by_frames
from spikebrain.plots.attention import attention_maps, attention_numbers, attention_of_runs
from spikebrain.plots.canvas import save
from spikebrain.plots.confusion import confusion
from spikebrain.plots.curves import curves
from spikebrain.plots.det import det
from spikebrain.plots.energy import energy
from spikebrain.plots.firing import firing_by_epoch, firing_numbers, firing_rates, firing_rates_of_runs
from spikebrain.plots.layers import energy_by_layer, firing_by_layer, quality_over_energy
from spikebrain.plots.neuron_health import neuron_health
from spikebrain.plots.training_cost import training_cost

__all__ = [
    "accuracy_by_frames",
    "attention_maps",
    "attention_numbers",
    "attention_of_runs",
    "confusion",
    "curves",
    "det",
    "energy",
    "energy_by_frames",
    "energy_by_layer",
    "firing_by_epoch",
    "firing_by_layer",
    "firing_numbers",
    "firing_rates",
    "firing_rates_of_runs",
    "neuron_health",
    "quality_over_energy",
    "save",
    "training_cost",
]
