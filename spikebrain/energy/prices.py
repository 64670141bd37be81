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
    """

    name: str
    multiply_pJ: float
    add_pJ: float
    bits: int
    number: str
    node_nm: int
    source: str

    @property
    def mac_pJ(self):
        """Energy of one multiply-accumulate, in picojoules."""
        return round(self.multiply_pJ + self.add_pJ, 12)

    @property
    def ac_pJ(self):
        """Energy of one accumulation, in picojoules."""
        return self.add_pJ

    def as_dict(self):
        """The table as plain JSON values, for ``results.json``."""
        keys = ("name", "mac_pJ", "ac_pJ", "bits", "number", "node_nm", "source")
        values = (self.name, self.mac_pJ, self.ac_pJ, self.bits, self.number, self.node_nm, self.source)
        return dict(zip(keys, values, strict=True))


_HOROWITZ = "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, Fig. 1.1.9 (45 nm, 0.9 V)"

# The literature's default: 4.6 pJ a multiply-accumulate, 0.9 pJ an accumulation.
HOROWITZ_FP32 = Prices("horowitz_fp32", 3.7, 0.9, 32, "float", 45, _HOROWITZ)
# Sums as wide as the products, so a lower bound: real int8 engines add in 32 bits (0.1 pJ).
HOROWITZ_INT8 = Prices("horowitz_int8", 0.2, 0.03, 8, "integer", 45, _HOROWITZ)

TABLES = {table.name: table for table in (HOROWITZ_FP32, HOROWITZ_INT8)}


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
