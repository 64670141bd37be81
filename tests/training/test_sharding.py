"""Batches of several processes: disjoint, complete, as many each, in every epoch."""

import pytest

from spikebrain.training.sharding import Sharded


class Growing:
    """A batch sampler with another number of batches each epoch, as dynamic batching gives."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([[self.epoch * 100 + i] for i in range(len(self))])

    def __len__(self):
        return 3 + 2 * self.epoch


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_batch_is_seen_and_all_processes_make_as_many_steps(world):
    shards = [Sharded(Growing(), rank, world) for rank in range(world)]
    for epoch in range(3):
        for shard in shards:
            shard.set_epoch(epoch)
        seen = [[batch[0] for batch in shard] for shard in shards]
        assert {len(batches) for batches in seen} == {len(shards[0])}
        flat = [number for batches in seen for number in batches]
        wanted = [epoch * 100 + i for i in range(3 + 2 * epoch)]
        assert set(flat) == set(wanted) and len(flat) - len(wanted) < world
