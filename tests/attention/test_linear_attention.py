"""Linear attention: the order of its products, its normalisations, and padding."""

import pytest
import torch

from spikebrain.attention.linear_attention import COLUMNS, linear_attention, normalise_columns

COUNTS = torch.tensor([11, 4, 7])
NORMS = {
    "softmax": lambda k: k.exp() / k.exp().sum(0),
    "l1": lambda k: k / k.abs().sum(0),
    "l2": lambda k: k / k.norm(dim=0),
    "mean": lambda k: k / len(k),
}
EVERY = pytest.mark.parametrize("columns", COLUMNS)


def qkv(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 11, width, dtype=dtype, generator=generator) for width in (5, 5, 8)]


@EVERY
def test_context_first_and_map_first_are_one(columns):
    """Q (N(K)^T V) = (Q N(K)^T) V, utterance by utterance, over its own tokens."""
    q, k, v = qkv()
    out = linear_attention(q, k, v, COUNTS, columns)
    for row, n in enumerate(COUNTS.tolist()):
        expected = (q[row] @ NORMS[columns](k[row, :n]).T) @ v[row, :n] / 5**0.5
        assert torch.allclose(out[row], expected, atol=1e-5) and expected.abs().max() > 0.1


def test_every_channel_of_the_softmax_sums_to_1_over_valid_tokens():
    _, k, _ = qkv()
    normed = normalise_columns(k, COUNTS)
    assert torch.allclose(normed.sum(1), torch.ones(3, 5, dtype=torch.float64))
    for row, n in enumerate(COUNTS.tolist()):
        assert not normed[row, n:].any() and (normed[row, :n] > 0).all()


@EVERY
def test_keys_and_values_of_padding_are_not_read(columns):
    q, k, v = qkv()
    expected = linear_attention(q, k, v, COUNTS, columns)
    for row, n in enumerate(COUNTS.tolist()):
        k[row, n:], v[row, n:] = 1e6, 7.0
    assert torch.equal(linear_attention(q, k, v, COUNTS, columns), expected)


@EVERY
def test_silent_tokens_have_finite_gradients(columns):
    """Where nothing fires all keys are 0: each normalisation divides by something all the same."""
    leaves = [torch.zeros(2, 6, width, requires_grad=True) for width in (4, 4, 3)]
    out = linear_attention(*leaves, torch.tensor([6, 2]), columns)
    out.sum().backward()
    assert not out.any() and all(leaf.grad.isfinite().all() for leaf in leaves)


def test_half_precision_normalises_in_float32():
    """The softmax of 2,000 alike keys is 1/2000 each: in bfloat16 their sum would be off by percents."""
    k = torch.zeros(1, 2000, 2, dtype=torch.bfloat16)
    assert normalise_columns(k, torch.tensor([2000])).dtype == torch.float32
    q, k, v = qkv(torch.bfloat16)
    out = linear_attention(q, k, v, COUNTS)
    expected = linear_attention(q.double(), k.double(), v.double(), COUNTS)
    assert out.dtype == torch.bfloat16 and torch.allclose(out.double(), expected, atol=0.03)
