"""Hand-counted networks: what the counter adds up, what it refuses, and that padding changes nothing."""

import pytest
import torch
from torch import nn

from spikebrain import operands
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.energy import Counter
from spikebrain.neurons import MultiLevelSpike
from spikebrain.operands import Firing, Kind, Product


class Telling(nn.Module):
    """A layer that tells whatever it is handed."""

    def forward(self, *events):
        for event in events:
            operands.tell(event(self))


def firing(counts, frames, levels=6, saturated=0):
    counts = torch.tensor(counts, dtype=torch.float64)
    return lambda module: Firing(module, counts, frames, levels, torch.full_like(counts, saturated))


def product(left, right, macs, accumulates=None, part="weight"):
    return lambda module: Product(module, part, left, right, macs, accumulates)


def tell(root, layer, *events):
    counter = Counter(root)
    with operands.listen(counter):
        layer(*events)
    return counter


class SpikingLayer(nn.Module):
    """Real numbers -> spikes -> a linear layer of two outputs, as our encoders do it."""

    def __init__(self, channels=3, levels=4, mode="mls"):
        super().__init__()
        self.neuron = MultiLevelSpike(channels, levels, mode)
        self.linear = SpikeLinear(channels, 2)

    def forward(self, x, counts):
        return self.linear(self.neuron.fire(x, counts))


def counted(x, counts):
    layer = SpikingLayer(channels=x.shape[-1])
    counter = Counter(layer)
    with operands.listen(counter), torch.no_grad():
        layer(x, torch.tensor(counts))
    return counter


def test_rates_by_hand():
    layer = Telling()
    counter = tell(layer, layer, firing([0, 12, 60], frames=10), firing([1, 0, 60], frames=10))
    # 20 frames at 6 levels are 120 chances: 1, 12 and all of them.
    assert counter.rates()[""].tolist() == pytest.approx([1 / 120, 12 / 120, 120 / 120])
    summary = counter.firing_rate()[""]
    assert summary["mean"] == pytest.approx(133 / 360)
    assert (summary["below_0.001"], summary["below_0.01"], summary["above_0.9"]) == pytest.approx((0, 1 / 3, 1 / 3))
    assert (summary["channels"], summary["levels"], summary["frames"]) == (3, 6, 20)


def test_a_level_three_spike_costs_three_and_silence_nothing():
    loud = counted(torch.tensor([[[3.4, -1.0, 0.2], [9.0, 1.0, 0.0]]]), [2])
    told = loud.products["linear", "weight"]
    # Levels 3, 0, 0 and 4 (the most), 1, 0, each added to two outputs; a dense layer multiplies 2 x 3 x 2.
    assert (told.macs, told.accumulates, told.left) == (12, 2 * (3 + 4 + 1), Kind.LEVEL)
    assert loud.rates()["neuron"].tolist() == [7 / 8, 1 / 8, 0]
    assert loud.firing_rate()["neuron"]["at_ceiling"] == pytest.approx(1 / 6)
    silent = counted(torch.zeros(1, 2, 3), [2])
    assert (silent.products["linear", "weight"].macs, silent.products["linear", "weight"].accumulates) == (12, 0)


def test_full_firing_of_one_level_is_one_accumulation_a_mac():
    layer = SpikingLayer(levels=1)
    counter = Counter(layer)
    with operands.listen(counter), torch.no_grad():
        layer(torch.ones(2, 5, 3), torch.tensor([5, 5]))
    told = counter.products["linear", "weight"]
    assert told.macs == told.accumulates == 60


def test_padding_changes_neither_rates_nor_operations():
    torch.manual_seed(0)
    x = torch.rand(2, 6, 3) * 5
    short = counted(x, [6, 4])
    padded = counted(torch.cat([x, 100 + torch.rand(2, 9, 3)], 1), [6, 4])
    assert short.products == padded.products
    assert torch.equal(short.rates()["neuron"], padded.rates()["neuron"])
    assert short.firing_rate() == padded.firing_rate()
    # The same network that is told of no padding counts more: the test can fail.
    assert counted(x, [6, 6]).products != short.products


def test_batches_add_up():
    torch.manual_seed(0)
    x = torch.rand(4, 6, 3) * 5
    whole = counted(x, [6, 4, 1, 5])
    layer = SpikingLayer()
    parts = Counter(layer)
    with operands.listen(parts), torch.no_grad():
        layer(x[:1], torch.tensor([6]))
        layer(x[1:], torch.tensor([4, 1, 5]))
    assert parts.products == whole.products
    assert parts.firing_rate() == whole.firing_rate()


def test_wrappers_leave_no_trace_in_names():
    wrapped = nn.ModuleDict({"Transformer": nn.DataParallel(nn.Sequential(Telling()))})
    counter = tell(wrapped, wrapped["Transformer"].module[0], product(Kind.REAL, Kind.REAL, 7))
    assert list(counter.products) == [("Transformer.0", "weight")]


def test_silent_names_layers_with_a_matrix_that_told_nothing():
    layer = nn.ModuleDict({"told": SpikingLayer(), "silent": nn.Linear(3, 2), "norm": nn.LayerNorm(3)})
    counter = Counter(layer)
    with operands.listen(counter):
        layer["told"](torch.rand(1, 2, 3), torch.tensor([2]))
    assert counter.silent() == ["silent"]
    assert counter.silent("told") == []


def test_events_from_elsewhere_are_refused():
    with pytest.raises(ValueError, match="a Telling told of a Product, but is no part of the counted network"):
        tell(nn.ModuleDict({"other": Telling()}), Telling(), product(Kind.REAL, Kind.REAL, 7))


@pytest.mark.parametrize(
    "event, message",
    [
        (product(Kind.LEVEL, Kind.REAL, 7), "layer.weight multiplies level by real but says no accumulates"),
        (product(Kind.REAL, Kind.REAL, 7, 3), "layer.weight multiplies real by real but says 3 accumulates"),
        (product(Kind.REAL, Kind.BINARY, 7, -3), "layer.weight counts 7 macs and -3 accumulates"),
    ],
)
def test_contradicting_products_are_refused_with_the_layer(event, message):
    root = nn.ModuleDict({"layer": Telling()})
    with pytest.raises(ValueError, match=message):
        tell(root, root["layer"], event)


def test_a_product_keeps_its_kinds_and_a_layer_its_size():
    root = nn.ModuleDict({"layer": Telling()})
    with pytest.raises(ValueError, match="layer.weight multiplied level by real before and real by real now"):
        tell(root, root["layer"], product(Kind.LEVEL, Kind.REAL, 7, 3), product(Kind.REAL, Kind.REAL, 7))
    with pytest.raises(ValueError, match="layer fired 2 channels at 6 levels before and 3 at 6 now"):
        tell(root, root["layer"], firing([1, 2], 5), firing([1, 2, 3], 5))


def test_an_unknown_event_is_refused():
    with pytest.raises(ValueError, match="Counter was told of a str"):
        Counter(nn.Identity())("spike")


def test_utterances_come_in_pairs():
    counter = Counter(nn.Identity())
    counter.add_utterances(torch.tensor([5, 7]), [2, 3])
    assert (counter.feature_frames, counter.decoder_steps) == ([5, 7], [2, 3])
    with pytest.raises(ValueError, match="2 feature_frames and 1 decoder_steps"):
        counter.add_utterances([5, 7], [2])
