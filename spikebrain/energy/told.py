"""Energy of one utterance from what the network's layers told, without a formula of the network.

For networks that no formula of :mod:`spikebrain.energy.analytic` counts, such as classifiers: every product that a layer told
of is a line, and the twin without spikes computes the same products densely. Linear layers outside of the encoder's
blocks that tell of nothing (a projection of features, the output layer) hear real numbers and are counted by their size.
"""

from torch import nn

from spikebrain.energy.count import Operations, inside
from spikebrain.energy.prices import HOROWITZ_FP32
from spikebrain.energy.scopes import PARTS, Pricer, assemble, check_frames, check_products, check_utterances
from spikebrain.operands import Kind


def report_told(counter, blocks, encoder, prices=HOROWITZ_FP32):
    """Energy by scope of the utterances that ``counter`` has seen, in the form of :func:`spikebrain.energy.report`.

    Arguments
    ---------
    counter : Counter
        After an evaluation.
    blocks : str
        Name of the encoder's blocks: the scope ``encoder_blocks``.
    encoder : str
        Name of the encoder with what it reads features with: with it the scope ``encoder+frontend``; everything else is ``full``.
    prices : Prices

    Returns
    -------
    dict
        scope -> ``{"mJ", "twin_mJ", "lines", "twin_lines"}``, and ``counting``.

    Raises
    ------
    ValueError
        As for :func:`spikebrain.energy.report`; and for a layer outside of the blocks that holds a weight, told of no
        product and is not linear, so that its operations are unknown.
    """
    frames = sum(counter.feature_frames)
    check_utterances(counter)
    check_products(counter, blocks)
    check_frames(counter, blocks, frames)
    price = Pricer(prices, len(counter.feature_frames))
    lines, twin = {part: [] for part in PARTS}, {part: [] for part in PARTS}
    for name, label, operations in _products(counter, blocks, frames):
        part = "encoder" if inside(name, blocks) else "frontend" if inside(name, encoder) else "decoder"
        lines[part].append(price.operations(label, operations))
        twin[part].append(price.mac(label, operations.macs))
    return assemble(counter, frames, prices, lines, twin)


def _products(counter, blocks, frames):
    """(layer, label, Operations) of every product: those told, then the silent linear layers outside of the blocks."""
    for (name, part), operations in counter.products.items():
        yield name, f"{name}.{part}", operations
    modules = {name: module for module, name in counter.modules.items()}
    tellers = {name for name, _ in counter.products}
    for name in counter.silent():
        # Inside of the blocks each layer tells of itself, or the check refuses it; elsewhere a module may tell of the layer that it holds.
        if inside(name, blocks) or any(inside(name, teller) for teller in tellers):
            continue
        if not isinstance(modules[name], nn.Linear):
            raise ValueError(f"{name} ({type(modules[name]).__name__}) holds a weight but told of no product, so its energy is unknown")
        yield name, f"{name}.weight", Operations(Kind.REAL, Kind.REAL, frames * modules[name].weight.numel(), None)
