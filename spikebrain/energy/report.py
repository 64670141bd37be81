"""Energy of one utterance of a recogniser, beside the non-spiking twin's, which a formula counts.

A product with a spike as operand costs one accumulation for every addition that its spikes leave, any other product one
multiply-accumulate for each of its ``macs``. Beside the encoder's blocks there are front end and projection, then CTC and
decoder, in the scopes of :mod:`spikebrain.energy.scopes`.
"""

from spikebrain.energy.analytic import macs
from spikebrain.energy.count import inside
from spikebrain.energy.prices import HOROWITZ_FP32
from spikebrain.energy.scopes import Pricer, assemble, check_frames, check_products, check_utterances


def report(counter, sizes, prices=HOROWITZ_FP32, frontend_spiking=None, decoder_as_mac=True):
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

    Returns
    -------
    dict
        scope -> ``{"mJ", "twin_mJ", "lines", "twin_lines"}``; a line is ``{"line", "operation", "count", "mJ"}`` with
        ``operation`` ``"mac"``, ``"ac"`` or ``"scope"``. Beside the scopes ``"counting"``: prices, number of utterances,
        mean frames and steps, flags, and what is not counted.

    Raises
    ------
    ValueError
        Without utterances; for a product outside encoder and front end; for a layer with a weight that told of no
        product; when neurons of the encoder saw other frames than the utterances have. Messages name the layer.
    """
    frames = sum(sizes.encoder_frames(count) for count in counter.feature_frames)
    _check(counter, sizes, frames)
    parts = macs(sizes, counter.feature_frames, counter.decoder_steps)
    price = Pricer(prices, len(counter.feature_frames))
    twin = {part: [price.mac(name, count) for name, count in parts[part].items()] for part in parts}
    lines = {
        "encoder": _encoder_lines(counter, sizes, price) if sizes.spiking else twin["encoder"],
        "frontend": _frontend_lines(counter, sizes, parts["frontend"], price, frontend_spiking),
        "decoder": twin["decoder"],
    }
    return assemble(counter, frames, prices, lines, twin, decoder_as_mac)


def _encoder_lines(counter, sizes, price):
    told = [(f"{name}.{part}", told) for (name, part), told in counter.products.items() if inside(name, sizes.encoder)]
    return [price.operations(label, operations) for label, operations in told]


def _frontend_lines(counter, sizes, parts, price, spiking):
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
        return [price.mac(name, count) for name, count in parts.items()]
    first, *rest = parts.items()
    return [price.mac(*first), *(_hearing(counter, *part, spikes, price) for part, spikes in zip(rest, neurons, strict=True))]


def _hearing(counter, name, count, spikes, price):
    """The line of a layer behind ``spikes``: what it told, else its macs times the mean number of spikes a neuron fires."""
    told = counter.products.get((name, "weight"))
    if told is not None:
        return price.operations(name, told)
    return price.accumulate(name, count * float(spikes.rates.mean()) * spikes.levels)


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
