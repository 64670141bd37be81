"""Energy from what layers told: sums by hand, an output layer by its size, and a silent layer that is refused."""

import pytest
import torch
from torch import nn

from spikebrain import energy, operands
from spikebrain.lobes import SpikingClassifier
from spikebrain.operands import Kind, Product


class Net(nn.Module):
    """A front end on real numbers, a block on spikes, and an output layer that tells nothing."""

    def __init__(self, front=None):
        super().__init__()
        self.front, self.block, self.head = front or nn.Linear(3, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 2)

    def forward(self, frames, spikes):
        operands.tell(Product(self.block, "weight", Kind.BINARY, Kind.REAL, frames * 16, spikes * 4))


def told(net, *batches):
    counter = energy.Counter(net)
    with operands.listen(counter):
        for frames, spikes in batches:
            net(frames, spikes)
            counter.add_utterances([frames], [0])
    return energy.report_told(counter, "block", "front")


def test_by_hand():
    report = told(Net(), (10, 12), (20, 3))
    # Two utterances of 30 frames in all: 15 spikes meet 4 outputs; the front end and the head hear real numbers.
    block, front, head = 60 * 0.9 / 2, 30 * 12 * 4.6 / 2, 30 * 8 * 4.6 / 2
    assert report["encoder_blocks"]["mJ"] == pytest.approx(1e-9 * block)
    assert report["encoder_blocks"]["twin_mJ"] == pytest.approx(1e-9 * 30 * 16 * 4.6 / 2)
    assert report["encoder+frontend"]["mJ"] == pytest.approx(1e-9 * (block + front))
    assert report["full"]["mJ"] == pytest.approx(1e-9 * (block + front + head))
    for scope in energy.SCOPES:
        assert report[scope]["mJ"] == sum(line["mJ"] for line in report[scope]["lines"])
        assert report[scope]["twin_mJ"] == sum(line["mJ"] for line in report[scope]["twin_lines"])
    assert report["counting"]["utterances"] == 2 and report["counting"]["encoder_frames"] == 15


def test_no_spike_costs_nothing_in_the_blocks():
    assert told(Net(), (10, 0))["encoder_blocks"]["mJ"] == 0


def test_a_layer_whose_operations_are_unknown_is_refused():
    with pytest.raises(ValueError, match=r"front \(Conv1d\) holds a weight but told of no product"):
        told(Net(nn.Conv1d(3, 4, 3)), (10, 12))
    with pytest.raises(ValueError, match="no utterances were counted"):
        energy.report_told(energy.Counter(Net()), "block", "front")


@pytest.mark.parametrize("encoder", ["spikescr", "iml_spikeformer"])
def test_classifiers_are_counted_and_padding_costs_nothing(encoder):
    torch.manual_seed(0)
    net = nn.ModuleDict({"classifier": SpikingClassifier(20, 5, encoder, {"num_layers": 1, "d_model": 16, "nhead": 2})})
    x = 3 * torch.rand(2, 30, 20)
    with torch.no_grad():
        for _ in range(3):
            net["classifier"](x)  # calibrates
    costs = []
    for padding in (0, 30):
        counter, padded = energy.Counter(net.eval()), torch.cat([x, torch.rand(2, padding, 20)], 1)
        with torch.no_grad(), operands.listen(counter):
            net["classifier"](padded, torch.full((2,), 30 / (30 + padding)))
        counter.add_utterances([30, 30], [0, 0])
        costs.append(energy.report_told(counter, "classifier.encoder.model.layers", "classifier.encoder"))
    assert costs[0]["full"]["mJ"] == costs[1]["full"]["mJ"] > costs[0]["encoder+frontend"]["mJ"] > costs[0]["encoder_blocks"]["mJ"] > 0
    assert costs[0]["encoder_blocks"]["mJ"] < costs[0]["encoder_blocks"]["twin_mJ"]
    (head,) = [line for line in costs[0]["full"]["lines"] if line["operation"] == "mac"]
    assert head["line"] == "classifier.head.weight" and head["count"] == 30 * 16 * 5
