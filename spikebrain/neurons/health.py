"""Whether neurons say anything: how many are silent or saturated, how much their trains tell, and which currents they hear.

    with Health(network) as health:
        for x, lengths in batches:
            network(x, lengths)
    health.report()          # {layer: numbers}; the same as examine(network, batches)

A neuron that hears a constant current I fires never below (1 - decay) threshold, in every frame from threshold on (with a weighted
input both are divided by 1 - decay): in between lies the band in which its train can tell anything. PTS-SNN calls what is
below silence and what is above saturation, and says that either takes the entropy of a train to 0 (Eq. 3); the definitions in
numbers are ours: a neuron is silent in an utterance when it does not fire, saturated when it fires in 99 % of its frames.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import torch

from spikebrain import lengths as frames
from spikebrain.neurons.lif import LIF

NEARLY_SILENT, SATURATED = 0.01, 0.99
EDGES = tuple(n / 20 for n in range(-40, 61))  # of the histogram, in thresholds: -2 to 3


def entropy(rates):
    """Bits a frame of a train with firing ``rates`` (any shape) in 0..1 and no memory: 0 at 0 and 1, 1 at one half."""
    silent = 1 - rates
    return -(torch.xlogy(rates, rates) + torch.xlogy(silent, silent)) / math.log(2)


@dataclass
class LayerHealth:
    """Sums over what one layer heard and fired; ``numbers`` of (utterance, neuron) pairs and of currents, ``histogram`` (edges + 1,)."""

    threshold: float
    band: tuple = ()
    numbers: Counter = field(default_factory=Counter)
    histogram: torch.Tensor = field(default_factory=lambda: torch.zeros(len(EDGES) + 1, dtype=torch.long))

    def add_rates(self, fired, counts):
        """Adds spikes ``fired`` (B, C) of utterances with ``counts`` (B,) frames."""
        rates = fired.double() / counts.unsqueeze(1)
        found = {"silent": rates == 0, "nearly_silent": rates <= NEARLY_SILENT, "saturated": rates >= SATURATED}
        self.numbers.update({name: int(which.sum()) for name, which in found.items()})
        self.numbers.update(pairs=rates.numel(), rate=float(rates.sum()), entropy=float(entropy(rates).sum()))

    def add_currents(self, currents, low, high):
        """Adds ``currents`` (n, C), of frames that are valid, and the neurons' bands from ``low`` to ``high``, (C,)."""
        where = {"below": currents < low, "above": currents >= high}
        self.numbers.update({name: int(which.sum()) for name, which in where.items()})
        self.numbers.update(currents=currents.numel())
        edges = torch.tensor(EDGES, dtype=currents.dtype, device=currents.device) * self.threshold
        found = torch.bucketize(currents.contiguous(), edges, right=True).flatten()
        self.histogram += torch.bincount(found, minlength=len(EDGES) + 1).cpu()
        self.band = (float(low.mean()), float(high.mean()))

    def summary(self):
        """The numbers of :meth:`Health.report`."""
        n = self.numbers
        pairs = {name: n[name] / n["pairs"] for name in ("rate", "silent", "nearly_silent", "saturated", "entropy")}
        heard = {"below": n["below"] / n["currents"], "above": n["above"] / n["currents"]}
        edges = [edge * self.threshold for edge in EDGES]
        current = {"band": list(self.band), **heard, "inside": 1 - sum(heard.values()), "edges": edges, "counts": self.histogram.tolist()}
        return {**pairs, "pairs": n["pairs"], "threshold": self.threshold, "current": current}


class Health:
    """Listens, inside of a ``with`` block, to every layer of LIF neurons of ``network``; outside of it nothing is left behind.

    Raises
    ------
    ValueError
        At the block's begin, for a network without such neurons; while a batch norm in front of neurons is in training mode, since
        listening would change its statistics.
    """

    def __init__(self, network):
        self.network, self.layers = network, {}
        self._names = {module: name for name, module in network.named_modules() if isinstance(module, LIF)}
        self._calls, self._hook, self._before = Counter(), None, {}

    def __enter__(self):
        if not self._names:
            raise ValueError(f"{type(self.network).__name__} has no layer of LIF neurons: health is told of these alone")
        self._hook = self.network.register_forward_pre_hook(lambda *_: self._calls.clear())
        self._before = {neuron: vars(neuron).get("run") for neuron in self._names}
        for neuron in self._names:
            neuron.run = self._heard(neuron, neuron.run)
        return self

    def __exit__(self, *_):
        self._hook.remove()
        for neuron, run in self._before.items():
            del neuron.run
            if run is not None:  # of another one that listens
                neuron.run = run

    def report(self):
        """Plain numbers of every layer that has fired, or could have.

        Returns
        -------
        dict
            layer -> ``rate``, the mean over (utterance, neuron) ``pairs``; ``silent`` (rate 0), ``nearly_silent`` (at most 0.01) and
            ``saturated`` (at least 0.99), shares of the pairs; ``entropy``, mean bits a frame; ``threshold``; and ``current``:
            ``band`` (its edges, mean of the neurons), shares ``below``, ``inside`` and ``above`` it, and the histogram ``counts``
            of currents below, between and above ``edges``. A layer that fires more than once in a pass has a line for each, the second
            with ``#2`` behind its name.
        """
        return {name: layer.summary() for name, layer in self.layers.items()}

    def _heard(self, neuron, run):
        def heard(x, counts, state=None, gain=None, norm=None):
            """As the neuron's own ``run``, which it calls; what went in and came out is counted."""
            spikes, after = run(x, counts, state, gain, norm)
            self._add(neuron, _current(x, counts, norm), spikes)
            return spikes, after

        return heard

    @torch.no_grad()
    def _add(self, neuron, x, spikes):
        self._calls[neuron] += 1
        again = f"#{self._calls[neuron]}" if self._calls[neuron] > 1 else ""
        layer = self.layers.setdefault(self._names[neuron] + again, LayerHealth(neuron.options.threshold))
        layer.add_rates(spikes.level.sum(1, dtype=torch.long), spikes.counts)
        left = 1 - neuron.decays(x)
        weight = left if neuron.decay_input else torch.ones_like(left)
        layer.add_currents(x[frames.valid(spikes.counts, x)], left * layer.threshold / weight, layer.threshold / weight)


@torch.no_grad()
def examine(network, batches):
    """:meth:`Health.report` of ``network`` in evaluation over ``batches``, tuples (x, lengths).

    Afterwards the network is in the mode that it was in.
    """
    training = network.training
    network.eval()
    try:
        with Health(network) as health:
            for x, lengths in batches:
                network(x, lengths)
    finally:
        network.train(training)
    return health.report()


def _current(x, counts, norm):
    """What neurons hear of ``x``, in float32 at least."""
    if norm is None:
        return x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if norm.training:
        raise ValueError("a batch norm is in training mode, where listening would change its statistics: call network.eval()")
    return norm.normalise(x.detach(), counts)
