"""Two processes that share a batch fire, normalise and learn as one process on the joined batch (gloo, on the CPU)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikebrain.blocks.masked_norm import NormedNeuron
from spikebrain.encoders.spikescr import SpikeSCR
from spikebrain.learning.losses import summed_softmax, votes_loss
from spikebrain.neurons import LIF, FiringOptions, MultiLevelSpike

# What each process runs: the functions below, on its half of the batch. One launch for all tests, since most of it is imports.
PROGRAM = """
import sys
import torch
import torch.distributed as dist
folder, rank, home = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.path.insert(0, home)
import test_two_processes as test
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
mine = slice(2 * rank, 2 * rank + 2)
found = {sync: test.fire(sync, mine) for sync in ("batch", "running", "none")}
found |= {f"norm {fused}": test.normalise(fused, mine) for fused in (False, True)}
found["training"] = test.train(mine, torch.nn.parallel.DistributedDataParallel)
torch.save(found, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""
ALL = slice(None)
COUNTS = torch.tensor([20, 7, 13, 4])


def fire(sync, rows):
    """Spikes of multi-level neurons on ``rows`` of the joined batch, their running maximum, and the gradient of the input."""
    torch.manual_seed(0)
    x = torch.randn(4, 20, 8)[rows].clone().requires_grad_()
    neuron = MultiLevelSpike(8, options=FiringOptions(sync=sync))
    spikes, _ = neuron(x)
    spikes.square().sum().backward()
    return {"spikes": spikes.detach(), "max": neuron.running_max, "grad": x.grad}


def normalise(fused, rows):
    """Output, running statistics and gradients of a summed loss on ``rows`` of the joined batch, with neurons behind or without."""
    torch.manual_seed(0)
    module = NormedNeuron(8, LIF(8))
    torch.nn.init.normal_(module.norm.weight)
    x, weights = 3 * torch.randn(4, 20, 8) + torch.arange(8.0), torch.randn(4, 20, 8)[rows]
    x, counts = x[rows].clone().requires_grad_(), COUNTS[rows]
    y = module.fire(x, counts).value if fused else module.norm.normalise(x, counts)
    (y * weights).sum().backward()
    gradients = {"x": x.grad, "weight": module.norm.weight.grad, "bias": module.norm.bias.grad}
    return {"y": y.detach(), **gradients, **dict(module.norm.named_buffers())}


def train(rows, wrap=lambda model: model):
    """Losses of three steps of a small SpikeSCR on ``rows`` of the joined batch, and its weights and statistics afterwards."""
    torch.manual_seed(0)
    encoder = SpikeSCR(6, num_layers=1, d_model=16, nhead=2, kernel_size=5, dropout=0.0).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(2)
    model, labels, losses = wrap(encoder), torch.tensor([0, 5, 3, 9])[rows], []
    optimiser, x = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9), torch.randn(4, 20, 6, dtype=torch.float64)[rows]
    for _ in range(3):
        optimiser.zero_grad()
        loss = votes_loss(summed_softmax(model(x, COUNTS[rows] / 20)[0], COUNTS[rows] / 20), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses), **encoder.state_dict()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of the two processes found."""
    folder, home = tmp_path_factory.mktemp("two"), str(Path(__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", PROGRAM, str(folder), str(rank), home] for rank in range(2)]
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_each_process_has_its_own_utterances(ranks):
    first, second = (rank["none"]["spikes"] for rank in ranks)
    assert first.shape == second.shape == (2, 20, 8) and not torch.equal(first, second)


@pytest.mark.parametrize("sync", ["batch", "running", "none"])
def test_channel_maxima_are_those_of_the_joined_batch(ranks, sync):
    first, second = (rank[sync] for rank in ranks)
    joined = fire("batch", ALL)
    together = torch.cat([first["spikes"], second["spikes"]])
    assert torch.equal(together, joined["spikes"]) == (sync == "batch")
    assert torch.equal(first["max"], second["max"]) == (sync != "none")
    if sync != "none":
        assert torch.equal(first["max"], joined["max"])
    if sync == "batch":
        torch.manual_seed(0)
        peak = torch.randn(4, 20, 8).flatten(0, 1).argmax(0)
        elsewhere = torch.ones(80, 8, dtype=torch.bool).scatter_(0, peak[None], False)
        grad = torch.cat([first["grad"], second["grad"]]).flatten(0, 1)
        assert torch.allclose(grad[elsewhere], joined["grad"].flatten(0, 1)[elsewhere], atol=1e-6)


def test_options_refuse_an_unknown_way():
    with pytest.raises(ValueError, match="sync is 'sum': choose one of batch, running, none"):
        FiringOptions(sync="sum")


@pytest.mark.parametrize("fused", [False, True], ids=["norm", "norm+lif"])
def test_a_norm_is_that_of_the_joined_batch(ranks, fused):
    first, second = (rank[f"norm {fused}"] for rank in ranks)
    joined = normalise(fused, ALL)
    for name in ("y", "x"):
        together = torch.cat([first[name], second[name]])
        assert torch.allclose(together, joined[name], atol=1e-5) and together.any()
    for name in ("weight", "bias"):
        assert torch.allclose(first[name] + second[name], joined[name], rtol=1e-5, atol=1e-5), "of a summed loss each holds its own part"
    for name in ("running_mean", "running_var"):
        assert torch.equal(first[name], second[name]) and torch.allclose(first[name], joined[name], rtol=1e-5)
    alone = normalise(fused, slice(2))
    assert not torch.allclose(alone["y"], joined["y"][:2], atol=1e-3), "what is shared would not matter"


def test_training_ends_with_equal_weights_and_those_of_one_process(ranks):
    """DDP takes the mean of the gradients, which is the gradient of the joined batch's mean loss."""
    first, second = (dict(rank["training"]) for rank in ranks)
    joined, (one, two) = train(ALL), (part.pop("losses") for part in (first, second))
    assert not torch.equal(one, two) and torch.allclose((one + two) / 2, joined["losses"], rtol=1e-10)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert all(torch.allclose(value, joined[name], rtol=1e-8, atol=1e-10) for name, value in first.items())
    assert joined["losses"][-1] < joined["losses"][0]
