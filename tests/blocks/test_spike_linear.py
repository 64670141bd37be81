"""The linear layer that reads spikes: nn.Linear in values and gradients, one byte an element in memory."""

import pytest
import torch

from spikebrain import operands
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.neurons import FiringOptions, MultiLevelSpike


@pytest.mark.parametrize("output_scale", ["1/T", "none", "channel"])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_a_linear_layer_with_all_gradients(bias, output_scale):
    torch.manual_seed(0)
    layer, neuron = SpikeLinear(12, 5, bias=bias).double(), MultiLevelSpike(12, options=FiringOptions(output_scale=output_scale))
    results = []
    for function in (layer, lambda s: torch.nn.functional.linear(s.value, layer.weight, layer.bias)):
        torch.manual_seed(1)
        x = torch.randn(3, 7, 12, dtype=torch.float64, requires_grad=True)
        y = function(neuron.fire(x, torch.tensor([7, 3, 5])))
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_keeps_the_neurons_bytes_and_no_float_copy():
    neuron, layer = MultiLevelSpike(64), SpikeLinear(64, 32)
    spikes = neuron.fire(torch.randn(4, 50, 64, requires_grad=True), torch.full((4,), 50))
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = (t.dtype, t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(spikes)
    assert spikes.code.untyped_storage().data_ptr() in kept
    assert all(n <= max(layer.weight.numel(), 64) for dtype, n in kept.values() if dtype.is_floating_point)


def test_tells_a_listener_what_it_multiplies():
    neuron, layer = MultiLevelSpike(4, 6), SpikeLinear(4, 3)
    events = []
    with operands.listen(events.append):
        spikes = neuron.fire(torch.randn(2, 5, 4), torch.tensor([5, 2]))
        layer(spikes)
    firing, product = events
    assert firing.frames == 7 and firing.counts.sum() == spikes.level.sum()
    assert (product.left, product.right) == (operands.Kind.LEVEL, operands.Kind.REAL)
    assert product.macs == 7 * 4 * 3 and product.accumulates == int(spikes.level.sum()) * 3
    layer(spikes)
    assert len(events) == 2, "nobody listens any more"


@pytest.mark.parametrize("gain", [torch.arange(1.0, 9), torch.rand(3, 1, 8) + 0.5, None], ids=["channel", "utterance", "none"])
def test_parts_of_a_train_are_trains(gain):
    """Products of the parts add up to the product of the whole, in values, gradients and what a listener hears."""
    torch.manual_seed(0)
    layer, layers, events = SpikeLinear(8, 4, bias=False), [SpikeLinear(n, 4, bias=False) for n in (5, 1, 2)], []
    for one, weight in zip(layers, layer.weight.detach().split([5, 1, 2], -1), strict=True):
        one.weight.data.copy_(weight)
    code = torch.randint(0, 7, (3, 7, 8), dtype=torch.uint8)
    value = (code * (1.0 if gain is None else gain)).requires_grad_()
    whole = operands.Spikes(value, code, gain, 6, torch.tensor([7, 3, 5]))
    parts = whole.split([5, 1, 2])
    assert torch.equal(torch.cat([part.value for part in parts], -1), value) and torch.equal(torch.cat([p.level for p in parts], -1), code)
    with operands.listen(events.append):
        apart, together = sum(one(part) for one, part in zip(layers, parts, strict=True)), layer(whole)
    assert torch.allclose(apart, together, rtol=1e-4, atol=1e-4)
    *_, told = events
    assert (sum(e.accumulates for e in events[:3]), sum(e.macs for e in events[:3])) == (told.accumulates, told.macs)
    by_value, *by_weights = torch.autograd.grad(apart.sum(), (value, *(one.weight for one in layers)))
    expected = torch.autograd.grad(together.sum(), (value, layer.weight))
    assert torch.allclose(by_value, expected[0], rtol=1e-4) and torch.allclose(torch.cat(by_weights, -1), expected[1], rtol=1e-4)


def test_a_stream_that_nobody_listens_to_has_no_code_in_parts_either():
    parts = operands.Spikes(torch.rand(2, 3, 8), None, None, 6, torch.tensor([3, 3])).split([6, 2])
    assert [(part.value.shape[-1], part.code, part.gain, part.levels) for part in parts] == [(6, None, None, 6), (2, None, None, 6)]


def test_real_numbers_are_multiplied_and_declared_as_such():
    torch.manual_seed(0)
    layer, value, events = SpikeLinear(8, 4), torch.randn(2, 5, 8, requires_grad=True), []
    with operands.listen(events.append):
        y = layer(operands.Spikes.real(value, torch.tensor([5, 2])))
    assert torch.equal(y, torch.nn.functional.linear(value, layer.weight, layer.bias))
    y.sum().backward()
    assert torch.allclose(value.grad, layer.weight.sum(0).expand_as(value)) and layer.weight.grad.any()
    real = operands.Kind.REAL
    assert events == [operands.Product(layer, "weight", real, real, 7 * 8 * 4, None)]


def test_kinds_of_trains():
    kinds = [operands.Spikes(None, None, None, levels, None).kind for levels in (None, 1, 2, 127)]
    assert kinds == [operands.Kind.REAL, operands.Kind.BINARY, operands.Kind.LEVEL, operands.Kind.LEVEL]


def test_runs_in_bfloat16_under_autocast():
    neuron, layer = MultiLevelSpike(16), SpikeLinear(16, 8)
    x = torch.randn(2, 9, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(neuron.fire(x, torch.tensor([9, 4])))
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32 and torch.isfinite(x.grad).all()
