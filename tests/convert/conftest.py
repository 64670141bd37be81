"""Small networks in float64 with lively weights, whose statistics come from training batches, and ragged batches for them."""

import pytest
import torch

from spikebrain import operands, registry
from spikebrain.blocks.masked_norm import MaskedBatchNorm

SIZES = {"num_layers": 2, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.1, "causal": False}
COUNTS = (13, 7, 10)


def noise(seed=0, counts=False):
    """A padded batch of three utterances, or of counts of events, whose padding holds something else."""
    torch.manual_seed(seed)
    x = 1.5 * torch.randn(len(COUNTS), max(COUNTS), 16, dtype=torch.float64)
    x = x.abs().round() if counts else x
    for one, count in zip(x, COUNTS, strict=True):
        one[count:] = 9
    return x


def calibrate(network, counts=False):
    """``network`` in float64 and evaluation, after three training batches that no test hears."""
    network = network.double().train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    for module in network.modules():
        if isinstance(module, MaskedBatchNorm):
            module.momentum = 1.0
    lengths = torch.tensor(COUNTS, dtype=torch.float64) / max(COUNTS)
    for seed in (1, 2, 3):
        network(noise(seed, counts), lengths)
    return network.eval()


@pytest.fixture(scope="session")
def trained():
    """``trained(name, **switches)``: the registered encoder, small and calibrated."""

    def build(name, **switches):
        torch.manual_seed(0)
        return calibrate(registry.build(name, **{**SIZES, **switches}), switches.get("input_kind") == "level")

    return build


@pytest.fixture(scope="session")
def calibrated():
    """``calibrated(network)``: any network that hears 16 channels, made lively and calibrated."""
    return calibrate


@pytest.fixture
def x():
    """Features (3, 13, 16), float64."""
    return noise()


@pytest.fixture
def events_x():
    """Counts of events (3, 13, 16), float64."""
    return noise(counts=True)


@pytest.fixture
def lengths():
    """Relative lengths of the three utterances."""
    return torch.tensor(COUNTS, dtype=torch.float64) / max(COUNTS)


@pytest.fixture(scope="session")
def hear():
    """``hear(network, x, lengths)``: (out, layer -> spikes a channel, list of Products) of a plain run."""

    def run(network, x, lengths=None):
        names, spikes, products = {module: name for name, module in network.named_modules()}, {}, []

        def listener(event):
            if isinstance(event, operands.Firing):
                spikes[names[event.module]] = spikes.get(names[event.module], 0) + event.counts
            else:
                products.append(event)

        with torch.no_grad(), operands.listen(listener):
            out = network(x, lengths)
        return out[0] if isinstance(out, tuple) else out, spikes, products

    return run
