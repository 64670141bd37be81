"""Law 6 over every registered neuron, encoder and comparator: what is counted, what is not, and what would be refused.

Totals are sums of lines; silence costs no accumulation; padding costs nothing; what is counted is what a run on events adds; and two
networks are counted by hand, to the last operation.
"""

import copy
import dataclasses
import functools
import importlib
import json

import pytest
import torch
from test_laws import COUNTS, MODELS, NETWORKS, READ_REAL, IgnoresLengths, batch, build, calibrate, lengths_of
from torch import nn

from spikebrain import convert, energy, registry
from spikebrain.baselines.gsu import GatedNeuron
from spikebrain.baselines.vanilla_snn import VanillaSNN
from spikebrain.blocks.spiking_mlp import SpikingMLP
from spikebrain.energy import further
from spikebrain.energy.scopes import SCOPES
from spikebrain.neurons import LIF, IterativeLIF, MultiLevelSpike

SPIKING = registry.entries("neuron") + registry.entries("encoder")
FUSIBLE = [entry for entry in registry.entries("encoder") if "iml" in entry.name and "sdsa3" not in entry.name]
COLUMNS = (("mJ", "lines"), ("twin_mJ", "twin_lines"), ("quantised_mJ", "quantised_lines"), ("further_mJ", "further"))
PRICES, INTEGERS = energy.HOROWITZ_FP32, energy.HOROWITZ_INT8_SUM32


def ids(entry):
    return entry.name


def count(model, x, lengths):
    """The counter of a run, with the model inside of another module, as recipes have it."""
    root = nn.ModuleDict({"net": model})
    counter = energy.Counter(root)
    with torch.no_grad(), counter.listen():
        model(x, lengths)
    counter.add_utterances(COUNTS, [0] * len(COUNTS))
    return counter


def report(entry, model, padding=0):
    x = batch(entry)
    x = torch.cat([x, torch.full_like(x[:, :1], 9.0).expand(-1, padding, -1)], 1)
    counter = count(model, x, lengths_of(x, x.shape[1]))
    return energy.report_told(counter, "net" if entry.kind == "neuron" else "net.layers", "net")


@functools.cache
def reported(entry):
    """The report of an entry's small instance; not to be changed."""
    return report(entry, build(entry))


def operations(written, *kinds):
    """Operations of those ``kinds`` in a report, of an utterance: name -> number."""
    total = {}
    for scope in SCOPES:
        for line in written[scope]["further"]:
            for name, number in line["operations"].items() if line["kind"] in kinds else ():
                total[name] = total.get(name, 0) + number
    return total


def price(line):
    """What a line costs, from its own numbers and the tables."""
    if "operations" in line:
        each = {"multiply": 3.7, "add": 0.9, "compare": 0.9}
        return sum(each[name] * number for name, number in line["operations"].items() if name in each) * 1e-9
    return line["count"] * {"mac": 4.6, "ac": 0.9, "int_mac": 0.3}[line["operation"]] * 1e-9


def check_sums(written):
    for scope in SCOPES:
        entry = written[scope]
        for total, key in COLUMNS:
            if key not in entry:
                continue
            assert entry[total] == sum(line["mJ"] or 0.0 for line in entry[key])
            for line in entry[key]:
                inner = line["line"] in SCOPES and "scope" in (line.get("operation"), line.get("kind"))
                assert line["mJ"] is None or line["mJ"] == pytest.approx(written[line["line"]][total] if inner else price(line))
        for name, order in entry.get("orders", {}).items():
            assert order["lines"] and order["mJ"] > 0, name


@pytest.mark.parametrize("entry", MODELS, ids=ids)
def test_totals_are_sums_of_lines(entry):
    written = copy.deepcopy(reported(entry))
    assert json.loads(json.dumps(written)) == written
    check_sums(written)
    written["encoder+frontend"]["further_mJ"] += 1e-9
    with pytest.raises(AssertionError):
        check_sums(written)


@pytest.mark.parametrize("entry", SPIKING, ids=ids)
def test_spikes_are_priced_once_more_at_the_prices_of_integers(entry):
    written = reported(entry)
    for entry in (written[scope] for scope in SCOPES):
        own = [line for line in entry["lines"] if line["operation"] != "scope"]
        inner = sum(written[line["line"]]["integer_mJ"] for line in entry["lines"] if line["operation"] == "scope")
        each = {"ac": INTEGERS.ac_pJ, "mac": PRICES.mac_pJ}
        assert entry["integer_mJ"] == pytest.approx(inner + sum(line["count"] * each[line["operation"]] * 1e-9 for line in own))
        assert entry["quantised_ratio"] == (entry["integer_mJ"] / entry["quantised_mJ"] if entry["quantised_mJ"] else None)


@pytest.mark.parametrize("entry", MODELS, ids=ids)
def test_doubling_the_padding_changes_nothing(entry):
    model, close = build(entry), reported(entry)
    assert close == report(entry, model, padding=13)
    x = batch(entry)
    counter = count(IgnoresLengths(model), x, lengths_of(x, x.shape[1]))
    if entry.kind == "ann":
        assert energy.report_told(counter, "net.model.layers", "net")["full"]["twin_mJ"] > close["full"]["twin_mJ"]
    else:  # neurons tell how many frames they saw
        with pytest.raises(ValueError, match="fired over .* frames, the utterances have"):
            energy.report_told(counter, "net.model" if entry.kind == "neuron" else "net.model.layers", "net")


def silence(model):
    """Thresholds that nothing reaches."""
    for module in model.modules():
        if isinstance(module, LIF):
            module.options = module.options._replace(threshold=1e9)
        elif isinstance(module, IterativeLIF | GatedNeuron):
            module.threshold = 1e9
        elif isinstance(module, MultiLevelSpike):
            module.options = dataclasses.replace(module.options, threshold=1e9)
    return model


@pytest.mark.parametrize("entry", SPIKING, ids=ids)
def test_silence_costs_no_accumulation(entry):
    loud, quiet = reported(entry), report(entry, silence(build(entry)))
    added = [line["count"] for scope in SCOPES for line in quiet[scope]["lines"] if line["operation"] == "ac"]
    assert not any(added) and quiet["full"]["twin_mJ"] == loud["full"]["twin_mJ"]
    reads_spikes = entry.kind != "neuron" and entry.name not in READ_REAL
    assert bool(added) == reads_spikes and (loud["full"]["mJ"] > quiet["full"]["mJ"]) == reads_spikes
    updates, fired = (operations(written, "neurons") for written in (quiet, loud))
    assert updates["compare"] == fired["compare"] > 0, "neurons compare all the same"


@pytest.mark.parametrize("entry", SPIKING, ids=ids)
def test_what_is_counted_is_what_a_run_on_events_adds(entry):
    model, x = build(entry), batch(entry)
    lengths = lengths_of(x, x.shape[1])
    products = count(model, x, lengths).products
    run = convert.simulate(convert.convert(model), x, lengths)
    counted = {(name.removeprefix("net."), part): one for (name, part), one in products.items()}
    assert run.accumulates == {key: one.accumulates for key, one in counted.items() if one.accumulates is not None}
    assert run.macs == {key: one.macs for key, one in counted.items() if one.accumulates is None}


@pytest.mark.parametrize("entry", registry.entries("encoder"), ids=ids)
def test_a_folded_norm_costs_the_bias_that_it_becomes(entry):
    folded, trained = report(entry, convert.fold_batchnorm(build(entry))), reported(entry)
    assert [folded[scope]["further"] for scope in SCOPES] == [trained[scope]["further"] for scope in SCOPES]


@pytest.mark.parametrize("entry", FUSIBLE, ids=ids)
@pytest.mark.parametrize("biases", [False, True])
def test_both_orders_are_worked_out_from_one_count(entry, biases):
    model = build(entry, qk_bias=biases)
    unfused, fused = report(entry, model), report(entry, convert.reparameterise(model))
    for scope in SCOPES:
        for order, run in (("unfused", unfused), ("reparameterised", fused)):
            assert run[scope]["orders"][order]["mJ"] == pytest.approx(run[scope]["mJ"], rel=1e-12), "the order that was run"
        for order in ("unfused", "reparameterised"):
            assert unfused[scope]["orders"][order]["mJ"] == pytest.approx(fused[scope]["orders"][order]["mJ"], rel=1e-12)
        assert unfused[scope]["twin_mJ"] == pytest.approx(fused[scope]["twin_mJ"], rel=1e-12)
        assert unfused[scope]["quantised_mJ"] == pytest.approx(fused[scope]["quantised_mJ"], rel=1e-12)
    orders = unfused["encoder_blocks"]["orders"]
    assert orders["unfused"]["lines"] == [line for line in unfused["encoder_blocks"]["lines"] if line in orders["unfused"]["lines"]]
    assert {line["operation"] for line in orders["reparameterised"]["lines"]} == {"ac"}


@pytest.mark.parametrize("entry", [entry for entry in FUSIBLE if entry.name != "iml_spikeformer_multistep"], ids=ids)
def test_micro_steps_in_the_batch_are_heard_once_by_a_twin(entry):
    """The neuron that steps T times through every frame has the twin of the others, and costs them T times what is no spike."""
    steps = registry.entry("iml_spikeformer_multistep")
    iterative, whole = reported(steps), reported(entry)
    for scope in SCOPES:
        for total in ("twin_mJ", "quantised_mJ"):
            assert iterative[scope][total] == pytest.approx(whole[scope][total], rel=1e-12)
    assert operations(iterative, "residual")["add"] == 6 * operations(whole, "residual")["add"]


def counted(model, x, counts, blocks="net"):
    counter = energy.Counter(nn.ModuleDict({"net": model}))
    with torch.no_grad(), counter.listen():
        model(x)
    counter.add_utterances(counts, [0] * len(counts))
    return energy.report_told(counter, blocks, "net")["encoder_blocks"]


def test_two_layers_of_lif_neurons_by_hand():
    """Weights of 1 and 0.5: the first layer's membranes are 1, 0.5 + 1, 0 + 0 and 0.5, 0.25 + 0.5, 0.375 + 0.

    Decays are 0.5 and a spike resets to 0: neuron 1 fires in frames 1 and 2 (of 1.0 and 1.0), neuron 2 never. In the second layer both
    neurons hear neuron 1 alone, with a bias of -0.25: with a weight of 1.5 one fires in frames 1 and 2, with a weight of 0.5 the other
    never.
    """
    model = VanillaSNN(input_size=1, num_layers=2, d_model=2, decay=0.5, reset="hard").eval()
    with torch.no_grad():
        for layer, weight, bias in zip(model.layers, ([[1.0], [0.5]], [[1.5, 9.0], [0.5, 9.0]]), (0.0, -0.25), strict=True):
            layer.linear.weight.copy_(torch.tensor(weight))
            layer.linear.bias.fill_(bias)
    entry = counted(model, torch.tensor([[[1.0], [1.0], [0.0]]]), [3])
    found = {line["line"]: (line["operation"], line["count"]) for line in entry["lines"]}
    # 3 frames x 1 x 2 products of real numbers; 2 spikes reach 2 outputs each.
    assert found == {"net.layers.0.linear.weight": ("mac", 6), "net.layers.1.linear.weight": ("ac", 4)}
    assert entry["mJ"] == pytest.approx((6 * 4.6 + 4 * 0.9) * 1e-9)
    assert entry["twin_mJ"] == pytest.approx((6 + 12) * 4.6e-9)
    # Binary activations are integers of one bit: 12 products of integers at 0.3 pJ, against 4 additions at 0.1.
    assert entry["quantised_mJ"] == pytest.approx((6 * 4.6 + 12 * 0.3) * 1e-9)
    assert entry["integer_mJ"] == pytest.approx((6 * 4.6 + 4 * 0.1) * 1e-9)
    each = {(line["line"], line["kind"]): line["operations"] for line in entry["further"]}
    updates = {"multiply": 6, "add": 6, "compare": 6}  # 3 frames x 2 neurons
    assert each == {
        ("net.layers.0.linear", "bias"): {"add": 6},
        ("net.layers.0.neuron", "neurons"): updates,
        ("net.layers.1.linear", "bias"): {"add": 6},
        ("net.layers.1.neuron", "neurons"): updates,
    }
    assert entry["further_mJ"] == pytest.approx((2 * 6 * 0.9 + 2 * (6 * 3.7 + 6 * 0.9 + 6 * 0.9)) * 1e-9)
    assert entry["further_unpriced"] == {}


class Levels(nn.Module):
    """A spiking MLP with fixed thresholds of 1 and up to 4 spikes."""

    def __init__(self):
        super().__init__()
        self.mlp = SpikingMLP(2, 3, lambda channels: MultiLevelSpike(channels, 4, "mls"))
        with torch.no_grad():
            self.mlp.linear_1.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 4.0], [8.0, 8.0]]))  # a spike is worth a quarter
            self.mlp.linear_1.bias.zero_()

    def forward(self, x):
        return self.mlp(x, torch.full((len(x),), x.shape[1]))


def test_two_layers_of_levels_by_hand():
    """Inputs 3.4 and -1 fire 3 and 0 spikes, 9 and 1 fire 4 (the most) and 1: levels behind are 3, 0, 4 (of 6) and 4, 1, 4 (of 10)."""
    entry = counted(Levels().eval(), torch.tensor([[[3.4, -1.0], [9.0, 1.0]]]), [2])
    # A level of 3 costs 3: (3 + 0 + 4 + 1) spikes x 3 outputs, then (3 + 0 + 4 + 4 + 1 + 4) x 2.
    assert [(line["operation"], line["count"]) for line in entry["lines"]] == [("ac", 24), ("ac", 32)]
    assert entry["mJ"] == pytest.approx(56 * 0.9e-9) and entry["twin_mJ"] == pytest.approx(2 * 12 * 4.6e-9)
    assert [(line["operation"], line["count"]) for line in entry["quantised_lines"]] == [("int_mac", 12), ("int_mac", 12)]
    assert entry["quantised_ratio"] == pytest.approx(56 * 0.1 / (24 * 0.3))
    each = {line["line"]: line["operations"] for line in entry["further"]}
    # 2 frames x channels x 4 micro-steps of comparing, and a subtraction for each of 8 and 16 spikes; biases once, not in every micro-step.
    assert each["net.mlp.sn_1"] == {"add": 8, "compare": 16} and each["net.mlp.sn_2"] == {"add": 16, "compare": 24}
    assert each["net.mlp.linear_1"] == {"add": 6} and each["net.mlp.linear_2"] == {"add": 4}
    assert entry["further_mJ"] == pytest.approx((8 + 16 + 16 + 24 + 6 + 4) * 0.9e-9)


class Planted(nn.Module):
    """A network with a layer that it did not have."""

    def __init__(self, model, layer):
        super().__init__()
        self.model, self.planted = model, layer

    def forward(self, x, lengths=None, state=None):
        x = x.transpose(1, 2) if isinstance(self.planted, nn.Conv1d) else x
        x = self.planted(x)
        return self.model(x.transpose(1, 2) if isinstance(self.planted, nn.Conv1d) else x, lengths)


UNKNOWN = {"PReLU": lambda: nn.PReLU(), "Conv1d": lambda: nn.Conv1d(16, 16, 1), "BatchNorm1d": lambda: nn.BatchNorm1d(13)}


@pytest.mark.parametrize("entry, kind", [(entry, list(UNKNOWN)[number % 3]) for number, entry in enumerate(NETWORKS)])
def test_an_operation_that_nobody_knows_is_refused_by_name(entry, kind):
    model = Planted(build(entry), UNKNOWN[kind]().double()).eval()
    x = batch(entry)
    counter = count(model, x, lengths_of(x, x.shape[1]))
    with pytest.raises(ValueError, match=rf"net.planted \({kind}\) holds a weight but told of no product"):
        energy.report_told(counter, "net.model.layers", "net")


def test_rules_that_are_named_name_classes():
    for key in (key for key in further.RULES if isinstance(key, str)):
        module, _, name = key.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type), key


@pytest.mark.full
@pytest.mark.parametrize("entry", registry.entries("size"), ids=ids)
def test_law_6_in_published_widths(entry):
    torch.manual_seed(0)
    model = entry.constructor(num_layers=1)
    channels = getattr(model, "input_size", model.config.d_model)
    x, *batches = (1.5 * torch.randn(3, max(COUNTS), channels, dtype=torch.float64) for _ in range(4))
    calibrate(model, batches, 2)

    def written(model, padding=0):
        padded = torch.cat([x, torch.full_like(x[:, :1], 9.0).expand(-1, padding, -1)], 1)
        counter = count(model, padded, lengths_of(padded, padded.shape[1]))
        return energy.report_told(counter, "net.layers", "net"), counter

    loud, counter = written(model)
    check_sums(copy.deepcopy(loud))
    assert written(model, padding=13)[0] == loud
    run = convert.simulate(convert.convert(model), x, lengths_of(x, x.shape[1]))
    told = {(name.removeprefix("net."), part): one.accumulates for (name, part), one in counter.products.items()}
    assert run.accumulates == {key: number for key, number in told.items() if number is not None} and any(run.accumulates.values())
    quiet, _ = written(silence(model))
    assert not any(line["count"] for scope in SCOPES for line in quiet[scope]["lines"] if line["operation"] == "ac")
