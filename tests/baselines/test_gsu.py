"""Gated spiking units: their equations, the state they carry, gradients, their size, what they tell of their products."""

import pytest
import torch

from spikebrain import convert, energy, operands
from spikebrain.baselines.gsu import GSU, GatedState, GSUState, aishell
from spikebrain.kernels import surrogate

SMALL = {"num_layers": 3, "d_model": 6, "hidden": 16}
COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20


def features(frames=20, seed=0):
    return 1.5 * torch.randn(3, frames, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lively(**switches):
    """A network in evaluation, with weights that make its gates and its recurrence count."""
    torch.manual_seed(0)
    network = GSU(12, **{**SMALL, **switches}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network.eval()


def size(model):
    return sum(p.numel() for p in model.parameters())


def written_out(network, x, threshold=0.0, step=None):
    """(out (L, d_model), spikes (L, H) and last membranes (H,) of every layer) of one utterance, frame by frame from the weights."""
    trains, membranes = [], []
    for layer in network.layers:
        spikes, c, train = torch.zeros(16, dtype=x.dtype), torch.zeros(16, dtype=x.dtype), []
        for frame in x:
            both = layer.linear.weight @ frame + layer.linear.bias + layer.recurrent.weight @ spikes
            f, g = 1 / (1 + (-both[:16]).exp()), both[16:]
            c = f * c + (1 - f) * g
            spikes = (c >= threshold).to(x.dtype) if step is None else step(c - threshold)
            train.append(spikes)
        x = torch.stack(train)
        trains.append(x), membranes.append(c)
    z = 2 * (x @ network.out.weight.T + network.out.bias)
    return (z.exp() - 1) / (z.exp() + 1), trains, membranes


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone(threshold):
    network, x = lively(threshold=threshold), features()
    x[1, 7:], x[2, 13:] = 1e3, float("nan")
    out, state = network(x, LENGTHS)
    for row, n in enumerate(COUNTS):
        expected, trains, membranes = written_out(network, x[row, :n], threshold)
        assert all(train.any() and not train.all() for train in trains), "a silent layer would prove nothing"
        assert torch.allclose(out[row, :n], expected, atol=1e-12) and not out[row, n:].any()
        for found, train, membrane in zip(state.layers, trains, membranes, strict=True):
            assert torch.equal(found.spikes[row], train[-1]), "of the utterance's own last frame"
            assert torch.allclose(found.membrane[row], membrane, atol=1e-12)


def test_units_hear_their_own_last_spikes():
    network = lively()
    before = network(features())[0]
    with torch.no_grad():
        network.layers[0].recurrent.weight.zero_()
    after = network(features())[0]
    assert torch.allclose(before[:, 0], after[:, 0]) and not torch.allclose(before[:, 1:], after[:, 1:], atol=1e-3)


def test_two_frames_of_one_unit_by_hand():
    """Gates of sigmoid(0) = 1/2: c is 0.5, then 0.25 + (1 - 2) / 2 = -0.25, since the spike of the first frame counts -2."""
    network = GSU(1, num_layers=1, d_model=1, hidden=1)
    layer = network.layers[0]
    with torch.no_grad():
        for weight, values in ((layer.linear.weight, [[0.0], [1.0]]), (layer.recurrent.weight, [[0.0], [-2.0]])):
            weight.copy_(torch.tensor(values))
        layer.linear.bias.zero_()
    first = network(torch.tensor([[[1.0]]]))[1].layers[0]
    second = network(torch.tensor([[[1.0], [1.0]]]))[1].layers[0]
    assert (first.spikes.item(), first.membrane.item()) == (1.0, 0.5)
    assert (second.spikes.item(), second.membrane.item()) == (0.0, -0.25)


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
    for one, other in zip(state.layers, last.layers, strict=True):
        assert torch.equal(one.spikes, other.spikes) and torch.allclose(one.membrane, other.membrane, atol=1e-12)
    assert torch.allclose(torch.cat(forgetful, 1), whole, atol=1e-3) == (chunk == 20), "without the state it would be another output"


@pytest.mark.parametrize("name, alpha", [("triangle", 1.0), ("triangle", 0.5), ("arctan", 2.0)])
def test_gradients_are_those_of_the_equations_with_the_surrogate(name, alpha):
    network, x = lively(surrogate=name, alpha=alpha, num_layers=2), features()[:1]

    def step(distance):
        slope = surrogate.derivative(name, distance.detach(), alpha)
        return (distance.detach() >= 0).to(distance.dtype) + slope * (distance - distance.detach())

    parameters = list(network.parameters())
    ours = torch.autograd.grad(network(x)[0].square().sum(), parameters)
    theirs = torch.autograd.grad(written_out(network, x[0], step=step)[0].square().sum(), parameters)
    assert all(one.any() and torch.allclose(one, other, atol=1e-10) for one, other in zip(ours, theirs, strict=True))


def test_the_surrogate_is_a_triangle_around_a_threshold_of_0():
    config = GSU(d_model=4, hidden=4).config
    assert (config.threshold, config.surrogate, config.alpha) == (0.0, "triangle", 1.0)
    distances = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0])
    assert surrogate.derivative(config.surrogate, distances, config.alpha).tolist() == [0.0, 0.5, 1.0, 0.75, 0.0]


def test_the_size_that_the_text_describes_and_not_the_one_it_prints():
    with torch.device("meta"):
        network = aishell()
        layers = [size(layer) for layer in network.layers]
    assert layers == [2 * 1024 * (channels + 1024) + 2 * 1024 for channels in (2560, 1024, 1024)]
    assert size(network) == 15_997_184 == sum(layers) + 1024 * 256 + 256
    vgg, decoder, ctc = 259_008, 11_644_553, 1_087_881  # of 80 mel bands; six blocks of width 256, 4233 characters
    assert vgg + size(network) + decoder + ctc == 28_988_626, "Table I prints 60.74 M"


def test_units_of_a_layer_are_as_many_as_asked_for():
    assert [layer.linear.weight.shape for layer in lively().layers] == [(32, 12), (32, 16), (32, 16)]
    assert [layer.recurrent.weight.shape for layer in lively(hidden=None, d_ffn=9).layers] == [(18, 9)] * 3
    assert GSU(d_model=6, hidden=4).input_size == 6


def test_products_by_hand():
    """Additions of the recurrence: every spike but those of an utterance's last frame is heard once, by both halves."""
    network, events, x = lively(), [], features()
    with torch.no_grad(), operands.listen(events.append):
        network(x, LENGTHS)
    sums = {}
    for event in (e for e in events if isinstance(e, operands.Product)):
        own = sums.setdefault(event.module, [event.left, 0, 0])
        own[1], own[2] = own[1] + event.macs, own[2] + (event.accumulates or 0)
    trains = [written_out(network, x[row, :n])[1] for row, n in enumerate(COUNTS)]
    fired = [int(sum(train[layer].sum() for train in trains)) for layer in range(3)]
    heard_again = [int(sum(train[layer][:-1].sum() for train in trains)) for layer in range(3)]
    real, binary = operands.Kind.REAL, operands.Kind.BINARY
    before = [None, *fired]
    for number, layer in enumerate(network.layers):
        channels = 12 if number == 0 else 16
        added = 0 if number == 0 else before[number] * 32
        assert sums.pop(layer.linear) == [real if number == 0 else binary, 40 * channels * 32, added]
        assert sums.pop(layer.recurrent) == [binary, 40 * 16 * 32, heard_again[number] * 32]
    assert sums.pop(network.out) == [binary, 40 * 16 * 6, fired[2] * 6] and not sums
    told = [e for e in events if isinstance(e, operands.Firing)]
    assert [(e.module, e.frames, int(e.counts.sum())) for e in told] == [
        (layer.neuron, 40, spikes) for layer, spikes in zip(network.layers, fired, strict=True)
    ]


def test_spikes_that_were_carried_are_added_too():
    network, x = lively(num_layers=1), features()
    _, state = network(x[:, :9])
    events = []
    with torch.no_grad(), operands.listen(events.append):
        network(x[:, 9:10], state=state)
    (told,) = [e for e in events if isinstance(e, operands.Product) and e.module is network.layers[0].recurrent]
    assert told.accumulates == int(state.layers[0].spikes.sum()) * 32 > 0


def test_what_it_computes_beside_products():
    network, x = lively(), features()
    counter = energy.Counter(torch.nn.ModuleDict({"net": network}))
    with torch.no_grad(), counter.listen():
        network(x, LENGTHS)
    counter.add_utterances(COUNTS, [0] * 3)
    full = energy.report_told(counter, "net", "net")["encoder_blocks"]
    lines = {(line["line"], line["kind"]): line["operations"] for line in full["further"]}
    updates = sum(COUNTS) * 16 / 3  # of an utterance
    assert lines["net.layers.1.neuron", "neurons"] == {"multiply": updates, "add": 4 * updates, "compare": updates, "sigmoid": updates}
    assert lines["net.layers.1.linear", "bias"] == {"add": 2 * updates} and ("net.layers.1.recurrent", "bias") not in lines
    assert full["further_unpriced"] == {"sigmoid": 3 * updates, "tanh": sum(COUNTS) * 6 / 3}
    audit = convert.audit(network, x, LENGTHS)
    assert {(one["layer"], one["part"]) for one in audit.findings if one["sort"] == "operation"} == {
        *((f"layers.{number}.neuron", "membrane") for number in range(3)), ("tanh", "tanh"),
    }  # fmt: skip
    assert not audit.unknown and [one["layer"] for one in audit.products if not one["accumulate_only"]] == ["layers.0.linear"]


def test_every_parameter_learns_and_a_carried_state_has_a_gradient():
    network, x = lively().train(), features().requires_grad_()
    network(x, LENGTHS)[0].square().sum().backward()
    assert all(p.grad.any() and p.grad.isfinite().all() for p in network.parameters())
    _, state = network(x[:, :9])
    (grad,) = torch.autograd.grad(network(x[:, 9:], state=state)[0].square().sum(), x)
    assert grad[:, :9].any()


def test_in_half_precision_membranes_stay_in_float32():
    network = lively().float()
    with torch.autocast("cpu", torch.bfloat16):
        out, state = network(features().float(), LENGTHS)
    assert out.isfinite().all() and all(layer.membrane.dtype == torch.float32 for layer in state.layers)


def test_what_other_encoders_take_changes_nothing():
    plain, asked = lively(), lively(nhead=5, d_ffn=7, causal=False, dropout=0.5)
    assert torch.equal(plain(features(), LENGTHS)[0], asked.train()(features(), LENGTHS)[0])


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: GSU(num_layers=0), ValueError, "num_layers is 0 and hidden 1024: choose 1 or more of each"),
        (lambda: GSU(hidden=0), ValueError, "num_layers is 3 and hidden 0"),
        (lambda: GSU(alpha=0), ValueError, "alpha 0 must be positive"),
        (lambda: GSU(surrogate="triangel"), ValueError, "surrogate is 'triangel': choose one of triangle, arctan.*; did you mean triangle"),
        (lambda: GSU(hiden=3), TypeError, "GSU has no option 'hiden'; did you mean hidden"),
        (lambda: GSU(inputsize=40), TypeError, "GSU has no option 'inputsize'; did you mean input_size"),
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
    with pytest.raises(ValueError, match="the state's spikes has shape .3, 16., x needs .1, 16.: pass the state of the same utterances"):
        network(x[:1], state=state)
    wrong = GSUState((GatedState(state.layers[0].spikes, torch.zeros(3, 5)), *state.layers[1:]))
    with pytest.raises(ValueError, match="the state's membrane has shape .3, 5., x needs .3, 16."):
        network(x, state=wrong)
    with pytest.raises(ValueError, match="the state has 2 layers, the network 3: pass the state that it returned"):
        network(x, state=GSUState(state.layers[:2]))
