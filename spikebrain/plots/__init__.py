"""Pictures of a run: every function takes numbers and returns a matplotlib figure (extra ``[plots]``).

    figure = plots.firing_rates(counter.rates())                    # {layer: (C,)}
    figure = plots.attention_maps([map.numpy() for map in maps])    # per block (H, L, L), one utterance
    figure = plots.curves([{"epoch": 1, "train_loss": 3.1, "valid_loss": 2.9, "valid_WER": 88.0}, ...])
    figure = plots.energy(results["energy"])
    plots.save(figure, run_folder / "firing_rates.png")

matplotlib is imported when a figure is drawn, never by ``import spikebrain.plots``; no
display and no global state is needed.
"""

from spikebrain.plots.attention import attention_maps, attention_numbers
from spikebrain.plots.canvas import save
from spikebrain.plots.curves import curves
from spikebrain.plots.energy import energy
from spikebrain.plots.firing import firing_rates

__all__ = ["attention_maps", "attention_numbers", "curves", "energy", "firing_rates", "save"]
