"""What was counted of a network, part by part, before it has a price."""

from dataclasses import dataclass
from typing import NamedTuple

PARTS = ("encoder", "frontend", "decoder")  # what each scope adds to the one before


class Count(NamedTuple):
    """One product over a split.

    line : its name
    macs : multiply-accumulates of a dense implementation
    accumulates : additions that spikes leave of them, None where no operand is a spike
    steps : how often ``macs`` counts a frame: T where micro-steps are folded into the batch, else 1
    """

    line: str
    macs: int
    accumulates: float | None = None
    steps: int = 1

    @property
    def dense(self):
        """The same product of a network without spikes, which hears every frame once."""
        return Count(self.line, self.macs // self.steps)


@dataclass(frozen=True)
class Ledger:
    """Everything that a report prices.

    network, twin : dict, one of ``PARTS`` -> list of :class:`Count`, of the network and of its twin without spikes
    further : dict, one of ``PARTS`` -> list of :class:`spikebrain.energy.further.Work`
    orders : list of :class:`spikebrain.energy.orders.Orders`
    """

    network: dict
    twin: dict
    further: dict
    orders: list

    def without(self, part):
        """The same without what belongs to ``part``."""
        empty = {part: []}
        return Ledger(self.network | empty, self.twin | empty, self.further | empty, self.orders)

    def unfused(self):
        """The network's products as one without spikes would compute them too: it has no use for one matrix of D x D a head."""
        lines = {count.line for counts in self.network.values() for count in counts}
        if all(count.line in lines for one in self.orders for count in one.unfused):
            return self.network
        return self.in_order("unfused")[0]

    def dense(self):
        """The same, each heard once a frame and without spikes: one of ``PARTS`` -> list of :class:`Count`."""
        return {part: [count.dense for count in counts] for part, counts in self.unfused().items()}

    def in_order(self, order):
        """(network, the counts that differ) with the scores of its attention in one of the fields of ``Orders``."""
        other = {count.line for one in self.orders for count in (*one.unfused, *one.reparameterised)}
        chosen = [count for one in self.orders for count in getattr(one, order)]
        network = {part: [count for count in counts if count.line not in other] for part, counts in self.network.items()}
        return network | {"encoder": network["encoder"] + chosen}, chosen


def by_part(part_of, entries):
    """``entries`` (part's layer, entry) sorted into a dict of lists, one of ``PARTS`` each, by ``part_of(layer)``."""
    sorted_out = {part: [] for part in PARTS}
    for layer, entry in entries:
        sorted_out[part_of(layer)].append(entry)
    return sorted_out
