"""Attention that is linear in the number of tokens: the context of all keys and values first, then each query reads it.

    O = Q (N(K)^T V) / sqrt(d_k)        (PTS-SNN Eq. 9)

N normalises every channel of K over the tokens. Which normalisation the paper means by "column-wise" is not said: the softmax is
ours, as in Z. Shen et al., "Efficient Attention: Attention with Linear Complexities", WACV 2021. So is the division by sqrt(d_k),
without which the context grew to tens and saturated what reads it. There is no softmax over queries and no map of token by token.
"""

import torch

from spikebrain import lengths as frames

_TINY = 1e-6  # beside sums of keys that may all be 0, when no token fires


def _softmax(k, counts):
    return k.masked_fill(~frames.valid(counts, k).unsqueeze(-1), -torch.inf).softmax(1)


def _l1(k, counts):
    k = frames.zero_past(k, counts)
    return k / (k.abs().sum(1, keepdim=True) + _TINY)


def _l2(k, counts):
    k = frames.zero_past(k, counts)
    return k / (k.square().sum(1, keepdim=True) + _TINY).sqrt()


def _mean(k, counts):
    return frames.zero_past(k, counts) / counts.view(-1, 1, 1)


_NORMALISE = {"softmax": _softmax, "l1": _l1, "l2": _l2, "mean": _mean}
COLUMNS = tuple(_NORMALISE)


def normalise_columns(k, counts, columns="softmax"):
    """N(K): every channel of ``k`` normalised over an utterance's own tokens.

    Arguments
    ---------
    k : Tensor (B, N, d_k)
    counts : Tensor (B,), int64
        Valid tokens.
    columns : str
        "softmax", "l1" or "l2" (the sum or the root of squares is 1; 0 where all are 0), "mean" (divided by the number of tokens).

    Returns
    -------
    Tensor (B, N, d_k), float32 at least; 0 past the valid tokens.
    """
    return _NORMALISE[columns](k.to(torch.promote_types(k.dtype, torch.float32)), counts)


def linear_attention(q, k, v, counts, columns="softmax"):
    """O (B, N, d_v) of queries and keys ``q``, ``k`` (B, N, d_k) and values ``v`` (B, N, d_v); ``counts`` (B,) as for N(K).

    Rows past an utterance's tokens hold what their queries read. O(N d_k d_v) products; nothing is of size N x N.
    """
    with torch.autocast(q.device.type, enabled=False):
        context = torch.matmul(normalise_columns(k, counts, columns).to(v.dtype).transpose(1, 2), v)
        return torch.matmul(q, context) * q.shape[-1] ** -0.5
