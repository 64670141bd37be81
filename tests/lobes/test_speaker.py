"""Speaker embeddings: every block is heard and no padding, the published size, the pooling beside SpeechBrain's, losses with a margin."""

import copy
import math
import warnings

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models import ECAPA_TDNN
from torch import nn

from spikebrain import convert, energy, operands, registry
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.lobes import FrameEncoder, SpeakerEmbedding, SpeakerLoss
from spikebrain.lobes.speaker import AttentiveStatisticsPooling, layer_outputs

SMALL = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.0}
NAMES = [e.name for e in registry.entries() if e.kind in ("encoder", "ann")]
COUNTS, FRAMES = (23, 12, 17), 23
LENGTHS = torch.tensor(COUNTS) / FRAMES
YAML = """
embedding_model: !new:spikebrain.lobes.SpeakerEmbedding
    input_size: 20
    embedding_size: 8
    encoder: {name}
    encoder_kwargs: {{num_layers: 2, d_model: 16, nhead: 2}}
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 8
    out_neurons: 3
compute_cost: !new:spikebrain.lobes.SpeakerLoss
    loss: {loss}
"""


def features(seed=0, frames=FRAMES):
    return torch.randn(3, frames, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def calibrated(model):
    """In float64 and evaluation, lively: statistics of batches like those of the tests."""
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.momentum = 1.0
            nn.init.normal_(module.bias, 0.5, 0.1)
    with torch.no_grad():
        for seed in (1, 2, 3):
            model(features(seed))
    return model.eval()


def embedding(name="iml_spikeformer", subsampling=4, **changes):
    torch.manual_seed(0)
    return SpeakerEmbedding(20, 8, name, {**SMALL, **changes}, subsampling, attention_channels=6)


def padded(x, filler):
    wide = torch.cat([x, torch.full((3, 6, 20), filler, dtype=x.dtype)], 1)
    for row, n in enumerate(COUNTS):
        wide[row, n:] = filler
    return wide, LENGTHS * FRAMES / (FRAMES + 6)


@pytest.mark.parametrize(
    "name, subsampling",
    [
        *((name, None) for name in NAMES),
        *((name, 4) for name in ("iml_spikeformer", "iml_spikeformer_multistep", "spikescr", "vgg_bilstm")),
    ],
)
def test_an_embedding_does_not_depend_on_padding_or_neighbours(name, subsampling):
    model, x = calibrated(embedding(name, subsampling)), features()
    together = model(x, LENGTHS)
    assert together.shape == (3, 1, 8)
    for filler in (0.0, 100.0):
        assert torch.allclose(model(*padded(x, filler)), together, atol=1e-10)
    for row, n in enumerate(COUNTS):
        assert torch.allclose(model(x[row : row + 1, :n]), together[row : row + 1], atol=1e-10)
    assert not torch.allclose(model(x), together, atol=1e-3), "without lengths padding would be pooled"
    assert (together[0] - together[1]).abs().max() > 1e-3, "an embedding that says nothing would pass"


@pytest.mark.parametrize("name", ["iml_spikeformer", "spikescr", "vgg_bilstm"])
def test_in_training_padding_changes_nothing(name):
    first, x = calibrated(embedding(name)).train(), features(7)
    second = copy.deepcopy(first)
    assert torch.allclose(first(x, LENGTHS), second(*padded(x, 9.0)), atol=1e-10)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(first.buffers(), second.buffers(), strict=True))


def test_the_published_network_has_exactly_its_parameters():
    """The Transformer of the verification rows: 6 blocks of width 256 with all biases, 4x subsampling, an embedding of 192."""
    sizes = {"num_layers": 6, "d_model": 256, "nhead": 4, "d_ffn": 2048, "final_norm": False}
    model, lean = (SpeakerEmbedding(encoder_kwargs={**sizes, "qk_bias": biases}) for biases in (True, False))
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    parts["encoder"] -= (projection := sum(p.numel() for p in model.encoder.projection.parameters()))
    parts["frontend"] += projection
    assert parts == {"frontend": 1_838_080, "encoder": 7_890_432, "norm": 3_072, "pooling": 788_352, "pooled_norm": 6_144, "head": 590_016}
    assert sum(parts.values()) == 11_116_096
    assert sum(p.numel() for p in lean.parameters()) == 11_116_096 - 6 * 2 * 256, "Eq. 12 has no biases on queries and keys"


def test_it_is_its_equations():
    """Blocks by hand, joined, normed, pooled as SpeechBrain's ECAPA-TDNN pools one utterance alone, normed, projected."""
    model, x = calibrated(embedding(final_norm=False)), features()
    together, host = model(x, LENGTHS), stock_pooling(model.pooling)
    encoder = model.encoder
    for row, n in enumerate(COUNTS):
        maps = encoder.projection(model.frontend(x[row : row + 1, :n])[0])
        position = torch.arange(maps.shape[1], dtype=torch.float64)[:, None] / 10000 ** (torch.arange(0, 16, 2, dtype=torch.float64) / 16)
        hidden, blocks = maps + torch.stack([position.sin(), position.cos()], -1).flatten(1), []
        for layer in encoder.model.layers:
            hidden = layer(hidden, torch.tensor([maps.shape[1]]))
            blocks.append(hidden)
        joined = model.norm(torch.cat(blocks, -1))
        pooled = host(joined.transpose(1, 2)).squeeze(2)
        bn = model.pooled_norm
        pooled = (pooled - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
        assert torch.allclose(together[row], pooled @ model.head.weight.T + model.head.bias, atol=1e-8)


def stock_pooling(ours):
    """SpeechBrain's pooling with the weights of ours."""
    host = ECAPA_TDNN.AttentiveStatisticsPooling(ours.frame.in_features, ours.frame.out_features).double()
    state = host.state_dict()
    for key, value in {
        "tdnn.conv.conv.weight": torch.cat([ours.frame.weight, ours.context.weight], 1).unsqueeze(2),
        "tdnn.conv.conv.bias": ours.frame.bias,
        "conv.conv.weight": ours.score.weight.unsqueeze(2),
        "conv.conv.bias": ours.score.bias,
        **{f"tdnn.norm.norm.{name}": value for name, value in ours.norm.state_dict().items()},
    }.items():
        assert state[key].shape == value.shape
        state[key] = value.detach().clone()
    host.load_state_dict(state)
    return host.train(ours.training)


@pytest.mark.parametrize("training", [False, True])
def test_the_pooling_is_speechbrains_where_all_utterances_are_as_long(training):
    torch.manual_seed(0)
    ours, x = AttentiveStatisticsPooling(5, 4).double().train(training), torch.randn(3, 9, 5, dtype=torch.float64)
    host, inputs = stock_pooling(ours), [x.clone().requires_grad_() for _ in range(2)]
    outs = ours(inputs[0]), host(inputs[1].transpose(1, 2)).squeeze(2)
    assert torch.allclose(*outs, atol=1e-8) and outs[0].shape == (3, 10)
    for out in outs:
        out.square().sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-7)
    assert torch.allclose(ours.norm.running_var, host.tdnn.norm.norm.running_var)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in host.parameters())


def test_speechbrains_pooling_hears_padding():
    """Why ours is not the host's: its batch norm counts padding, and a length in float32 lets in a frame of it."""
    torch.manual_seed(0)
    ours, x = AttentiveStatisticsPooling(5, 4).double(), torch.randn(3, 9, 5, dtype=torch.float64)
    lengths, loud = torch.tensor([1.0, 5 / 9, 7 / 9], dtype=torch.float64), x.clone()
    loud[1, 5:], loud[2, 7:] = 3.0, 3.0
    host = stock_pooling(ours)
    heard = [host(batch.transpose(1, 2), lengths).squeeze(2) for batch in (x, loud)]
    assert not torch.allclose(*heard, atol=1e-3) and torch.allclose(ours(x, lengths), ours(loud, lengths), atol=1e-12)
    rounded = [(n, frames) for frames in range(2, 200) for n in range(1, frames) if float(torch.tensor(n / frames) * frames) > n]
    n, frames = rounded[0]
    ours, x = ours.eval(), torch.randn(1, frames, 5)
    x[0, n:] = 50.0
    host, lengths = stock_pooling(ours).float(), torch.tensor([n / frames])
    pooled = ours.float()(x, lengths)
    assert torch.allclose(pooled, ours(x[:, :n]), atol=1e-4)
    assert not torch.allclose(host(x.transpose(1, 2), lengths).squeeze(2), pooled, atol=1.0)


def test_an_utterance_of_one_frame_and_a_silent_channel_have_finite_gradients():
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(5, 4)
    x = torch.randn(2, 4, 5)
    x[:, :, 2] = 0.0
    x.requires_grad_()
    pooled = pooling(x, torch.tensor([1.0, 0.25]))
    pooled.sum().backward()
    assert x.grad.isfinite().all() and not x.grad[1, 1:].any() and x.grad[0, :, :2].all()
    assert torch.allclose(pooled[1, :5], x[1, 0], atol=1e-6) and pooled[1, 5:].abs().max() < 1e-5


def test_every_block_is_heard():
    model, x = calibrated(embedding(num_layers=3, final_norm=False)), features()
    outs = layer_outputs(model.encoder, *model.frontend(x, LENGTHS))
    assert [out.shape for out in outs] == [(3, 5, 16)] * 3 and model.norm.normalized_shape == (48,)
    assert not any(module._forward_hooks for module in model.modules()), "no hook is left behind"
    whole = model(x, LENGTHS)
    for block in range(3):
        cut = copy.deepcopy(model)
        cut.norm.weight.data[16 * block : 16 * block + 16] = 0
        assert not torch.allclose(cut(x, LENGTHS), whole, atol=1e-3)


@pytest.mark.parametrize("name", ["spikescr", "lif_network", "vanilla_snn", "pts_snn", "vgg_bilstm", "spikescr_twin"])
def test_layer_outputs_are_what_the_next_block_reads(name):
    """Whatever a block hands on (a tensor, a train, either before its state), and as wide as it is."""
    torch.manual_seed(0)
    encoder = calibrated(FrameEncoder(20, name, SMALL))
    first, second = encoder.model.layers[:2]
    read = []
    hook = second.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    outs = layer_outputs(encoder, features(), LENGTHS)
    hook.remove()
    seen = read[0].value if isinstance(read[0], operands.Spikes) else read[0]
    assert torch.equal(outs[0], seen) and outs[0].abs().sum() > 0
    assert (outs[0].shape[-1], outs[1].shape[-1]) == {"pts_snn": (32, 16), "vgg_bilstm": (128, 128)}.get(name, (16, 16))


def test_micro_steps_are_averaged():
    torch.manual_seed(0)
    encoder = FrameEncoder(20, "iml_spikeformer_multistep", {**SMALL, "final_norm": False}).double().eval()
    x = features()
    assert torch.allclose(layer_outputs(encoder, x)[-1], encoder(x), atol=1e-12)


def test_building_leaves_no_trace():
    torch.manual_seed(5)
    FrameEncoder(FRAMES, "iml_spikeformer", SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = embedding()
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert not any(buffer.any() for name, buffer in model.named_buffers() if name.endswith("running_max"))
    with pytest.warns(UserWarning, match="has seen no training batch"):
        model.eval()(features().float(), LENGTHS)


@pytest.mark.parametrize("loss", ["am", "aam"])
@pytest.mark.parametrize("name", ["iml_spikeformer", "spikescr", "vgg_bilstm"])
def test_a_yaml_trains_it(name, loss):
    torch.manual_seed(0)
    loaded = load_hyperpyyaml(YAML.format(name=name, loss=loss))
    network, speakers = nn.ModuleList([loaded["embedding_model"], loaded["classifier"]]), torch.tensor([[0], [1], [2]] * 4)
    optimiser, losses = torch.optim.Adam(network.parameters(), 3e-3), []
    for _ in range(25):
        x = (features().repeat(4, 1, 1) + 0.3 * torch.randn(12, FRAMES, 20)).float()
        optimiser.zero_grad()
        value = loaded["compute_cost"](network[1](network[0](x, LENGTHS.repeat(4))), speakers)
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_every_parameter_has_a_gradient_and_no_frame_of_padding_does():
    model, x = embedding(final_norm=False), features().float().requires_grad_()
    model(x, LENGTHS).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert x.grad[1, : COUNTS[1]].any() and not x.grad[1, COUNTS[1] :].any()
    unheard = embedding()
    unheard(features().float(), LENGTHS).sum().backward()
    silent = [name for name, p in unheard.named_parameters() if p.grad is None]
    assert silent == ["encoder.model.norm.weight", "encoder.model.norm.bias"], "what an encoder computes behind its blocks"


def test_losses_are_their_equations():
    torch.manual_seed(0)
    cosines, speakers = 0.9 * torch.rand(4, 1, 5) - 0.3, torch.tensor([[1], [0], [4], [2]])
    own = cosines[torch.arange(4), 0, speakers[:, 0]]
    for name, moved in (("am", own - 0.2), ("aam", (own.acos() + 0.2).cos())):
        logits = cosines[:, 0].clone()
        logits[torch.arange(4), speakers[:, 0]] = moved
        expected = nn.functional.cross_entropy(30 * logits, speakers[:, 0])
        assert torch.allclose(SpeakerLoss(name)(cosines, speakers), expected, atol=1e-5)
        assert SpeakerLoss(name, margin=0.0)(cosines, speakers) < SpeakerLoss(name, margin=0.4)(cosines, speakers)
    assert math.isclose(SpeakerLoss("am", 0.0, 1.0)(torch.zeros(4, 1, 5), speakers), math.log(5), rel_tol=1e-6)


def test_its_products_are_told_and_its_energy_has_lines():
    model, x = calibrated(embedding(subsampling=None, final_norm=False)), features()
    assert not convert.audit(model, x, LENGTHS).unknown
    counter = energy.Counter(model)
    with torch.no_grad(), counter.listen():
        model(x, LENGTHS)
    counter.add_utterances(COUNTS, [0] * 3)
    frames = sum(COUNTS)
    told = {name: products.macs for (name, part), products in counter.products.items() if not name.startswith("encoder")}
    assert told == {"pooling.frame": frames * 32 * 6, "pooling.context": 3 * 64 * 6, "pooling.score": frames * 6 * 32, "head": 3 * 64 * 8}
    lines = energy.report_told(counter, "encoder.model.layers", "encoder")["full"]["further"]
    # Reports are of a mean utterance, of which there are three.
    each = {
        (line["line"], line["kind"]): {key: round(3 * n) for key, n in line["operations"].items()} for line in lines if "operations" in line
    }
    assert each["pooling", "softmax"]["exp"] == frames * 32 and each["pooling", "readout"]["root"] == 2 * 3 * 32
    assert each["pooling.frame", "bias"] == {"add": frames * 6} and ("pooling.context", "bias") not in each
    assert each["pooled_norm", "norm"] == {"multiply": 3 * 64, "add": 3 * 64} and each["head", "bias"] == {"add": 3 * 8}


def test_half_precision_goes_in_and_comes_out_finite():
    for name, near in (("vgg_bilstm", 0.05), ("iml_spikeformer", 0.5)):  # spikes flip
        model, x = embedding(name), features().float()
        for seed in range(3):
            model(features(seed).float(), LENGTHS)
        with torch.autocast("cpu", torch.bfloat16):
            out = model.eval()(x, LENGTHS)
        assert out.dtype == torch.bfloat16 and torch.allclose(out.float(), model(x, LENGTHS), atol=near)


def test_weights_come_back(tmp_path):
    model, x = calibrated(embedding()), features()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(9)
    fresh = SpeakerEmbedding(20, 8, "iml_spikeformer", SMALL, attention_channels=6).double().eval()
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(fresh(x, LENGTHS), model(x, LENGTHS))


class NoLayers(nn.Module):
    """An encoder of one piece."""

    def __init__(self):
        super().__init__()
        self.model = nn.Identity()


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: SpeakerEmbedding(encoder="imls"), ValueError, "encoder is 'imls', a layer of neurons: name an encoder"),
        (lambda: SpeakerEmbedding(encoder="iml"), ValueError, "nothing is registered under 'iml'"),
        (lambda: SpeakerEmbedding(encoder_kwargs={"d_modle": 3}), TypeError, "no option 'd_modle'; did you mean d_model"),
        (lambda: embedding(subsampling=3), ValueError, "factor is 3: choose 4"),
        (lambda: embedding()(torch.zeros(1, 30, 40)), ValueError, "x has 40 mel bands, the front end expects 20"),
        (lambda: embedding()(torch.zeros(1, 3, 20)), ValueError, "an utterance has 3 feature frames, 4x subsampling needs 7"),
        (lambda: layer_outputs(NoLayers(), torch.zeros(1, 3, 20)), ValueError, "Identity has no layers whose outputs could be joined"),
        (lambda: SpeakerLoss("arc"), ValueError, "loss is 'arc': choose one of am, aam"),
        (lambda: SpeakerLoss(margin=-0.1), ValueError, "margin is -0.1 and scale 30.0: choose 0 or more, and more than 0"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()
