"""Spiking self-attention: real-valued scores, spikes as values (IML-Spikeformer section V), and SDSA-3 beside it.

Queries, keys and values are (B, H, L, d). Scores are real (no neuron fires on q and k; at inference W_Q W_K^T is one
matrix), values are spikes. Nothing of size L x L is kept for the backward pass: q, k and the bytes of v are, and the
weights are computed again.
"""

from typing import NamedTuple

import torch

from spikebrain.attention.decay_mask import decay_mask, distances
from spikebrain.kernels import multilevel

HDM_MODES = ("logit_mul", "log_bias", "post_softmax", "none")


class AttentionOptions(NamedTuple):
    """What :func:`repssa` computes.

    score : "softmax" (Eq. 13, RepSSA_S) or "linear" (RepSSA_L, no softmax)
    hdm : where the decay mask acts. "logit_mul" multiplies the scores before the softmax, as Eq. 13 and 15 say; it moves
        far scores towards 0, so that far keys with negative scores gain weight. "log_bias" adds |i-j| log phi to the
        logits, which equals masking after the softmax and renormalising; "post_softmax" masks without renormalising;
        "none" leaves it out. The linear form has one place for it and treats all but "none" alike.
    log_phi : log of the decay a frame, see :func:`decay_mask.log_decay`
    causal : whether a frame sees only itself and earlier ones
    """

    score: str = "softmax"
    hdm: str = "logit_mul"
    log_phi: float = 0.0
    causal: bool = False


def attention_weights(q, k, counts, options):
    """The factor that multiplies the values: softmax weights P, or A' for the linear form.

    Arguments
    ---------
    q, k : Tensors (B, H, L, d)
    counts : Tensor (B,), int64, valid frames; keys past them get weight 0
    options : AttentionOptions

    Returns
    -------
    Tensor (B, H, L, L), in float32 at least.
    """
    return weights_of(_products(q, k), q, counts, options)


def weights_of(scores, q, counts, options):
    """The same from raw ``scores`` (B, H, L, L), which it overwrites; ``q`` (..., d) says the width of a head, and the precision."""
    weights = _before_last_mask(scores, q, counts, options)
    if options.score == "softmax" and options.hdm == "post_softmax":
        weights.mul_(decay_mask(weights.shape[-1], options.log_phi, weights))
    return weights


def _before_last_mask(scores, q, counts, options):
    """:func:`weights_of` up to the softmax; only "post_softmax" does anything after it."""
    hidden = _hidden_keys(counts, scores, options.causal)
    if options.hdm == "log_bias" and options.score == "softmax":
        scores.mul_(_scale(q, counts, options)).add_(distances(scores.shape[-1], scores) * options.log_phi)
    else:
        scores.mul_(_factor(q, scores, counts, options))
    if options.score == "linear":
        return scores.masked_fill_(hidden, 0)
    # Adding a row of 0 and -inf: a masked fill that broadcasts costs as much as the softmax itself.
    return torch.softmax(scores.add_(torch.zeros_like(hidden, dtype=scores.dtype).masked_fill_(hidden, -torch.inf)), -1)


def _products(q, k):
    """q k^T in float32 at least; in half precision q is made smaller first, against overflow of the sum."""
    if q.dtype not in (torch.float16, torch.bfloat16):
        return torch.matmul(q, k.transpose(-2, -1))
    shrink = q.shape[-1] ** -0.5
    return torch.matmul(q * shrink, k.transpose(-2, -1)).float().div_(shrink)


def _factor(q, scores, counts, options):
    """What multiplies the raw scores, in one tensor: scale, and the mask where it acts on them."""
    masked = options.hdm == "logit_mul" or (options.hdm != "none" and options.score == "linear")
    scale = _scale(q, counts, options)
    return decay_mask(scores.shape[-1], options.log_phi, scores) * scale if masked else scale


def _scale(q, counts, options):
    """1 / sqrt(d) for softmax; none for the linear form, but 1 / (sqrt(d) n) in half precision, against overflow.

    The neuron behind the linear form normalises, so a constant makes no difference to it (ours).
    """
    if options.score == "softmax":
        return q.shape[-1] ** -0.5
    if q.dtype in (torch.float16, torch.bfloat16):
        return q.shape[-1] ** -0.5 / counts[:, None, None, None]
    return 1.0


def _hidden_keys(counts, scores, causal):
    length = scores.shape[-1]
    hidden = (torch.arange(length, device=scores.device) >= counts.unsqueeze(1))[:, None, None, :]
    if causal:
        later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
        hidden = hidden | later
    return hidden


class _RepSSA(torch.autograd.Function):
    """Y = weights(q, k) v; keeps q, k and v's bytes."""

    @staticmethod
    def forward(ctx, q, k, v, code, gain, counts, options):
        """Y (B, H, L, d); ``code`` and ``gain`` are those of the spikes ``v``, (B, L, H * d). Neither the map nor v is kept."""
        ctx.save_for_backward(q, k, code, gain, counts)
        ctx.options = options
        return torch.matmul(attention_weights(q, k, counts, options).to(v.dtype), v)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of q, k and v (B, H, L, d); the map is computed again, and v decoded."""
        q, k, code, gain, counts = ctx.saved_tensors
        options = ctx.options
        v = split_heads(multilevel.decode(code, gain).to(grad.dtype), q.shape[1])
        weights = _before_last_mask(_products(q, k), q, counts, options)
        grad_weights = torch.matmul(grad, v.transpose(-2, -1)).to(weights.dtype)
        applied = weights
        if options.score == "softmax" and options.hdm == "post_softmax":
            last = decay_mask(weights.shape[-1], options.log_phi, weights)
            applied = weights * last
            grad_weights.mul_(last)
        grad_v = torch.matmul(applied.transpose(-2, -1).to(grad.dtype), grad)
        if options.score == "softmax":
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        else:
            grad_scores = grad_weights.masked_fill_(_hidden_keys(counts, weights, options.causal), 0)
        bias_only = options.score == "softmax" and options.hdm == "log_bias"
        grad_scores.mul_(_scale(q, counts, options) if bias_only else _factor(q, grad_scores, counts, options))
        grad_scores = grad_scores.to(q.dtype)
        return torch.matmul(grad_scores, k), torch.matmul(grad_scores.transpose(-2, -1), q), grad_v, None, None, None, None


def repssa(q, k, spikes, options):
    """Re-parameterised spiking self-attention with the decay mask: HD-RepSSA_S or HD-RepSSA_L (Eq. 12, 13, 15).

    Arguments
    ---------
    q, k : Tensors (B, H, L, d), real
    spikes : operands.Spikes
        The values, (B, L, H * d); silent on padding.
    options : AttentionOptions

    Returns
    -------
    Tensor (B, L, H * d), real; frames past the end of an utterance are not defined.
    """
    v = split_heads(spikes.value, q.shape[1])
    with torch.autocast(q.device.type, enabled=False):
        y = _RepSSA.apply(q.contiguous(), k.contiguous(), v.to(q.dtype), spikes.code, spikes.gain, spikes.counts, options)
    return merge_heads(y)


def repssa_linear_scan(q, k, spikes, options, chunk=64):
    """RepSSA_L in O(L): a scan to the right and one to the left, chunk by chunk, instead of an L x L map.

    The state S = sum_j phi^(i-j) k_j v_j^T of what lies before a chunk decays as a whole; inside a chunk the map is
    small. The second scan runs over the mirrored sequence and leaves the frame itself out, so that it counts once.
    Same arguments and result as :func:`repssa` with ``score="linear"``.
    """
    v = split_heads(spikes.value, q.shape[1]).to(q.dtype)
    log_phi = 0.0 if options.hdm == "none" else options.log_phi
    valid = (torch.arange(q.shape[2], device=q.device) < spikes.counts.unsqueeze(1))[:, None, :, None]
    k = k * valid
    y = _scan(q, k, v, log_phi, chunk, diagonal=0)
    if not options.causal:
        y = y + _scan(q.flip(2), k.flip(2), v.flip(2), log_phi, chunk, diagonal=-1).flip(2)
    return merge_heads(y)


def _scan(q, k, v, log_phi, chunk, diagonal):
    state, parts = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for qc, kc, vc in zip(q.split(chunk, 2), k.split(chunk, 2), v.split(chunk, 2), strict=True):
        n = qc.shape[2]
        age = (torch.arange(1, n + 1, dtype=q.dtype, device=q.device) * log_phi).exp().unsqueeze(-1)
        inside = torch.matmul(qc, kc.transpose(-2, -1)) * decay_mask(n, log_phi, q).to(q.dtype).tril(diagonal)
        parts.append(torch.matmul(inside, vc) + torch.matmul(qc * age, state))
        remaining = (torch.arange(n - 1, -1, -1, dtype=q.dtype, device=q.device) * log_phi).exp().unsqueeze(-1)
        state = state * age[-1] + torch.matmul((kc * remaining).transpose(-2, -1), vc)
    return torch.cat(parts, 2)


def sdsa3(q, k, v, scale):
    """Spike-driven self-attention 3: Q_s (K_s^T V_s) * scale, no softmax and no map (Eq. 5); q, k, v (B, H, L, d), spikes."""
    return merge_heads(torch.matmul(q, torch.matmul(k.transpose(-2, -1), v)) * scale)


def split_heads(x, heads):
    """(B, L, H * d) -> (B, H, L, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x):
    """(B, H, L, d) -> (B, L, H * d)."""
    return x.transpose(1, 2).flatten(2)
