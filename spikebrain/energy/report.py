"""Energy of one utterance of a recogniser, beside the non-spiking twin's, which a formula counts.

A product with a spike as operand costs one accumulation for every addition that its spikes leave, any other product one
multiply-accumulate for each of its ``macs``. Beside the encoder's blocks there are front end and projection, then CTC and
decoder, in the scopes of :mod:`spikebrain.energy.scopes`.
"""

import torch

from spikebrain.energy.analytic import check_counted, macs
from spikebrain.energy.count import inside
from spikebrain.energy.further import further
from spikebrain.energy.ledger import PARTS, Count, Ledger, by_part
from spikebrain.energy.orders import orders
from spikebrain.energy.positions import Positions, has_weight
from spikebrain.energy.prices import HOROWITZ_FP32
from spikebrain.energy.scopes import assemble, check_frames, check_products, check_utterances


def report(counter, sizes, prices=HOROWITZ_FP32, frontend_spiking=None, decoder_as_mac=True, integer_prices=None):
    """Energy by scope of the utterances that ``counter`` has seen.

    Arguments
    ---------
    counter : Counter
        After an evaluation; for a non-spiking twin only its ``add_utterances`` was called.
    sizes : Architecture
        Of the same network.
    prices : Prices
        What an operation costs.
    frontend_spiking : bool, optional
        Whether what follows the front end's neurons (second convolution, projection) is priced as accumulations: by what
        the layer told, else by the measured firing, ``T R macs`` (equation 17 of the IML-Spikeformer paper). None: if it has neurons.
    decoder_as_mac : bool
        Price CTC and decoder as multiply-accumulates, or (False) leave them out of ``full`` and say so.
    integer_prices : Prices, optional
        Of the quantised twin; by default the narrowest integer table that holds its levels, at the node of ``prices``.

    Returns
    -------
    dict
        scope -> ``{"mJ", "twin_mJ", "lines", "twin_lines"}``; a line is ``{"line", "operation", "count", "mJ"}`` with
        ``operation`` ``"mac"``, ``"ac"`` or ``"scope"``. Apart from them ``"further"``, lines ``{"line", "kind", "operations", "mJ",
        "unpriced"}`` of what is no product, ``"further_mJ"`` of what has a price among it, and ``"further_unpriced"``. Where neurons
        fired, the twin of as many levels on integers: ``"quantised_mJ"``, ``"quantised_lines"``, the spiking network at the same
        prices ``"integer_mJ"``, and ``"quantised_ratio"``, integer_mJ / quantised_mJ. Where scores can be fused, ``"orders"``:
        ``"unfused"`` and ``"reparameterised"`` -> ``{"mJ", "lines"}``, the scope in that order and the lines that differ. Beside the
        scopes ``"counting"``: prices, number of utterances, mean frames and steps, flags, how the rest was counted, and what is not.

    Raises
    ------
    ValueError
        Without utterances; for a product outside encoder and front end; for a layer with a weight, wherever it is, that told of no
        product and that no formula counts; when neurons of the encoder saw other frames than the utterances have. Messages name the
        layer.
    """
    encoded = sizes.encoder_frames(torch.as_tensor(counter.feature_frames, dtype=torch.long))
    _check(counter, sizes, int(encoded.sum()))
    parts = macs(sizes, counter.feature_frames, counter.decoder_steps)
    twin = {part: [Count(*count) for count in parts[part].items()] for part in PARTS}
    positions = _positions(counter, sizes, encoded, parts["frontend"])
    if sizes.pools:
        twin["frontend"] = _told(counter, sizes.frontend, positions) + twin["frontend"]
    network = {
        "encoder": _told(counter, sizes.encoder, positions) if sizes.spiking else twin["encoder"],
        "frontend": twin["frontend"] if sizes.pools else _frontend(counter, sizes, parts["frontend"], frontend_spiking),
        "decoder": twin["decoder"],
    }
    if not sizes.blocks:
        twin["encoder"] = [count.dense for count in network["encoder"]]
    apart = by_part(lambda name: _part(sizes, name), [(work.line, work) for work in further(positions)])
    return assemble(positions, Ledger(network, twin, apart, orders(positions)), prices, integer_prices, decoder_as_mac)


def _positions(counter, sizes, encoded, frontend):
    """What is computed once a frame, once a step, or as often as the formula of the front end says."""
    steps, frames = torch.as_tensor(counter.decoder_steps, dtype=torch.long), int(encoded.sum())
    once_a_frame = [sizes.projector, "ctc_lin", *(() if sizes.spiking else (sizes.encoder,))]
    formula = {}
    for name, module in ((name, module) for module, name in counter.modules.items() if has_weight(module)):
        if name in frontend:
            formula[name] = frontend[name] // module.weight.numel()
        elif any(inside(name, place) for place in once_a_frame):
            formula[name] = frames
        elif inside(name, "seq_lin"):
            formula[name] = int(steps.sum())
    return Positions(
        counter,
        frames,
        pairs=int((encoded**2).sum()),
        steps=int(steps.sum()),
        step_pairs=int((steps**2).sum()),
        crossed=int((steps * encoded).sum()),
        decoder="Transformer.decoder",
        formula=formula,
    )


def _part(sizes, name):
    if inside(name, sizes.encoder):
        return "encoder"
    between = (sizes.frontend, sizes.projector, "Transformer.positional_encoding")
    return "frontend" if any(inside(name, one) for one in between) else "decoder"


def _told(counter, place, positions):
    told = [(name, part, told) for (name, part), told in counter.products.items() if inside(name, place)]
    return [Count(f"{name}.{part}", one.macs, one.accumulates, positions.micro_steps(name)) for name, part, one in told]


def _frontend(counter, sizes, parts, spiking):
    """The first convolution hears real numbers; what follows a layer of neurons hears its spikes."""
    neurons = [spikes for name, spikes in counter.spikes.items() if inside(name, sizes.frontend)]
    if spiking is None:
        spiking = bool(neurons)
    if spiking and len(neurons) != len(parts) - 1:
        raise ValueError(
            f"frontend_spiking: {sizes.frontend} has {len(parts) - 1} products after its first, but {len(neurons)} layers fired: "
            "build it with activation: spike, or leave frontend_spiking out"
        )
    if not spiking:
        return [Count(*count) for count in parts.items()]
    first, *rest = parts.items()
    return [Count(*first), *(_hearing(counter, *part, spikes) for part, spikes in zip(rest, neurons, strict=True))]


def _hearing(counter, name, count, spikes):
    """A layer behind ``spikes``: what it told, else its macs times the mean number of spikes a neuron fires."""
    told = counter.products.get((name, "weight"))
    if told is not None:
        return Count(name, told.macs, told.accumulates)
    return Count(name, count, count * float(spikes.rates.mean()) * spikes.levels)


def _check(counter, sizes, frames):
    check_utterances(counter)
    foreign = [name for name, _ in counter.products if not inside(name, sizes.encoder) and not inside(name, sizes.frontend)]
    if foreign:
        raise ValueError(f"{foreign[0]} told of a product, but is neither in {sizes.encoder} nor in {sizes.frontend}: it has no scope")
    told = [name for name, _ in counter.products if inside(name, sizes.encoder)]
    if sizes.spiking:
        check_products(counter, sizes.encoder)
    elif told:
        raise ValueError(f"{told[0]} told of a product, but {sizes.encoder} is counted by formula: it would be counted twice")
    check_frames(counter, sizes.encoder, frames)
    check_counted(counter, sizes)
