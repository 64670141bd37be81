"""Learning rates that know where training ends."""

import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks


@register_checkpoint_hooks
class WarmupDecay:
    """Linear warm-up, then linear decay to zero at the last update.

    A Noam rate is still high when a short training ends, and its last epochs differ by chance; a rate that reaches zero
    makes every update count, whatever the corpus and the number of epochs.

    Arguments
    ---------
    lr : float
        The highest rate.
    warmup : float
        Share of all updates that it takes to reach it.

    Example
    -------
    >>> schedule = WarmupDecay(lr=1.0, warmup=0.5)
    >>> schedule.plan(4)
    >>> [schedule.rate(update) for update in (1, 2, 3, 4)]
    [0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, lr, warmup=0.1):
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is {warmup}: give the share of updates that warm up, from 0 to less than 1")
        self.lr, self.warmup, self.updates, self.total = lr, warmup, 0, None

    def plan(self, total):
        """Says how many updates the whole training has."""
        self.total = max(int(total), 1)

    def rate(self, update):
        """The rate of update 1, 2, ..., total; 0 beyond."""
        peak = max(1, round(self.warmup * self.total))
        if update <= peak:
            return self.lr * update / peak
        return self.lr * max(0, self.total - update) / max(1, self.total - peak)

    def __call__(self, optimizer):
        """Sets the rate of the update that comes next. RuntimeError without a plan."""
        if self.total is None:
            raise RuntimeError("WarmupDecay does not know how long training is: call plan(updates) first")
        self.updates += 1
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.updates)

    @mark_as_saver
    def save(self, path):
        """Writes the number of updates so far."""
        torch.save({"updates": self.updates}, path)

    @mark_as_loader
    def load(self, path, end_of_epoch=False):
        """Reads the number of updates so far; how long training is follows from the run."""
        self.updates = torch.load(path, weights_only=True)["updates"]
