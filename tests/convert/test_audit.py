"""What the audit says of every encoder, and the products that it must not miss."""

import copy
import importlib
import json

import pytest
import torch
from torch import nn

from spikebrain import convert, operands, registry
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.blocks.subsampling import Conv2dSubsampling
from spikebrain.convert.audit import OPERATIONS
from spikebrain.encoders.iml_spikeformer import IMLSpikeformerBlock, RepSSA
from spikebrain.lobes import LogMel, RateClassifier, SpikingClassifier, SpikingEmbedding, SpikingTransformerASR
from spikebrain.neurons import LIF

ATTENTION = {("layers.*.attention", "scores"): 2}
FEATURES = {("embedding", "weight"): 1}
FIRST = {("layers.*.linear", "weight"): 1}
SHIFT = {("layers.*.linear", "weight"): 2, ("layers.*.skip", "weight"): 2}
LINEAR = {("attention", "state"): 1, ("attention", "read"): 1}
BIAS = {("bias.down", "weight"): 1, ("bias.up", "weight"): 1}
IMLS = {"norm", "softmax", "decay mask"}
SCR = {"norm", "membrane"}
PTS = {"norm", "tanh", "membrane"}

# (products of two real numbers in two layers, what else multiplies), as the papers' equations have it
EXPECTED = {
    "iml_spikeformer": (ATTENTION, IMLS),
    "iml_spikeformer_literal": (ATTENTION, IMLS),
    "iml_spikeformer_linear": (ATTENTION, IMLS - {"softmax"}),
    "iml_spikeformer_sdsa3": ({}, {"norm"}),
    "iml_spikeformer_mls": (ATTENTION, IMLS),
    "iml_spikeformer_multistep": (ATTENTION, IMLS | {"membrane"}),
    "spikescr": (FEATURES, SCR),
    "spikescr_plif": (FEATURES, SCR),
    "spikescr_no_gate": (FEATURES, SCR),
    "spikescr_no_convolution": (FEATURES, SCR),
    "spikescr_no_rope": (FEATURES, SCR),
    "spikescr_sin": ({**FEATURES, ("layers.*.attention.qkv", "weight"): 2}, SCR),
    "spikescr_sin_lif": (FEATURES, SCR),
    "lif_network": (FIRST, SCR),
    "plif_network": (FIRST, SCR),
    "pts_snn": ({**SHIFT, **LINEAR, **BIAS}, PTS | {"columns", "prompts"}),
    "pts_snn_no_prompts": ({**SHIFT, **LINEAR}, PTS | {"columns"}),
    "pts_snn_no_attention": ({**SHIFT, **BIAS}, PTS | {"prompts"}),
    "pts_snn_only_shift": (SHIFT, PTS),
    "pts_snn_literal": ({**SHIFT, **LINEAR, **BIAS}, PTS | {"columns", "prompts"}),
    "vanilla_snn": (FIRST, {"membrane"}),
    "spike_driven_transformer": ({}, {"norm", "membrane"}),
    "lif_mlp": (FIRST, {"membrane", "tanh"}),
    "gsu": (FIRST, {"membrane", "tanh"}),
}


def real_products(found):
    """(layer, part) -> how often, of products that are not accumulate-only."""
    return {(one["layer"], one["part"]): one["times"] for one in found.summary() if one["sort"] == "product" and not one["accumulate_only"]}


def multiplies(found):
    """Parts of what multiplies and is no product."""
    return {one["part"] for one in found.findings if one["sort"] == "operation" and not one["accumulate_only"]}


def finding(found, layer, part):
    """The one finding of a layer's part."""
    return next(one for one in found.findings if (one["layer"], one["part"]) == (layer, part))


@pytest.mark.parametrize("entry", registry.entries("encoder"), ids=lambda e: e.name)
def test_every_encoder(trained, x, lengths, hear, entry):
    network = trained(entry.name)
    found = convert.audit(network, x, lengths)
    assert (real_products(found), multiplies(found)) == EXPECTED[entry.name] and not found.unknown
    assert found.accumulate_only == (not EXPECTED[entry.name][0])
    products = hear(network, x, lengths)[2]
    assert sum(one["macs"] for one in found.products) == sum(product.macs for product in products)
    assert sum(one["accumulates"] or 0 for one in found.products) == sum(product.accumulates or 0 for product in products)
    converted = convert.audit(convert.convert(network), x, lengths)
    assert converted.products == found.products and not converted.unknown
    assert not any(one["part"] == "norm" and "folds into l" in one["why"] for one in converted.findings)


def test_the_twin_has_no_spike(trained, x, lengths):
    found = convert.audit(trained("spikescr_twin"), x, lengths)
    assert not any(one["accumulate_only"] for one in found.products) and not found.unknown
    assert multiplies(found) == {"norm", "positions", "softmax", "sigmoid"}
    assert len(found.products) == 1 + 2 * (4 + 2 * 2 + 5)  # a block: attention, two MLPs, convolution


@pytest.mark.parametrize("name", [name for name, (products, _) in EXPECTED.items() if products == ATTENTION])
@pytest.mark.parametrize("biases", [False, True])
def test_after_reparameterisation_nothing_is_left(trained, x, lengths, name, biases):
    network = convert.reparameterise(trained(name, qk_bias=biases))
    found = convert.audit(network, x, lengths)
    assert found.accumulate_only and multiplies(found) == EXPECTED[name][1] and not found.unknown
    parts = {one["part"]: (one["left"], one["right"]) for one in found.products if one["layer"] == "layers.0.attention"}
    spikes = "binary" if name.endswith("multistep") else "level"
    assert parts == {"fused": (spikes, "real"), "scores": ("real", spikes), "values": ("real", spikes)}
    assert convert.audit(convert.unroll_levels(network), x, lengths).products == found.products


@pytest.mark.parametrize("name", ["spikescr", "lif_network"])
def test_events_make_the_first_layer_accumulate_only(trained, events_x, x, lengths, name):
    network = trained(name, input_kind="level")
    assert convert.audit(network, events_x, lengths).accumulate_only
    layer = "embedding" if name == "spikescr" else "layers.0"
    with pytest.raises(convert.ConversionError, match=f"^{layer} was told of level input, but was handed .*: set input_kind: real"):
        convert.audit(network, x, lengths)


def test_what_is_said_of_single_findings(trained, x, lengths):
    found = convert.audit(trained("spikescr"), x, lengths)
    gate = finding(found, "layers.1.convolution", "gate")
    assert gate["accumulate_only"] and (gate["left"], gate["right"]) == ("real", "binary") and "nothing is multiplied" in gate["why"]
    folds = {one["layer"]: one["why"] for one in found.findings if one["part"] == "norm"}
    assert folds["embedding.neuron.norm"].endswith("folds into embedding.conv: fold_batchnorm(network)")
    assert all("layers.0.convolution.mix:" in folds[f"layers.0.convolution.{part}"] for part in ("content_norm", "gate_input.norm"))
    assert finding(found, "layers.0.attention", "positions")["accumulate_only"]
    assert "0.5, a shift by 1" in finding(found, "embedding.neuron.neuron", "membrane")["why"]
    assert "reparameterise" in finding(convert.audit(trained("iml_spikeformer"), x, lengths), "layers.0.attention", "scores")["why"]


@pytest.mark.parametrize(
    "name, switches, adds, more",
    [
        ("iml_spikeformer", {"hdm": "none"}, {"residual", "scale", "threshold"}, {"norm", "softmax"}),
        ("iml_spikeformer", {"hdm": "log_bias"}, {"residual", "scale", "threshold", "decay mask"}, {"norm", "softmax"}),
        ("iml_spikeformer", {"score": "linear", "hdm": "log_bias"}, {"residual", "threshold"}, {"norm", "decay mask"}),
        ("iml_spikeformer", {"block_norm": "none", "final_norm": False, "hdm": "none"}, {"residual", "scale", "threshold"}, {"softmax"}),
        ("lif_network", {"decay": 0.0}, {"membrane"}, {"norm"}),
        ("lif_network", {"decay": 1.0}, {"membrane"}, {"norm"}),
        ("spikescr", {"positions": "none", "decay_input": True}, {"residual", "scale", "input weight"}, {"norm", "membrane"}),
        (
            "pts_snn_only_shift",
            {"input_norm": "none", "block_norm": "none", "static_bias": 0.1},
            {"residual", "bias"},
            {"tanh", "membrane"},
        ),
    ],
    ids=lambda given: str(sorted(given)) if isinstance(given, set) else str(given),  # a set has no order of its own
)
def test_switches(trained, x, lengths, name, switches, adds, more):
    found = convert.audit(trained(name, **switches), x, lengths)
    assert multiplies(found) == more
    assert {one["part"] for one in found.findings if one["sort"] == "operation" and one["accumulate_only"]} == adds


# Products that are planted, and have to be found.


class HearsMembranes(nn.Module):
    """A linear layer that reads what neurons hear instead of what they fire, and says so."""

    def __init__(self, mlp):
        super().__init__()
        self.sn_1, self.linear_1, self.linear_2 = mlp.sn_1, mlp.linear_1, mlp.linear_2

    def forward(self, x, counts):
        hidden = self.linear_1(self.sn_1.fire(x, counts))
        return self.linear_2(operands.Spikes.real(hidden, counts))


def test_a_planted_product_of_real_numbers_is_caught(trained, x, lengths):
    network = convert.reparameterise(trained("iml_spikeformer"))
    network.layers[1].mlp = HearsMembranes(network.layers[1].mlp)
    found = convert.audit(network.eval(), x, lengths)
    assert real_products(found) == {("layers.*.mlp.linear_2", "weight"): 1} and not found.accumulate_only
    assert not finding(found, "layers.1.mlp.linear_2", "weight")["accumulate_only"]
    assert [(one["layer"], one["sort"]) for one in found.unknown] == [("layers.1.mlp", "unknown")]


class Mute(SpikeLinear):
    """A layer that multiplies without a word."""

    def forward(self, spikes):
        return nn.functional.linear(spikes.value, self.weight, self.bias)


@pytest.mark.parametrize("layer, size", [("layers.0.attention.v", "16 x 16"), ("layers.1.mlp.linear_2", "16 x 32")])
def test_a_layer_that_tells_of_nothing_is_refused(trained, x, lengths, layer, size):
    network = trained("iml_spikeformer")
    network.get_submodule(layer).__class__ = Mute
    with pytest.raises(convert.ConversionError, match=rf"^{layer} \(Mute\) holds a weight of {size} but told of no product: tell of it"):
        convert.audit(network, x, lengths)


def test_a_weight_that_nothing_hears_is_refused_too(trained, x, lengths):
    network = trained("lif_network")
    network.add_module("idle", nn.Conv2d(2, 3, 3).eval())
    with pytest.raises(convert.ConversionError, match=r"^idle \(Conv2d\) holds a weight of 3 x 2 x 3 x 3"):
        convert.audit(network, x, lengths)


class MixesMore(RepSSA):
    """Attention with one product more than it tells of, in a function that no hook sees; its matrix is no parameter."""

    def mix(self, q, k, values):
        y = super().mix(q, k, values)
        return y + 0.01 * self.extra(y)

    def extra(self, y):
        return torch.matmul(y, y.transpose(-2, -1)) @ y


class MixesByVectors(MixesMore):
    def extra(self, y):
        return torch.stack([torch.mv(one.transpose(0, 1) @ one, one[0]) for one in y]).unsqueeze(1)


class MixesByAttention(MixesMore):
    def extra(self, y):
        return nn.functional.scaled_dot_product_attention(y.unsqueeze(1), y.unsqueeze(1), y.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("planted", [MixesMore, MixesByVectors, MixesByAttention])
def test_a_product_in_a_function_is_caught(trained, x, lengths, planted):
    network = trained("iml_spikeformer")
    network.layers[1].attention.__class__ = planted
    with pytest.raises(convert.ConversionError, match=rf"^layers.1.attention \({planted.__name__}\) computed matrix products that nobody"):
        convert.audit(network, x, lengths)
    network.layers[1].attention.__class__ = RepSSA
    convert.audit(network, x, lengths)


def test_a_product_that_is_told_of_too_cheaply_is_caught(trained, x, lengths, monkeypatch):
    def cheap(self, spikes):
        return operands.Product(self, "weight", spikes.kind, operands.Kind.REAL, 1, int(spikes.level.sum()))

    network = trained("spikescr")
    monkeypatch.setattr(SpikeLinear, "_product", cheap)
    with pytest.raises(convert.ConversionError, match=r"^layers.0.attention.qkv \(SpikeLinear\) computed matrix products"):
        convert.audit(network, x, lengths)


class Lies(LIF):
    """Neurons that say they fired, and hand on their membranes."""

    def run(self, x, counts, state=None, gain=None, norm=None):
        spikes, after = super().run(x, counts, state, gain, norm)
        return spikes._replace(value=x), after


def test_spikes_that_are_none_are_refused(trained, x, lengths):
    network = convert.fold_batchnorm(trained("spikescr"))
    network.layers[0].mlp_1.up_neuron.neuron.__class__ = Lies
    with pytest.raises(convert.ConversionError, match="^layers.0.mlp_1.down was handed spikes of 0 to 1 whose value is something else"):
        convert.audit(network, x, lengths)


class OtherBlock(IMLSpikeformerBlock):
    """A block that computes what only its author knows."""

    def forward(self, x, counts):
        return super().forward(x, counts) * x.sigmoid()


def test_a_type_that_nobody_has_listed_is_unknown_even_if_it_inherits(trained, x, lengths, monkeypatch):
    network = trained("iml_spikeformer")
    network.layers[0].__class__ = OtherBlock
    found = convert.audit(network, x, lengths)
    assert [(one["layer"], one["accumulate_only"]) for one in found.unknown] == [("layers.0", False)]
    assert "OtherBlock" in found.unknown[0]["why"]
    monkeypatch.setitem(OPERATIONS, OtherBlock, OPERATIONS[IMLSpikeformerBlock])
    assert not convert.audit(network, x, lengths).unknown


def test_a_product_of_a_stranger_is_refused(trained, x, lengths):
    network, stranger = trained("lif_network"), SpikeLinear(16, 4).double()
    network.layers[0].register_forward_hook(lambda *given: stranger(operands.Spikes.real(x, torch.tensor([13, 7, 10]))))
    with pytest.raises(convert.ConversionError, match="a SpikeLinear told of a product, but is no part of the network: audit its root"):
        convert.audit(network, x, lengths)


# Whole networks.


@pytest.mark.parametrize(
    "build, expected",
    [
        (lambda: SpikingClassifier(16, 5, "spikescr", {"d_model": 16, "nhead": 2}), {"head", "encoder.model.embedding"}),
        (
            lambda: SpikingEmbedding(16, 5, "iml_spikeformer", {"num_layers": 1, "d_model": 8, "nhead": 2, "d_ffn": 16}),
            {"head", "encoder.projection", "encoder.model.layers.0.attention"},
        ),
        (
            lambda: RateClassifier(16, 4, "vanilla_snn", {"d_model": 16}, readout_kwargs={"neuron": "lif"}),
            {"encoder.model.layers.0.linear"},
        ),
    ],
)
def test_classifiers_and_embeddings(calibrated, x, lengths, build, expected):
    torch.manual_seed(0)
    network = calibrated(build())
    found = convert.audit(network, x, lengths)
    assert {one["layer"] for one in found.products if not one["accumulate_only"]} == expected and not found.unknown


def recogniser(activation):
    """The parts of a small recogniser, and a function that runs them as a recipe does."""
    torch.manual_seed(0)
    frontend = Conv2dSubsampling(8, activation=activation)
    sizes = {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "d_ffn": 16}
    model = SpikingTransformerASR(9, frontend.out_features, **sizes)
    parts = nn.ModuleDict({"features": LogMel(), "frontend": frontend, "Transformer": model})

    def forward(x, lengths):
        return model(*[frontend(*parts["features"](x, lengths))[0], torch.ones(len(x), 4, dtype=torch.long), None], pad_idx=0)

    forward(torch.randn(2, 8000), None)
    return parts.eval(), forward


@pytest.mark.parametrize("activation, dense", [("relu", {"frontend.conv_1", "frontend.conv_2"}), ("spike", {"frontend.conv_1"})])
def test_a_recogniser_with_front_end_and_decoder(activation, dense):
    parts, forward = recogniser(activation)
    found = convert.audit(parts, torch.randn(2, 8000), forward=forward)
    attention, projection = "Transformer.encoder.model.layers.0.attention", "Transformer.custom_src_module.layers.0.w"
    real = {one["layer"] for one in found.products if not one["accumulate_only"]}
    assert real == dense | {"features", "Transformer.decoder", attention, projection} and not found.unknown
    assert "front end" in finding(found, "features", "features")["why"]


# The face.


def test_the_network_is_left_as_it_was(trained, x, lengths):
    network = trained("spikescr")
    before = copy.deepcopy(network.state_dict())
    for _ in range(2):
        convert.audit(network, x, lengths)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules()) and not operands.listening()


def test_nothing_is_left_behind_by_a_refusal(trained, x, lengths):
    network = trained("iml_spikeformer")
    network.layers[1].attention.__class__ = MixesMore
    with pytest.raises(convert.ConversionError):
        convert.audit(network, x, lengths)
    with pytest.raises(ValueError, match="encoder expects 16"):
        convert.audit(trained("iml_spikeformer"), x[..., :5], lengths)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules()) and not operands.listening()


def test_as_numbers_and_as_a_table(trained, x, lengths):
    found = convert.audit(trained("iml_spikeformer"), x, lengths)
    written = json.loads(json.dumps(found.as_dict()))
    assert written == found.as_dict() and written["network"] == "IMLSpikeformer" and written["accumulate_only"] is False
    keys = {"layer", "part", "sort", "left", "right", "macs", "accumulates", "accumulate_only", "why"}
    assert all(set(one) == keys for one in written["findings"])
    lines = str(found).splitlines()
    assert lines[0] == "IMLSpikeformer: not every product is accumulate-only" and len(lines) == 2 + len(found.summary())
    assert sum(one["times"] for one in found.summary()) == len(found.findings)
    assert "every product is accumulate-only" in str(convert.audit(trained("iml_spikeformer_sdsa3"), x, lengths))


def test_every_name_of_the_table_is_a_class():
    for name in (key for key in OPERATIONS if isinstance(key, str)):
        module, _, kind = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), kind), type), name


def row(name, found):
    """The line of docs/energy.md for a network of two layers."""
    real = ", ".join(f"`{layer}` {part} x {times}" for (layer, part), times in real_products(found).items())
    return f"| `{name}` | {len(found.products)} | {real or 'none'} | {', '.join(sorted(multiplies(found)))} |"


@pytest.mark.parametrize("entry", registry.entries("encoder"), ids=lambda e: e.name)
def test_the_page_on_energy_says_what_the_audit_says(trained, x, lengths, checkout, entry):
    page = (checkout / "docs" / "energy.md").read_text(encoding="utf-8")
    assert row(entry.name, convert.audit(trained(entry.name), x, lengths)) in page.splitlines()


def test_the_pages_example_runs(checkout, capsys):
    page = (checkout / "docs" / "energy.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})
    first, second = capsys.readouterr().out.split("IMLSpikeformer: ")[1:]
    assert first.startswith("not every product") and second.startswith("every product is accumulate-only")
