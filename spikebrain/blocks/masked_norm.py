"""Batch normalisation that does not see padding, alone or fused with the neurons behind it."""

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain.kernels import batch_norm, lif
from spikebrain.kernels.lif import normed


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over all valid frames of a padded batch.

    Parameters, buffers and running averages are those of ``nn.BatchNorm1d``, but for its counter of batches. It is no subclass
    of torch's: conversion to SyncBatchNorm would drop the masking. With several processes, sum, square sum and count of
    the batch are shared, so that n processes equal one on the joined batch.

    Arguments
    ---------
    channels : int
        C.
    eps : float
    momentum : float
        Weight of a batch in the running averages.

    Attributes
    ----------
    running_mean, running_var : Tensors (C,)
        For evaluation; the variance is the unbiased one.
    """

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"{self.channels}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, x, lengths=None):
        """Normalises ``x`` (B, L, C); frames past an utterance's end count nowhere and come out as 0.

        Raises ValueError when x has another number of channels.
        """
        return self.normalise(x, frames.absolute(lengths, x))

    def normalise(self, x, counts):
        """The same, from frame counts (B,) int64."""
        self._check(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            if not self.training:
                scale, shift = self.affine(wide.dtype)
                return frames.zero_past(wide * scale + shift, counts).to(x.dtype)
            y, found = batch_norm.normalise(wide, *self._parameters_as(wide.dtype), counts, self.eps)
        self._update(found)
        return y.to(x.dtype)

    def normalise_and_fire(self, x, counts, weight, decay, start, gain, options):
        """LIF neurons over the normalised ``x``: (spikes, code, membrane) of :func:`spikebrain.kernels.lif.fire`.

        ``weight`` (C,) or None multiplies what enters the neurons. x is float32 or float64.
        """
        self._check(x)
        if not self.training:
            scale, shift = self.affine(x.dtype)
            affine = lif.Affine(scale, shift) if weight is None else lif.Affine(scale * weight, shift * weight)
            return lif.fire(x, affine, decay, start, gain, counts, options)
        gamma, beta = self._parameters_as(x.dtype)
        if weight is not None:
            gamma, beta = gamma * weight, beta * weight
        *fired, found = normed.fire(x, gamma, beta, decay, start, gain, counts, self.eps, options)
        self._update(found)
        return fired

    def affine(self, dtype=None):
        """(scale, shift), Tensors (C,), with which evaluation normalises: x * scale + shift."""
        weight, bias = self._parameters_as(dtype or self.weight.dtype)
        scale = weight * (self.running_var.to(weight.dtype) + self.eps).rsqrt()
        return scale, bias - self.running_mean.to(weight.dtype) * scale

    def _parameters_as(self, dtype):
        return self.weight.to(dtype), self.bias.to(dtype)

    def _check(self, x):
        if x.shape[-1] != self.channels:
            raise ValueError(f"x has {x.shape[-1]} channels, the norm {self.channels}: set channels={x.shape[-1]}")

    def _update(self, found):
        """Running averages; not while a checkpointed segment is computed again in the backward pass, which has seen this batch."""
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return
        with torch.no_grad():
            batch_norm.update_(self.running_mean, self.running_var, found, self.momentum)


class NormedNeuron(nn.Module):
    """A batch normalisation and the neurons behind it, computed as one.

    Arguments
    ---------
    channels : int
    neuron : LIF
        Any neuron with the ``run`` of :class:`spikebrain.neurons.LIF`.
    dropout : float
        Share of neurons that are left out of an utterance while training: one mask for all of its frames, as SpikingJelly's
        multi-step dropout draws it (SpikeSCR's code).
    """

    def __init__(self, channels, neuron, dropout=0.0):
        super().__init__()
        self.norm, self.neuron, self.dropout = MaskedBatchNorm(channels), neuron, FrameConstantDropout(dropout)

    def fire(self, x, counts):
        """Declared :class:`operands.Spikes` of membranes ``x`` (B, L, C) and frame counts (B,)."""
        return self.neuron.run(x, counts, None, self.dropout.gain(x), self.norm)[0]


class FrameConstantDropout(nn.Module):
    """Dropout with one mask for all frames of an utterance; kept values are scaled by 1 / (1 - p).

    It gives masks, not outputs: neurons multiply their spikes with it in the pass that writes them.
    """

    def __init__(self, p=0.0):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout is {p}: choose a share from 0 to below 1")
        self.p = p

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"p={self.p}"

    def gain(self, x):
        """The mask (B, 1, C) for ``x`` (B, L, C), or None outside of training."""
        if not self.training or self.p == 0:
            return None
        keep = torch.rand(x.shape[0], 1, x.shape[-1], device=x.device) >= self.p
        return keep.to(x.dtype if x.dtype == torch.float64 else torch.float32) / (1 - self.p)
