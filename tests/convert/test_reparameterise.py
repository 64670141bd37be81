"""Queries and keys as one matrix a head."""

import pytest
import torch

from spikebrain import convert, operands
from spikebrain.attention.spike_attention import split_heads
from spikebrain.convert.reparameterise import FusedRepSSA, fuse
from spikebrain.encoders.iml_spikeformer import RepSSA

HEADS = (1, 2, 4)


def attention(trained, **switches):
    return trained("iml_spikeformer", **switches).layers[1].attention


def heard(layer, x, counts):
    """What a layer's neurons fire for ``x``, and its raw scores (B, H, L, L) by queries and keys."""
    spikes = layer.sn_in.fire(x, counts)
    q, k = (split_heads(part, layer.nhead) for part in layer.qk(spikes).chunk(2, -1))
    return spikes, q @ k.transpose(-2, -1)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("biases", [False, True])
def test_scores_are_the_same_head_by_head(trained, x, heads, biases):
    layer, counts = attention(trained, nhead=heads, qk_bias=biases), torch.tensor([13, 7, 10])
    spikes, scores = heard(layer, x, counts)
    fused = convert.reparameterise(layer)
    assert isinstance(fused, FusedRepSSA) and isinstance(layer, RepSSA), "the argument has changed"
    assert fused.fused.shape == (heads, 16 + biases, 16 + biases)
    assert torch.allclose(fused.scores(spikes), scores, atol=1e-10) and scores.abs().max() > 0.1
    assert torch.allclose(fused(x, counts), layer(x, counts), atol=1e-10)


@pytest.mark.parametrize("biases", [False, True])
def test_one_matrix_for_all_heads_is_the_sum_of_their_maps(trained, x, biases):
    layer, counts = attention(trained, nhead=4, qk_bias=biases), torch.tensor([13, 7, 10])
    spikes, scores = heard(layer, x, counts)
    joined = fuse(layer.qk, 1)
    assert torch.allclose(joined[0], fuse(layer.qk, 4).sum(0), atol=1e-12)
    fused = convert.reparameterise(layer)
    fused.fused.data = joined.expand(4, -1, -1).clone()
    assert torch.allclose(fused.scores(spikes), scores.sum(1, keepdim=True).expand_as(scores), atol=1e-10)
    assert not torch.allclose(fused(x, counts), layer(x, counts)), "which is something else before the softmax"


def test_without_the_column_of_ones_biases_are_lost(trained, x):
    layer, counts = attention(trained, qk_bias=True), torch.tensor([13, 7, 10])
    spikes, scores = heard(layer, x, counts)
    bare = fuse(layer.qk, 2)[:, :-1, :-1]
    lost = spikes.value.unsqueeze(1) @ bare @ spikes.value.unsqueeze(1).transpose(-2, -1)
    assert not torch.allclose(lost, scores)


def test_a_heads_matrix_has_the_rank_of_its_queries(trained):
    matrices = fuse(attention(trained, nhead=4).qk, 4)
    assert torch.linalg.matrix_rank(matrices).tolist() == [4] * 4


SWITCHES = [
    {"hdm": "log_bias"},
    {"hdm": "post_softmax"},
    {"hdm": "none"},
    {"causal": True},
    {"score": "linear"},
    {"score": "linear", "linear_form": "scan"},
    {"output_scale": "channel"},
    {"neuron": "mls"},
    {"neuron": "lif_multistep"},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_form_of_attention_fires_the_same(trained, x, lengths, hear, switches):
    network = trained("iml_spikeformer", **switches)
    fused = convert.reparameterise(network)
    (out, spikes, _), (same, as_many, products) = hear(network, x, lengths), hear(fused, x, lengths)
    assert torch.allclose(out, same, atol=1e-10)
    assert all(torch.equal(as_many[layer], counts) for layer, counts in spikes.items()) and spikes.keys() == as_many.keys()
    assert all(product.accumulates is not None for product in products), "a product of real numbers is left"


@pytest.mark.parametrize("biases", [False, True])
def test_additions_by_counting_spikes_one_by_one(trained, x, lengths, hear, biases):
    network = trained("iml_spikeformer", num_layers=1, nhead=4, qk_bias=biases)
    told = {
        product.part: product for product in hear(convert.reparameterise(network), x, lengths)[2] if product.part in ("fused", "scores")
    }
    level, counts, width = heard_levels(network, x, lengths), (13, 7, 10), 16 + biases
    fused = scores = 0
    for one, count in zip(level, counts, strict=True):
        for frame in range(count):
            fired = sum(int(number) for number in one[frame]) + biases  # the column of ones fires in every frame
            fused += fired * 4 * width
            scores += fired * count * 4
    assert (told["fused"].accumulates, told["scores"].accumulates) == (fused, scores)
    assert told["fused"].macs == sum(counts) * 4 * width**2
    assert told["scores"].macs == sum(count**2 for count in counts) * 4 * width
    assert (told["fused"].left, told["scores"].right) == (operands.Kind.LEVEL,) * 2


def heard_levels(network, x, lengths):
    """Levels of the first attention's neurons."""
    block, counts = network.layers[0], torch.tensor([13, 7, 10])
    with torch.no_grad():
        return block.attention.sn_in.fire(block.norm_1(x), counts).level


def test_what_has_no_scores_is_copied(trained):
    for name in ("spikescr", "iml_spikeformer_sdsa3"):
        network = trained(name)
        same = convert.reparameterise(network)
        assert same is not network and not any(isinstance(module, FusedRepSSA) for module in same.modules())


def test_frozen_weights_stay_frozen(trained):
    layer = attention(trained)
    assert convert.reparameterise(layer).fused.requires_grad
    layer.requires_grad_(False)
    assert not convert.reparameterise(layer).fused.requires_grad
