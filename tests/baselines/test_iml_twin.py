"""The Transformer that IML-Spikeformer is compared with: its equations, its size, what it tells of its products."""

import pytest
import torch
import torch.nn.functional as F

from spikebrain import energy, operands, registry
from spikebrain.baselines.iml_twin import IMLTwin
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer

SMALL = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 24, "dropout": 0.1}
COUNTS = (13, 7, 10)
LENGTHS = torch.tensor(COUNTS, dtype=torch.float64) / 13


def made(**switches):
    """A twin in evaluation whose norms and biases are neither 1 nor 0."""
    torch.manual_seed(0)
    twin = IMLTwin(**{**SMALL, **switches}).double().eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return twin


def features(seed=0):
    return torch.randn(3, max(COUNTS), 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out(twin, x, causal=False):
    """The output (L, D) of one utterance ``x`` (L, D), from the weights alone."""
    for block in twin.layers:
        attention, normed = block.attention, layer_norm(block.norm_1, x)
        mixed = []
        parts = [*applied(attention.qk, normed).chunk(2, -1), applied(attention.v, normed)]
        for q, k, v in zip(*(part.chunk(2, -1) for part in parts), strict=True):
            scores = q @ k.T / 8**0.5
            scores = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, -torch.inf) if causal else scores
            mixed.append(scores.softmax(-1) @ v)
        x = x + applied(attention.out, torch.cat(mixed, -1))
        x = x + applied(block.down, applied(block.up, layer_norm(block.norm_2, x)).clamp(min=0))
    return layer_norm(twin.norm, x)


def applied(layer, x):
    return F.linear(x, layer.weight, layer.bias)


def layer_norm(norm, x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("causal", [False, True])
def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone(causal):
    twin, x = made(causal=causal, qk_bias=True), features()
    x[1, 7:] = torch.nan  # whatever the padding holds
    out, state = twin(x, LENGTHS)
    assert state is None
    for row, n in enumerate(COUNTS):
        torch.testing.assert_close(out[row, :n], written_out(twin, x[row, :n], causal), atol=1e-11, rtol=0)
        assert not out[row, n:].any()


@pytest.mark.parametrize("switches", [{}, {"qk_bias": True}, {"final_norm": False}, {"block_norm": "none"}])
def test_it_has_as_many_parameters_as_the_spiking_encoder(switches):
    count = [sum(p.numel() for p in network(**SMALL, **switches).parameters()) for network in (IMLTwin, IMLSpikeformer)]
    assert count[0] == count[1]


@pytest.mark.parametrize(("blocks", "parameters"), [(3, 594_816), (6, 1_189_632), (9, 1_784_448)])
def test_the_transformers_of_table_iii(blocks, parameters):
    sizes = {"d_model": 128, "nhead": 4, "d_ffn": 512, "qk_bias": True, "final_norm": False}
    assert sum(p.numel() for p in registry.build("iml_spikeformer_twin", num_layers=blocks, **sizes).parameters()) == parameters


def test_it_tells_of_every_product():
    twin, x = made(), features()
    counter = energy.Counter(twin)
    with counter.listen(), torch.no_grad():
        twin(x, LENGTHS)
    frames, pairs = sum(COUNTS), sum(n * n for n in COUNTS)
    assert sum(one.macs for one in counter.products.values()) == 2 * (frames * (4 * 16 * 16 + 2 * 16 * 24) + 2 * pairs * 16)
    assert all(one.accumulates is None and one.left == one.right == operands.Kind.REAL for one in counter.products.values())
    assert not counter.spikes and not counter.silent()


@pytest.mark.parametrize("switch", [{"attention": "sdsa3"}, {"score": "linear"}])
def test_what_only_spikes_have_is_refused(switch):
    with pytest.raises(ValueError, match="are of spikes: the twin has softmax attention"):
        IMLTwin(**SMALL, **switch)


def test_another_width_is_refused():
    with pytest.raises(ValueError, match="x has 12 channels, encoder expects 16: set d_model: 12"):
        made()(torch.zeros(1, 3, 12))
