"""Rate readout: the mean firing of output neurons over an utterance's own frames."""

import math

import pytest
import torch

from spikebrain import operands
from spikebrain.blocks.rate_readout import RateReadout
from spikebrain.neurons import LIF, PLIF
from spikebrain.neurons.neuron_switches import SoftNeuronSwitches

COUNTS = (12, 5, 8)
LENGTHS = torch.tensor(COUNTS) / 12


def currents(seed=0):
    return 1.5 * torch.randn(3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5


def readout(**switches):
    torch.manual_seed(0)
    module = RateReadout(10, 4, **switches).double()
    with torch.no_grad():
        module.linear.weight.mul_(4)
    return module


def fired(x, neuron):
    """Spikes (L, C) of currents ``x`` (L, C), frame by frame, with a soft reset."""
    membrane, spikes, decay = torch.zeros(x.shape[1], dtype=x.dtype), [], neuron.decays(x)
    for frame in x:
        membrane = decay * membrane + frame
        spikes.append((membrane >= 1).to(x.dtype))
        membrane = membrane - spikes[-1]
    return torch.stack(spikes)


@pytest.mark.parametrize("switches", [{}, {"logit_scale": 4.0}, {"neuron": "lif"}, {"decay": 0.8}], ids=str)
def test_is_the_equations_of_each_utterance_alone(switches):
    module, x = readout(**switches), currents()
    x[1, 5:], x[2, 8:] = float("nan"), 1e9
    logits = module(x, LENGTHS)
    for row, n in enumerate(COUNTS):
        hidden = fired(x[row, :n], module.neuron)
        out = fired(hidden @ module.linear.weight.T + module.linear.bias, module.output)
        assert torch.allclose(logits[row], switches.get("logit_scale", 1.0) * out.mean(0), atol=1e-12)
    assert 0 < logits.max() <= switches.get("logit_scale", 1.0) and len(set(logits.flatten().tolist())) > 4


def test_spikes_are_read_as_they_are():
    module = readout(input_neuron=False)
    x = (currents() > 0.5).double()
    expected = fired(x[0] @ module.linear.weight.T + module.linear.bias, module.output).mean(0)
    assert module.neuron is None and torch.allclose(module(x)[0], expected) and expected.any()
    scaled, currents_out = 1.25 * x, []  # as dropout leaves them
    module.linear.register_forward_hook(lambda layer, args, out: out.retain_grad() or currents_out.append(out))
    logits = module(scaled)
    logits.sum().backward()
    own = fired(scaled[0] @ module.linear.weight.T + module.linear.bias, module.output).mean(0)
    by_current = currents_out[0].grad
    assert torch.allclose(logits[0], own) and by_current.any()
    assert torch.allclose(module.linear.weight.grad, torch.einsum("blk,blc->kc", by_current, scaled), atol=1e-12)


def test_the_most_certain_answer_costs_what_the_rates_allow():
    """One-hot rates: 0.744 nats of 4 classes, 1.165 of 7; a scale of 10 lets them fall below 0.001."""
    for classes, floor in ((4, 0.744), (7, 1.165)):
        module = RateReadout(classes, classes, input_neuron=False)
        with torch.no_grad():
            module.linear.weight.copy_(2 * torch.eye(classes)), module.linear.bias.zero_()
        x = torch.zeros(1, 20, classes)
        x[..., 2] = 1.0
        logits = module(x)
        assert logits[0].tolist() == [float(k == 2) for k in range(classes)]
        cost = torch.nn.functional.cross_entropy(logits, torch.tensor([2])).item()
        assert cost == pytest.approx(math.log(math.e + classes - 1) - 1) == pytest.approx(floor, abs=1e-3)
        assert torch.nn.functional.cross_entropy(10 * logits, torch.tensor([2])) < 1e-3


def test_parameters_and_neurons():
    size = lambda **switches: sum(p.numel() for p in RateReadout(256, 4, **switches).parameters())  # noqa: E731
    assert (size(), size(neuron="lif"), size(input_neuron=False)) == (1_030, 1_028, 1_029)
    assert type(RateReadout(8, 4).neuron) is PLIF and type(RateReadout(8, 4, neuron="lif").output) is LIF
    assert RateReadout(8, 4).output.options == LIF(4, **SoftNeuronSwitches().neuron_options()).options


def test_products_by_hand():
    module, events = readout(), []
    with operands.listen(events.append):
        module(currents(), LENGTHS)
    (product,) = [e for e in events if isinstance(e, operands.Product)]
    first, last = [e for e in events if isinstance(e, operands.Firing)]
    assert (product.left, product.macs, product.accumulates) == (operands.Kind.BINARY, 25 * 40, int(first.counts.sum()) * 4)
    assert (first.module, last.module, first.frames, last.frames) == (module.neuron, module.output, 25, 25)


def test_half_precision_answers_in_float32():
    module = RateReadout(10, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(currents().float(), LENGTHS).dtype == torch.float32


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: RateReadout(8, 4, logit_scale=0), ValueError, "logit_scale is 0: choose more than 0, the paper's is 1"),
        (lambda: RateReadout(8, 4, neuron="plf"), ValueError, "neuron is 'plf': choose one of plif, lif; did you mean plif"),
        (lambda: RateReadout(8, 4, logitscale=2), TypeError, "RateReadout has no option 'logitscale'; did you mean logit_scale"),
        (lambda: RateReadout(8, 4)(torch.zeros(1, 3, 9)), ValueError, "x has 9 channels, the neuron 8"),
    ],
)
def test_wrong_arguments_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()
