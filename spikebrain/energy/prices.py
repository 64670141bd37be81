"""What one operation costs, as data.

A table names its source, its technology node and the width of its operands; a
multiply-accumulate is one product and one sum, an accumulation is one sum.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """One row of a published cost table.

    name : short name, written beside every energy made with it
    multiply_pJ, add_pJ : energy of one product and of one sum, in picojoules
    bits : width of the operands
    number : ``"float"`` or ``"integer"``
    node_nm : technology node in nanometres
    source : where the two numbers stand
    sum_bits : width of the sums, where it is not that of the operands
    """

    name: str
    multiply_pJ: float
    add_pJ: float
    bits: int
    number: str
    node_nm: int
    source: str
    sum_bits: int | None = None

    @property
    def mac_pJ(self):
        """Energy of one multiply-accumulate, in picojoules."""
        return round(self.multiply_pJ + self.add_pJ, 12)

    @property
    def ac_pJ(self):
        """Energy of one accumulation, in picojoules."""
        return self.add_pJ

    def of(self, operation):
        """Energy of one of the :data:`PRICED` operations in picojoules, None for any other: no table lists it."""
        return {"multiply": self.multiply_pJ, "add": self.add_pJ, "compare": self.add_pJ}.get(operation)

    def as_dict(self):
        """The table as plain JSON values, for ``results.json``."""
        keys = ("name", "mac_pJ", "ac_pJ", "bits", "sum_bits", "number", "node_nm", "source")
        values = (self.name, self.mac_pJ, self.ac_pJ, self.bits, self.sum_bits or self.bits, self.number, self.node_nm, self.source)
        return dict(zip(keys, values, strict=True))


PRICED = ("multiply", "add", "compare")  # a comparison is a difference whose sign is looked at: priced as a sum (ours)


_HOROWITZ = "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, Fig. 1.1.9 (45 nm, 0.9 V)"
_JOUPPI = "N. Jouppi et al., Ten lessons from three generations shaped Google's TPUv4i, ISCA 2021, Table 2 (7 nm)"

# The literature's default: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulation.
HOROWITZ_FP32 = Prices("horowitz_fp32", 3.7, 0.9, 32, "float", 45, _HOROWITZ)
HOROWITZ_FP16 = Prices("horowitz_fp16", 1.1, 0.4, 16, "float", 45, _HOROWITZ)
# Sums as wide as the products, so a lower bound: real int8 engines add in 32 bits (0.1 pJ).
HOROWITZ_INT8 = Prices("horowitz_int8", 0.2, 0.03, 8, "integer", 45, _HOROWITZ)
HOROWITZ_INT8_SUM32 = Prices("horowitz_int8_sum32", 0.2, 0.1, 8, "integer", 45, _HOROWITZ, 32)
HOROWITZ_INT32 = Prices("horowitz_int32", 3.1, 0.1, 32, "integer", 45, _HOROWITZ)
JOUPPI_INT8_SUM32 = Prices("jouppi_int8_sum32", 0.07, 0.03, 8, "integer", 7, _JOUPPI, 32)

_EVERY = (HOROWITZ_FP32, HOROWITZ_FP16, HOROWITZ_INT8, HOROWITZ_INT8_SUM32, HOROWITZ_INT32, JOUPPI_INT8_SUM32)
TABLES = {table.name: table for table in _EVERY}


def bits_of(levels):
    """Width in bits of an activation that is one of 0..``levels``: ceil(log2(levels + 1))."""
    return int(levels).bit_length()


def integer_table(levels, node_nm):
    """The table for products of integers 0..``levels`` at a node: of those that add in 32 bits the narrowest that is wide enough.

    No table lists 3 bits: activations of 6 levels are priced as 8-bit ones, and so are the weights that they meet.

    Raises
    ------
    ValueError
        Where no table is wide enough, or there is none for the node.
    """
    sums = [table for table in TABLES.values() if table.number == "integer" and (table.sum_bits or table.bits) == 32]
    wide = [table for table in sums if table.node_nm == node_nm]
    fitting = [table for table in wide if table.bits >= bits_of(levels)]
    if not fitting:
        listed = ", ".join(f"{table.name} ({table.bits} bits)" for table in wide) or "none"
        raise ValueError(f"{levels} levels need {bits_of(levels)} bits at {node_nm} nm, listed: {listed}: give integer_prices")
    return min(fitting, key=lambda table: table.bits)


def millijoules(operations, price_pJ):
    """Energy in mJ of ``operations`` that cost ``price_pJ`` picojoules each (1 mJ = 1e9 pJ)."""
    return operations * price_pJ * 1e-9


def saving(energy, reference):
    """Share of ``reference``, above 0, that ``energy`` saves, both in one unit: 1 - energy / reference.

    SpikeSCR's abstract says 54.8 %: 0.0142 mJ at 40 time steps against 0.0314 mJ at 100, of its two-block model.

    Example
    -------
    >>> round(saving(0.0142, 0.0314), 3)
    0.548
    """
    return 1 - energy / reference
