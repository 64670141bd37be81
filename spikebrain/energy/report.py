"""Energy of one utterance, beside the non-spiking twin's.

Three scopes, each holding the one before: ``encoder_blocks``, ``encoder+frontend`` (and the
projection between them), ``full`` (and CTC and decoder). In every scope the total is the
sum of its lines; a line is one product of the network, or the scope before.

A product with a spike as operand costs one accumulation for every addition that its spikes
leave, any other product one multiply-accumulate for each of its ``macs``. All numbers are
means over the utterances of a split, over their own frames only.
"""

from spikebrain.energy.analytic import macs
from spikebrain.energy.count import inside
from spikebrain.energy.prices import HOROWITZ_FP32, millijoules

SCOPES = ("encoder_blocks", "encoder+frontend", "full")
NOT_COUNTED = (
    "softmax and other elementwise functions",
    "normalisation layers",
    "hierarchical decay mask",
    "positional encodings and embeddings",
    "biases and residual additions",
    "membrane updates and comparisons of neurons",
    "feature extraction",
    "beam search beyond one hypothesis",
    "memory traffic and leakage",
)


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
    _check(counter, sizes)
    number = len(counter.feature_frames)
    parts = macs(sizes, counter.feature_frames, counter.decoder_steps)
    price = _Pricer(prices, number)
    twin = {scope: [price.mac(name, count) for name, count in parts[scope].items()] for scope in parts}
    spiking = {
        "encoder": _encoder_lines(counter, sizes, price) if sizes.spiking else twin["encoder"],
        "frontend": _frontend_lines(counter, sizes, parts["frontend"], price, frontend_spiking),
        "decoder": twin["decoder"],
    }
    if not decoder_as_mac:
        twin["decoder"] = spiking["decoder"] = []
    flags = {"frontend_spiking": any(line["operation"] == "ac" for line in spiking["frontend"]), "decoder_as_mac": decoder_as_mac}
    return _scopes(spiking, twin) | {"counting": _counting(counter, sizes, prices, flags)}


class _Pricer:
    """Turns a count over a split into a line an utterance."""

    def __init__(self, prices, utterances):
        self.prices, self.utterances = prices, utterances

    def mac(self, name, count):
        return self._line(name, "mac", count, self.prices.mac_pJ)

    def accumulate(self, name, count):
        return self._line(name, "ac", count, self.prices.ac_pJ)

    def operations(self, name, operations):
        if operations.accumulates is None:
            return self.mac(name, operations.macs)
        return self.accumulate(name, operations.accumulates)

    def _line(self, name, operation, count, price_pJ):
        mean = count / self.utterances
        return {"line": name, "operation": operation, "count": mean, "mJ": millijoules(mean, price_pJ)}


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


def _scopes(spiking, twin):
    scopes, inner = {}, None
    for scope, part in zip(SCOPES, ("encoder", "frontend", "decoder"), strict=True):
        lines, twin_lines = list(spiking[part]), list(twin[part])
        if inner is not None:
            lines.insert(0, _inner_line(inner, scopes[inner]["mJ"]))
            twin_lines.insert(0, _inner_line(inner, scopes[inner]["twin_mJ"]))
        scopes[scope] = {"mJ": _total(lines), "twin_mJ": _total(twin_lines), "lines": lines, "twin_lines": twin_lines}
        inner = scope
    return scopes


def _inner_line(scope, energy):
    return {"line": scope, "operation": "scope", "count": None, "mJ": energy}


def _total(lines):
    return sum(line["mJ"] for line in lines)


def _counting(counter, sizes, prices, flags):
    number = len(counter.feature_frames)
    frames = sum(sizes.encoder_frames(count) for count in counter.feature_frames)
    means = {"encoder_frames": frames / number, "decoder_steps": sum(counter.decoder_steps) / number}
    left_out = list(NOT_COUNTED) if flags["decoder_as_mac"] else [*NOT_COUNTED, "CTC and decoder"]
    return {"utterances": number, **means, **flags, "prices": prices.as_dict(), "not_counted": left_out}


def _check(counter, sizes):
    if not counter.feature_frames:
        raise ValueError("no utterances were counted: call add_utterances for every batch of the split")
    foreign = [name for name, _ in counter.products if not inside(name, sizes.encoder) and not inside(name, sizes.frontend)]
    if foreign:
        raise ValueError(f"{foreign[0]} told of a product, but is neither in {sizes.encoder} nor in {sizes.frontend}: it has no scope")
    told = [name for name, _ in counter.products if inside(name, sizes.encoder)]
    if told and not sizes.spiking:
        raise ValueError(f"{told[0]} told of a product, but {sizes.encoder} is counted by formula: it would be counted twice")
    silent = counter.silent(sizes.encoder) if sizes.spiking else []
    if silent:
        raise ValueError(f"{silent[0]} holds a weight but told of no product, so its energy is unknown ({len(silent)} such layers)")
    _check_frames(counter, sizes)


def _check_frames(counter, sizes):
    frames = sum(sizes.encoder_frames(count) for count in counter.feature_frames)
    for module, name in counter.modules.items():
        spikes = counter.spikes.get(name) if inside(name, sizes.encoder) else None
        if spikes is None:
            continue
        # Neurons that step through T binary micro-steps see every frame T times.
        heard = spikes.frames * spikes.levels / getattr(module, "levels", spikes.levels)
        if heard != frames:
            raise ValueError(
                f"{name} fired over {heard:g} frames, the utterances have {frames}: "
                "padding was counted, or add_utterances was not called for each batch heard"
            )
