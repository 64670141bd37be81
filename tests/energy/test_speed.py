"""Counting costs at most as much again as what it counts."""

import time

import pytest
import torch
from torch import nn

from spikebrain import energy, registry

SIZES = {
    "iml_spikeformer": {"num_layers": 4, "d_model": 144, "nhead": 4, "d_ffn": 576},
    "spikescr": {"num_layers": 1, "d_model": 128, "nhead": 8},
}


def seconds(function):
    """Of this process alone, so that others do not count: the least of nine runs, the first left out."""
    found = []
    for _ in range(9):
        began = time.process_time()
        function()
        found.append(time.process_time() - began)
    return min(found[1:])


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.full  # a time, which a busy machine may spoil
@pytest.mark.parametrize("name", SIZES)
def test_counting_costs_at_most_twice_a_forward_pass(name, one_thread, capsys):
    torch.manual_seed(0)
    model = registry.build(name, **SIZES[name])
    x, lengths = torch.randn(8, 75, SIZES[name]["d_model"]), torch.linspace(0.5, 1, 8)
    model.train()(x, lengths)
    counter = energy.Counter(nn.ModuleDict({"net": model.eval()}))

    def counting():
        with counter.listen():
            model(x, lengths)

    with torch.no_grad():
        plain, counted = seconds(lambda: model(x, lengths)), seconds(counting)
    with capsys.disabled():
        print(f"\n{name}: {1e3 * plain:.1f} ms, counted {1e3 * counted:.1f} ms, {counted / plain:.2f} times")
    assert counted <= 2 * plain
