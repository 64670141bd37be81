"""The hierarchical decay mask: early blocks look near, late blocks far (IML-Spikeformer Eq. 14).

    H_ij(m) = phi_m ** |i - j| ,  phi_m = 1 - 2 ** (-5 - m)

phi_1 halves in 44 frames, phi_12 is 0.99999237, and from m = 4 on bfloat16 would round it to 1: the mask is therefore
built in float32 at least, as exp(|i - j| * log1p(-2 ** (-5 - m))).
"""

import math

import torch


def log_decay(m):
    """log phi_m, a float, for block ``m`` (the paper's first block is 1)."""
    return math.log1p(-(2.0 ** (-5 - m)))


def distances(length, like):
    """|i - j| as (L, L), in float32, or in float64 for float64 ``like``."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    position = torch.arange(length, dtype=dtype, device=like.device)
    return (position.unsqueeze(1) - position).abs()


def decay_mask(length, log_phi, like):
    """H (L, L), symmetric with ones on the diagonal; in float32, or in float64 for float64 ``like``.

    It costs L * L exponentials and is made where it is used, forward and back: no block keeps one.
    """
    return (distances(length, like) * log_phi).exp()
