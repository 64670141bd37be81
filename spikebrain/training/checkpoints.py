"""Checkpoints that are whole or absent, and keep only what is needed."""

import logging
import shutil
from pathlib import Path

import torch
from speechbrain.utils import checkpoints as host
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

_PARTIAL = "saving+"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or does not fit; the message names the folder, the numbers and the repair."""


class Checkpointer(host.Checkpointer):
    """SpeechBrain's Checkpointer, with saves that cannot be half done.

    The host writes the file that declares a folder a checkpoint *first*: killed, or out of disk space,
    while it writes the weights, it leaves a folder that the next run picks up and fails on. Here a
    checkpoint is written under another name, and the folder is renamed when all of it is there.

    Arguments
    ---------
    As the host's.
    """

    def save_checkpoint(self, meta=None, end_of_epoch=True, name=None, verbosity=logging.INFO):
        """Saves all recoverables; returns the Checkpoint on the main process, None elsewhere.

        Raises
        ------
        CheckpointError
            The folder cannot be written: what was written of it is removed, and earlier checkpoints stay as they were.
        """
        self._remove_partial()
        try:
            partial = super().save_checkpoint(meta or {}, end_of_epoch, name, verbosity=logging.DEBUG)
        except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
            raise CheckpointError(self._complaint(error)) from error
        return self._finish(partial, verbosity)

    def keep(self, number, min_keys):
        """Deletes all checkpoints but the newest and the ``number`` best; see :meth:`best`."""
        newest = self.find_checkpoint()
        order, known = _order(min_keys)
        self.delete_checkpoints(
            num_to_keep=number, importance_keys=[order], ckpt_predicate=lambda c: known(c) and c.path != newest.path
        )  # fmt: skip

    def best(self, number, min_keys):
        """The ``number`` best checkpoints, best first.

        Arguments
        ---------
        number : int
        min_keys : str or tuple of str
            Names in the meta data; the lowest first is best, of equal ones the lowest second, and so on. Checkpoints that lack one
            are left out.
        """
        order, known = _order(min_keys)
        return self.find_checkpoints(importance_key=order, ckpt_predicate=known, max_num_checkpoints=number)

    def load_modules(self, checkpoint, but=()):
        """Loads the recoverables that are modules, and neither optimizer, counters nor random states; ``but`` are left out."""
        for name, recoverable in self.recoverables.items():
            if isinstance(recoverable, torch.nn.Module) and name not in but:
                host.get_default_hook(recoverable, host.DEFAULT_LOAD_HOOKS)(recoverable, checkpoint.paramfiles[name], True)

    def _finish(self, partial, verbosity):
        checkpoint = None
        if partial is not None:
            path = partial.path.with_name(partial.path.name.removeprefix(_PARTIAL))
            partial.path.rename(path)
            files = {key: path / file.name for key, file in partial.paramfiles.items()}
            checkpoint = host.Checkpoint(path, partial.meta, files)
            logger.log(verbosity, f"Saved {path}")
        ddp_barrier()
        return checkpoint

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(_PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        if path.exists():
            raise FileExistsError(f"there is a checkpoint of that name already: {path}")
        return path.with_name(_PARTIAL + path.name)

    def _remove_partial(self):
        if if_main_process():
            for folder in Path(self.checkpoints_dir).glob(_PARTIAL + "*"):
                shutil.rmtree(folder, ignore_errors=True)
        ddp_barrier()

    def _complaint(self, error):
        folder = self.checkpoints_dir
        for partial in Path(folder).glob(_PARTIAL + "*"):
            shutil.rmtree(partial, ignore_errors=True)
        kept = [c.path.name for c in self.list_checkpoints()]
        free = shutil.disk_usage(folder).free / 2**20
        last = f"the {len(kept)} earlier checkpoints are untouched, the last is {max(kept)}" if kept else "there is no earlier checkpoint"
        return f"{folder}: cannot save a checkpoint ({error}); {free:.0f} MiB are free; {last}: free space and run the same command again"


def _order(min_keys):
    """What the host wants to know of an order: a key that is highest for the best, and which checkpoints have all it needs."""
    names = (min_keys,) if isinstance(min_keys, str) else tuple(min_keys)
    return lambda c: tuple(-c.meta[name] for name in names), lambda c: all(name in c.meta for name in names)


def average(checkpoints, name, device="cpu"):
    """Mean of the state dicts stored as ``name`` in a list of Checkpoints (integer tensors: of the first one)."""
    files = [checkpoint.paramfiles[name] for checkpoint in checkpoints]
    mean = torch.load(files[0], map_location=device, weights_only=True)
    floats = [key for key, value in mean.items() if value.is_floating_point()]
    for file in files[1:]:
        state = torch.load(file, map_location=device, weights_only=True)
        for key in floats:
            mean[key] += state[key]
    for key in floats:
        mean[key] /= len(files)
    return mean
