"""The twin of SpikeSCR without spikes: its equations, its size beside SpikeSCR's, what it tells of its products."""

import pytest
import torch
import torch.nn.functional as F

from spikebrain import operands, registry
from spikebrain.attention import rope
from spikebrain.baselines.spikescr_twin import SpikeSCRTwin
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.encoders.spikescr import SpikeSCR

SMALL = {"num_layers": 2, "d_model": 16, "nhead": 2, "mlp_ratio": 2, "kernel_size": 5, "dropout": 0.1}
COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20


def features(frames=20, seed=0):
    return 1.5 * torch.randn(3, frames, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def calibrated(**switches):
    """A twin in evaluation, with norms that neither weights of 1 nor statistics of 0 and 1 can hide."""
    torch.manual_seed(0)
    twin = SpikeSCRTwin(12, **{**SMALL, **switches}).double()
    for module in twin.modules():
        if isinstance(module, MaskedBatchNorm):
            torch.nn.init.normal_(module.weight), torch.nn.init.normal_(module.bias)
    for seed in (1, 2, 3):
        twin(features(60, seed))
    return twin.eval()


def size(model):
    return sum(p.numel() for p in model.parameters())


def written_out(twin, x):
    """The output (L, D) of one utterance ``x`` (L, N), from the weights alone."""
    hidden = normed(twin.norm, F.conv1d(x.T[None], twin.conv.weight, twin.conv.bias, padding=1)[0].T).relu()
    for layer in twin.layers:
        attention, first, convolution, second = layer.branches
        hidden = hidden + attention_written_out(attention, hidden)
        hidden = hidden + applied(first.down, applied(first.up, hidden).relu())
        hidden = hidden + convolution_written_out(convolution, hidden)
        hidden = hidden + applied(second.down, applied(second.up, hidden).relu())
    return hidden


def normed(norm, y):
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def applied(layer, y):
    return normed(layer.norm, F.linear(y, layer.linear.weight, layer.linear.bias))


def attention_written_out(attention, x):
    heads = []
    for q, k, v in zip(*(part.chunk(2, -1) for part in applied(attention.qkv, x).chunk(3, -1)), strict=True):
        heads.append((turned(q) @ turned(k).T / 8**0.5).softmax(-1) @ v)
    return applied(attention.out, torch.cat(heads, -1))


def turned(x):
    """Each pair of channels of a head (L, 8), turned by its frame's angle."""
    angle = torch.arange(len(x), dtype=x.dtype).unsqueeze(1) * 10000.0 ** (-torch.arange(4, dtype=x.dtype) / 4)
    even, odd = x[:, 0::2], x[:, 1::2]
    return torch.stack([even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], -1).flatten(1)


def convolution_written_out(convolution, x):
    hidden = applied(convolution.pointwise, x).relu()
    hidden = normed(convolution.norm, F.conv1d(hidden.T[None], convolution.weight, padding=2, groups=16)[0].T).relu()
    content, path = applied(convolution.mix, hidden).chunk(2, -1)
    return content / (1 + (-applied(convolution.gate, path.relu())).exp())


def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone():
    twin, x = calibrated(), features()
    filled = x.clone()
    filled[1, 7:], filled[2, 13:] = 1e3, float("nan")
    for batch in (x, filled):
        out, state = twin(batch, LENGTHS)
        assert state is None and out.shape == (3, 20, 16)
        for row, n in enumerate(COUNTS):
            assert torch.allclose(out[row, :n], written_out(twin, x[row, :n]), atol=1e-10) and not out[row, n:].any()
    assert not torch.allclose(twin(x)[0][1, :7], out[1, :7], atol=1e-3), "padding that is not declared is heard"


def test_attention_knows_the_order_of_frames_from_rotary_positions_alone(monkeypatch):
    attention, order = calibrated(num_layers=1).layers[0].branches[0], torch.tensor([3, 1, 4, 0, 2])
    x, counts = features(5)[:, :, :8].repeat(1, 1, 2), torch.full((3,), 5)
    assert not torch.allclose(attention(x[:, order], counts), attention(x, counts)[:, order], atol=1e-3)
    monkeypatch.setattr(rope, "rotate", lambda x, heads: x)
    assert torch.allclose(attention(x[:, order], counts), attention(x, counts)[:, order], atol=1e-12)


@pytest.mark.parametrize(
    "changes", [{}, {"num_layers": 3}, {"mlp_ratio": 0.5}, {"d_ffn": 24}, {"kernel_size": 31}, {"nhead": 4, "d_model": 32}], ids=str
)
def test_it_has_as_many_parameters_as_the_network_that_it_is_the_twin_of(changes):
    spiking, twin = (make(12, **{**SMALL, **changes}) for make in (SpikeSCR, SpikeSCRTwin))
    assert size(spiking) == size(twin) != size(SpikeSCRTwin(13, **{**SMALL, **changes}))
    assert sum(b.numel() for b in spiking.buffers()) == sum(b.numel() for b in twin.buffers()), "norms are the same"


def test_it_lacks_the_decays_that_neurons_learn():
    spiking, twin = (make(12, **SMALL, neuron="plif") for make in (SpikeSCR, SpikeSCRTwin))
    decays = [p for name, p in spiking.named_parameters() if name.endswith("logit")]
    assert len(decays) == 1 + 2 * 13 and size(spiking) - size(twin) == len(decays)


@pytest.mark.parametrize("entry", [e for e in registry.entries("size") if e.name.startswith("spikescr")], ids=lambda e: e.name)
def test_twins_of_published_sizes(entry):
    with torch.device("meta"):
        config = entry.constructor(**entry.as_published).config
        twin = SpikeSCRTwin(140, **vars(config))
    assert size(twin) == entry.parameters


def told(model, x, lengths):
    """The events that a model tells of while it hears a batch."""
    events = []
    with operands.listen(events.append):
        model(x, lengths)
    return events


def test_it_tells_of_every_product_by_hand_and_none_has_a_spike():
    twin = calibrated(num_layers=1)
    names, events = {module: name for name, module in twin.named_modules()}, told(twin, features(), LENGTHS)
    assert all(isinstance(e, operands.Product) for e in events), "nothing fires"
    assert {(e.left, e.right, e.accumulates) for e in events} == {(operands.Kind.REAL, operands.Kind.REAL, None)}
    frames, pairs, branch = 20 + 7 + 13, 20**2 + 7**2 + 13**2, "layers.0.branches"
    expected = {
        ("conv", "weight"): frames * 3 * 12 * 16,
        (f"{branch}.0.qkv.linear", "weight"): frames * 16 * 48,
        (f"{branch}.0", "scores"): pairs * 16,
        (f"{branch}.0", "values"): pairs * 16,
        (f"{branch}.0.out.linear", "weight"): frames * 16 * 16,
        (f"{branch}.2.pointwise.linear", "weight"): frames * 16 * 16,
        (f"{branch}.2", "weight"): frames * 16 * 5,
        (f"{branch}.2.mix.linear", "weight"): frames * 16 * 32,
        (f"{branch}.2.gate.linear", "weight"): frames * 16 * 16,
        (f"{branch}.2", "gate"): frames * 16,
    }
    for mlp in (1, 3):
        expected |= {(f"{branch}.{mlp}.{layer}.linear", "weight"): frames * 16 * 32 for layer in ("up", "down")}
    assert {(names[e.module], e.part): e.macs for e in events} == expected and len(events) == len(expected)


def test_its_products_are_the_dense_ones_of_the_network_that_it_is_the_twin_of():
    """What an energy report prices as the twin of SpikeSCR is what this twin computes; padding is no part of it."""
    x, spiking = features(), SpikeSCR(12, **SMALL).double().eval()
    longer = torch.cat([x, x], 1)
    work = [
        sorted(e.macs for e in told(model, *heard) if isinstance(e, operands.Product))
        for model in (spiking, calibrated())
        for heard in ((x, LENGTHS), (longer, LENGTHS / 2))
    ]
    assert work[0] == work[1] == work[2] == work[3] and len(work[0]) == 1 + 2 * (4 + 2 * 2 + 5)


def test_it_trains_and_drops_out_in_training_alone():
    twin, x = calibrated(dropout=0.5), features()
    assert torch.equal(twin(x, LENGTHS)[0], twin(x, LENGTHS)[0])
    assert not torch.equal(twin.train()(x, LENGTHS)[0], twin(x, LENGTHS)[0])
    twin(x, LENGTHS)[0].square().sum().backward()
    # A norm behind a layer takes its bias away again: the gradient is 0 up to rounding.
    still = {name for name, p in twin.named_parameters() if not p.grad.any()}
    assert still == set() and all(p.grad.isfinite().all() for p in twin.parameters())


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: SpikeSCRTwin(gate=False), ValueError, "twin of SpikeSCR is that of the whole network: leave gate, convolution and pos"),
        (lambda: SpikeSCRTwin(convolution=False), ValueError, "leave gate, convolution and positions as they are"),
        (lambda: SpikeSCRTwin(positions="sin"), ValueError, "leave gate, convolution and positions as they are"),
        (lambda: SpikeSCRTwin(causal=True), ValueError, "causal is True, but SpikeSCR looks at the whole utterance"),
        (lambda: SpikeSCRTwin(kernel=5), TypeError, "SpikeSCR has no option 'kernel'; did you mean kernel_size"),
        (lambda: calibrated()(torch.zeros(1, 3, 40)), ValueError, "x has 40 channels, encoder expects 12: set input_size: 40"),
        (lambda: calibrated()(torch.zeros(2, 3, 12), torch.tensor([3.0, 2.0])), ValueError, "relative"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_the_input_is_as_wide_as_the_model_where_nothing_is_said():
    assert SpikeSCRTwin(**SMALL).input_size == 16 and SpikeSCRTwin(**SMALL)(torch.zeros(1, 3, 16))[0].shape == (1, 3, 16)
