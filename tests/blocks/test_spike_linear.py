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


def test_runs_in_bfloat16_under_autocast():
    neuron, layer = MultiLevelSpike(16), SpikeLinear(16, 8)
    x = torch.randn(2, 9, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(neuron.fire(x, torch.tensor([9, 4])))
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32 and torch.isfinite(x.grad).all()
