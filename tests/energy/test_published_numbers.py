"""Energies that PTS-SNN and SpikeSCR print, where they follow from sizes: comparators, dense operations, what a first layer costs."""

import pytest
import torch

from spikebrain import energy, lobes
from spikebrain.energy.prices import millijoules

PRICES = energy.HOROWITZ_FP32
SHIFTFORMER = energy.Architecture(bins=768, convs=(), projection=0, width=768, blocks=1, weights=16 * 768**2, decoder_blocks=0)


def test_shiftformer_is_its_weights_times_frames():
    """PTS-SNN Table II: 9.50 M parameters and 16.20 mJ. 7.5 s are 374 frames at 50 a second; products of frames are left out."""
    weights, attention = energy.macs(SHIFTFORMER, [374], [0])["encoder"].values()
    assert round(millijoules(weights, PRICES.mac_pJ), 2) == 16.24
    assert round(16.20 / millijoules(SHIFTFORMER.weights, PRICES.mac_pJ), 1) == 373.2, "frames that the printed energy is of"
    assert millijoules(weights + attention, PRICES.mac_pJ) > 17, "with them it is another number"


def classifier(name, channels, frames, **switches):
    """Report of an untrained published size over ``frames`` frames of noise."""
    torch.manual_seed(0)
    net = lobes.published(name, **switches).eval()
    counter = energy.Counter(net)
    x = torch.rand(1, frames, channels)
    with torch.no_grad(), counter.listen():
        hidden = net["encoder"](x)
        net["readout" if "readout" in net else "head"](hidden)
    counter.add_utterances([frames], [0])
    return energy.report_told(counter, "encoder.model.layers", "encoder")


@pytest.mark.parametrize("frames, dense", [(227, 1.31), (374, 2.15)])
def test_pts_snn_dense(frames, dense):
    assert classifier("pts_snn_iemocap", 768, frames)["full"]["twin_mJ"] == pytest.approx(dense, abs=0.01)


def test_pts_snn_cannot_cost_what_its_paper_says():
    """0.35 mJ: the first layer alone, which hears real numbers, costs twice that, and its residual as much again."""
    lines = {line["line"]: line for line in classifier("pts_snn_iemocap", 768, 374)["encoder_blocks"]["lines"]}
    first = [lines[f"encoder.model.layers.0.{layer}.weight"] for layer in ("linear", "skip")]
    assert {line["operation"] for line in first} == {"mac"}
    assert [round(sum(line["mJ"] for line in first[:number]), 2) for number in (1, 2)] == [0.68, 1.35]


def test_spikescr_for_shd_dense():
    """1L-8-128 at 100 frames, a frame: first convolution, attention and its products, MLPs, gated convolution, output layer."""
    written = classifier("spikescr_shd_1l_8_128", 140, 100)
    dense = [line["count"] for scope in energy.SCOPES for line in written[scope]["twin_lines"] if line["operation"] == "mac"]
    masked = [line["count"] for line in written["encoder_blocks"]["twin_lines"] if line["line"].endswith("convolution.gate")]
    parts = (140 * 128 * 3, 4 * 128**2, 2 * 100 * 128, 2 * 2 * 128**2, 4 * 128**2 + 31 * 128, 128 * 20)
    assert sum(dense) - sum(masked) == 100 * sum(parts) == 28_249_600
