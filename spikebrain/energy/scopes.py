"""What every report of energy is made of: checks of what was counted, priced lines, and the scopes that add them up.

Three scopes, each holding the one before: ``encoder_blocks``, ``encoder+frontend`` (and what lies between them), ``full``. Each
adds one part of the network. In every scope the total is the sum of its lines; a line is one product of the network, or the
scope before. All numbers are means over the utterances of a split, over their own frames only.
"""

from spikebrain.energy.count import inside
from spikebrain.energy.prices import millijoules

SCOPES = ("encoder_blocks", "encoder+frontend", "full")
PARTS = ("encoder", "frontend", "decoder")  # what each scope adds to the one before
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


class Pricer:
    """Turns counts over a split into lines of one utterance.

    A line is ``{"line", "operation", "count", "mJ"}``: its name, ``"mac"`` or ``"ac"``, and the mean of a split's utterances.

    Arguments
    ---------
    prices : Prices
        What an operation costs.
    utterances : int
        How many the counts are of, at least 1.
    """

    def __init__(self, prices, utterances):
        self.prices, self.utterances = prices, utterances

    def mac(self, name, count):
        """The line of ``count`` multiply-accumulates."""
        return self._line(name, "mac", count, self.prices.mac_pJ)

    def accumulate(self, name, count):
        """The line of ``count`` accumulations."""
        return self._line(name, "ac", count, self.prices.ac_pJ)

    def operations(self, name, operations):
        """The line of a product's :class:`Operations`: the accumulations that its spikes leave, or all macs where no operand spikes."""
        if operations.accumulates is None:
            return self.mac(name, operations.macs)
        return self.accumulate(name, operations.accumulates)

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


def assemble(counter, frames, prices, lines, twin, decoder_as_mac=True):
    """The report of priced lines.

    Arguments
    ---------
    counter : Counter
        What the lines were counted with.
    frames : int
        Frames of the encoder, over all utterances of ``counter``.
    prices : Prices
        What the lines were priced with.
    lines, twin : dict
        One of ``PARTS`` -> list of lines of a :class:`Pricer`, of the network and of its twin without spikes.
    decoder_as_mac : bool
        False leaves the part ``decoder`` out of ``full``, and says so.

    Returns
    -------
    dict
        What :func:`spikebrain.energy.report` returns.
    """
    if not decoder_as_mac:
        lines, twin = lines | {"decoder": []}, twin | {"decoder": []}
    flags = {"frontend_spiking": any(line["operation"] == "ac" for line in lines["frontend"]), "decoder_as_mac": decoder_as_mac}
    return _by_scope(lines, twin) | {"counting": _counting(counter, frames, prices, flags)}


def _by_scope(lines, twin):
    scopes, inner = {}, None
    for scope, part in zip(SCOPES, PARTS, strict=True):
        own, twins = list(lines[part]), list(twin[part])
        if inner is not None:
            own.insert(0, _inner_line(inner, scopes[inner]["mJ"]))
            twins.insert(0, _inner_line(inner, scopes[inner]["twin_mJ"]))
        scopes[scope] = {"mJ": _total(own), "twin_mJ": _total(twins), "lines": own, "twin_lines": twins}
        inner = scope
    return scopes


def _inner_line(scope, energy):
    return {"line": scope, "operation": "scope", "count": None, "mJ": energy}


def _total(lines):
    return sum(line["mJ"] for line in lines)


def _counting(counter, frames, prices, flags):
    number = len(counter.feature_frames)
    means = {"encoder_frames": frames / number, "decoder_steps": sum(counter.decoder_steps) / number}
    left_out = list(NOT_COUNTED) if flags["decoder_as_mac"] else [*NOT_COUNTED, "CTC and decoder"]
    return {"utterances": number, **means, **flags, "prices": prices.as_dict(), "not_counted": left_out}
