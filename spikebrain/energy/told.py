"""Energy of one utterance from what the network's layers told, without a formula of the network.

For networks that no formula of :mod:`spikebrain.energy.analytic` counts, such as classifiers: every product that a layer told
of is a line, and the twin without spikes computes the same products densely. Linear layers outside of the encoder's
blocks that tell of nothing (a projection of features, the output layer) hear real numbers and are counted by their size. Behind a
:class:`Conv2dSubsampling` the encoder hears fewer frames.
"""

from dataclasses import replace

import torch
from torch import nn

from spikebrain.blocks.subsampling import Conv2dSubsampling, subsampled_frames
from spikebrain.energy.count import inside
from spikebrain.energy.further import further
from spikebrain.energy.ledger import Count, Ledger, by_part
from spikebrain.energy.orders import orders
from spikebrain.energy.positions import Positions, covering, unknown
from spikebrain.energy.prices import HOROWITZ_FP32
from spikebrain.energy.scopes import assemble, check_frames, check_products, check_utterances

_ONCE = {"SpikingEmbedding": "head"}  # layers behind the pooling of an utterance, by the class that holds them


def report_told(counter, blocks, encoder, prices=HOROWITZ_FP32, integer_prices=None):
    """Energy by scope of the utterances that ``counter`` has seen, in the form of :func:`spikebrain.energy.report`.

    Arguments
    ---------
    counter : Counter
        After an evaluation.
    blocks : str
        Name of the encoder's blocks: the scope ``encoder_blocks``.
    encoder : str
        Name of the encoder with what it reads features with: with it, and a :class:`Conv2dSubsampling` wherever it is, the scope
        ``encoder+frontend``; everything else is ``full``.
    prices, integer_prices : Prices
        As for :func:`spikebrain.energy.report`.

    Returns
    -------
    dict
        As :func:`spikebrain.energy.report` does.

    Raises
    ------
    ValueError
        As for :func:`spikebrain.energy.report`; and for a layer outside of the blocks that holds a weight, told of no
        product and is not linear, so that its operations are unknown.
    """
    subsampling = {name: module for module, name in counter.modules.items() if isinstance(module, Conv2dSubsampling)}
    heard = torch.as_tensor(counter.feature_frames, dtype=torch.long)
    for module in subsampling.values():
        heard = subsampled_frames(heard, module.factor)
    frames, fronts = int(heard.sum()), (encoder, *subsampling)
    check_utterances(counter)
    check_products(counter, blocks)
    check_frames(counter, blocks, frames)
    positions = Positions(counter, frames, formula=_silent(counter, blocks, frames))

    def part_of(name):
        """The part of the network that a layer is in."""
        return "encoder" if inside(name, blocks) else "frontend" if any(inside(name, front) for front in fronts) else "decoder"

    network = by_part(part_of, _products(positions))
    apart = by_part(part_of, [(work.line, work) for work in further(positions)])
    ledger = Ledger(network, {}, apart, orders(positions))
    return assemble(positions, replace(ledger, twin=ledger.dense()), prices, integer_prices)


def _products(positions):
    """(layer, :class:`Count`) of every product: those told, then the silent linear layers outside of the blocks."""
    for (name, part), told in positions.counter.products.items():
        yield name, Count(f"{name}.{part}", told.macs, told.accumulates, positions.micro_steps(name))
    modules = {name: module for module, name in positions.counter.modules.items()}
    for name, rows in positions.formula.items():
        yield name, Count(f"{name}.weight", rows * modules[name].weight.numel())


def _silent(counter, blocks, frames):
    """{layer: positions} of linear layers that tell of nothing, which hear real numbers.

    Inside of the blocks each layer tells of itself, or the check refuses it; elsewhere a module may tell of the layer that it holds.
    """
    modules = {name: module for module, name in counter.modules.items()}
    found = {}
    for name in counter.silent():
        if inside(name, blocks) or covering(counter, name) or isinstance(modules[name], nn.Embedding):
            continue
        if not isinstance(modules[name], nn.Linear):
            raise ValueError(unknown(name, modules[name]))
        holder, _, own = name.rpartition(".")
        once = _ONCE.get(type(modules.get(holder)).__name__) == own
        found[name] = len(counter.feature_frames) if once else frames
    return found
