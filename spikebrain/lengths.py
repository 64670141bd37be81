"""The one place that knows padding.

SpeechBrain gives every utterance of a padded batch a *relative* length in (0, 1]: its
own number of frames divided by the number of frames of the padded batch. This module
turns such lengths into frame counts and masks and back, and follows frame counts
through analysis windows and strided convolutions by formula, so that an utterance has
the same number of frames alone as in any batch.
"""

import torch


def absolute(lengths, x):
    """Frame counts of the utterances in ``x``.

    Arguments
    ---------
    lengths : Tensor (B,) or None
        Relative lengths in [0, 1]; None means that every frame is valid.
    x : Tensor (B, L, ...)
        The padded batch.

    Returns
    -------
    Tensor (B,), int64, values in 1..L.

    Raises
    ------
    ValueError
        When ``lengths`` has another batch size, or leaves [0, 1].
    """
    batch, frames = x.shape[:2]
    if lengths is None:
        return torch.full((batch,), frames, dtype=torch.long, device=x.device)
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}, x has a batch of {batch}: pass one length an utterance")
    if not torch.compiler.is_compiling() and bool((lengths.min() < 0) | (lengths.max() > 1 + 1e-4)):
        spread = f"{lengths.min():.3g} to {lengths.max():.3g}"
        raise ValueError(f"lengths go from {spread}, but are relative and lie in [0, 1]: divide by the frames of the batch")
    return (lengths.to(x.device) * frames).round().long().clamp(1, frames)


def relative(counts, frames):
    """Relative lengths (B,), float32, of utterances with ``counts`` (B,) frames in a batch padded to ``frames``."""
    return counts.to(torch.float32) / frames


def valid(counts, x):
    """True on the first ``counts`` (B,) frames of ``x`` (B, L, ...): (B, L) bool."""
    return torch.arange(x.shape[1], device=x.device) < counts.unsqueeze(1)


def zero_past(x, counts):
    """``x`` (B, L, ...) with all but the first ``counts`` (B,) frames of each utterance set to 0."""
    padding = ~valid(counts, x)
    return x.masked_fill(padding.view(padding.shape + (1,) * (x.dim() - 2)), 0)


def valid_mask(lengths, x):
    """True on frames that belong to an utterance: (B, L) bool, or None when ``lengths`` is None."""
    return None if lengths is None else valid(absolute(lengths, x), x)


def from_padding_mask(padding):
    """Relative lengths (B,) from a mask (B, L) that is True on padding, as torch and SpeechBrain pass it; None stays None."""
    if padding is None:
        return None
    return relative((~padding).sum(1), padding.shape[1])


def zero_padding(x, lengths):
    """``x`` (B, L, ...) with everything past each utterance's end set to 0 (``x`` itself when ``lengths`` is None)."""
    return x if lengths is None else zero_past(x, absolute(lengths, x))


def masked_mean(x, lengths=None):
    """Mean of ``x`` (B, L, C) over each utterance's own frames: (B, C)."""
    return zero_padding(x, lengths).sum(1) / absolute(lengths, x).unsqueeze(1).to(x.dtype)


def stft_frames(samples, hop):
    """Frames of a centred analysis: ``1 + samples // hop``, for an int or a tensor of counts."""
    return samples // hop + 1


def conv_frames(frames, kernel, stride):
    """Frames after an unpadded convolution or pooling: ``(frames - kernel) // stride + 1``, for an int or a tensor of counts."""
    return (frames - kernel) // stride + 1
