"""Whether a network's run on events is the network: spike by spike, and addition by addition.

    proof = prove(encoder.eval(), x, lengths)
    proof.equal          # in float64: same spikes, same additions as were counted
    proof.trains         # {layer: Tensor (L, C)}: what each neuron of one utterance fired in each frame
"""

import copy
import time
from dataclasses import dataclass

import torch

from spikebrain import operands
from spikebrain.convert import convert, simulate, told
from spikebrain.neurons import LIF, IterativeLIF, MultiLevelSpike

FIRES = {LIF: "run", IterativeLIF: "fire", MultiLevelSpike: "fire"}  # what of a layer of neurons gives its spikes


class Trains:
    """Keeps, inside of a ``with`` block, every spike of every layer of neurons of ``network`` for one utterance.

    Attributes
    ----------
    layers : dict
        layer -> Tensor (L, C), uint8: the level that each neuron fired in each frame, micro-steps added up. A layer that fires more than
        once in a pass has an entry for each, the second with ``#2`` behind its name.
    """

    def __init__(self, network):
        self.layers = {}
        self._neurons = {module: (name, _fires(module)) for name, module in network.named_modules() if _fires(module)}

    def __enter__(self):
        for neuron, (name, method) in self._neurons.items():
            setattr(neuron, method, self._kept(name, getattr(neuron, method)))
        return self

    def __exit__(self, *_):
        for neuron, (_, method) in self._neurons.items():
            delattr(neuron, method)

    def _kept(self, name, fire):
        def kept(*given, **named):
            """Fires as before, and keeps the train."""
            fired = fire(*given, **named)
            spikes = fired if isinstance(fired, operands.Spikes) else fired[0]
            number = sum(name == layer.partition("#")[0] for layer in self.layers) + 1
            self.layers[name if number == 1 else f"{name}#{number}"] = spikes.level.sum(0).to(torch.uint8).cpu()
            return fired

        return kept


@dataclass(frozen=True)
class Proof:
    """What :func:`prove` found for one utterance.

    trains : dict, layer -> Tensor (L, C), uint8, spikes of the network as it is
    differ : dict, layer -> neurons and frames in which the run on events fired otherwise, in float64
    differ_float32 : dict, the same in float32, where another order of additions may tip a membrane over its threshold
    additions : dict, (layer, part) -> (additions that the run on events made, those that were counted), in float64
    macs : the same for products of real numbers
    seconds : what the run on events took in float32
    """

    trains: dict
    differ: dict
    differ_float32: dict
    additions: dict
    macs: dict
    seconds: float

    @property
    def equal(self):
        """Whether all spikes, all additions and all products of real numbers are the same, in float64."""
        return not any(self.differ.values()) and all(a == b for a, b in (*self.additions.values(), *self.macs.values()))

    def as_dict(self):
        """Plain numbers for JSON; of trains, how many spikes each layer fired."""
        pairs = sum(train.numel() for train in self.trains.values())
        flipped = sum(self.differ_float32.values())
        return {
            "equal": self.equal,
            "spikes": {name: int(train.sum()) for name, train in self.trains.items()},
            "differ": self.differ,
            "differ_float32": self.differ_float32,
            "flipped_float32": flipped / pairs if pairs else 0.0,
            "additions": {".".join(key): list(both) for key, both in self.additions.items()},
            "macs": {".".join(key): list(both) for key, both in self.macs.items()},
            "seconds": self.seconds,
        }


@torch.no_grad()
def prove(network, x, lengths=None):
    """Runs ``network`` as it is, and converted, on one utterance.

    Arguments
    ---------
    network : nn.Module
        In evaluation mode, ``forward(x, lengths)``; it stays as it is.
    x : Tensor (1, L, C)
    lengths : Tensor (1,), optional

    Returns
    -------
    Proof

    Raises
    ------
    ConversionError
        The network cannot be converted: see :func:`spikebrain.convert.ready.check`.
    ValueError
        For more than one utterance.
    """
    if len(x) != 1:
        raise ValueError(f"x holds {len(x)} utterances: trains are kept of one, pass x[:1]")
    double = copy.deepcopy(network).double()
    trained, plain = _heard(double, x.double(), lengths)
    events, run, _ = _simulated(double, x.double(), lengths)
    single, _ = _heard(network, x, lengths)
    events_single, _, seconds = _simulated(network, x, lengths)
    return Proof(
        trains=single,
        differ=_unlike(trained, events),
        differ_float32=_unlike(single, events_single),
        additions=_beside(run.accumulates, plain.accumulates),
        macs=_beside(run.macs, plain.macs),
        seconds=seconds,
    )


def _fires(module):
    return next((method for kind, method in FIRES.items() if isinstance(module, kind)), None)


def _heard(network, x, lengths):
    """(layer -> train, Simulation) of a plain run."""
    with Trains(network) as trains:
        run = told(network, x, lengths)
    return trains.layers, run


def _simulated(network, x, lengths):
    """(layer -> train, Simulation, seconds) of a run on events."""
    driven = convert(network)
    began = time.monotonic()
    with Trains(driven) as trains:
        run = simulate(driven, x, lengths)
    return trains.layers, run, time.monotonic() - began


def _unlike(one, other):
    return {name: int((train != other[name]).sum()) for name, train in one.items()}


def _beside(made, counted):
    return {key: (int(made.get(key, 0)), int(counted.get(key, 0))) for key in {**counted, **made}}
