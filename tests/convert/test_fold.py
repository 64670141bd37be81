"""Batch norms folded into the layers before them."""

import pytest
import torch
from torch import nn

from spikebrain import convert, operands
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.encoders.spikescr import SpikeSCRConfig, SpikeSCRMLP

NORMED = [
    ("spikescr", {}),
    ("spikescr", {"input_kind": "level"}),
    ("spikescr_plif", {"decay_input": True}),
    ("spikescr_no_gate", {}),
    ("spikescr_no_convolution", {}),
    ("spikescr_sin_lif", {}),
    ("lif_network", {}),
    ("plif_network", {}),
    ("pts_snn", {"block_norm": "batch"}),
]


def norms(network):
    return [name for name, module in network.named_modules() if isinstance(module, MaskedBatchNorm)]


@pytest.mark.parametrize("name, switches", NORMED, ids=lambda value: str(value))
def test_a_folded_network_computes_the_same(trained, x, events_x, lengths, hear, name, switches):
    network = trained(name, **switches)
    x = events_x if "input_kind" in switches else x
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    folded = convert.fold_batchnorm(network)
    assert norms(network) and not norms(folded)
    (out, spikes, _), (same, as_many, _) = hear(network, x, lengths), hear(folded, x, lengths)
    assert torch.allclose(out, same, atol=1e-10) and any(counts.any() for counts in spikes.values())
    assert as_many.keys() == spikes.keys() and all(torch.equal(as_many[layer], counts) for layer, counts in spikes.items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items()), "the argument has changed"


def with_statistics(norm, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(norm.channels))
        norm.running_var.copy_(torch.rand(norm.channels) + 0.5)
    return norm


def test_scale_and_shift_by_hand():
    mlp = SpikeSCRMLP(SpikeSCRConfig(d_model=3, nhead=1, d_ffn=4)).double().eval()
    norm = with_statistics(mlp.up_neuron.norm, 1)
    weight = mlp.up.weight.detach().clone()
    folded = convert.fold_batchnorm(mlp)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    assert torch.allclose(folded.up.weight, scale.unsqueeze(1) * weight, atol=1e-14)
    assert torch.allclose(folded.up.bias, norm.bias - norm.running_mean * scale, atol=1e-14), "a layer without bias gets one"
    assert mlp.up.bias is None and isinstance(folded.up, SpikeLinear) and folded.up_neuron.norm is None


class TwoReaders(nn.Module):
    """A layer whose output two norms share, channel after channel."""

    FOLDS = (("linear", ("first", "second")),)

    def __init__(self, first=3, second=2):
        super().__init__()
        self.linear = SpikeLinear(4, 5)
        self.first, self.second = with_statistics(MaskedBatchNorm(first), 1), with_statistics(MaskedBatchNorm(second), 2)

    def forward(self, x, counts):
        out, halves = self.linear(operands.Spikes.real(x, counts)), []
        for norm, part in zip((self.first, self.second), out.split([3, 2], -1), strict=True):
            halves.append(part if norm is None else norm.normalise(part, counts))
        return torch.cat(halves, -1)


def test_several_norms_share_a_layers_channels_in_order():
    block, x, counts = TwoReaders().double().eval(), torch.randn(2, 4, 4, dtype=torch.float64), torch.tensor([4, 4])
    folded = convert.fold_batchnorm(block)
    assert torch.allclose(folded(x, counts), block(x, counts), atol=1e-12)
    swapped = TwoReaders().double().eval()
    swapped.load_state_dict(block.state_dict())
    swapped.FOLDS = (("linear", ("second", "first")),)
    assert not torch.allclose(convert.fold_batchnorm(swapped)(x, counts), block(x, counts)), "the order makes no difference"


def test_norms_of_another_number_of_channels_are_refused():
    with pytest.raises(convert.ConversionError, match="TwoReaders.linear has 5 channels, the norms behind it 6"):
        convert.fold_batchnorm(TwoReaders(3, 3).eval())


def test_a_norm_that_stands_behind_no_layer_is_refused(trained):
    network = nn.ModuleDict({"encoder": trained("spikescr"), "lost": MaskedBatchNorm(4)}).eval()
    with pytest.raises(convert.ConversionError, match=r"lost \(MaskedBatchNorm\): no block says which layer.*FOLDS"):
        convert.fold_batchnorm(network)


def test_folding_again_or_without_norms_changes_nothing(trained):
    once = convert.fold_batchnorm(trained("spikescr"))
    for network in (once, trained("iml_spikeformer")):
        same = convert.fold_batchnorm(network)
        assert same is not network and same.state_dict().keys() == network.state_dict().keys()
        assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in same.state_dict().items())
