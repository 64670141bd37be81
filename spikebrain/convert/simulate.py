"""Runs a network, on binary events or as it is, and adds up what its layers tell."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from spikebrain import operands
from spikebrain.convert.fold import fold_batchnorm
from spikebrain.convert.ready import ConversionError
from spikebrain.convert.unroll import Driven, check_unrolled, unroll_levels


@dataclass(frozen=True)
class Simulation:
    """What a run gave.

    out : Tensor, of the network's forward
    spikes : dict, layer of neurons -> Tensor (C,), float64, how often each fired
    accumulates : dict, (layer, part) -> additions: made, in a run on events, else worked out
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
        For a network that was not unrolled, or is in training mode; for counts of events that are none; and for a layer that tells of
        additions that nobody made, since it has no form for events.
    """
    check_unrolled(network)
    layers = [module for module in network.modules() if isinstance(module, Driven)]
    driven = {module for layer in layers for module in (layer, *layer.children())}  # a layer may tell of one that it holds
    names = {module: name for name, module in network.named_modules()}

    def refuse(event):
        """Refuses additions that nobody made."""
        if isinstance(event, operands.Product) and event.accumulates is not None and event.module not in driven:
            what = f"{names[event.module]}.{event.part} ({type(event.module).__name__}) reads spikes and has no form for events"
            raise ConversionError(f"{what}, so that its additions would be worked out, not made: convert what lies behind it")

    with operands.listen(refuse):
        return told(network, x, lengths)


@torch.no_grad()
def told(network, x, lengths=None):
    """Runs any network as it is, converted or not: a :class:`Simulation` of what its layers tell; arguments as for :func:`simulate`."""
    names = {module: name for name, module in network.named_modules()}
    spikes, accumulates, macs = {}, defaultdict(int), defaultdict(int)

    def hear(event):
        """Adds up what a layer says."""
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
