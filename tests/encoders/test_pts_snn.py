"""PTS-SNN as a whole: its equations, what is alive and what learns at first, what it hears and what it does not, its switches."""

import copy

import pytest
import torch
import torch.nn.functional as F

from spikebrain import operands
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.encoders import pts_snn
from spikebrain.encoders.pts_snn import PTSSNN, PTSSNNConfig
from spikebrain.kernels import lif
from spikebrain.kernels.lif import normed
from spikebrain.neurons.health import Health

SMALL = {"d_model": 16, "d_ffn": 24, "num_prompts": 3, "bottleneck": 8}
VARIANTS = {
    "full": {},
    "no norm": {"block_norm": "none"},
    "batch norm": {"block_norm": "batch"},
    "no residual": {"attention_residual": False},
    "w/o prompts": {"num_prompts": 0},
    "w/o attention": {"attention": False},
    "only shift": {"num_prompts": 0, "attention": False},
    "hard reset": {"reset": "hard"},
    "l2 columns": {"columns": "l2"},
    "three layers": {"num_layers": 3},
    "global": {"input_norm": "global", "static_bias": 0.25},
}
ROWS = pytest.mark.parametrize("row", VARIANTS)
COUNTS = (20, 7, 13)
LENGTHS = torch.tensor(COUNTS) / 20


def features(frames=20, seed=0, batch=3):
    return 1.5 * torch.randn(batch, frames, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lively(**switches):
    """An encoder in evaluation whose every parameter says something: none is at a value that hides a term of the equations."""
    torch.manual_seed(0)
    encoder = PTSSNN(12, **{**SMALL, **switches}).double()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(1.5 * parameter + 0.3 * torch.randn_like(parameter) if "neuron" not in name else parameter + 0.4)
        for layer in encoder.layers:
            layer.linear.weight.mul_(1 if layer.layer_norm or layer.batch_norm else 8)
    for module in encoder.modules():
        if isinstance(module, MaskedBatchNorm):
            module.momentum = 1.0
    for seed in (1, 2, 3):
        encoder(features(40, seed))
    return encoder.eval()


def written_out(encoder, x):
    """Every step of the equations for one utterance ``x`` (L, N), from the weights: saturated, blocks, tokens, spikes, context, output."""
    config, found = encoder.config, {}
    hidden = saturated(encoder.saturation, x)
    for i, layer in enumerate(encoder.layers):
        hidden, found[f"block {i}"] = block(layer, hidden, config)
    prompts = hidden[:0] if encoder.prompts is None else encoder.prompts.view(-1, config.d_model)
    tokens = torch.cat([prompts, hidden])
    if encoder.attention is not None:
        tokens, found["S"] = attended(encoder.attention, tokens, config)
    bias = torch.zeros(config.d_model, dtype=x.dtype)
    if encoder.prompts is not None:
        found["context"] = context = tokens[: len(prompts)].mean(0)
        up, down = encoder.bias.up, encoder.bias.down
        bias = config.bias_scale * torch.tanh(up.weight @ (down.weight @ context + down.bias).relu() + up.bias)
    found["bias"], found["out"] = bias, tokens[len(prompts) :] + bias + config.static_bias
    return found


def saturated(module, x):
    norm = module.norm
    if isinstance(norm, torch.nn.LayerNorm):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
    else:
        x = (x - norm.mean) / norm.std * norm.weight + norm.bias
    return torch.tanh(0.1 * x)


def block(layer, x, config):
    """(H_l, spikes) of H_{l-1} (L, C)."""
    n, zero = int(x.shape[1] * 0.125), torch.zeros(1, x.shape[1], dtype=x.dtype)
    before, behind = torch.cat([zero, x[:-1]]), torch.cat([x[1:], zero])
    shifted = torch.cat([before[:, :n], behind[:, n : 2 * n], x[:, 2 * n :]], 1)
    current = shifted @ layer.linear.weight.T + layer.linear.bias
    if config.block_norm == "layer":
        current = F.layer_norm(current, current.shape[1:], layer.layer_norm.weight, layer.layer_norm.bias)
    if config.block_norm == "batch":
        norm = layer.batch_norm
        current = F.batch_norm(current, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    spikes, membrane, decay = [], zero[0, :1], torch.sigmoid(layer.neuron.logit)
    for frame in current:
        membrane = decay * membrane + frame
        spikes.append((membrane >= 1).double())
        membrane = membrane - spikes[-1] if config.reset == "soft" else membrane * (1 - spikes[-1])
    return torch.stack(spikes) + x @ layer.skip.weight.T, torch.stack(spikes)


def attended(attention, tokens, config):
    """(O, S) of tokens (N, C)."""
    spikes = (tokens >= 1).double()
    q, k, v = (spikes @ part.T for part in attention.qkv.weight.split([8, 8, 16]))
    k = k.softmax(0) if config.columns == "softmax" else k / (k.square().sum(0) + 1e-6).sqrt()
    out = q @ (k.T @ v) / 8**0.5
    return (out + tokens if config.attention_residual else out), spikes


@ROWS
def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone(row):
    encoder, x = lively(**VARIANTS[row]), features()
    x[1, 7:], x[2, 13:] = float("nan"), 1e9
    out, state = encoder(x, LENGTHS)
    assert state is None and out.shape == (3, 20, 16)
    for one, n in enumerate(COUNTS):
        found = written_out(encoder, x[one, :n])
        for name, value in found.items():
            if name.startswith("block") or name == "S":
                assert value.any() and not value.all(), f"{name} is silent or saturated"
            else:
                assert value.abs().max() > 0.01 or (name == "bias" and encoder.prompts is None), f"{name} says nothing"
        assert torch.allclose(out[one, :n], found["out"], atol=1e-10) and not out[one, n:].any()


@ROWS
@pytest.mark.parametrize("frames", [1, 2, 374])
def test_any_number_of_frames_and_a_batch_of_one(row, frames):
    encoder, x = lively(**VARIANTS[row]), features(frames, batch=1)
    out, _ = encoder(x)
    assert out.shape == (1, frames, 16) and torch.allclose(out[0], written_out(encoder, x[0])["out"], atol=1e-9)


def full_size(**switches):
    torch.manual_seed(0)
    return pts_snn.iemocap(**switches)


def normal_features(frames=40):
    return torch.randn(3, frames, 768, generator=torch.Generator().manual_seed(0))


def rates(encoder, x, lengths=None):
    with torch.no_grad(), Health(encoder) as health:
        encoder(x, lengths)
    return {name: layer["rate"] for name, layer in health.report().items()}


def readout_loss(encoder, x):
    """A loss as the readout sees it: every frame of the output matters, each with a weight of its own."""
    out = encoder(x)[0]
    return (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum()


def test_the_default_is_alive_at_first():
    """Blocks, binarised frames and prompts all fire at 2 to 60 %."""
    found = rates(full_size(), normal_features())
    assert list(found) == ["layers.0.neuron", "layers.1.neuron", "attention.neuron", "attention.neuron#2"]
    assert all(0.02 < rate < 0.6 for rate in found.values()), found


def test_by_the_letter_of_the_paper_it_is_dead():
    """Nothing fires, and queries, keys, values, prompts and both blocks have a gradient of exactly 0; the default's is not."""
    torch.manual_seed(0)
    literal, x = pts_snn.paper_literal(768), normal_features()
    assert set(rates(literal, x).values()) == {0.0}
    readout_loss(literal, x).backward()
    assert {n for n, p in literal.named_parameters() if p.requires_grad and p.grad.any()} == {"bias.up.weight", "bias.up.bias"}
    default = full_size()
    readout_loss(default, x).backward()
    dead = {n for n, p in default.named_parameters() if p.requires_grad and not p.grad.any()}
    assert dead == {"bias.down.weight", "bias.down.bias"}, "they wait for the upper layer's first step"
    assert default.prompts.grad.abs().max() > 0 and default.attention.neuron.logit.grad is None


@pytest.mark.parametrize("mended", [{"block_norm": "layer"}, {"attention_residual": True}, {"prompt_init": "threshold"}], ids=str)
def test_each_of_the_three_mends_gives_some_of_it_a_gradient(mended):
    torch.manual_seed(0)
    encoder = pts_snn.paper_literal(768, **mended)
    readout_loss(encoder, normal_features()).backward()
    assert {"bias.up.weight", "bias.up.bias"} < {n for n, p in encoder.named_parameters() if p.requires_grad and p.grad.any()}


def test_the_bias_is_0_at_first_and_not_after_a_step():
    encoder, x, biases = full_size(), normal_features(10), []
    encoder.bias.register_forward_hook(lambda module, args, out: biases.append(out.detach()))
    optimiser = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], 1e-3)
    plain = encoder(x)[0]
    bias, encoder.bias = encoder.bias, torch.nn.Module()
    encoder.bias.forward = lambda context: torch.zeros_like(context)
    assert torch.equal(encoder(x)[0], plain) and not biases[0].any(), "the calibrated input is what attention gave"
    encoder.bias = bias
    readout_loss(encoder, x).backward()
    optimiser.step()
    readout_loss(encoder, x).backward()
    assert biases[-1].any() and biases[-1].abs().max() <= 0.5 and bias.down.weight.grad.any()


def contexts(encoder, x, lengths=None):
    """What the bias is told of each utterance, (B, C)."""
    found = []
    handle = encoder.bias.register_forward_pre_hook(lambda module, args: found.append(args[0].detach()))
    encoder(x, lengths)
    handle.remove()
    return found[0]


def test_the_context_is_one_of_the_utterance():
    """Prompts below the threshold would hear nothing: with the literal ones it is the same for every utterance, as w/o attention."""
    x = normal_features()
    assert contexts(full_size(), x).std(0).max() > 1e-3
    assert contexts(full_size(prompt_init="small"), x).std(0).max() == 0
    without = full_size(attention=False)
    assert torch.allclose(contexts(without, x), without.prompts.view(4, 256).mean(0).expand(3, -1))


def test_prompts_in_another_order_are_the_same():
    encoder, x = lively(), features()
    before = encoder(x, LENGTHS)[0]
    with torch.no_grad():
        encoder.prompts.copy_(encoder.prompts.view(3, 16)[[2, 0, 1]].flatten())
    assert torch.allclose(encoder(x, LENGTHS)[0], before, atol=1e-12)
    with torch.no_grad():
        encoder.prompts.add_(0.5)
    assert not torch.allclose(encoder(x, LENGTHS)[0], before, atol=1e-2)


def test_prompts_begin_around_the_threshold():
    torch.manual_seed(0)
    encoder = PTSSNN(8, d_model=256, num_prompts=100, threshold=0.4)
    assert encoder.prompts.dim() == 1, "what decays and begins anew in a host are weights of two dimensions"
    assert encoder.prompts.mean().item() == pytest.approx(0.4, abs=0.01) and encoder.prompts.std().item() == pytest.approx(0.2, abs=0.01)
    assert PTSSNN(8, num_prompts=100, prompt_init="small").prompts.std().item() == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize(
    "changes, parameters",
    [
        ({}, 1_194_009),
        ({"block_norm": "none"}, 1_192_473),
        ({"block_norm": "batch"}, 1_194_009),
        ({"block_norm": "none", "num_prompts": 0}, 1_182_985),
        # The specification's 1,061,401 counts the decay of the single-step neurons, which go with the attention.
        ({"block_norm": "none", "attention": False}, 1_061_400),
        ({"block_norm": "none", "attention": False, "num_prompts": 0}, 1_051_912),
        ({"input_norm": "global"}, 1_194_009),
    ],
    ids=str,
)
def test_parameters_with_the_readout_of_four_classes(changes, parameters):
    """The readout adds a linear layer of 1,028 and two decays."""
    with torch.device("meta"):
        encoder = pts_snn.iemocap(**changes)
    assert sum(p.numel() for p in encoder.parameters()) + 1_030 == parameters
    frozen = [n for n, p in encoder.named_parameters() if not p.requires_grad]
    assert frozen == (["attention.neuron.logit"] if encoder.config.attention else [])


@ROWS
def test_another_utterance_and_the_padding_change_nothing(row):
    encoder, x = lively(**VARIANTS[row]), features()
    together = encoder(x, LENGTHS)[0]
    other = torch.cat([features(seed=5), torch.full((3, 8, 12), 1e3, dtype=torch.float64)], 1)
    other[0, :20], other[2, :13] = x[0], x[2, :13]
    changed = encoder(other, LENGTHS * 20 / 28)[0]
    assert torch.allclose(changed[[0, 2], :20], together[[0, 2]], atol=1e-12) and not changed[:, 20:].any()
    assert not torch.allclose(changed[1, :7], together[1, :7], atol=1e-3)


def gradients(encoder, x, seed=0):
    """Output, and the gradients of the input and of what learns."""
    leaf = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = encoder(leaf, LENGTHS)[0]
    encoder.zero_grad()
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), leaf.grad, *(p.grad for p in encoder.parameters() if p.requires_grad)]


@ROWS
def test_training_is_autograd_through_the_definition(monkeypatch, row):
    encoder = lively(**VARIANTS[row], dropout=0.2).train()
    fast = gradients(copy.deepcopy(encoder), features())
    fire, fused = lif.fire, normed.fire
    monkeypatch.setattr(lif, "fire", lambda *args: fire(*args[:7], "reference"))
    monkeypatch.setattr(normed, "fire", lambda *args: fused(*args[:9], "reference"))
    slow = gradients(encoder, features())
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(fast, slow, strict=True))
    assert all(g.any() for g in fast), "no parameter is left out"


def test_dropout_silences_neurons_for_a_whole_utterance_in_training_alone():
    encoder, x = lively(dropout=0.5), features()
    layer, trains = encoder.layers[0], []
    run = layer.neuron.run
    layer.neuron.run = lambda *args: trains.append(run(*args)) or trains[-1]
    encoder.train()(x)
    value = trains[0][0].value
    assert set(value.unique().tolist()) == {0.0, 2.0}
    encoder.eval()(x)
    heard = trains[1][0].value
    silenced = (heard.any(1) & ~value.any(1)).double().mean()
    assert set(heard.unique().tolist()) == {0.0, 1.0} and 0.2 < silenced < 0.7


@pytest.mark.parametrize("row", ["full", "only shift"])
def test_compiles_without_a_graph_break_and_agrees_with_eager(row):
    encoder, x = lively(**VARIANTS[row]), features()
    compiled = torch.compile(encoder, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x, LENGTHS)[0], encoder(x, LENGTHS)[0], atol=1e-12)


def test_bfloat16_is_finite_and_near():
    encoder, x = full_size(), normal_features()
    expected = encoder(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(x)[0]
        out.float().sum().backward()
    assert (out.float() - expected).abs().mean() < 0.1 * expected.abs().mean()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.requires_grad)


def test_every_product_is_told_and_which_of_them_read_spikes():
    encoder, events = lively(), []
    with operands.listen(events.append):
        encoder(features(), LENGTHS)
    names = {module: name for name, module in encoder.named_modules()}
    told = {(names[e.module], e.part): (e.macs, e.accumulates is not None) for e in events if isinstance(e, operands.Product)}
    frames, tokens = sum(COUNTS), sum(COUNTS) + 3 * 3
    assert told == {
        ("layers.0.linear", "weight"): (frames * 12 * 24, False),
        ("layers.0.skip", "weight"): (frames * 12 * 24, False),
        ("layers.1.linear", "weight"): (frames * 24 * 16, False),
        ("layers.1.skip", "weight"): (frames * 24 * 16, False),
        ("attention.qkv", "weight"): (tokens * 16 * 32, True),
        ("attention", "state"): (tokens * 8 * 16, False),
        ("attention", "read"): (tokens * 8 * 16, False),
        ("bias.down", "weight"): (3 * 16 * 8, False),
        ("bias.up", "weight"): (3 * 16 * 8, False),
    }


def test_widths_and_defaults_are_those_of_the_specification():
    config = PTSSNNConfig()
    assert config.widths == (512, 256) and (config.key_width, config.bottleneck_width) == (128, 16)
    assert PTSSNNConfig(num_layers=4, d_model=32, d_ffn=48).widths == (48, 48, 48, 32)
    assert pts_snn.iemocap().input_size == 768 and PTSSNN(d_model=32).input_size == 32 and PTSSNN(1024).input_size == 1024
    literal = pts_snn.paper_literal(80).config
    assert (literal.block_norm, literal.attention_residual, literal.prompt_init) == ("none", False, "small")


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: PTSSNN(prompts=3), TypeError, "PTSSNN has no option 'prompts'; did you mean num_prompts"),
        (lambda: PTSSNN(inputsize=3), TypeError, "PTSSNN has no option 'inputsize'; did you mean input_size"),
        (lambda: PTSSNN(block_norm="batchnorm"), ValueError, "block_norm is 'batchnorm': choose one of layer, batch, none"),
        (lambda: PTSSNN(columns="softmx"), ValueError, "columns is 'softmx': choose one of softmax, l1, l2, mean; did you mean softmax"),
        (lambda: PTSSNN(input_norm="utterance"), ValueError, "input_norm is 'utterance': choose one of layer, global, none"),
        (lambda: PTSSNN(prompt_init="zero"), ValueError, "prompt_init is 'zero': choose one of threshold, small"),
        (lambda: PTSSNN(num_layers=0), ValueError, "num_layers is 0 and num_prompts 4: choose 1 or more, and 0 or more"),
        (lambda: PTSSNN(shift=2), ValueError, "shift is 2: choose the share of channels"),
        (lambda: PTSSNN(causal=True), ValueError, "causal is True, but PTS-SNN looks at the whole utterance: set causal: False"),
        (lambda: PTSSNN(decay=1.0), ValueError, "decay is 1.0: a decay that is learned begins inside 0 to 1"),
        (lambda: PTSSNN(768)(torch.zeros(1, 3, 1024)), ValueError, "x has 1024 channels, encoder expects 768: set input_size: 1024"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()
