"""Law 6: totals are sums of lines, silence costs no accumulation, padding costs nothing, and every product has a price."""

import copy
import json

import pytest
import torch
from torch import nn

from spikebrain import energy, lengths, operands
from spikebrain.blocks.subsampling import Conv2dSubsampling
from spikebrain.encoders.iml_spikeformer import IMLSpikeformer

WIDTH, FFN, BLOCKS, MELS, VOCABULARY = 16, 24, 2, 23, 11
PRICES = energy.HOROWITZ_FP32


class Recogniser(nn.Module):
    """Projection and spiking encoder, named as SpeechBrain's TransformerASR names them, without a decoder."""

    def __init__(self, inputs, **switches):
        super().__init__()
        self.custom_src_module = nn.ModuleList([nn.Linear(inputs, WIDTH)])
        self.encoder = IMLSpikeformer(num_layers=BLOCKS, d_model=WIDTH, nhead=2, d_ffn=FFN, **switches)

    def forward(self, x, relative):
        return self.encoder(self.custom_src_module[0](x), relative)[0]


def spiking_model(activation="relu", **switches):
    torch.manual_seed(0)
    frontend = Conv2dSubsampling(WIDTH, 4, MELS, activation)
    parts = {"frontend": frontend, "Transformer": Recogniser(frontend.out_features, **switches), "ctc_lin": nn.Linear(WIDTH, VOCABULARY)}
    modules = nn.ModuleDict(parts).double()
    # Other utterances than the tests': the one that is a channel's maximum lies exactly on a threshold, where rounding decides.
    hear(modules.train(), *batch([71, 52]))
    return modules.eval()


def batch(counts, padding=0):
    """Features of utterances of ``counts`` frames, each its own and the same in any batch."""
    frames = max(counts) + padding
    x = torch.full((len(counts), frames, MELS), 50.0, dtype=torch.float64)
    for row, count in zip(x, counts, strict=True):
        row[:count] = torch.randn(count, MELS, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    return x, lengths.relative(torch.tensor(counts), frames)


def hear(modules, x, relative):
    with torch.no_grad():
        modules["Transformer"](*modules["frontend"](x, relative))


def counted(modules, *batches):
    counter = energy.Counter(modules)
    with operands.listen(counter):
        for x, relative in batches:
            hear(modules, x, relative)
            counter.add_utterances(lengths.absolute(relative, x), [0] * len(x))
    return counter


def report(modules, *batches, **flags):
    return energy.report(counted(modules, *batches), energy.architecture(modules), **flags)


@pytest.fixture(scope="module")
def model():
    return spiking_model()


def numbers(written):
    return {scope: (written[scope]["mJ"], written[scope]["twin_mJ"]) for scope in energy.SCOPES}


def test_totals_are_sums_of_lines_and_lines_are_priced_counts(model):
    written = report(model, batch([60, 44]), batch([51]))
    price = {"mac": PRICES.mac_pJ, "ac": PRICES.ac_pJ}
    for scope in energy.SCOPES:
        for total, lines in (("mJ", "lines"), ("twin_mJ", "twin_lines")):
            assert written[scope][total] == sum(line["mJ"] for line in written[scope][lines]) > 0
            for line in written[scope][lines]:
                own = written[line["line"]][total] if line["operation"] == "scope" else line["count"] * price[line["operation"]] * 1e-9
                assert line["mJ"] == pytest.approx(own)
    assert json.loads(json.dumps(written)) == written


def test_the_twin_multiplies_what_the_encoder_would_multiply_densely(model):
    counter = counted(model, batch([60, 44]), batch([51]))
    formula = energy.macs(energy.architecture(model), counter.feature_frames, counter.decoder_steps)
    assert sum(one.macs for one in inside_encoder(counter)) == sum(formula["encoder"].values())
    convolutions = {name: one.macs for (name, _), one in counter.products.items() if name.startswith("frontend.")}
    assert convolutions == {name: formula["frontend"][name] for name in ("frontend.conv_1", "frontend.conv_2")}


def inside_encoder(counter):
    return [one for (name, _), one in counter.products.items() if name.startswith("Transformer.encoder")]


def test_encoder_energy_by_hand(model):
    counter = counted(model, batch([60]))
    written = energy.report(counter, energy.architecture(model))["encoder_blocks"]
    multiplied = sum(one.macs for one in inside_encoder(counter) if one.accumulates is None)
    added = sum(one.accumulates or 0 for one in inside_encoder(counter))
    assert written["mJ"] == pytest.approx((multiplied * 4.6 + added * 0.9) * 1e-9)
    assert multiplied == 14 * 14 * WIDTH * BLOCKS and added > 0  # 60 feature frames are 14 encoder frames; scores alone are real


def test_silence_costs_no_accumulation():
    modules = spiking_model(block_norm="none")
    for layer in modules["Transformer"].encoder.layers:
        for neuron in (layer.attention.sn_in, layer.attention.sn_v, layer.attention.sn_a, layer.mlp.sn_1, layer.mlp.sn_2):
            neuron.running_max.fill_(1e9)
    lines = report(modules, batch([60, 44]))["encoder_blocks"]["lines"]
    assert {line["operation"] for line in lines if line["mJ"]} == {"mac"}
    assert sum(line["count"] for line in lines if line["operation"] == "ac") == 0


def test_padding_changes_nothing(model):
    close, padded = report(model, batch([60, 44])), report(model, batch([60, 44], padding=60))
    assert close == padded
    # The same frames heard as part of the utterances cost more: the test can fail.
    x, _ = batch([60, 44], padding=60)
    assert numbers(report(model, (x, torch.ones(2)))) != numbers(close)


def test_batching_changes_nothing(model):
    together, apart = report(model, batch([60, 44])), report(model, batch([44]), batch([60]))
    for scope, pair in numbers(apart).items():
        assert pair == pytest.approx(numbers(together)[scope], rel=1e-12)


@pytest.mark.parametrize("switches", [{"attention": "sdsa3"}, {"score": "linear"}, {"neuron": "mls"}, {"neuron": "lif_multistep"}])
def test_every_attention_and_neuron_is_counted(switches):
    written = report(spiking_model(levels=3, **switches), batch([60, 44]))
    assert written["encoder_blocks"]["mJ"] > 0
    assert numbers(written)["full"][1] == pytest.approx(numbers(report(spiking_model(), batch([60, 44])))["full"][1])


def test_a_front_end_that_spikes_costs_accumulations():
    modules = spiking_model("spike")
    written = report(modules, batch([60, 44]))
    operations = [line["operation"] for line in written["encoder+frontend"]["lines"]]
    assert operations == ["scope", "mac", "ac", "ac"] and written["counting"]["frontend_spiking"]
    told = counted(modules, batch([60, 44]))
    projection = written["encoder+frontend"]["lines"][-1]
    spikes = float(told.spikes["frontend.sn_2"].counts.sum())
    assert projection["count"] == pytest.approx(spikes * WIDTH / 2)  # each spike is added to every output; two utterances
    dense = report(modules, batch([60, 44]), frontend_spiking=False)
    assert dense["encoder+frontend"]["mJ"] > written["encoder+frontend"]["mJ"]
    assert dense["encoder+frontend"]["twin_mJ"] == written["encoder+frontend"]["twin_mJ"]


def test_a_front_end_without_neurons_cannot_be_called_spiking(model):
    with pytest.raises(ValueError, match="frontend has 2 products after its first, but 0 layers fired"):
        report(model, batch([60]), frontend_spiking=True)


def test_decoder_can_be_left_out_and_is_then_listed(model):
    full, without = report(model, batch([60])), report(model, batch([60]), decoder_as_mac=False)
    assert [line["line"] for line in full["full"]["lines"]] == ["encoder+frontend", "ctc"]
    assert numbers(without)["full"] == numbers(without)["encoder+frontend"] == numbers(full)["encoder+frontend"]
    assert "CTC and decoder" in without["counting"]["not_counted"] and "CTC and decoder" not in full["counting"]["not_counted"]


def test_cheaper_operations_cost_less(model):
    floats, integers = report(model, batch([60])), report(model, batch([60]), prices=energy.HOROWITZ_INT8)
    ratio = [integers["full"][key] / floats["full"][key] for key in ("mJ", "twin_mJ")]
    assert ratio[1] == pytest.approx(0.23 / 4.6) and integers["counting"]["prices"]["name"] == "horowitz_int8"
    assert 0.03 / 0.9 < ratio[0] < 0.23 / 4.6


def drop_in(encoder_module, **kwargs):
    from spikebrain.lobes import SpikingTransformerASR

    torch.manual_seed(0)
    frontend = Conv2dSubsampling(8, 4, MELS)
    model = SpikingTransformerASR(
        VOCABULARY, frontend.out_features, WIDTH, 2, BLOCKS, 1, FFN, normalize_before=True, encoder_module=encoder_module, **kwargs
    )
    heads = {"ctc_lin": nn.Linear(WIDTH, VOCABULARY), "seq_lin": nn.Linear(WIDTH, VOCABULARY)}
    return nn.ModuleDict({"frontend": frontend, "Transformer": model, **heads}).eval()


def test_the_drop_in_and_its_twin_have_one_twin_energy():
    written = {}
    for name in ("iml_spikeformer", "transformer"):
        modules = drop_in(name)
        counter = energy.Counter(modules)
        x, relative = batch([60, 44])
        with operands.listen(counter), torch.no_grad():
            modules["Transformer"].encode(*modules["frontend"](x.float(), relative))
        counter.add_utterances([60, 44], [5, 4])
        written[name] = energy.report(counter, energy.architecture(modules))
    for scope in energy.SCOPES:
        spiking, twin = (written[name][scope] for name in ("iml_spikeformer", "transformer"))
        assert spiking["twin_mJ"] == twin["twin_mJ"] == twin["mJ"] > spiking["mJ"] > 0


def test_a_twin_run_costs_what_its_twin_costs():
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

    frontend = Conv2dSubsampling(WIDTH, 4, MELS)
    model = TransformerASR(VOCABULARY, frontend.out_features, WIDTH, 2, BLOCKS, 1, FFN, normalize_before=True, causal=False)
    heads = {"ctc_lin": nn.Linear(WIDTH, VOCABULARY), "seq_lin": nn.Linear(WIDTH, VOCABULARY)}
    modules = nn.ModuleDict({"frontend": frontend, "Transformer": model, **heads})
    counter = energy.Counter(modules)
    counter.add_utterances([60, 44], [5, 4])
    written = energy.report(counter, energy.architecture(modules))
    for scope in energy.SCOPES:
        assert written[scope]["mJ"] == written[scope]["twin_mJ"] > 0
    assert written["counting"]["encoder_frames"] == (14 + 10) / 2 and written["counting"]["decoder_steps"] == 4.5


def test_no_utterances_is_an_error(model):
    with pytest.raises(ValueError, match="no utterances were counted"):
        energy.report(energy.Counter(model), energy.architecture(model))


def test_frames_that_were_heard_and_not_declared_are_an_error(model):
    counter = counted(model, batch([60, 44]))
    with operands.listen(counter):
        hear(model, *batch([44]))
    with pytest.raises(ValueError, match=r"layers\.0\.\S+ fired over 34 frames, the utterances have 24"):
        energy.report(counter, energy.architecture(model))


def test_a_layer_that_tells_nothing_is_an_error():
    modules = spiking_model()
    mute = modules["Transformer"].encoder.layers[1].mlp
    mute.linear_1 = nn.Linear(WIDTH, FFN).double()
    mute.forward = lambda x, counts: mute.linear_2(mute.sn_2.fire(mute.linear_1(mute.sn_1.fire(x, counts).value), counts))
    with pytest.raises(ValueError, match=r"Transformer.encoder.layers.1.mlp.linear_1 holds a weight but told of no product"):
        report(modules, batch([60]))


def test_a_product_without_a_scope_is_an_error(model):
    counter = counted(model, batch([60]))
    counter.products["ctc_lin", "weight"] = next(iter(counter.products.values()))
    with pytest.raises(ValueError, match="ctc_lin told of a product, but is neither in Transformer.encoder nor in frontend"):
        energy.report(counter, energy.architecture(model))


def test_counting_leaves_the_network_as_it_was(model):
    before = copy.deepcopy(model.state_dict())
    report(model, batch([60, 44]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def drop_in_report(name, modules=None):
    """Report of two utterances of 14 and 10 encoder frames, and 5 and 4 steps of the decoder."""
    modules = modules or drop_in(name)
    counter = energy.Counter(modules)
    x, relative = batch([60, 44])
    with counter.listen(), torch.no_grad():
        modules["Transformer"].encode(*modules["frontend"](x.float(), relative))
    counter.add_utterances([60, 44], [5, 4])
    return energy.report(counter, energy.architecture(modules))


def apart(written, scope, prefix=""):
    """kind -> operations of both utterances together, of the lines of a scope whose name begins with ``prefix``."""
    total = {}
    for line in written[scope]["further"]:
        if line["kind"] != "scope" and line["line"].startswith(prefix):
            kind = total.setdefault(line["kind"], {})
            for name, number in line["operations"].items():
                kind[name] = kind.get(name, 0) + 2 * number
    return total


def test_what_the_decoder_computes_beside_its_products_by_hand():
    """One block of width 16 and feed-forward width 24, two heads; 24 frames, 9 steps, 5^2 + 4^2 pairs, 5 x 14 + 4 x 10 crossed."""
    written = drop_in_report("iml_spikeformer")
    steps, frames, pairs, rows = 9, 24, 2 * (41 + 110), 2 * 2 * 9
    norms = 4 * steps  # three of the block, one behind it
    assert apart(written, "full", "Transformer.decoder") == {
        "norm": {"add": norms * 65, "multiply": norms * 50, "root": norms, "divide": norms},
        "softmax": {"compare": pairs, "add": 2 * pairs, "exp": pairs, "multiply": pairs, "divide": rows},
        # Queries, keys and values, and what is mixed, of the block's own attention; of the crossed one keys and values once a frame.
        "bias": {"add": steps * (48 + 16) + steps * (16 + 16) + frames * 32 + steps * (24 + 16)},
        "residual": {"add": 3 * steps * 16},
        "activation": {"compare": steps * 24},
    }
    assert apart(written, "full", "ctc_lin") == {"bias": {"add": frames * VOCABULARY}}
    assert apart(written, "full", "seq_lin") == {"bias": {"add": steps * VOCABULARY}}
    assert apart(written, "full") == apart(drop_in_report("transformer"), "full"), "the twin has the same decoder"


def test_what_lies_before_the_encoder_by_hand():
    """Frames are 29 and 21, then 14 and 10, of 11 and 5 bands: ReLUs and biases of 8 filters, the projection's bias, and positions."""
    written = drop_in_report("iml_spikeformer")
    outputs = 8 * 50 * 11, 8 * 24 * 5
    assert apart(written, "encoder+frontend", "frontend.conv_1") == {"bias": {"add": outputs[0]}}
    assert apart(written, "encoder+frontend", "frontend.conv_2") == {"bias": {"add": outputs[1]}}
    assert apart(written, "encoder+frontend") == {
        "activation": {"compare": sum(outputs)},
        "bias": {"add": sum(outputs) + 24 * WIDTH},
        "positions": {"add": (24 + 9) * WIDTH},  # the decoder's tokens get theirs from the same module
    }


def test_what_a_stock_encoder_computes_beside_its_products_by_hand():
    written = drop_in_report("transformer")
    pairs, frames = 2 * BLOCKS * (14**2 + 10**2), 24
    assert apart(written, "encoder_blocks") == {
        "norm": {"add": 5 * frames * 65, "multiply": 5 * frames * 50, "root": 5 * frames, "divide": 5 * frames},
        "softmax": {"compare": pairs, "add": 2 * pairs, "exp": pairs, "multiply": pairs, "divide": 2 * BLOCKS * frames},
        "bias": {"add": BLOCKS * frames * (48 + 16 + 24 + 16)},
        "residual": {"add": BLOCKS * 2 * frames * WIDTH},
        "activation": {"compare": BLOCKS * frames * FFN},
    }
    assert "quantised_mJ" not in written["full"] and "orders" not in written["full"], "it has neither levels nor another order"


def test_nothing_apart_is_in_the_headline(model):
    written = report(model, batch([60, 44]))
    for scope in energy.SCOPES:
        assert written[scope]["mJ"] == sum(line["mJ"] for line in written[scope]["lines"])
        assert written[scope]["further_mJ"] == sum(line["mJ"] or 0 for line in written[scope]["further"]) > 0
        assert {"exp", "divide", "root"} == set(written[scope]["further_unpriced"])
    assert "memory traffic and leakage" in written["counting"]["not_counted"] and written["counting"]["further"]


def test_the_quantised_twin_multiplies_integers_where_the_network_reads_spikes(model):
    written = report(model, batch([60, 44]))
    quantised = {line["line"]: line for line in written["encoder_blocks"]["quantised_lines"]}
    dense = energy.macs(energy.architecture(model), [60, 44], [0, 0])["encoder"]
    assert 2 * sum(line["count"] for line in quantised.values()) == sum(dense.values())
    reads = {line["line"] for line in written["encoder_blocks"]["lines"] if line["operation"] == "ac"}
    assert {name for name, line in quantised.items() if line["operation"] == "int_mac"} == reads
    assert written["counting"]["quantised"] == {"levels": 6, "bits": 3, "prices": energy.HOROWITZ_INT8_SUM32.as_dict()}
    other = report(model, batch([60, 44]), integer_prices=energy.HOROWITZ_INT8)["encoder_blocks"]
    assert other["quantised_mJ"] < written["encoder_blocks"]["quantised_mJ"] and other["mJ"] == written["encoder_blocks"]["mJ"]


def test_both_orders_need_what_only_the_counter_itself_hears(model):
    counter = energy.Counter(model)
    with counter.listen():
        hear(model, *batch([60, 44]))
    counter.add_utterances([60, 44], [0, 0])
    heard = energy.report(counter, energy.architecture(model))
    assert set(heard["encoder_blocks"]["orders"]) == {"unfused", "reparameterised"}
    plain = report(model, batch([60, 44]))
    assert "orders" not in plain["encoder_blocks"] and numbers(plain) == numbers(heard)
    assert not any(module._forward_pre_hooks for module in model.modules()), "a hook was left behind"


def inner(encoder):
    """The encoder that an adapter to the host holds, or the host's own."""
    return getattr(encoder, "model", encoder)


@pytest.mark.parametrize(
    "place, name",
    [
        (lambda m: m["Transformer"], "Transformer.extra"),
        (lambda m: m["Transformer"].decoder, "Transformer.decoder.extra"),
        (lambda m: m, "extra"),
        (lambda m: m["ctc_lin"], "ctc_lin.extra"),
        (lambda m: inner(m["Transformer"].encoder), r"Transformer.encoder(\.model)?.extra"),
    ],
)
@pytest.mark.parametrize("encoder", ["transformer", "iml_spikeformer"])
def test_a_weight_that_nobody_counts_is_refused_wherever_it_is(place, name, encoder):
    modules = drop_in(encoder)
    place(modules).add_module("extra", nn.Linear(WIDTH, WIDTH))
    with pytest.raises(ValueError, match=rf"{name} (holds a weight|is one of 2 layers with a weight)"):
        drop_in_report(encoder, modules)


def test_a_decoder_of_other_blocks_is_refused():
    modules = drop_in("transformer")
    modules["Transformer"].decoder.layers[0].add_module("adapter", nn.Linear(WIDTH, 3))
    with pytest.raises(ValueError, match=r"Transformer.decoder.layers.0 holds 2864 weights, the formula counts 2816"):
        drop_in_report("transformer", modules)


def test_parameters_of_an_unknown_kind_are_refused():
    modules = drop_in("iml_spikeformer")
    inner(modules["Transformer"].encoder).add_module("extra", nn.PReLU())
    with pytest.raises(ValueError, match=r"Transformer.encoder.model.extra \(PReLU\) holds a weight but told of no product"):
        drop_in_report("iml_spikeformer", modules)
