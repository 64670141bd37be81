"""VGG-BiLSTM: its equations in ragged batches, its published size and energy, what it tells of, and the recogniser around it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikebrain import convert, energy, lobes, operands, registry
from spikebrain.baselines.vgg_bilstm import VGGBiLSTM
from spikebrain.blocks.subsampling import VGGSubsampling
from spikebrain.lobes import SpikingTransformerASR

COUNTS, SHORT = (13, 6, 9), (4, 2, 3)  # feature frames, and what pooling by 2 leaves of them twice
LENGTHS = torch.tensor(COUNTS) / 13
SMALL = {"num_layers": 2, "d_model": 8, "hidden": 6, "dropout": 0.0}


def features(frames=13, bands=22, seed=0):
    return torch.randn(3, frames, bands, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(**switches):
    """(front end of 22 bands, encoder) in float64 and evaluation."""
    torch.manual_seed(0)
    frontend = VGGSubsampling(22, (2, 4))
    return frontend.double().eval(), VGGBiLSTM(frontend.out_features, **{**SMALL, **switches}).double().eval()


def size(model):
    return sum(p.numel() for p in model.parameters())


def frontend_written_out(frontend, x):
    """(L', width) of one utterance ``x`` (L, N): ESPnet's VGG2L."""
    y = x[None, None]
    for index, conv in enumerate(frontend.convs):
        y = F.conv2d(y, conv.weight, conv.bias, padding=1).relu()
        y = F.max_pool2d(y, 2, 2, ceil_mode=True) if index % 2 else y
    return torch.cat([y[0, channel] for channel in range(y.shape[1])], -1)


def lstm_written_out(lstm, x, back):
    """(L, hidden) of one direction over one utterance ``x`` (L, N), cell by cell."""
    w, u, b, c = (getattr(lstm, f"{name}_l0{'_reverse' if back else ''}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = cell = x.new_zeros(lstm.hidden_size)
    out = []
    for frame in x.flip(0) if back else x:
        i, f, g, o = (w @ frame + b + u @ h + c).chunk(4)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        h = o.sigmoid() * cell.tanh()
        out.append(h)
    return torch.stack(out[::-1] if back else out)


def encoder_written_out(encoder, x):
    for layer in encoder.layers:
        x = torch.cat([lstm_written_out(layer.lstm, x, back) for back in (False, True)], -1)
    return (x @ encoder.out.weight.T + encoder.out.bias).tanh()


def test_every_utterance_of_a_padded_batch_is_the_equations_of_it_alone():
    (frontend, encoder), x = made(), features()
    filled = torch.cat([x, x], 1)
    for row, n in enumerate(COUNTS):
        filled[row, n:] = float("nan")
    for batch, lengths in ((x, LENGTHS), (filled, LENGTHS / 2)):
        maps, short = frontend(batch, lengths)
        out, state = encoder(maps, short)
        assert state is None and out.shape == (3, maps.shape[1], 8)
        assert (short * maps.shape[1]).round().tolist() == list(SHORT)
        for row, (n, m) in enumerate(zip(COUNTS, SHORT)):
            alone = frontend_written_out(frontend, x[row, :n])
            assert torch.allclose(maps[row, :m], alone, atol=1e-10) and not maps[row, m:].any()
            assert torch.allclose(out[row, :m], encoder_written_out(encoder, alone), atol=1e-10) and not out[row, m:].any()


def test_without_lengths_both_hear_the_padding():
    (frontend, encoder), x = made(), features()
    (right, short), (wrong, none) = frontend(x, LENGTHS), frontend(x)
    assert none is None and torch.equal(wrong[0], right[0])
    assert not torch.allclose(wrong[1, :2], right[1, :2], atol=1e-3), "the convolutions"
    assert not torch.allclose(encoder(right)[0][1, :2], encoder(right, short)[0][1, :2], atol=1e-3), "the way back"


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_an_utterance_is_never_too_short(frames):
    (frontend, encoder), x = made(), features(frames)
    maps, _ = frontend(x)
    assert encoder(maps)[0].shape == (3, -(-frames // 4), 8)
    assert torch.allclose(maps[0], frontend_written_out(frontend, x[0]), atol=1e-10)


def test_the_published_model_has_exactly_its_parameters():
    with torch.device("meta"):
        whole = lobes.published("vgg_bilstm")
        projected = SpikingTransformerASR(4233, 2560, d_model=256, nhead=4, num_encoder_layers=3, encoder_module="vgg_bilstm")
    encoder = whole["Transformer"].encoder.model
    assert size(whole["frontend"]) == 259_008 and size(encoder.layers) == 79_740_928 and size(encoder.out) == 524_544
    assert size(whole) == 93_256_914 and round(size(whole) / 1e6, 2) == 93.26
    assert [layer.lstm.hidden_size for layer in encoder.layers] == [1024] * 3 and encoder.input_size == 2560
    assert size(projected) != size(whole["Transformer"]), "the host's own projection is one layer too many"


def told(model, *heard):
    """(layer, part) -> macs of what a model tells of while it hears something."""
    names, events = {module: name for name, module in model.named_modules()}, []
    with torch.no_grad(), operands.listen(events.append):
        model(*heard)
    assert {(e.left, e.right, e.accumulates) for e in events} == {(operands.Kind.REAL, operands.Kind.REAL, None)}
    assert len(events) == len({(e.module, e.part) for e in events})
    return {(names[e.module], e.part): e.macs for e in events}


def test_they_tell_of_every_product_by_hand_and_padding_is_no_part_of_it():
    (frontend, encoder), x = made(), features()
    frames, halves, quarters = sum(COUNTS), 7 + 3 + 5, sum(SHORT)
    expected = {
        ("convs.0", "weight"): frames * 22 * 9 * 2,
        ("convs.1", "weight"): frames * 22 * 9 * 2 * 2,
        ("convs.2", "weight"): halves * 11 * 9 * 2 * 4,
        ("convs.3", "weight"): halves * 11 * 9 * 4 * 4,
    }
    assert told(frontend, x, LENGTHS) == told(frontend, torch.cat([x, x], 1), LENGTHS / 2) == expected
    maps, short = frontend(x, LENGTHS)
    assert told(encoder, maps, short) == {
        ("layers.0.lstm", "input"): quarters * 2 * 4 * 6 * 24,
        ("layers.0.lstm", "recurrent"): quarters * 2 * 4 * 6 * 6,
        ("layers.1.lstm", "input"): quarters * 2 * 4 * 6 * 12,
        ("layers.1.lstm", "recurrent"): quarters * 2 * 4 * 6 * 6,
        ("out", "weight"): quarters * 12 * 8,
    }


def test_its_energy_is_the_printed_one():
    """Table I: 33.42 mJ. 256 feature frames and 11 steps of the decoder are the reading of the other rows that fits this one."""
    whole = lobes.published("vgg_bilstm").eval()
    with torch.no_grad():
        frontend, encoder = whole["frontend"], whole["Transformer"].encoder.model
        x = torch.zeros(1, 256, 80)
        macs = sum(told(frontend, x).values()) + sum(told(encoder, frontend(x)[0]).values())
    decoder = energy.Architecture(
        bins=0, convs=(), projection=0, width=256, blocks=0, weights=0, ctc=4233, decoder_blocks=6, decoder_ffn=2048, output=4233
    )  # fmt: skip
    macs += sum(energy.macs(decoder, [64], [11])["decoder"].values())
    assert energy.prices.millijoules(macs, energy.HOROWITZ_FP32.mac_pJ) == pytest.approx(33.42, abs=0.02)


class Pair(nn.Module):
    """Front end and encoder as one network."""

    def __init__(self, **switches):
        super().__init__()
        self.frontend, self.encoder = made(**switches)

    def forward(self, x, lengths=None):
        return self.encoder(*self.frontend(x, lengths))


def test_what_it_computes_beside_its_products_by_hand():
    net, x = Pair().eval(), features()
    found = convert.audit(net, x, LENGTHS)
    assert [one["layer"] for one in found.unknown] == [""], "but for the test's own pair all is known"
    assert not any(one["accumulate_only"] for one in found.products) and len(found.products) == 4 + 2 * 2 + 1
    counter = energy.Counter(net)
    with torch.no_grad(), counter.listen():
        net(x, LENGTHS)
    counter.add_utterances(SHORT, [0] * 3)
    scopes = energy.report_told(counter, "encoder.layers", "encoder")
    lines = [line for scope in energy.SCOPES for line in scopes[scope]["further"] if "operations" in line]
    # Reports are of a mean utterance, of which there are three.
    each = {(line["line"], line["kind"]): {key: round(3 * n) for key, n in line["operations"].items()} for line in lines}
    frames, halves, quarters = sum(COUNTS), 7 + 3 + 5, sum(SHORT)
    assert each["frontend", "activation"] == {"compare": 2 * frames * 22 * 2 + 2 * halves * 11 * 4}
    assert each["frontend.convs.2", "bias"] == {"add": halves * 11 * 4}
    cells = quarters * 12
    assert each["encoder.layers.0", "bias"] == {"add": 4 * cells}
    assert each["encoder.layers.0", "activation"] == {"sigmoid": 3 * cells, "tanh": 2 * cells, "multiply": 3 * cells, "add": cells}
    assert each["encoder", "activation"] == {"tanh": quarters * 8} and each["encoder.out", "bias"] == {"add": quarters * 8}


def test_a_recogniser_reads_the_front_end_without_a_projection():
    torch.manual_seed(0)
    frontend = VGGSubsampling(22, (2, 4)).double().eval()
    sizes = {"d_model": 8, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 1, "d_ffn": 16, "encoder_module": "vgg_bilstm"}
    net = SpikingTransformerASR(12, frontend.out_features, **sizes, encoder_kwargs={"hidden": 6}, projection=False).double().eval()
    assert not list(net.custom_src_module.parameters()) and net.encoder.model.input_size == 24
    x, tokens = features(), torch.randint(1, 12, (3, 5))
    maps, short = frontend(x, LENGTHS)
    together, decoded = net(maps, tokens, short, pad_idx=0)
    for row, n in enumerate(COUNTS):
        alone, steps = net(frontend(x[row : row + 1, :n])[0], tokens[row : row + 1], pad_idx=0)
        assert torch.allclose(alone, together[row : row + 1, : SHORT[row]], atol=1e-10)
        assert torch.allclose(steps, decoded[row : row + 1], atol=1e-10)
    for other in ("spike_driven_transformer", "transformer"):
        with pytest.raises(ValueError, match=f"projection: False, but .*{other} reads d_model channels: set projection: True"):
            SpikingTransformerASR(12, 24, **{**sizes, "encoder_module": other}, projection=False)
    projected = SpikingTransformerASR(12, 30, **sizes)
    assert projected.encoder.model.input_size == 8 and list(projected.custom_src_module.parameters()), (
        "as every encoder where nothing is said"
    )


def test_it_learns_what_only_the_way_back_knows():
    """The label of every frame is the sign of the last one of its utterance."""
    torch.manual_seed(0)
    encoder, head = VGGBiLSTM(4, num_layers=1, d_model=8, dropout=0.0), nn.Linear(8, 2)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-2)
    lengths, losses = torch.tensor([1.0, 0.5, 0.75, 1.0] * 8), []
    for _ in range(100):
        x = torch.randn(32, 4, 4)
        last = x[torch.arange(32), (lengths * 4).long() - 1, 0]
        loss = F.cross_entropy(head(encoder(x, lengths)[0][:, 0]), (last > 0).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    still = {name for name, p in encoder.named_parameters() if not p.grad.any()}
    assert still == {"layers.0.lstm.weight_hh_l0"}, "on the way there the first frame has nothing to remember"


def test_dropout_acts_in_training_alone():
    (frontend, encoder), x = made(dropout=0.5), features()
    maps, short = frontend(x, LENGTHS)
    assert torch.equal(encoder(maps, short)[0], encoder(maps, short)[0])
    twin = copy.deepcopy(encoder).train()
    assert not torch.equal(twin(maps, short)[0], twin(maps, short)[0])


def test_half_precision_goes_in_and_comes_out_near():
    torch.manual_seed(0)
    frontend, encoder = (part.float() for part in made())
    x = features().float()
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(*frontend(x, LENGTHS))[0]
    assert out.dtype == torch.bfloat16 and torch.allclose(out.float(), encoder(*frontend(x, LENGTHS))[0], atol=0.05)


def test_it_is_registered_and_wide_as_it_is_told():
    entry = registry.entry("vgg_bilstm")
    assert entry.kind == "ann" and not entry.causal
    encoder = registry.build("vgg_bilstm", num_layers=2, d_model=4, nhead=2, d_ffn=8)
    assert encoder.input_size == 4 and encoder.config.widths == (32, 32) and encoder.position == "none"


@pytest.mark.parametrize(
    "build, error, message",
    [
        (lambda: VGGBiLSTM(causal=True), ValueError, "causal is True, but a bidirectional LSTM reads the whole utterance: set causal"),
        (lambda: VGGBiLSTM(num_layers=0), ValueError, "num_layers is 0: choose 1 or more"),
        (lambda: VGGBiLSTM(hiden=5), TypeError, "VGGBiLSTM has no option 'hiden'; did you mean hidden"),
        (lambda: made()[1](torch.zeros(1, 3, 40)), ValueError, "x has 40 channels, encoder expects 24: set input_size: 40"),
        (lambda: made()[0](torch.zeros(1, 3, 40)), ValueError, "x has 40 mel bands, the front end expects 22: set n_mels=40"),
        (lambda: made()[0](torch.zeros(2, 3, 22), torch.tensor([3.0, 2.0])), ValueError, "relative"),
    ],
)
def test_wrong_options_say_what_to_do(build, error, message):
    with pytest.raises(error, match=message):
        build()
