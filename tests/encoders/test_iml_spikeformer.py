"""IML-Spikeformer as a whole: equations, switches, symmetries, precision, memory."""

import itertools
import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from spikebrain import operands
from spikebrain.attention import spike_attention
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer, IMLSpikeformerBlock, IMLSpikeformerConfig

SMALL = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.0}
TABLE_V = {
    "full": {},
    "IMLS -> MLS": {"neuron": "mls"},
    "IMLS -> multi-timestep": {"neuron": "lif_multistep"},
    "HD-RepSSA_S -> RepSSA_S": {"hdm": "none"},
    "HD-RepSSA_S -> SDSA-3": {"attention": "sdsa3"},
    "-> HD-RepSSA_L": {"score": "linear"},
    "-> RepSSA_L": {"score": "linear", "hdm": "none"},
}


def calibrated(**switches):
    torch.manual_seed(0)
    encoder = IMLSpikeformer(**{**SMALL, **switches}).double()
    for _ in range(3):
        encoder(torch.randn(3, 20, encoder.config.d_model, dtype=torch.float64))
    return encoder.eval()


@pytest.mark.parametrize("row", TABLE_V)
def test_every_row_of_table_v_trains_and_differs_only_in_its_switch(row):
    torch.manual_seed(0)
    x, lengths = torch.randn(2, 12, 16), torch.tensor([1.0, 0.5])
    full, ablated = IMLSpikeformer(**SMALL), IMLSpikeformer(**SMALL, **TABLE_V[row])
    assert sum(p.numel() for p in full.parameters()) == sum(p.numel() for p in ablated.parameters())
    ablated.load_state_dict(full.state_dict(), strict=False)
    out, _ = ablated(x, lengths)
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in ablated.parameters())
    assert (row == "full") == torch.allclose(out, full(x, lengths)[0])


def test_block_is_the_printed_equations():
    """One block written out with nn.functional on the block's own neurons and weights."""
    encoder = calibrated(num_layers=1, hdm="none", final_norm=False)
    block = encoder.layers[0]
    x, counts = torch.randn(2, 9, 16, dtype=torch.float64), torch.tensor([9, 5])
    attention, mlp = block.attention, block.mlp
    s = attention.sn_in.fire(block.norm_1(x), counts).value
    q, k = (s @ attention.qk.weight.T).chunk(2, -1)
    v = attention.sn_v.fire(s @ attention.v.weight.T + attention.v.bias, counts).value
    heads = [spike_attention.split_heads(t, 2) for t in (q, k, v)]
    hidden = (torch.arange(9) >= counts.unsqueeze(1))[:, None, None]
    weights = (heads[0] @ heads[1].mT / math.sqrt(8)).masked_fill(hidden, -torch.inf).softmax(-1)
    y = attention.sn_a.fire(spike_attention.merge_heads(weights @ heads[2]), counts).value
    x1 = x + y @ attention.out.weight.T + attention.out.bias
    h = mlp.sn_1.fire(block.norm_2(x1), counts).value @ mlp.linear_1.weight.T + mlp.linear_1.bias
    expected = x1 + mlp.sn_2.fire(h, counts).value @ mlp.linear_2.weight.T + mlp.linear_2.bias
    assert torch.allclose(block(x, counts), expected, atol=1e-12)


def test_without_the_mask_the_order_of_frames_is_unknown_and_with_it_only_direction():
    x = torch.randn(1, 11, 16, dtype=torch.float64)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(1))
    blind, masked = calibrated(score="linear", hdm="none"), calibrated(score="linear", hdm_first_index=-4)
    assert torch.allclose(blind(x[:, order])[0], blind(x)[0][:, order], atol=1e-12)
    assert torch.allclose(masked(x.flip(1))[0], masked(x)[0].flip(1), atol=1e-12)
    assert not torch.allclose(masked(x[:, order])[0], masked(x)[0][:, order], atol=1e-3)


@pytest.mark.parametrize("switches", [{}, {"score": "linear"}, {"score": "linear", "linear_form": "scan"}])
def test_causal_encoder_does_not_look_ahead(switches):
    for causal in (True, False):
        encoder = calibrated(causal=causal, **switches)
        x = torch.randn(1, 10, 16, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(encoder(x)[0][:, 4].abs().sum(), x)
        assert grad[:, :5].abs().sum() > 0
        assert (grad[:, 5:].abs().sum() == 0) == causal


def test_first_block_uses_the_first_decay():
    for first in (0, 1):
        options = [layer.attention.options.log_phi for layer in IMLSpikeformer(**SMALL, hdm_first_index=first).layers]
        assert options == [math.log1p(-(2.0 ** (-5 - first - i))) for i in range(2)]


def test_attention_maps_are_what_the_encoder_uses():
    encoder = calibrated()
    maps = encoder.attention_maps(torch.randn(2, 8, 16, dtype=torch.float64), torch.tensor([1.0, 0.5]))
    assert [m.shape for m in maps] == [(2, 2, 8, 8)] * 2
    assert torch.allclose(maps[0].sum(-1), torch.ones(2, 2, 8, dtype=torch.float64))
    assert maps[0][1, :, :, 4:].abs().max() == 0
    assert calibrated(neuron="lif_multistep").attention_maps(torch.randn(2, 8, 16, dtype=torch.float64))[0].shape == (2, 2, 8, 8)
    with pytest.raises(ValueError, match="never forms an attention map"):
        calibrated(attention="sdsa3").attention_maps(torch.randn(1, 8, 16, dtype=torch.float64))


def saved_bytes(encoder, x):
    """Bytes kept for the backward pass, unique storages, parameters left out."""
    parameters = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    seen = {}

    def pack(t):
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out, _ = encoder(x)
    return sum(size for pointer, size in seen.items() if pointer not in parameters)


def test_memory_is_constant_in_T_and_iterative_firing_grows():
    x = torch.randn(2, 50, 64)
    size = {"num_layers": 2, "d_model": 64, "nhead": 2, "d_ffn": 256}
    ours = {t: saved_bytes(IMLSpikeformer(**size, levels=t), x) for t in (4, 6, 8)}
    iterative = {t: saved_bytes(IMLSpikeformer(**size, levels=t, neuron="lif_multistep"), x) for t in (4, 6, 8)}
    assert max(ours.values()) <= 1.01 * min(ours.values())
    assert iterative[4] > 2.5 * ours[4] and iterative[6] > 1.4 * iterative[4] and iterative[8] > 1.25 * iterative[6]


def test_flipped_spikes_under_bfloat16_are_few_and_reported(record_property, capsys):
    torch.manual_seed(0)
    encoder = IMLSpikeformer(**{**SMALL, "num_layers": 3, "d_model": 64, "d_ffn": 128})
    x = torch.randn(4, 60, 64)
    for _ in range(3):
        encoder(torch.randn(4, 60, 64))
    encoder.eval()
    levels = {False: [], True: []}
    for module in encoder.modules():
        if hasattr(module, "fire"):
            module.fire = _recording(module.fire, levels, lambda: torch.is_autocast_enabled("cpu"))
    out = {}
    for half in levels:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            out[half] = encoder(x)[0]
    assert out[True].isfinite().all() and len(levels[True]) == 15
    flipped = sum(int((a != b).sum()) for a, b in zip(levels[False], levels[True], strict=True))
    total = sum(a.numel() for a in levels[False])
    worst = max(int((a.int() - b.int()).abs().max()) for a, b in zip(levels[False], levels[True], strict=True))
    record_property("flipped_spikes_bf16", flipped / total)
    block = list(zip(levels[False], levels[True], strict=True))[:5]
    first = sum(int((a != b).sum()) for a, b in block) / sum(a.numel() for a, _ in block)
    share = f"{100 * flipped / total:.1f} % of {total} spike counts differ, at most by {worst}"
    with capsys.disabled():
        print(f"\nbf16: {share}; {100 * first:.1f} % in the first block")
    assert 0 < first < 0.05 and flipped / total < 0.15 and all(levels[False][i].max() > 0 for i in range(15))


def _recording(fire, levels, half):
    def wrapped(x, counts):
        spikes = fire(x, counts)
        levels[half()].append(spikes.level.clone())
        return spikes

    return wrapped


def test_first_layer_fires_the_same_in_half_precision_as_in_float32():
    """Only products round: a neuron that sees the same numbers fires the same spikes."""
    x = torch.randn(2, 30, 16).bfloat16()
    neuron = IMLSpikeformer(**SMALL).layers[0].attention.sn_in
    with torch.autocast("cpu", torch.bfloat16):
        half = neuron.fire(x, torch.tensor([30, 30])).level
    assert torch.equal(half, neuron.fire(x.float(), torch.tensor([30, 30])).level)


def test_activation_checkpointing_gives_equal_gradients_and_statistics():
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        encoder = IMLSpikeformer(**SMALL)
        x, counts = torch.randn(2, 9, 16, requires_grad=True), torch.tensor([9, 5])
        hidden = x
        for layer in encoder.layers:
            hidden = checkpoint(layer, hidden, counts, use_reentrant=False) if recompute else layer(hidden, counts)
        hidden.square().sum().backward()
        results.append([x.grad, *(p.grad for p in encoder.parameters() if p.grad is not None), *encoder.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_loss_falls_on_a_toy_task_with_bounded_gradients():
    """Label every frame by the sign of a running mean: the gradient stays finite and the loss falls."""
    torch.manual_seed(0)
    encoder, head = IMLSpikeformer(**SMALL), torch.nn.Linear(16, 2)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    x = torch.randn(16, 24, 16)
    target = (x[..., 0] + x[..., 0].roll(1, 1) > 0).long()
    losses, norms = [], []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(encoder(x)[0]).flatten(0, 1), target.flatten())
        optimiser.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)))
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0] and max(norms) < 50


@pytest.mark.parametrize("switches", [{}, {"score": "linear", "linear_form": "scan"}, {"neuron": "mls"}])
def test_compiles_without_a_graph_break_and_agrees_with_eager(switches):
    encoder = calibrated(**switches)
    x, lengths = torch.randn(2, 10, 16, dtype=torch.float64), torch.tensor([1.0, 0.6])
    expected = encoder(x, lengths)[0]
    compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x, lengths)[0], expected, atol=1e-10)
    gradients = []
    for function in (encoder.train(), compiled):
        encoder.zero_grad()
        function(x, lengths)[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*gradients, strict=True))


def test_accumulates_of_an_encoder_layer_by_hand():
    encoder = calibrated(num_layers=1)
    events, fired = [], {}
    for name, module in encoder.named_modules():
        if hasattr(module, "fire"):
            module.fire = _noting(module.fire, fired, name.rsplit(".", 1)[-1])
    with operands.listen(events.append):
        encoder(torch.randn(2, 10, 16, dtype=torch.float64), torch.tensor([1.0, 0.4]))
    products = [e for e in events if isinstance(e, operands.Product)]
    attention, mlp = encoder.layers[0].attention, encoder.layers[0].mlp
    found = {(id(p.module), p.part): (p.macs, p.accumulates) for p in products}
    values, frames, pairs = fired["sn_v"], 14, 100 + 16
    assert found[id(attention), "scores"] == (pairs * 16, None)
    assert found[id(attention), "values"] == (pairs * 16, 10 * int(values[0].sum()) + 4 * int(values[1].sum()))
    readers = {
        attention.qk: ("sn_in", 32),
        attention.v: ("sn_in", 16),
        attention.out: ("sn_a", 16),
        mlp.linear_1: ("sn_1", 32),
        mlp.linear_2: ("sn_2", 16),
    }
    for layer, (source, width) in readers.items():
        assert found[id(layer), "weight"] == (frames * layer.in_features * width, int(fired[source].sum()) * width)
    assert len(products) == 7


def _noting(fire, fired, name):
    def wrapped(x, counts):
        spikes = fire(x, counts)
        fired[name] = spikes.level.long()
        return spikes

    return wrapped


def test_wrong_options_name_the_nearest():
    with pytest.raises(TypeError, match="no option 'block_nrom'; did you mean block_norm?"):
        IMLSpikeformer(block_nrom="none")
    with pytest.raises(ValueError, match="score is 'sigmoid': choose one of softmax, linear"):
        IMLSpikeformer(score="sigmoid")
    with pytest.raises(ValueError, match="causal is True, but attention sdsa3 mixes the whole utterance"):
        IMLSpikeformer(attention="sdsa3", causal=True)
    with pytest.raises(ValueError, match="d_model 30 is not a multiple of nhead 4"):
        IMLSpikeformer(d_model=30)
    with pytest.raises(ValueError, match="x has 40 channels, encoder expects 16: set d_model: 40"):
        IMLSpikeformer(**SMALL)(torch.zeros(1, 3, 40))


def test_literal_preset_overrides_its_two_options():
    config = IMLSpikeformerConfig.of(preset="paper_literal")
    assert (config.output_scale, config.grad_through_scale) == ("none", False)
    neuron = config.make_neuron(4)
    assert (neuron.options.output_scale, neuron.options.grad_through_scale) == ("none", False)


def test_neurons_a_block():
    neurons = lambda **k: sum(hasattr(m, "fire") for m in IMLSpikeformerBlock(IMLSpikeformerConfig(**SMALL, **k), 1).modules())  # noqa: E731
    assert neurons() == 5 and neurons(attention="sdsa3") == 7


def test_all_combinations_of_attention_switches_build():
    for score, hdm, form, norm in itertools.product(("softmax", "linear"), spike_attention.HDM_MODES, ("quadratic", "scan"), ("none",)):
        encoder = calibrated(score=score, hdm=hdm, linear_form=form, block_norm=norm)
        assert encoder(torch.randn(1, 5, 16, dtype=torch.float64))[0].isfinite().all()
