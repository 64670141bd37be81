"""Only weights decay."""

import torch
from torch import nn

from spikebrain.neurons import PLIF
from spikebrain.training.optimizers import adamw


def test_only_what_has_two_dimensions_decays():
    net = nn.ModuleList([nn.Linear(3, 2), nn.LayerNorm(2), PLIF(2)])
    frozen = nn.Linear(2, 2).requires_grad_(False)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = adamw([*net.parameters(), *frozen.parameters()], lr=0.1, weight_decay=0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)  # without a gradient only decay moves a parameter
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"0.weight"}
    assert torch.allclose(net[0].weight, before["0.weight"] * (1 - 0.1 * 0.5))
    assert not any(p is q for group in optimizer.param_groups for p in group["params"] for q in frozen.parameters())
