"""Energy from what layers told: sums by hand, an output layer by its size, and a silent layer that is refused."""

import pytest
import torch
from torch import nn

from spikebrain import energy, operands
from spikebrain.lobes import RateClassifier, SpikingClassifier, SpikingEmbedding
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


def test_a_module_may_tell_of_one_layer_that_it_holds_and_of_no_second():
    class Teller(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.layers = nn.ModuleList()
            for number, layer in enumerate(layers):
                self.add_module(f"conv_{number}", layer)

        def forward(self, frames):
            operands.tell(Product(self, "weight", Kind.REAL, Kind.REAL, frames * self.conv_0.weight.numel()))

    def report(*layers):
        net = nn.ModuleDict({"front": Teller(*layers), "block": nn.Identity()})
        counter = energy.Counter(net)
        with operands.listen(counter):
            net["front"](10)
        counter.add_utterances([10], [0])
        return energy.report_told(counter, "block", "front")["encoder+frontend"]

    alone = report(nn.Conv1d(3, 4, 3))
    assert [(line["line"], line["count"]) for line in alone["lines"][1:]] == [("front.weight", 360)]
    assert [(line["line"], line["operations"]) for line in alone["further"][1:]] == [("front.conv_0", {"add": 40})]
    with pytest.raises(ValueError, match=r"front.conv_0 \(Conv1d\) holds a weight but told of no product"):
        report(nn.Conv1d(3, 4, 3), nn.Conv1d(3, 4, 3))


def heard(net, blocks="net.encoder.model.layers"):
    """Report of two utterances of 30 and 15 frames of 20 channels, and its operations apart: kind -> name -> number of both."""
    counter = energy.Counter(nn.ModuleDict({"net": net.eval()}))
    with torch.no_grad(), counter.listen():
        net(torch.randn(2, 30, 20), torch.tensor([1.0, 0.5]))
    counter.add_utterances([30, 15], [0, 0])
    report, total = energy.report_told(counter, blocks, "net.encoder"), {}
    for line in (line for scope in energy.SCOPES for line in report[scope]["further"]):
        for name, number in line["operations"].items():
            total.setdefault(line["kind"], {})[name] = total.get(line["kind"], {}).get(name, 0) + 2 * number
    return report, total


def test_what_lies_behind_the_pooling_of_an_utterance_is_computed_once():
    report, total = heard(SpikingEmbedding(20, 8, "lif_network", {"num_layers": 1, "d_model": 16}))
    (head,) = [line for line in report["full"]["lines"] if line["line"] == "net.head.weight"]
    assert head["count"] == 2 * 16 * 8
    # Mean and deviation: three additions and a square an element; then a constant, two factors and a root a channel.
    pooled = {"add": 3 * 45 * 16 + 2 * 16, "multiply": 45 * 16 + 2 * 2 * 16, "root": 2 * 16, "divide": 2}
    assert total["readout"] == pooled and total["bias"]["add"] == 45 * 16 + 2 * 8


@pytest.mark.parametrize(
    "columns, kind, keys",
    [
        # Of d_k = 8 channels and two utterances of 30 + 4 and 15 + 4 tokens.
        ("softmax", "softmax", {"compare": 424, "add": 848, "exp": 424, "multiply": 424, "divide": 16}),
        ("l1", "norm", {"add": 440, "multiply": 424, "divide": 16}),
        ("l2", "norm", {"add": 440, "multiply": 848, "root": 16, "divide": 16}),
        ("mean", "norm", {"multiply": 424, "divide": 2}),
    ],
)
def test_pts_snn_apart_by_hand(columns, kind, keys):
    switches = {"d_model": 16, "num_layers": 1, "columns": columns, "input_norm": "none", "block_norm": "none", "static_bias": 0.1}
    report, total = heard(RateClassifier(20, 4, "pts_snn", switches))
    assert total[kind] == keys
    # tanh of 20 channels a frame, with its factor; of the bias's 16 an utterance, with theirs, behind a ReLU of one.
    assert total["activation"] == {"tanh": 45 * 20 + 32, "multiply": 45 * 20 + 32, "compare": 2}
    assert total["residual"] == {"add": 45 * 16 + (45 + 2 * 4) * 16}
    # Two biases that are added to the output, the mean of four prompts, and those of the block, the bottleneck and the readout.
    assert total["bias"] == {"add": 2 * 45 * 16 + 2 * 4 * 16 + 45 * 16 + 2 * (1 + 16) + 45 * 4}
