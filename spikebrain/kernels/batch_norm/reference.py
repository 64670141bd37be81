"""The definition of batch normalisation over the valid frames of a padded batch, in operations that autograd differentiates.

    y = (x - mean) / sqrt(var + eps) * weight + bias ,   0 past an utterance's end

mean and var (biased) are those of a channel over all valid frames of the batch (S. Ioffe, C. Szegedy, "Batch
Normalization", ICML 2015, Algorithm 1).
"""

from spikebrain import lengths as frames


def normalise(x, weight, bias, counts, eps):
    """``y`` (B, L, C), mean (C,) and var (C,) of ``x`` (B, L, C)."""
    valid = frames.valid(counts, x)
    rows = x[valid]
    mean, var = rows.mean(0), rows.var(0, unbiased=False)
    y = (x - mean) / (var + eps).sqrt() * weight + bias
    return y.masked_fill(~valid.unsqueeze(-1), 0), mean.detach(), var.detach()
