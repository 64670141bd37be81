"""Property 23: costs are picojoules, as printed in their source."""

import pytest

from spikebrain.energy import HOROWITZ_FP32, HOROWITZ_INT8, TABLES
from spikebrain.energy.prices import millijoules


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
