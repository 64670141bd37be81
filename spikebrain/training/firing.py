"""How often chosen layers of neurons fire, validation by validation."""

from fnmatch import fnmatchcase

import torch
from speechbrain.utils.logger import get_logger

from spikebrain import energy, operands

logger = get_logger(__name__)


class Rates:
    """Firing rates of chosen layers over whatever runs while this listens (:func:`spikebrain.operands.listen`).

    Arguments
    ---------
    parts : dict
        Name -> module, the network.
    wanted : str or list of str
        Layers as ``firing_rate`` of ``results.json`` names them, or the end of such a name from a dot on: ``gate.neuron`` is every
        layer ``....gate.neuron``. ``*`` stands for anything.
    """

    def __init__(self, parts, wanted):
        self.wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        self.counter = energy.Counter(torch.nn.ModuleDict(parts))

    def __call__(self, event):
        if isinstance(event, operands.Firing):
            self.counter(event)

    def of(self, epoch):
        """Layer -> spikes per valid frame, neuron and level; what no layer is called is said once, in the first epoch."""
        layers = self.counter.spikes
        for wanted in self.wanted if epoch == 1 else ():
            if not any(_means(wanted, name) for name in layers):
                logger.warning(f"firing_by_epoch: no layer that fires is called {wanted}; there are: {', '.join(layers) or 'none'}")
        chosen = {name: spikes for name, spikes in layers.items() if any(_means(wanted, name) for wanted in self.wanted)}
        return {name: float(spikes.rates.mean()) for name, spikes in chosen.items()}


def by_epoch(rows):
    """Layer -> its rate in each row of a :class:`~spikebrain.training.history.History`, None where it was not measured."""
    layers = dict.fromkeys(layer for row in rows for layer in row.get("firing", {}))
    return {layer: [row.get("firing", {}).get(layer) for row in rows] for layer in layers}


def _means(wanted, name):
    return fnmatchcase(name, wanted) or fnmatchcase(name, f"*.{wanted}")
