"""Properties 22 and 23: what the published SpikeSCR costs densely, in silence and at full firing, and norms that cost nothing."""

import copy

import pytest
import torch
from torch import nn

from spikebrain import energy, lobes, operands
from spikebrain.blocks.gated_convolution import DepthwiseConv
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.lobes.features import FrameRateMel

PRICES = energy.HOROWITZ_FP32


def network(**switches):
    """1L-16-256 with its output layer, in evaluation."""
    torch.manual_seed(0)
    return lobes.published("spikescr_1l_16_256", **switches).eval()


def counted(net, x):
    counter = energy.Counter(net)
    with torch.no_grad(), operands.listen(counter):
        logits = net["head"](net["encoder"](x))
    counter.add_utterances([x.shape[1]] * len(x), [0] * len(x))
    return counter, logits


def report(net, x):
    return energy.report_told(counted(net, x)[0], "encoder.model.layers", "encoder")


def counts(written, lines, scopes=energy.SCOPES):
    """Name of each product in ``scopes`` -> its operations of an utterance."""
    every = [line for scope in scopes for line in written[scope][lines]]
    return {line["line"].removeprefix("encoder.model."): line["count"] for line in every if line["operation"] != "scope"}


def shift(net, below=(), bias=1e4):
    """Moves every membrane far above its threshold, but those of norms in ``below`` far below it."""
    for name, module in net.named_modules():
        if isinstance(module, MaskedBatchNorm):
            nn.init.constant_(module.bias, -bias if any(part in name for part in below) else bias)
    return net


def test_property_22_dense_operations_of_an_utterance():
    """Millions at 100 frames: first convolution; linear layers and products of attention; MLPs; gated convolution; output layer."""
    dense = counts(report(network(), torch.rand(1, 100, 140)), "twin_lines")
    # That a gate of 0 or 1 masks is a product to us: 256 a frame, beside the layers and scores that are meant here.
    assert dense.pop("layers.0.convolution.gate") == 100 * 256
    parts = [("embedding",), ("attention.qkv", "attention.out"), ("scores", "values"), ("mlp",), ("convolution",), ("head",)]
    found = [sum(n for name, n in dense.items() if any(word in name for word in part)) for part in parts]
    assert [round(n / 1e6, 2) for n in found] == [10.75, 26.21, 5.12, 104.86, 27.01, 0.90]
    assert round(sum(dense.values()) / 1e6, 1) == 174.8 and sum(found) == sum(dense.values())


@pytest.mark.parametrize("frames, millijoules", [(40, 0.0203), (100, 0.0500), (200, 0.0994), (400, 0.1983)])
def test_property_22_energy_of_the_first_convolution(frames, millijoules):
    """The part of the published energies that no spike changes: real numbers, all 140 bands, one frame more than the setting's name."""
    x, _ = FrameRateMel(frames, preset="paper")(0.1 * torch.randn(1, 16000))
    (line,) = [line for line in report(network(), x)["encoder+frontend"]["lines"] if "embedding" in line["line"]]
    assert x.shape[1] == frames + 1 and line["operation"] == "mac" and round(line["mJ"], 4) == millijoules


def test_property_23_silence_costs_no_accumulation():
    net = shift(network(input_kind="level"), bias=-1e4)
    written = report(net, torch.zeros(2, 30, 140))
    assert written["encoder+frontend"]["mJ"] == 0 < written["encoder+frontend"]["twin_mJ"]
    # The output layer is told of no train: it is priced as one that reads real numbers.
    assert {name for name, n in counts(written, "lines").items() if n} == {"head.weight"}


def test_property_23_full_firing_costs_an_accumulation_a_product():
    """Every train is all ones; without rotation, which leaves no ones, but is no product either."""
    net = shift(network(input_kind="level", positions="none"), below=("out_neuron", "down_neuron", "content_norm"))
    written = report(net, torch.ones(2, 30, 140))
    lines, dense = (counts(written, kind, energy.SCOPES[:2]) for kind in ("lines", "twin_lines"))
    assert lines == dense and written["encoder+frontend"]["mJ"] == pytest.approx(sum(dense.values()) * PRICES.ac_pJ * 1e-9)
    assert dense == counts(report(network(), torch.ones(2, 30, 140)), "twin_lines", energy.SCOPES[:2])
    assert {line["operation"] for line in written["encoder+frontend"]["lines"]} == {"scope", "ac"}


def test_a_stream_of_n_spikes_costs_n_accumulations_a_product():
    """Each branch that fires adds one to the stream that the next one reads."""
    written = report(shift(network(input_kind="level", positions="none")), 3 * torch.ones(1, 30, 140))
    lines, dense = (counts(written, kind, energy.SCOPES[:2]) for kind in ("lines", "twin_lines"))
    loud = {name: n / dense[name] for name, n in lines.items() if n != dense[name]}
    names = ("mlp_1.up", "convolution.pointwise", "mlp_2.up")
    assert loud == {"embedding.weight": 3, **{f"layers.0.{name}.weight": level for level, name in enumerate(names, 2)}}


def calibrated():
    """In float64, with the statistics of a batch, gains and shifts of all signs in the norms."""
    net = network(num_layers=2, d_model=64, nhead=4, dropout=0.0).double().train()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, MaskedBatchNorm):
                module.momentum = 1.0
                module.weight.normal_().mul_(2)
                module.bias.normal_()
        for _ in range(3):  # the later layers' statistics follow those of the earlier ones
            net["encoder"](sound())
    return net.eval()


def sound():
    return 5 * torch.randn(2, 40, 140, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 20


def before_norms(encoder):
    """Every layer with a weight, and the norms that read its channels."""
    yield encoder.embedding.conv, [encoder.embedding.neuron.norm]
    for block in encoder.layers:
        attention, gated = block.attention, block.convolution
        yield attention.qkv, [attention.qkv_neuron.norm]
        yield attention.out, [attention.out_neuron.norm]
        for mlp in (block.mlp_1, block.mlp_2):
            yield mlp.up, [mlp.up_neuron.norm]
            yield mlp.down, [mlp.down_neuron.norm]
        yield gated.pointwise, [gated.pointwise_neuron.norm]
        yield gated.depthwise, [gated.depthwise_neuron.norm]
        yield gated.mix, [gated.content_norm, gated.gate_input.norm]
        yield gated.gate_linear, [gated.gate.norm]


@torch.no_grad()
def fold(layer, norms):
    """Scale into the weight, shift into the bias; the norms are then ones that change nothing."""
    scale, moved = (torch.cat(parts) for parts in zip(*(norm.affine() for norm in norms), strict=True))
    layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    for norm in norms:
        for tensor, value in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1 - norm.eps)):
            tensor.fill_(value)
    if isinstance(layer, DepthwiseConv):  # it has no bias, which its norm keeps for it
        norms[0].bias.copy_(moved)
    else:
        layer.bias = nn.Parameter(moved if layer.bias is None else layer.bias * scale + moved)


def test_property_23_norms_fold_into_the_layers_before_them():
    """Which is why no norm is priced: at inference it is none."""
    net, x = calibrated(), sound()
    folded = copy.deepcopy(net)
    norms = [norm for norm in folded.modules() if isinstance(norm, MaskedBatchNorm)]
    assert all((norm.affine()[0] - 1).abs().max() > 0.1 for norm in norms)
    for layer, behind in before_norms(folded["encoder"].model):
        fold(layer, behind)
    assert all(torch.allclose(norm.affine()[0], torch.ones(()).double(), atol=1e-12) for norm in norms), "not one is left"
    (counter, logits), (twin, others) = counted(net, x), counted(folded, x)
    assert torch.allclose(logits, others, rtol=0, atol=1e-5) and logits.abs().max() > 1
    assert all(torch.equal(spikes.counts, twin.spikes[name].counts) and spikes.counts.any() for name, spikes in counter.spikes.items())
    assert twin.products == counter.products
