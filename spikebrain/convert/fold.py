"""Folds batch normalisation into the layer before it: at inference it is one multiplication and one addition a channel.

    norm(W x + b) = (scale W) x + (scale b + shift)
"""

import copy

import torch
from torch import nn

from spikebrain.blocks.masked_norm import MaskedBatchNorm, NormedNeuron
from spikebrain.convert.ready import ConversionError, check


def fold_batchnorm(network):
    """A copy of ``network`` without batch normalisation, which computes the same.

    Which norms read the output of which layer is said by each block: its attribute ``FOLDS`` holds (layer, (holders)), names of its
    own parts; several holders share the layer's output channels in order, and a holder is a :class:`MaskedBatchNorm`, or a
    :class:`NormedNeuron` that has one. A layer without bias gets one. A network without batch norms is copied.

    Arguments
    ---------
    network : nn.Module
        In evaluation mode; it stays as it is.

    Returns
    -------
    nn.Module

    Raises
    ------
    ConversionError
        As for :func:`spikebrain.convert.ready.check`; and for a batch norm before which no layer is declared.
    """
    check(network)
    network = copy.deepcopy(network)
    with torch.no_grad():
        for block in list(network.modules()):
            for layer, holders in getattr(block, "FOLDS", ()):
                _fold(block, layer, [name for name in holders if _norm_of(getattr(block, name)) is not None])
    left = next((name for name, module in network.named_modules() if isinstance(module, MaskedBatchNorm)), None)
    if left is not None:
        raise ConversionError(f"{left} (MaskedBatchNorm): no block says which layer it stands behind: name both in the block's FOLDS")
    return network


def _norm_of(holder):
    return holder.norm if isinstance(holder, NormedNeuron) else holder


def _fold(block, name, holders):
    if not holders:
        return
    layer = getattr(block, name)
    scale, shift = (torch.cat(parts) for parts in zip(*(_norm_of(getattr(block, holder)).affine() for holder in holders), strict=True))
    if len(scale) != len(layer.weight):
        raise ConversionError(f"{type(block).__name__}.{name} has {len(layer.weight)} channels, the norms behind it {len(scale)}")
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias
    layer.bias = nn.Parameter(bias * scale + shift)
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    for holder in holders:
        found = getattr(block, holder)
        setattr(*((found, "norm") if isinstance(found, NormedNeuron) else (block, holder)), None)
