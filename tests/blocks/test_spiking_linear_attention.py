"""Spiking linear attention: tokens without order, prompts wherever they stand, spikes and products as they are told."""

import pytest
import torch

from spikebrain import operands
from spikebrain.attention.linear_attention import COLUMNS
from spikebrain.blocks.spiking_linear_attention import SpikingLinearAttention
from spikebrain.neurons.single_step import SingleStepPLIF

COUNTS = torch.tensor([10, 4, 7])
LENGTHS = COUNTS / 10
NORMS = {
    "softmax": lambda k: k.softmax(0),
    "l1": lambda k: k / (k.abs().sum(0) + 1e-6),
    "l2": lambda k: k / (k.square().sum(0) + 1e-6).sqrt(),
    "mean": lambda k: k / len(k),
}


def attention(**options):
    torch.manual_seed(0)
    return SpikingLinearAttention(12, 6, SingleStepPLIF(12, alpha=2.0), **options).double()


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [1.5 * torch.randn(*shape, 12, dtype=torch.float64, generator=generator) for shape in ((3, 10), (4,))]


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("residual", [True, False])
def test_is_the_equations_of_each_utterance_alone(columns, residual):
    module, (x, prompts) = attention(columns=columns, residual=residual), tokens()
    x[1, 4:], x[2, 7:] = float("nan"), 1e9
    out, after = module(x, LENGTHS, prompts)
    w = module.qkv.weight.split([6, 6, 12])
    for row, n in enumerate(COUNTS.tolist()):
        z = torch.cat([x[row, :n], prompts])  # prompts at the end: where they stand does not matter
        q, k, v = ((z >= 1).double() @ part.T for part in w)
        expected = (q @ NORMS[columns](k).T) @ v / 6**0.5 + (z if residual else 0)
        assert torch.allclose(out[row, :n], expected[:n], atol=1e-12) and torch.allclose(after[row], expected[n:], atol=1e-12)
        assert not out[row, n:].any() and expected.abs().max() > 0.01


def test_frames_in_another_order_come_out_in_that_order_and_change_no_prompt():
    module, (x, prompts) = attention(), tokens()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    out, after = module(x, None, prompts)
    shuffled, same = module(x[:, order], None, prompts)
    assert torch.allclose(shuffled, out[:, order], atol=1e-12) and torch.allclose(same, after, atol=1e-12)


def test_prompts_hear_the_frames_and_frames_the_prompts():
    module, (x, prompts) = attention(residual=False), tokens()
    out, after = module(x, None, prompts)
    assert not torch.allclose(after[0], after[1], atol=1e-3), "two utterances tell their prompts the same"
    assert not torch.allclose(module(x, None, prompts * 0)[0], out, atol=1e-3)
    alone, none = module(x)
    assert none is None and not torch.allclose(alone, out, atol=1e-3)


def test_products_and_firing_by_hand():
    module, (x, prompts), events = attention(), tokens(), []
    with operands.listen(events.append):
        module(x, LENGTHS, prompts)
    fired = [e for e in events if isinstance(e, operands.Firing)]
    products = {(e.module, e.part): e for e in events if isinstance(e, operands.Product)}
    assert [(e.module, e.frames) for e in fired] == [(module.neuron, 21), (module.neuron, 12)]
    spikes = sum(int(e.counts.sum()) for e in fired)
    by_hand = sum(int((x[row, :n] >= 1).sum()) for row, n in enumerate(COUNTS.tolist())) + 3 * int((prompts >= 1).sum())
    assert spikes == by_hand > 0
    weight, state, read = (products[key] for key in ((module.qkv, "weight"), (module, "state"), (module, "read")))
    assert (weight.left, weight.macs, weight.accumulates) == (operands.Kind.BINARY, 33 * 12 * 24, spikes * 24)
    assert (state.macs, read.macs) == (33 * 6 * 12, 33 * 6 * 12) and state.accumulates is read.accumulates is None and len(products) == 3


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="columns is 'softmx': choose one of softmax, l1, l2, mean; did you mean softmax"):
        attention(columns="softmx")
