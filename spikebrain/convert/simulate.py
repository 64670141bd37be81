"""Runs a network on binary events, and counts what was added."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from spikebrain import operands
from spikebrain.convert.fold import fold_batchnorm
from spikebrain.convert.unroll import check_unrolled, unroll_levels


@dataclass(frozen=True)
class Simulation:
    """What a run on events gave.

    out : Tensor, of the network's forward
    spikes : dict, layer of neurons -> Tensor (C,), float64, how often each fired
    accumulates : dict, (layer, part) -> additions that were made
    macs : dict, (layer, part) -> multiplications that were left, of products without a spike
    """

    out: torch.Tensor
    spikes: dict
    accumulates: dict
    macs: dict


def convert(network):
    """``network`` ready for :func:`simulate`: batch norms folded, levels unrolled. Re-parameterise it before, where wanted."""
    return unroll_levels(fold_batchnorm(network))


@torch.no_grad()
def simulate(network, x, lengths=None):
    """Runs a converted network, layer after layer, event by event.

    Arguments
    ---------
    network : nn.Module
        From :func:`spikebrain.convert.unroll_levels`, in evaluation mode.
    x, lengths
        What its ``forward`` takes.

    Returns
    -------
    Simulation
        Sums over valid frames; ``out`` is the first value where forward returns several.

    Raises
    ------
    ConversionError
        For a network that was not unrolled, or is in training mode; for counts of events that are none.
    """
    check_unrolled(network)
    names = {module: name for name, module in network.named_modules()}
    spikes, accumulates, macs = {}, defaultdict(int), defaultdict(int)

    def hear(event):
        name = names[event.module]
        if isinstance(event, operands.Firing):
            spikes[name] = spikes.get(name, 0) + event.counts
        elif event.accumulates is None:
            macs[name, event.part] += event.macs
        else:
            accumulates[name, event.part] += event.accumulates

    with operands.listen(hear):
        out = network(x, lengths)
    return Simulation(out[0] if isinstance(out, tuple) else out, spikes, dict(accumulates), dict(macs))
