"""Checkpoints are whole or absent, whatever happens while they are written."""

import errno
import resource

import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from spikebrain.training import checkpoints
from spikebrain.training.checkpoints import Checkpointer, CheckpointError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(8, 8)


@pytest.fixture
def checkpointer(tmp_path, model):
    return Checkpointer(tmp_path / "save", {"model": model, "counter": EpochCounter(9)})


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def names(checkpointer):
    return sorted(path.name for path in checkpointer.checkpoints_dir.iterdir())


def test_a_checkpoint_restores_what_was_saved(checkpointer, model):
    before = model.weight.clone()
    saved = checkpointer.save_checkpoint({"valid_WER": 3.0})
    assert saved.path.is_dir() and all(file.is_file() for file in saved.paramfiles.values())
    torch.nn.init.zeros_(model.weight)
    assert checkpointer.recover_if_possible().meta["valid_WER"] == 3.0
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("earlier", [0, 2])
def test_a_full_disk_is_one_message_and_leaves_earlier_checkpoints(checkpointer, monkeypatch, earlier):
    for _ in range(earlier):
        checkpointer.save_checkpoint()
    before = names(checkpointer)
    monkeypatch.setattr(torch, "save", full_disk)
    said = f"the {earlier} earlier checkpoints are untouched" if earlier else "there is no earlier checkpoint"
    reason = "cannot save a checkpoint .*No space left on device.* MiB are free"
    with pytest.raises(CheckpointError, match=rf"{reason}; {said}.*: free space and run"):
        checkpointer.save_checkpoint()
    assert names(checkpointer) == before
    monkeypatch.undo()
    assert len(checkpointer.list_checkpoints()) == earlier
    assert (checkpointer.recover_if_possible() is None) == (earlier == 0)


def test_a_file_that_may_not_grow_is_the_same(tmp_path):
    large = Checkpointer(tmp_path, {"model": torch.nn.Linear(512, 512)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot save a checkpoint"):
            large.save_checkpoint()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(large) == []


def test_a_save_that_was_killed_is_never_picked_up(checkpointer, monkeypatch, model):
    good = checkpointer.save_checkpoint()

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint()
    monkeypatch.undo()
    assert len(names(checkpointer)) == 2  # as a kill leaves it: half a folder lies there
    assert [c.path for c in checkpointer.list_checkpoints()] == [good.path]
    checkpointer.save_checkpoint()
    assert all(name.startswith("CKPT+") for name in names(checkpointer))


def test_the_hosts_own_checkpointer_fails_this(tmp_path, model, monkeypatch):
    """Guard: were the host to write its meta file last, this class would not be needed."""
    stock = checkpoints.host.Checkpointer(tmp_path / "stock", {"model": model})
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        stock.save_checkpoint()
    assert len(stock.list_checkpoints()) == 1


def test_keep_leaves_the_best_and_the_newest(checkpointer):
    rates = [5.0, 2.0, 9.0, 1.0, 7.0]
    for number, rate in enumerate(rates):
        checkpointer.save_checkpoint({"valid_WER": rate, "unixtime": number})
        checkpointer.keep(2, "valid_WER")
    assert sorted(c.meta["valid_WER"] for c in checkpointer.list_checkpoints()) == [1.0, 2.0, 7.0]


def test_named_checkpoints(checkpointer):
    assert checkpointer.save_checkpoint(name="best").path.name == "CKPT+best"
    with pytest.raises(CheckpointError, match="of that name already"):
        checkpointer.save_checkpoint(name="best")
    assert names(checkpointer) == ["CKPT+best"]


def test_average_is_the_mean_of_floats(tmp_path, model):
    model.register_buffer("number", torch.tensor(3))
    checkpointer = Checkpointer(tmp_path, {"model": model})
    saved = []
    for value in (1.0, 2.0, 6.0):
        torch.nn.init.constant_(model.weight, value)
        saved.append(checkpointer.save_checkpoint())
    mean = checkpoints.average(saved, "model")
    assert torch.equal(mean["weight"], torch.full((8, 8), 3.0))
    assert mean["number"].dtype == torch.int64 and mean["number"] == 3
    model.load_state_dict(mean)


def test_load_modules_takes_weights_and_leaves_counters(checkpointer, model):
    before = model.weight.clone()
    saved = checkpointer.save_checkpoint()
    torch.nn.init.zeros_(model.weight)
    counter = checkpointer.recoverables["counter"]
    counter.current = 4
    checkpointer.load_modules(saved, but=["model"])
    assert not model.weight.any()
    checkpointer.load_modules(saved)
    assert torch.equal(model.weight, before) and counter.current == 4
