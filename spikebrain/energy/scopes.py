"""What every report of energy is made of: checks of what was counted, priced lines, and the scopes that add them up.

Three scopes, each holding the one before: ``encoder_blocks``, ``encoder+frontend`` (and what lies between them), ``full``. Each
adds one part of the network. In every scope a total is the sum of its lines; a line is one product of the network, or the
scope before. All numbers are means over the utterances of a split, over their own frames only.

Beside the network stand two that do not spike. Its twin multiplies every product densely, at the network's own prices. The
quantised twin (ours) is the fairer one: wherever the network fires up to T spikes, it has an activation of T + 1 levels, which
ceil(log2(T + 1)) bits hold, and multiplies integers. What the network multiplies as real numbers (the first layer, scores, CTC and
decoder) stays real in it. It is priced by the narrowest listed integer table that is wide enough, and the spiking network once more by
the same table, so that the two differ in nothing but in adding events instead of multiplying. That attention weights, which are
real, are integers in it too where they meet spikes, is to its advantage.
"""

from spikebrain.energy.count import inside
from spikebrain.energy.further import COUNTED_APART
from spikebrain.energy.ledger import PARTS
from spikebrain.energy.prices import PRICED, bits_of, integer_table, millijoules

SCOPES = ("encoder_blocks", "encoder+frontend", "full")
NOT_COUNTED = (
    "memory traffic and leakage",
    "feature extraction and normalisation of features",
    "softmax of the outputs, and beam search beyond one hypothesis",
)


class Pricer:
    """Turns counts over a split into lines of one utterance.

    A line is ``{"line", "operation", "count", "mJ"}``: its name, ``"mac"``, ``"ac"`` or ``"int_mac"``, and the mean of a split's
    utterances.

    Arguments
    ---------
    prices : Prices
        What an operation costs.
    utterances : int
        How many the counts are of, at least 1.
    integers : Prices, optional
        What an operation on integers costs.
    """

    def __init__(self, prices, utterances, integers=None):
        self.prices, self.utterances, self.integers = prices, utterances, integers

    def line(self, count):
        """The line of a :class:`Count`: the accumulations that spikes leave, or all macs where no operand spikes."""
        if count.accumulates is None:
            return self._line(count.line, "mac", count.macs, self.prices.mac_pJ)
        return self._line(count.line, "ac", count.accumulates, self.prices.ac_pJ)

    def integer(self, count):
        """The same, accumulations at the integers' price."""
        if count.accumulates is None:
            return self.line(count)
        return self._line(count.line, "ac", count.accumulates, self.integers.ac_pJ)

    def quantised(self, count):
        """The line of the quantised twin: integer products where the network reads spikes, its real products elsewhere."""
        if count.accumulates is None:
            return self.line(count.dense)
        return self._line(count.line, "int_mac", count.dense.macs, self.integers.mac_pJ)

    def work(self, work):
        """The line of a :class:`Work`: ``{"line", "kind", "operations", "mJ", "unpriced"}``; ``mJ`` is None where nothing has a price."""
        means = {name: count / self.utterances for name, count in work.operations.items()}
        priced = [millijoules(count, self.prices.of(name)) for name, count in means.items() if name in PRICED]
        cost = {"mJ": sum(priced) if priced else None, "unpriced": [name for name in means if name not in PRICED]}
        return {"line": work.line, "kind": work.kind, "operations": means, **cost}

    def _line(self, name, operation, count, price_pJ):
        mean = count / self.utterances
        return {"line": name, "operation": operation, "count": mean, "mJ": millijoules(mean, price_pJ)}


def check_utterances(counter):
    """Raises ValueError when ``counter`` was told of no utterance, so that there is no mean."""
    if not counter.feature_frames:
        raise ValueError("no utterances were counted: call add_utterances for every batch of the split")


def check_products(counter, encoder):
    """Raises ValueError when a layer inside the module called ``encoder`` holds a weight but told of no product; names the first."""
    silent = counter.silent(encoder)
    if silent:
        raise ValueError(f"{silent[0]} holds a weight but told of no product, so its energy is unknown ({len(silent)} such layers)")


def check_frames(counter, encoder, frames):
    """Raises ValueError when neurons inside the module called ``encoder`` fired over another number of frames; names the first.

    ``frames`` are the encoder's, over all utterances that ``counter`` was told of.
    """
    for module, name in counter.modules.items():
        spikes = counter.spikes.get(name) if inside(name, encoder) else None
        if spikes is None:
            continue
        # Neurons that step through T binary micro-steps see every frame T times.
        heard = spikes.frames * spikes.levels / getattr(module, "levels", spikes.levels)
        if heard != frames:
            raise ValueError(
                f"{name} fired over {heard:g} frames, the utterances have {frames}: "
                "padding was counted, or add_utterances was not called for each batch heard"
            )


def assemble(positions, ledger, prices, integer_prices=None, decoder_as_mac=True):
    """The report of what was counted.

    Arguments
    ---------
    positions : Positions
    ledger : Ledger
    prices : Prices
        What an operation costs.
    integer_prices : Prices, optional
        What one on integers costs; by default :func:`spikebrain.energy.prices.integer_table` chooses.
    decoder_as_mac : bool
        False leaves the part ``decoder`` out of ``full``, and says so.

    Returns
    -------
    dict
        What :func:`spikebrain.energy.report` returns.
    """
    levels = positions.counter.levels()
    integers = integer_prices or (integer_table(levels, prices.node_nm) if levels else None)
    pricer = Pricer(prices, positions.utterances, integers)
    ledger = ledger if decoder_as_mac else ledger.without("decoder")
    scopes = {scope: {} for scope in SCOPES}
    _add_up(scopes, "mJ", "lines", _priced(ledger.network, pricer.line))
    _add_up(scopes, "twin_mJ", "twin_lines", _priced(ledger.twin, pricer.line))
    _add_up(scopes, "further_mJ", "further", _priced(ledger.further, pricer.work), _INNER_WORK)
    _add_unpriced(scopes)
    if levels:
        _add_quantised(scopes, ledger, pricer)
    if ledger.orders:
        _add_orders(scopes, ledger, pricer)
    spiking = any(count.accumulates is not None for count in ledger.network["frontend"])
    flags = {"frontend_spiking": spiking, "decoder_as_mac": decoder_as_mac}
    return scopes | {"counting": _counting(positions, prices, flags, levels, integers)}


_INNER = {"operation": "scope", "count": None}
_INNER_WORK = {"kind": "scope", "operations": {}, "unpriced": []}


def _priced(parts, price):
    return {part: [price(entry) for entry in entries] for part, entries in parts.items()}


def _add_up(scopes, total, key, parts, inner=_INNER):
    """Puts into every scope the lines of its part, behind one of the scope before, and what they add up to."""
    before = []
    for (scope, entry), part in zip(scopes.items(), PARTS, strict=True):
        entry[key] = before + parts[part]
        entry[total] = sum(line["mJ"] or 0.0 for line in entry[key])
        before = [{"line": scope, **inner, "mJ": entry[total]}]


def _add_unpriced(scopes):
    """``further_unpriced`` of every scope: how often it computes what has no price."""
    numbers = {}
    for entry in scopes.values():
        for line in entry["further"]:
            for name in line["unpriced"]:
                numbers[name] = numbers.get(name, 0) + line["operations"][name]
        entry["further_unpriced"] = dict(numbers)


def _add_quantised(scopes, ledger, pricer):
    """The quantised twin, and the spiking network at the prices of integers."""
    _add_up(scopes, "quantised_mJ", "quantised_lines", _priced(ledger.unfused(), pricer.quantised))
    for entry, energy in zip(scopes.values(), _totals(ledger.network, pricer.integer), strict=True):
        entry["integer_mJ"] = energy
        entry["quantised_ratio"] = energy / entry["quantised_mJ"] if entry["quantised_mJ"] else None


def _add_orders(scopes, ledger, pricer):
    """Every scope with the scores of its attention in either order."""
    for order in ("unfused", "reparameterised"):
        network, chosen = ledger.in_order(order)
        lines = [pricer.line(count) for count in chosen]
        for entry, energy in zip(scopes.values(), _totals(network, pricer.line), strict=True):
            entry.setdefault("orders", {})[order] = {"mJ": energy, "lines": lines}


def _totals(network, price):
    """Energy of every scope."""
    own = [sum(price(count)["mJ"] for count in network[part]) for part in PARTS]
    return [sum(own[: number + 1]) for number in range(len(own))]


def _counting(positions, prices, flags, levels, integers):
    number = positions.utterances
    means = {"encoder_frames": positions.frames / number, "decoder_steps": sum(positions.counter.decoder_steps) / number}
    left_out = list(NOT_COUNTED) if flags["decoder_as_mac"] else [*NOT_COUNTED, "CTC and decoder"]
    quantised = {"quantised": {"levels": levels, "bits": bits_of(levels), "prices": integers.as_dict()}} if levels else {}
    said = {"further": list(COUNTED_APART), "not_counted": left_out}
    return {"utterances": number, **means, **flags, "prices": prices.as_dict(), **quantised, **said}
