"""Optimizers that know which parameters are weights."""

import torch


def adamw(parameters, lr, weight_decay, **options):
    """AdamW that lets weights decay and nothing else.

    Biases, gains of norms, decays of neurons and prompts, all of them tensors of one dimension, stay free: a membrane's decay that
    is pulled towards 0 forgets its past by and by, and a prompt falls below the threshold (ours; PTS-SNN does not say).

    Arguments
    ---------
    parameters : iterable of Parameter
    lr, weight_decay : float
    **options
        Of ``torch.optim.AdamW``.

    Returns
    -------
    torch.optim.AdamW
    """
    parameters = [p for p in parameters if p.requires_grad]
    groups = [{"params": [p for p in parameters if p.dim() > 1]}, {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, weight_decay=weight_decay, **options)
