"""Two processes that share a batch fire as one process on the joined batch (gloo, on the CPU)."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from spikebrain.neurons import FiringOptions, MultiLevelSpike

PROGRAM = textwrap.dedent("""
    import sys, torch
    import torch.distributed as dist
    from spikebrain.neurons import FiringOptions, MultiLevelSpike
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    x = torch.randn(4, 20, 8)[2 * rank : 2 * rank + 2].clone().requires_grad_()
    neuron = MultiLevelSpike(8, options=FiringOptions(sync=sys.argv[2]))
    spikes, _ = neuron(x)
    spikes.square().sum().backward()
    torch.save({"spikes": spikes.detach(), "max": neuron.running_max, "grad": x.grad}, f"{sys.argv[1]}/{rank}.pt")
    dist.destroy_process_group()
""")


def two_processes(tmp_path, sync):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(program), str(tmp_path), sync]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=240)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("sync", ["batch", "running", "none"])
def test_channel_maxima_are_those_of_the_joined_batch(tmp_path, sync):
    torch.manual_seed(0)
    joined = torch.randn(4, 20, 8).requires_grad_()
    neuron = MultiLevelSpike(8)
    spikes, _ = neuron(joined)
    spikes.square().sum().backward()
    first, second = two_processes(tmp_path, sync)
    together = torch.cat([first["spikes"], second["spikes"]])
    assert torch.equal(together, spikes.detach()) == (sync == "batch")
    assert torch.equal(first["max"], second["max"]) == (sync != "none")
    if sync != "none":
        assert torch.equal(first["max"], neuron.running_max)
    if sync == "batch":
        peak = joined.detach().flatten(0, 1).argmax(0)
        elsewhere = torch.ones(80, 8, dtype=torch.bool).scatter_(0, peak[None], False)
        grad = torch.cat([first["grad"], second["grad"]]).flatten(0, 1)
        assert torch.allclose(grad[elsewhere], joined.grad.flatten(0, 1)[elsewhere], atol=1e-6)


def test_options_refuse_an_unknown_way():
    with pytest.raises(ValueError, match="sync is 'sum': choose one of batch, running, none"):
        FiringOptions(sync="sum")
