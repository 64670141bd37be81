"""Spiking attention against its equations, written out with autograd; and what it keeps in memory."""

import itertools

import pytest
import torch

from spikebrain import operands
from spikebrain.attention import spike_attention
from spikebrain.attention.spike_attention import AttentionOptions

CASES = list(itertools.product(("softmax", "linear"), spike_attention.HDM_MODES, (False, True)))


def spikes_of(code, counts, dtype=torch.float64):
    gain = torch.full((code.shape[-1],), 1 / 6, dtype=dtype)
    return operands.Spikes((code.to(dtype) * gain).requires_grad_(), code, gain, 6, counts)


def inputs(length=7, heads=2, width=4, counts=(7, 4)):
    torch.manual_seed(0)
    q, k = (torch.randn(2, heads, length, width, dtype=torch.float64, requires_grad=True) for _ in range(2))
    code = torch.randint(0, 7, (2, length, heads * width), dtype=torch.uint8)
    counts = torch.tensor(counts)
    code[torch.arange(length) >= counts.unsqueeze(1)] = 0
    return q, k, spikes_of(code, counts)


def written_out(q, k, spikes, options):
    """Equations 12 to 15 in the words of the paper."""
    length = q.shape[2]
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs().double()
    mask = torch.exp(distance * options.log_phi)
    hidden = (torch.arange(length) >= spikes.counts.unsqueeze(1))[:, None, None]
    if options.causal:
        hidden = hidden | torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = q @ k.mT
    if options.score == "linear":
        weights = (scores if options.hdm == "none" else scores * mask).masked_fill(hidden, 0)
    else:
        scores = scores * (mask if options.hdm == "logit_mul" else 1) / q.shape[-1] ** 0.5
        scores = scores + (mask.log() if options.hdm == "log_bias" else 0)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1) * (mask if options.hdm == "post_softmax" else 1)
    return spike_attention.merge_heads(weights @ spike_attention.split_heads(spikes.value, q.shape[1]))


@pytest.mark.parametrize("score, hdm, causal", CASES)
def test_equals_the_equations_with_all_gradients(score, hdm, causal):
    q, k, spikes = inputs()
    options = AttentionOptions(score, hdm, -0.3, causal)
    ours, theirs = spike_attention.repssa(q, k, spikes, options), written_out(q, k, spikes, options)
    assert torch.allclose(ours, theirs, atol=1e-12)
    cotangent = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(y, (q, k, spikes.value), cotangent) for y in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
def test_two_scans_equal_the_map(chunk, causal):
    q, k, spikes = inputs(length=13, counts=(13, 6))
    options = AttentionOptions("linear", "logit_mul", -0.2, causal)
    full, scan = spike_attention.repssa(q, k, spikes, options), spike_attention.repssa_linear_scan(q, k, spikes, options, chunk)
    assert torch.allclose(full[0], scan[0], atol=1e-12) and torch.allclose(full[1, :6], scan[1, :6], atol=1e-12)
    cotangent = torch.zeros_like(full)
    cotangent[0], cotangent[1, :6] = torch.randn_like(full[0]), torch.randn_like(full[1, :6])
    for a, b in zip(*(torch.autograd.grad(y, (q, k, spikes.value), cotangent) for y in (full, scan)), strict=True):
        assert torch.allclose(a, b, atol=1e-11)


def test_scan_grows_linearly_in_memory_and_the_map_does_not():
    def kept(function, length):
        q, k, spikes = inputs(length, counts=(length, length))
        seen = {}

        def pack(t):
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            function(q, k, spikes, AttentionOptions("linear", "logit_mul", -0.01))
        return sum(seen.values())

    assert kept(spike_attention.repssa_linear_scan, 512) < 2.2 * kept(spike_attention.repssa_linear_scan, 256)


def test_no_map_and_no_mask_is_kept_for_the_backward_pass():
    length = 128
    q, k, spikes = inputs(length, counts=(length, 100))
    sizes = []

    def pack(t):
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        spike_attention.repssa(q, k, spikes, AttentionOptions("softmax", "logit_mul", -0.01))
    assert sizes and max(sizes) <= q.numel() < length * length


def test_padding_keys_are_masked_after_the_decay():
    """A padded key whose masked score is 0 must not get weight: -inf comes after the product with H."""
    q, k, spikes = inputs(length=200, counts=(200, 3))
    weights = spike_attention.attention_weights(q, k, spikes.counts, AttentionOptions("softmax", "logit_mul", -3.0))
    assert weights[1, :, :3, 3:].abs().max() == 0
    assert torch.allclose(weights[1, :, :3].sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_where_the_mask_acts_matters():
    """Multiplying logits lifts far keys with negative scores; a bias on the logits lowers them (specification, trap 11)."""
    q = torch.tensor([1.0]).expand(1, 1, 70, 1).double().contiguous()
    k = torch.full((1, 1, 70, 1), -2.0, dtype=torch.float64)
    k[..., 0, :] = 0
    counts, log_phi = torch.tensor([70]), torch.tensor(0.984375).log().item()
    far = {
        hdm: spike_attention.attention_weights(q, k, counts, AttentionOptions("softmax", hdm, log_phi))[0, 0, 0, 69].item()
        for hdm in spike_attention.HDM_MODES
    }
    assert far["log_bias"] < far["none"] < far["logit_mul"]
    renormalised = spike_attention.attention_weights(q, k, counts, AttentionOptions("softmax", "post_softmax", log_phi))
    biased = spike_attention.attention_weights(q, k, counts, AttentionOptions("softmax", "log_bias", log_phi))
    assert torch.allclose(renormalised / renormalised.sum(-1, keepdim=True), biased, atol=1e-12)


def test_half_precision_keeps_the_linear_form_in_range():
    torch.manual_seed(0)
    q = (30 * torch.randn(1, 1, 400, 64)).half()
    code = torch.full((1, 400, 64), 6, dtype=torch.uint8)
    spikes = spikes_of(code, torch.tensor([400]), torch.float16)
    y = spike_attention.repssa(q, q, spikes, AttentionOptions("linear", "none"))
    assert torch.isfinite(y).all()


def test_sdsa3_has_no_map():
    torch.manual_seed(0)
    q, k, v = (torch.randint(0, 2, (2, 2, 9, 4)).double() for _ in range(3))
    y = spike_attention.sdsa3(q, k, v, 0.5)
    assert torch.allclose(y, spike_attention.merge_heads((q @ k.mT) @ v * 0.5))
