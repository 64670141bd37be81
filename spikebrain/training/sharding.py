"""Batches of one process out of several."""

import math

from speechbrain.dataio.dataloader import make_dataloader
from torch import distributed


class Sharded:
    """Every ``world``-th batch of a batch sampler, beginning with batch ``rank``.

    The host's wrapper fixes the number of batches when it is made, and stops with an AssertionError in the epoch in
    which a dynamic batch sampler comes to more. Here they are counted anew each epoch; the first
    batches are repeated where the last round is not full, so that all processes make as many steps.

    Arguments
    ---------
    sampler : batch sampler
        The same on every process; ``set_epoch`` is handed on.
    rank, world : int
        This process and how many there are.
    """

    def __init__(self, sampler, rank, world):
        self.sampler, self.rank, self.world = sampler, rank, world

    def set_epoch(self, epoch):
        """Draws the batches of an epoch."""
        self.sampler.set_epoch(epoch)

    def __iter__(self):
        batches = list(self.sampler)
        count = math.ceil(len(batches) / self.world) * self.world
        return iter([batches[i % len(batches)] for i in range(self.rank, count, self.world)])

    def __len__(self):
        return math.ceil(len(self.sampler) / self.world)


def sharded_loader(brain, dataset, options):
    """The training loader of this process, over its share of the batches; a recoverable of ``brain``.

    Arguments
    ---------
    brain : Brain
    dataset : DynamicItemDataset
    options : dict
        Of the loader, with ``batch_sampler``.
    """
    sampler = Sharded(options["batch_sampler"], distributed.get_rank(), distributed.get_world_size())
    brain.train_sampler = sampler
    loader = make_dataloader(dataset, **{**options, "batch_sampler": sampler})
    brain.checkpointer.add_recoverable("dataloader-TRAIN", loader)
    return loader
