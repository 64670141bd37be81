"""Spike-driven Transformer: its equations, its neurons, the published sizes, what it tells of its products."""

import pytest
import torch
import torch.nn.functional as F

from spikebrain import operands
from spikebrain.baselines import spike_driven_transformer as sdt
from spikebrain.baselines.spike_driven_transformer import SpikeDrivenTransformer
from spikebrain.encoders import iml_spikeformer as iml
from spikebrain.neurons import IterativeLIF

SMALL = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.0, "levels": 4}
COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20


def features(frames=20, seed=0):
    return 1.5 * torch.randn(3, frames, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lively(**switches):
    """A network in evaluation whose weights are large enough for every layer to fire."""
    torch.manual_seed(0)
    network = SpikeDrivenTransformer(**{**SMALL, **switches}).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network.eval()


def size(model):
    return sum(p.numel() for p in model.parameters())


def fired(currents, threshold, decay=0.5):
    """(spikes, a list of T Tensors) of T currents: membranes add up, fire, and lose a threshold for every spike."""
    membrane, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        membrane = decay * membrane + current
        spikes.append((membrane >= threshold).to(current.dtype))
        membrane = membrane - threshold * spikes[-1]
    assert any(s.any() for s in spikes), "a silent layer would prove nothing"
    return spikes


def written_out(network, x, attention_threshold):
    """The output (L, D) of one utterance ``x`` (L, D), micro-step by micro-step, from the weights alone."""

    def norm(layer, streams):
        return [F.layer_norm(one, (16,), layer.weight, layer.bias, layer.eps) for one in streams]

    def linear(layer, streams):
        return [one @ layer.weight.T + layer.bias for one in streams]

    streams = [x] * 4
    for block in network.layers:
        a, mlp = block.attention, block.mlp
        s = fired(norm(block.norm_1, streams), 1)
        qk = linear(a.qk, s)
        q, k, v = (fired(part, 1) for part in ([t[:, :16] for t in qk], [t[:, 16:] for t in qk], linear(a.v, s)))
        heads = [slice(0, 8), slice(8, 16)]
        mixed = [torch.cat([q[t][:, h] @ (k[t][:, h].T @ v[t][:, h]) / 8**0.5 for h in heads], 1) for t in range(4)]
        out = linear(a.out, fired(mixed, attention_threshold))
        streams = [one + more for one, more in zip(streams, out, strict=True)]
        hidden = fired(linear(mlp.linear_1, fired(norm(block.norm_2, streams), 1)), 1)
        streams = [one + more for one, more in zip(streams, linear(mlp.linear_2, hidden), strict=True)]
    return norm(network.norm, [sum(streams) / 4])[0]


@pytest.mark.parametrize("threshold", [0.5, 1.5])
def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone(threshold):
    network, x = lively(attention_threshold=threshold), features()
    heard = x.clone()
    heard[1, 7:], heard[2, 13:] = 1e3, -1e3
    out, state = network(heard, LENGTHS)
    assert state is None and out.shape == x.shape
    for row, n in enumerate(COUNTS):
        assert torch.allclose(out[row, :n], written_out(network, x[row, :n], threshold), atol=1e-10) and not out[row, n:].any()
    other = written_out(network, x[0], 2.0 - threshold)
    assert not torch.allclose(out[0], other, atol=1e-3), "the threshold behind the attention makes a difference"


def test_with_one_threshold_it_is_the_ablation_of_iml_spikeformer():
    """Both switches of Table V at once; weights go from the one to the other by their names."""
    network = lively(attention_threshold=1.0)
    twin = iml.IMLSpikeformer(**SMALL, attention="sdsa3", neuron="lif_multistep", hdm="none", qk_bias=True).double().eval()
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(features(), LENGTHS)[0], network(features(), LENGTHS)[0])


def test_only_the_neurons_behind_the_attention_have_a_threshold_of_their_own():
    network = SpikeDrivenTransformer(**SMALL, threshold=3.0, attention_threshold=0.25, decay=0.75)
    found = {name: (m.threshold, m.decay, m.levels) for name, m in network.named_modules() if isinstance(m, IterativeLIF)}
    assert len(found) == 2 * 7
    for name, numbers in found.items():
        assert numbers == (0.25 if name.endswith("attention.sn_a") else 3.0, 0.75, 4), name


def test_micro_steps_are_no_copies_of_one_another():
    one, four = lively(levels=1), lively()
    four.load_state_dict(one.state_dict())
    assert not torch.allclose(one(features())[0], four(features())[0], atol=1e-3), "membranes are carried from step to step"


def test_frames_have_no_order_of_their_own():
    network, order = lively(), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(network(features()[:, order])[0], network(features())[0][:, order], atol=1e-10)
    assert network.position == "abs"


@pytest.mark.parametrize(
    "published, twin, qk_bias, parameters",
    [
        (sdt.aishell_12, iml.aishell_12, True, 15_781_376),
        (sdt.aishell_12, iml.aishell_12, False, 15_775_232),
        (sdt.librispeech_18, iml.librispeech_18, True, 56_743_936),
    ],
)
def test_published_sizes(published, twin, qk_bias, parameters):
    """Front end, decoder and CTC beside it, 30,351,890 and 99,364,624: as those of IML-Spikeformer, with the same encoder."""
    with torch.device("meta"):
        encoder = published(qk_bias=qk_bias)
        assert size(encoder) == parameters == size(twin(qk_bias=qk_bias)) != size(published(qk_bias=qk_bias, d_ffn=2047))
    d, f, config = encoder.config.d_model, encoder.config.d_ffn, encoder.config
    assert parameters == config.num_layers * (4 * d * d + (4 if qk_bias else 2) * d + 2 * d * f + f + d + 4 * d) + 2 * d
    assert config.levels == 6 and d // config.nhead == 64, "the scale of the attention is 1/8, as in the published code"


def test_other_numbers_of_micro_steps_keep_the_size():
    with torch.device("meta"):
        sizes = {levels: sdt.librispeech_18(levels=levels) for levels in (4, 6, 8)}
    assert {size(one) for one in sizes.values()} == {56_743_936}
    assert [one.layers[0].attention.sn_q.levels for one in sizes.values()] == [4, 6, 8]


def test_without_norms_only_their_parameters_are_gone():
    plain, bare = lively(), lively(block_norm="none", final_norm=False)
    assert size(plain) - size(bare) == 2 * 2 * 32 + 32
    assert set(plain.state_dict()) - set(bare.state_dict()) == {n for n in plain.state_dict() if "norm" in n}
    assert bare(features(), LENGTHS)[0].any()


def test_it_tells_of_every_product_and_all_have_a_spike():
    network, events = lively(num_layers=1), []
    with torch.no_grad(), operands.listen(events.append):
        network(features(), LENGTHS)
    names = {module: name for name, module in network.named_modules()}
    products = {(names[e.module], e.part): e for e in events if isinstance(e, operands.Product)}
    frames, spikes = 4 * sum(COUNTS), {names[e.module]: int(e.counts.sum()) for e in events if isinstance(e, operands.Firing)}
    own = "layers.0.attention"
    dense = {(f"{own}.qk", "weight"): 512, (f"{own}.v", "weight"): 256, (own, "state"): 128, (own, "read"): 128}
    dense |= {(f"{own}.out", "weight"): 256, ("layers.0.mlp.linear_1", "weight"): 512, ("layers.0.mlp.linear_2", "weight"): 512}
    assert {key: one.macs for key, one in products.items()} == {key: frames * each for key, each in dense.items()}
    assert all(one.left is operands.Kind.BINARY and one.accumulates > 0 for one in products.values())
    assert products[f"{own}.qk", "weight"].accumulates == 32 * spikes[f"{own}.sn_in"]
    assert products[own, "read"].accumulates == 8 * spikes[f"{own}.sn_q"]
    assert products["layers.0.mlp.linear_2", "weight"].accumulates == 16 * spikes["layers.0.mlp.sn_2"]
    assert all(e.frames == frames and e.levels == 1 for e in events if isinstance(e, operands.Firing))


def test_every_parameter_learns_through_the_micro_steps():
    network = lively(dropout=0.1).train()
    network(features(), LENGTHS)[0].square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for name, p in network.named_parameters() if not name.endswith("norm.bias"))


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: SpikeDrivenTransformer(causal=True), ValueError, "causal is True, but SpikeDrivenTransformer looks at"),
        (lambda: SpikeDrivenTransformer(d_model=30, nhead=4), ValueError, "d_model 30 is not a multiple of nhead 4"),
        (lambda: SpikeDrivenTransformer(num_layers=0), ValueError, "num_layers is 0 and levels 6: choose 1 or more of each"),
        (lambda: SpikeDrivenTransformer(levels=0), ValueError, "levels 0: choose 1 or more of each"),
        (lambda: SpikeDrivenTransformer(decay=1.5), ValueError, "decay is 1.5: choose what is left"),
        (lambda: SpikeDrivenTransformer(attention_threshold=0), ValueError, "attention_threshold 0 must be positive"),
        (lambda: SpikeDrivenTransformer(block_norm="batch"), ValueError, "block_norm is 'batch': choose one of layernorm, none"),
        (lambda: SpikeDrivenTransformer(level=4), TypeError, "SpikeDrivenTransformer has no option 'level'; did you mean levels"),
        (lambda: SpikeDrivenTransformer(neuron="imls"), TypeError, "SpikeDrivenTransformer has no option 'neuron'"),
        (lambda: lively()(torch.zeros(1, 3, 40)), ValueError, "x has 40 channels, encoder expects 16: set d_model: 40"),
        (lambda: lively()(torch.zeros(2, 3, 16), torch.tensor([3.0, 2.0])), ValueError, "relative"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()
