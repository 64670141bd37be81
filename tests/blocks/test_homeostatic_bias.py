"""Homeostatic bias: nothing at first, bounded later, and what learns when."""

import torch

from spikebrain import operands
from spikebrain.blocks.homeostatic_bias import HomeostaticBias


def context(seed=0):
    return 2 * torch.randn(5, 32, generator=torch.Generator().manual_seed(seed))


def test_is_exactly_0_for_every_input_at_first_and_not_after_one_step():
    torch.manual_seed(0)
    module, c = HomeostaticBias(32, 2), context()
    assert torch.equal(module(c), torch.zeros(5, 32))
    optimiser = torch.optim.SGD(module.parameters(), 1.0)
    (module(c) * torch.randn(5, 32)).sum().backward()
    assert module.up.weight.grad.any() and module.up.bias.grad.abs().min() > 0
    assert not module.down.weight.grad.any() and not module.down.bias.grad.any()
    optimiser.step()
    assert module(c).any() and not torch.allclose(module(c)[0], module(c)[1])
    module(c).sum().backward()
    assert module.down.weight.grad.any()


def test_is_the_equation_and_bounded():
    torch.manual_seed(0)
    module, c = HomeostaticBias(32, 4, scale=0.3).double(), context().double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    hidden = (c @ module.down.weight.T + module.down.bias).clamp(min=0)
    expected = 0.3 * torch.tanh(hidden @ module.up.weight.T + module.up.bias)
    assert torch.allclose(module(c), expected, atol=1e-12) and 0.299 < module(c).abs().max() <= 0.3
    assert module(c).min() < -0.1 < 0.1 < module(c).max(), "it excites and it inhibits"


def test_size_and_products_by_hand():
    module, events = HomeostaticBias(256, 16), []
    assert sum(p.numel() for p in module.parameters()) == 4_112 + 4_352
    with operands.listen(events.append):
        module(torch.zeros(3, 256))
    assert [(e.module, e.macs, e.accumulates) for e in events] == [(module.down, 3 * 4096, None), (module.up, 3 * 4096, None)]
