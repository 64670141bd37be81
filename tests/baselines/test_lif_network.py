"""The feed-forward network of LIF neurons: its equations, the state it carries, what it tells of its products."""

import pytest
import torch

from spikebrain import operands
from spikebrain.baselines.lif_network import LIFNetwork, LIFNetworkState
from spikebrain.blocks.masked_norm import MaskedBatchNorm

SMALL = {"num_layers": 3, "d_model": 16, "dropout": 0.1}
COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20
NEURONS = pytest.mark.parametrize("neuron", ["lif", "plif"])


def features(frames=20, seed=0):
    return 1.5 * torch.randn(3, frames, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def calibrated(**switches):
    """A network in evaluation that fires in every layer; learned decays differ from neuron to neuron."""
    torch.manual_seed(0)
    network = LIFNetwork(12, **{**SMALL, **switches}).double()
    for name, parameter in network.named_parameters():
        if name.endswith("logit"):
            torch.nn.init.normal_(parameter)
    for module in network.modules():
        if isinstance(module, MaskedBatchNorm):
            module.momentum = 1.0
    for seed in (1, 2, 3):
        network(features(60, seed))
    return network.eval()


def written_out(network, x):
    """Spikes (L, C) of every layer, and membranes (C,), of one utterance ``x`` (L, N), frame by frame from the weights."""
    trains, membranes = [], []
    for layer in network.layers:
        norm = layer.norm
        current = (x @ layer.linear.weight.T - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        decay = torch.sigmoid(layer.neuron.logit) if network.config.neuron == "plif" else network.config.decay
        membrane, spikes = torch.zeros(16, dtype=x.dtype), []
        for frame in current:
            membrane = decay * membrane + frame
            spikes.append((membrane >= 1).to(x.dtype))
            membrane = membrane * (1 - spikes[-1])
        x = torch.stack(spikes)
        trains.append(x), membranes.append(membrane)
    return trains, membranes


@NEURONS
def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone(neuron):
    network, x = calibrated(neuron=neuron), features()
    x[1, 7:], x[2, 13:] = 1e3, float("nan")
    spikes, state = network(x, LENGTHS)
    for row, n in enumerate(COUNTS):
        trains, membranes = written_out(network, x[row, :n])
        assert all(train.any() and not train.all() for train in trains), "a silent layer would prove nothing"
        assert torch.equal(spikes[row, :n], trains[-1]) and not spikes[row, n:].any()
        for found, membrane in zip(state.layers, membranes, strict=True):
            assert torch.allclose(found.membrane[row], membrane, atol=1e-12), "the membrane after the utterance's own last frame"


@NEURONS
@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
def test_chunks_with_carried_state_are_the_whole(neuron, chunk):
    network, x = calibrated(neuron=neuron), features()
    (whole, last), state, parts, forgetful = network(x), None, [], []
    for part in x.split(chunk, 1):
        spikes, state = network(part, state=state)
        parts.append(spikes)
        forgetful.append(network(part)[0])
    assert torch.equal(torch.cat(parts, 1), whole)
    # Products of matrices with other numbers of rows round otherwise.
    assert all(torch.allclose(one.membrane, other.membrane, atol=1e-12) for one, other in zip(state.layers, last.layers, strict=True))
    assert torch.equal(torch.cat(forgetful, 1), whole) == (chunk == 20), "without the state it would be another train"


@NEURONS
def test_a_frame_reaches_later_ones_and_none_before(neuron):
    network, x = calibrated(neuron=neuron), features()
    other = x.clone()
    other[:, 9] += 3
    before, after = network(x)[0], network(other)[0]
    assert torch.equal(before[:, :9], after[:, :9]) and not torch.equal(before[:, 10:], after[:, 10:])
    x.requires_grad_()
    (grad,) = torch.autograd.grad(network(x)[0][:, 9].sum(), x)
    assert grad[:, :9].any() and not grad[:, 10:].any()


def test_gradients_flow_through_a_carried_state():
    network, x = calibrated().train(), features().requires_grad_()
    _, state = network(x[:, :9])
    (grad,) = torch.autograd.grad(network(x[:, 9:], state=state)[0].sum(), x)
    assert grad[:, :9].any()


@NEURONS
def test_parameters_by_formula_and_all_of_them_learn(neuron):
    network = calibrated(neuron=neuron).train()
    per_layer = 2 * 16 + (16 if neuron == "plif" else 0)
    assert sum(p.numel() for p in network.parameters()) == 12 * 16 + 2 * 16 * 16 + 3 * per_layer
    network(features(), LENGTHS)[0].square().sum().backward()
    assert all(p.grad.any() and p.grad.isfinite().all() for p in network.parameters())


@NEURONS
def test_every_neuron_begins_with_the_decay_that_was_asked_for(neuron):
    for layer in LIFNetwork(12, **SMALL, neuron=neuron, decay=0.8).layers:
        assert torch.allclose(layer.neuron.decays(torch.zeros(1)), torch.full((16,), 0.8))


def test_what_other_encoders_take_changes_nothing():
    plain, asked = calibrated(), calibrated(nhead=5, d_ffn=7, causal=False)
    assert torch.equal(plain(features(), LENGTHS)[0], asked(features(), LENGTHS)[0])
    assert LIFNetwork(**SMALL).input_size == 16


@pytest.mark.parametrize("kind", ["real", "level"])
def test_products_by_hand(kind):
    network, events = calibrated(input_kind=kind), []
    x = torch.poisson(features().abs(), generator=torch.Generator().manual_seed(0))
    with operands.listen(events.append):
        network(x, LENGTHS)
    products = {e.module: e for e in events if isinstance(e, operands.Product)}
    heard = [torch.cat([x[row, :n] for row, n in enumerate(COUNTS)])]
    trains = [written_out(network, x[row, :n])[0] for row, n in enumerate(COUNTS)]
    heard += [torch.cat(layer) for layer in zip(*trains, strict=True)][:-1]
    kinds = [operands.Kind(kind), operands.Kind.BINARY, operands.Kind.BINARY]
    for layer, inputs, left in zip(network.layers, heard, kinds, strict=True):
        told = products.pop(layer.linear)
        assert (told.left, told.right, told.macs) == (left, operands.Kind.REAL, 40 * inputs.shape[1] * 16)
        assert told.accumulates == (None if left is operands.Kind.REAL else int(inputs.sum()) * 16)
    assert not products and [e.module for e in events if isinstance(e, operands.Firing)] == [layer.neuron for layer in network.layers]


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: LIFNetwork(neuron="imls"), ValueError, "neuron is 'imls': choose one of lif, plif"),
        (lambda: LIFNetwork(input_kind="spikes"), ValueError, "input_kind is 'spikes': choose one of real, level"),
        (lambda: LIFNetwork(num_layers=0), ValueError, "num_layers is 0: choose 1 or more"),
        (lambda: LIFNetwork(num_layer=2), TypeError, "LIFNetwork has no option 'num_layer'; did you mean num_layers"),
        (lambda: LIFNetwork(inputsize=40), TypeError, "LIFNetwork has no option 'inputsize'; did you mean input_size"),
        (lambda: LIFNetwork(decay=1.5), ValueError, "decay is 1.5"),
        (lambda: calibrated()(torch.zeros(1, 3, 40)), ValueError, "x has 40 channels, encoder expects 12: set input_size: 40"),
        (lambda: calibrated()(torch.zeros(2, 3, 12), torch.tensor([3.0, 2.0])), ValueError, "relative"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_state_of_something_else_is_refused():
    network, x = calibrated(), features()
    _, state = network(x)
    with pytest.raises(ValueError, match="membrane is .3, 16., x needs .1, 16.: pass the state of the same utterances and layer"):
        network(x[:1], state=state)
    with pytest.raises(ValueError, match="the state has 2 layers, the network 3: pass the state that it returned"):
        network(x, state=LIFNetworkState(state.layers[:2]))
