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
    told = sum(operations.macs for operations in counter.products.values())
    formula = energy.macs(energy.architecture(model), counter.feature_frames, counter.decoder_steps)
    assert told == sum(formula["encoder"].values())


def test_encoder_energy_by_hand(model):
    counter = counted(model, batch([60]))
    written = energy.report(counter, energy.architecture(model))["encoder_blocks"]
    multiplied = sum(one.macs for one in counter.products.values() if one.accumulates is None)
    added = sum(one.accumulates or 0 for one in counter.products.values())
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
