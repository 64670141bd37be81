"""The linear head of emotion2vec: its equation, its size, padding, products."""

import pytest
import torch

from spikebrain import operands
from spikebrain.baselines.linear_head import LinearHead

COUNTS = (10, 4, 7)
LENGTHS = torch.tensor(COUNTS) / 10


def features():
    return torch.randn(3, 10, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def head():
    torch.manual_seed(0)
    return LinearHead(12, 4, hidden=8).double()


def test_the_mean_stands_behind_the_first_layer():
    module, x = head(), features()
    x[1, 4:], x[2, 7:] = float("nan"), 1e9
    first, logits = module.encoder.linear, module(x, LENGTHS)
    for row, n in enumerate(COUNTS):
        hidden = (x[row, :n] @ first.weight.T + first.bias).clamp(min=0).mean(0)
        assert torch.allclose(logits[row], hidden @ module.head.weight.T + module.head.bias, atol=1e-12)
        before = (x[row, :n].mean(0) @ first.weight.T + first.bias).clamp(min=0)
        assert not torch.allclose(hidden, before, atol=1e-2), "pooled before, it would be another head"


def test_size_of_the_published_head():
    assert sum(p.numel() for p in LinearHead(768, 4).parameters()) == 197_892


def test_products_by_hand():
    module, events = head(), []
    with operands.listen(events.append):
        module(features(), LENGTHS)
    found = [(e.module, e.macs, e.accumulates) for e in events]
    assert found == [(module.encoder.linear, 21 * 12 * 8, None), (module.head, 3 * 8 * 4, None)]


def test_recipes_find_what_they_listen_to():
    module, heard = head(), []
    module.encoder.model.register_forward_hook(lambda layer, args, out: heard.append(out.shape))
    module(features(), LENGTHS)
    assert heard == [(3, 10, 8)] and module.encoder.output_size == 8


def test_it_learns_what_a_mean_before_the_layer_cannot_see():
    """Two classes of equal mean and other spread: the ReLU before the mean tells them apart."""
    torch.manual_seed(0)
    labels = torch.arange(16) % 2
    x = torch.randn(16, 60, 6) * torch.where(labels == 1, 2.0, 0.5).view(-1, 1, 1)
    x = x - x.mean(1, keepdim=True)
    module = LinearHead(6, 2, hidden=16)
    optimiser = torch.optim.RMSprop(module.parameters(), 5e-3, momentum=0.9)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(x), labels).backward()
        optimiser.step()
    assert (module(x).argmax(-1) == labels).all()


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="x has 40 channels, the head expects 12: set input_size: 40"):
        head()(torch.zeros(1, 3, 40).double())
