"""The spiking MLP of LIF neurons: its equations, the state it carries, its size, what it tells of its products."""

import pytest
import torch

from spikebrain import convert, energy, operands
from spikebrain.baselines.lif_mlp import LIFMLP, aishell
from spikebrain.baselines.lif_network import LIFNetworkState

SMALL = {"num_layers": 3, "d_model": 6, "hidden": 16}
COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20


def features(frames=20, seed=0):
    return 1.5 * torch.randn(3, frames, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lively(**switches):
    """A network in evaluation whose weights are large enough for every layer to fire."""
    torch.manual_seed(0)
    network = LIFMLP(12, **{**SMALL, **switches}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network.eval()


def size(model):
    return sum(p.numel() for p in model.parameters())


def written_out(network, x, reset):
    """(out (L, d_model), spikes (L, H) of every layer, membranes (H,)) of one utterance ``x`` (L, N), frame by frame from the weights."""
    trains, membranes = [], []
    for layer in network.layers:
        membrane, spikes = torch.zeros(16, dtype=x.dtype), []
        for frame in x @ layer.linear.weight.T + layer.linear.bias:
            membrane = 0.95 * membrane + frame
            spikes.append((membrane >= 0.8).to(x.dtype))
            membrane = membrane - 0.8 * spikes[-1] if reset == "soft" else membrane * (1 - spikes[-1])
        x = torch.stack(spikes)
        trains.append(x), membranes.append(membrane)
    z = 2 * (x @ network.out.weight.T + network.out.bias)
    return (z.exp() - 1) / (z.exp() + 1), trains, membranes


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone(reset):
    network, x = lively(reset=reset), features()
    x[1, 7:], x[2, 13:] = 1e3, float("nan")
    out, state = network(x, LENGTHS)
    for row, n in enumerate(COUNTS):
        expected, trains, membranes = written_out(network, x[row, :n], reset)
        assert all(train.any() and not train.all() for train in trains), "a silent layer would prove nothing"
        assert torch.allclose(out[row, :n], expected, atol=1e-12) and not out[row, n:].any()
        for found, membrane in zip(state.layers, membranes, strict=True):
            assert torch.allclose(found.membrane[row], membrane, atol=1e-12), "the membrane after the utterance's own last frame"


@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
def test_chunks_with_carried_state_are_the_whole(chunk):
    network, x = lively(), features()
    (whole, last), state, parts, forgetful = network(x), None, [], []
    for part in x.split(chunk, 1):
        out, state = network(part, state=state)
        parts.append(out)
        forgetful.append(network(part)[0])
    # Products of matrices with other numbers of rows round otherwise.
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-12)
    assert all(torch.allclose(one.membrane, other.membrane, atol=1e-12) for one, other in zip(state.layers, last.layers, strict=True))
    assert torch.allclose(torch.cat(forgetful, 1), whole, atol=1e-3) == (chunk == 20), "without the state it would be another output"


def test_neurons_of_a_layer_are_as_many_as_asked_for():
    assert [layer.linear.weight.shape for layer in lively().layers] == [(16, 12), (16, 16), (16, 16)]
    assert [layer.linear.weight.shape for layer in lively(hidden=None, d_ffn=9).layers] == [(9, 12), (9, 9), (9, 9)]
    assert LIFMLP().config.neurons == 1024 and LIFMLP(d_model=6).input_size == 6


def test_its_neurons_have_the_published_constants():
    for layer in lively().layers:
        assert layer.neuron.decay == 0.95 and layer.neuron.options.threshold == 0.8 and layer.neuron.options.soft
        assert (layer.neuron.options.surrogate, layer.neuron.options.alpha) == ("triangle", 1.0)


def test_the_size_that_the_text_describes_and_not_the_one_it_prints():
    with torch.device("meta"):
        encoder = size(aishell())
    assert encoder == 4_984_064 == (2560 * 1024 + 1024) + 2 * (1024 * 1024 + 1024) + (1024 * 256 + 256)
    vgg, decoder, ctc = 259_008, 11_644_553, 1_087_881  # of 80 mel bands; six blocks of width 256, 4233 characters
    assert vgg + encoder + decoder + ctc == 17_975_506, "Table I prints 22.96 M"


def test_products_by_hand():
    network, events, x = lively(), [], features()
    with torch.no_grad(), operands.listen(events.append):
        network(x, LENGTHS)
    told = {e.module: e for e in events if isinstance(e, operands.Product)}
    trains = [written_out(network, x[row, :n], "soft")[1] for row, n in enumerate(COUNTS)]
    spikes = [int(sum(train[layer].sum() for train in trains)) for layer in range(3)]
    first, *rest = (told.pop(layer.linear) for layer in network.layers)
    assert (first.left, first.macs, first.accumulates) == (operands.Kind.REAL, 40 * 12 * 16, None)
    assert [(e.left, e.macs, e.accumulates) for e in rest] == [(operands.Kind.BINARY, 40 * 256, n * 16) for n in spikes[:2]]
    last = told.pop(network.out)
    assert (last.left, last.macs, last.accumulates) == (operands.Kind.BINARY, 40 * 16 * 6, spikes[2] * 6) and not told


def test_a_tanh_of_every_output_is_listed_and_has_no_price():
    network, x = lively(), features()
    root = torch.nn.ModuleDict({"net": network})
    counter = energy.Counter(root)
    with torch.no_grad(), counter.listen():
        network(x, LENGTHS)
    counter.add_utterances(COUNTS, [0] * 3)
    found = energy.report_told(counter, "net.layers", "net")
    assert found["full"]["further_unpriced"] == {"tanh": sum(COUNTS) * 6 / 3}
    audit = convert.audit(network, x, LENGTHS)
    assert ("tanh", "tanh") in {(one["layer"], one["part"]) for one in audit.findings} and not audit.unknown


def test_every_parameter_learns_and_a_carried_state_has_a_gradient():
    network, x = lively().train(), features().requires_grad_()
    network(x, LENGTHS)[0].square().sum().backward()
    assert all(p.grad.any() and p.grad.isfinite().all() for p in network.parameters())
    _, state = network(x[:, :9])
    (grad,) = torch.autograd.grad(network(x[:, 9:], state=state)[0].square().sum(), x)
    assert grad[:, :9].any()


def test_what_other_encoders_take_changes_nothing():
    plain, asked = lively(), lively(nhead=5, d_ffn=7, causal=False, dropout=0.5)
    assert torch.equal(plain(features(), LENGTHS)[0], asked.train()(features(), LENGTHS)[0])


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: LIFMLP(num_layers=0), ValueError, "num_layers is 0 and hidden 1024: choose 1 or more of each"),
        (lambda: LIFMLP(hidden=0), ValueError, "num_layers is 3 and hidden 0"),
        (lambda: LIFMLP(reset="half"), ValueError, "reset is 'half': choose one of hard, soft"),
        (lambda: LIFMLP(surrogate="triangel"), ValueError, "surrogate is 'triangel'"),
        (lambda: LIFMLP(decay=1.5), ValueError, "decay is 1.5"),
        (lambda: LIFMLP(hiden=3), TypeError, "LIFMLP has no option 'hiden'; did you mean hidden"),
        (lambda: LIFMLP(inputsize=40), TypeError, "LIFMLP has no option 'inputsize'; did you mean input_size"),
        (lambda: lively()(torch.zeros(1, 3, 40)), ValueError, "x has 40 channels, encoder expects 12: set input_size: 40"),
        (lambda: lively()(torch.zeros(2, 3, 12), torch.tensor([3.0, 2.0])), ValueError, "relative"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_state_of_something_else_is_refused():
    network, x = lively(), features()
    _, state = network(x)
    with pytest.raises(ValueError, match="membrane is .3, 16., x needs .1, 16.: pass the state of the same utterances and layer"):
        network(x[:1], state=state)
    with pytest.raises(ValueError, match="the state has 2 layers, the network 3: pass the state that it returned"):
        network(x, state=LIFNetworkState(state.layers[:2]))
