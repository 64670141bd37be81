"""Property 23: costs are picojoules, as printed in their source."""

import math

import pytest

from spikebrain.energy import HOROWITZ_FP32, HOROWITZ_INT8, HOROWITZ_INT8_SUM32, JOUPPI_INT8_SUM32, TABLES
from spikebrain.energy.prices import bits_of, integer_table, millijoules


def test_the_literatures_default():
    assert (HOROWITZ_FP32.mac_pJ, HOROWITZ_FP32.ac_pJ) == (4.6, 0.9)
    assert (HOROWITZ_INT8.mac_pJ, HOROWITZ_INT8.ac_pJ) == (0.23, 0.03)


def test_a_billion_operations_of_one_picojoule_are_one_millijoule():
    assert millijoules(1e9, 1.0) == pytest.approx(1.0)
    # 10.39 mJ are 2.26 thousand million products at 4.6 pJ; read as nanojoules they would be 2.26 million, fewer than the weights.
    assert millijoules(2.256e9, HOROWITZ_FP32.mac_pJ) == pytest.approx(10.38, abs=0.01)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_table_says_where_it_is_from(table):
    row = table.as_dict()
    assert row["name"] in TABLES and row["node_nm"] > 0 and row["bits"] in (8, 16, 32)
    assert len(row["source"]) > 20
    assert row["mac_pJ"] > row["ac_pJ"] > 0


def test_tables_of_the_tpu_authors():
    assert (JOUPPI_INT8_SUM32.mac_pJ, JOUPPI_INT8_SUM32.ac_pJ, JOUPPI_INT8_SUM32.node_nm) == (0.1, 0.03, 7)


def test_what_has_a_price():
    assert [HOROWITZ_FP32.of(name) for name in ("multiply", "add", "compare", "exp", "divide")] == [3.7, 0.9, 0.9, None, None]


@pytest.mark.parametrize("levels, bits", [(1, 1), (3, 2), (4, 3), (6, 3), (7, 3), (8, 4), (127, 7), (255, 8)])
def test_levels_need_bits(levels, bits):
    assert bits_of(levels) == bits == math.ceil(math.log2(levels + 1))
    assert integer_table(levels, 45) is HOROWITZ_INT8_SUM32


def test_the_nearest_table_that_is_wide_enough():
    assert integer_table(256, 45).name == "horowitz_int32" and integer_table(6, 7) is JOUPPI_INT8_SUM32
    with pytest.raises(ValueError, match=r"256 levels need 9 bits at 7 nm, listed: jouppi_int8_sum32 \(8 bits\): give integer_prices"):
        integer_table(256, 7)
    with pytest.raises(ValueError, match="6 levels need 3 bits at 28 nm, listed: none"):
        integer_table(6, 28)
