"""Learning rates that know where training ends, or how long an epoch is.

A schedule is called with the optimizer before each update, and hears ``plan(updates, epochs)`` of the whole training first.
"""

import math

import torch
from speechbrain.utils.checkpoints import mark_as_loader, mark_as_saver, register_checkpoint_hooks


@register_checkpoint_hooks
class Schedule:
    """A rate that follows the updates so far; goes on where a checkpoint left it.

    Arguments
    ---------
    lr : float
        The highest rate.
    """

    def __init__(self, lr):
        self.lr, self.updates = lr, 0

    @mark_as_saver
    def save(self, path):
        """Writes the number of updates so far."""
        torch.save({"updates": self.updates}, path)

    @mark_as_loader
    def load(self, path, end_of_epoch=False):
        """Reads the number of updates so far; how long training is follows from the run."""
        self.updates = torch.load(path, weights_only=True)["updates"]


class WarmupDecay(Schedule):
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
        super().__init__(lr)
        self.warmup, self.total = warmup, None

    def plan(self, total, epochs=None):
        """Says how many updates the whole training has; how many epochs that are makes no difference."""
        del epochs
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


class ByEpoch(Schedule):
    """A rate that is constant within an epoch: ``lr`` times the ``multiplier(epoch)`` of a subclass.

    Arguments
    ---------
    lr : float
        The highest rate.
    """

    def __init__(self, lr):
        super().__init__(lr)
        self.updates_an_epoch, self.epochs = None, None

    def plan(self, total, epochs):
        """Says how many updates the whole training has, in how many epochs."""
        self.epochs, self.updates_an_epoch = max(int(epochs), 1), max(int(total) // max(int(epochs), 1), 1)

    def multiplier(self, epoch):
        """What ``lr`` is multiplied by in epoch 0, 1, 2, ..."""
        raise NotImplementedError

    def __call__(self, optimizer):
        """Sets the rate of the update that comes next. RuntimeError without a plan."""
        if self.updates_an_epoch is None:
            raise RuntimeError(f"{type(self).__name__} does not know how long an epoch is: call plan(updates, epochs) first")
        rate = self.lr * self.multiplier(self.updates // self.updates_an_epoch)
        self.updates += 1
        for group in optimizer.param_groups:
            group["lr"] = rate


class CosineByEpoch(ByEpoch):
    """Warm-up in equal steps, then a cosine, both constant within an epoch.

    With ``e`` the epochs after the warm-up, the rate is ``lr (1 + cos(pi e / half_period)) / 2``. The cosine of SpikeSCR's
    published code falls for 40 epochs, rises again for 40, and so on: its training does not end at rate 0 unless the number
    of epochs says so (``half_period=40``, section 8 of the paper's recipe). ``half_period=None`` (ours) falls once, to
    reach 0 after the last epoch.

    The warm-up takes ``warmup_epochs`` epochs at lr/n, 2 lr/n, ..., lr. The paper's code divides by updates where it counts
    epochs, and so leaves its first cosine near 0; this is what its text says.

    Arguments
    ---------
    lr : float
        The highest rate.
    half_period : int, optional
        Epochs from the highest rate to 0.
    warmup_epochs : int

    Raises
    ------
    ValueError
        A number of epochs that cannot be.

    Example
    -------
    >>> schedule = CosineByEpoch(lr=1.0, half_period=2, warmup_epochs=2)
    >>> [round(schedule.multiplier(epoch), 3) for epoch in range(8)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.5, 1.0, 0.5]
    """

    def __init__(self, lr, half_period=None, warmup_epochs=0):
        if half_period is not None and half_period < 1:
            raise ValueError(f"half_period is {half_period}: give 1 epoch or more, or null for one fall over the whole training")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs is {warmup_epochs}: give 0 or more")
        super().__init__(lr)
        self.half_period, self.warmup_epochs = half_period, warmup_epochs

    def multiplier(self, epoch):
        """What ``lr`` is multiplied by in epoch 0, 1, 2, ..."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / self.warmup_epochs
        return (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / self._fall())) / 2

    def _fall(self):
        if self.half_period is not None:
            return self.half_period
        if self.epochs is None:
            raise RuntimeError("CosineByEpoch does not know how long training is: call plan(updates, epochs) first")
        return max(self.epochs - self.warmup_epochs, 1)


class WarmRestarts(ByEpoch):
    """A cosine that falls to ``lowest`` and starts again, each time for longer (I. Loshchilov, F. Hutter, "SGDR", ICLR 2017, Eq. 5).

    With e the epochs since the last start and P the length of the fall, the rate is lowest + (lr - lowest) (1 + cos(pi e / P)) / 2: that of
    ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`` stepped once an epoch.

    Arguments
    ---------
    lr : float
        The highest rate.
    first : int
        Epochs of the first fall.
    factor : int
        By which each fall is longer than the one before.
    lowest : float

    Raises
    ------
    ValueError
        A number of epochs, a factor or a lowest rate that cannot be.

    Example
    -------
    >>> schedule = WarmRestarts(lr=1.0, first=1, factor=2)
    >>> [round(schedule.multiplier(epoch), 3) for epoch in range(8)]  # starts at 0, 1, 3 and 7
    [1.0, 1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """

    def __init__(self, lr, first=10, factor=2, lowest=0.0):
        if first < 1 or factor < 1:
            raise ValueError(f"first is {first} epochs and factor {factor}: give 1 or more of each")
        if not 0 <= lowest <= lr:
            raise ValueError(f"lowest is {lowest}: give a rate from 0 to lr, {lr}")
        super().__init__(lr)
        self.first, self.factor, self.lowest = first, factor, lowest

    def multiplier(self, epoch):
        """What ``lr`` is multiplied by in epoch 0, 1, 2, ..."""
        length = self.first
        while epoch >= length:
            epoch, length = epoch - length, length * self.factor
        low = self.lowest / self.lr
        return low + (1 - low) * (1 + math.cos(math.pi * epoch / length)) / 2


class CyclicByEpoch(ByEpoch):
    """Up in a line and down in a line, over and over, from the lowest rate on (L. N. Smith, WACV 2017, "triangular").

    With h the height of the triangle, 0 in epoch 0, 1 in epoch ``half_period``, 0 in epoch 2 ``half_period``, the rate is
    lowest + (lr - lowest) h: that of ``torch.optim.lr_scheduler.CyclicLR`` stepped once an epoch. Unless it is told not to, torch's moves
    the optimizer's momentum against the rate as well; here it does where ``momentum`` is given.

    Arguments
    ---------
    lr : float
        The highest rate.
    lowest : float
    half_period : int
        Epochs from the lowest rate to the highest.
    momentum : (float, float), optional
        At the highest rate, and at the lowest; torch's are (0.8, 0.9). None leaves it as the optimizer has it.

    Raises
    ------
    ValueError
        A number of epochs, a lowest rate or momenta that cannot be; when it is called, an optimizer without momentum.

    Example
    -------
    >>> schedule = CyclicByEpoch(lr=1.0, lowest=0.5, half_period=2)
    >>> [schedule.multiplier(epoch) for epoch in range(6)]
    [0.5, 0.75, 1.0, 0.75, 0.5, 0.75]
    """

    def __init__(self, lr, lowest=0.0, half_period=10, momentum=None):
        if half_period < 1:
            raise ValueError(f"half_period is {half_period}: give 1 epoch or more")
        if not 0 <= lowest <= lr:
            raise ValueError(f"lowest is {lowest}: give a rate from 0 to lr, {lr}")
        if momentum is not None and not (len(momentum) == 2 and all(0 <= end < 1 for end in momentum)):
            raise ValueError(f"momentum is {momentum}: give those at the highest and at the lowest rate, each from 0 to less than 1")
        super().__init__(lr)
        self.lowest, self.half_period, self.momentum = lowest, half_period, momentum

    def height(self, epoch):
        """How far epoch 0, 1, 2, ... is from the lowest rate to the highest, 0..1."""
        return 1 - abs(epoch % (2 * self.half_period) - self.half_period) / self.half_period

    def multiplier(self, epoch):
        """What ``lr`` is multiplied by in epoch 0, 1, 2, ..."""
        low = self.lowest / self.lr
        return low + (1 - low) * self.height(epoch)

    def __call__(self, optimizer):
        """Sets the rate, and where it is given the momentum, of the update that comes next. RuntimeError without a plan."""
        before = self.updates
        super().__call__(optimizer)
        if self.momentum is None:
            return
        high, low = self.momentum
        for group in optimizer.param_groups:
            if "momentum" not in group:
                raise ValueError(f"momentum is {self.momentum}, but {type(optimizer).__name__} has none: leave momentum out")
            group["momentum"] = low + (high - low) * self.height(before // self.updates_an_epoch)


class StepByEpoch(ByEpoch):
    """A rate that falls by a factor every few epochs, after a linear warm-up counted in updates: that of MFA-Conformer's published code.

    Update u = 1, 2, ... of epoch e = 0, 1, ... has the rate lr factor^(e // every) min(1, u / warmup_updates). (There the scheduler
    multiplies once an epoch, and while it warms up the rate is set to lr u / warmup_updates: the same, where warm-up ends in the first
    ``every`` epochs, as it does in that recipe.)

    Arguments
    ---------
    lr : float
        The highest rate.
    every : int
        Epochs.
    factor : float
        Above 0, at most 1.
    warmup_updates : int

    Raises
    ------
    ValueError
        Numbers that cannot be.

    Example
    -------
    >>> schedule = StepByEpoch(lr=1.0, every=2)
    >>> [schedule.multiplier(epoch) for epoch in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(self, lr, every=4, factor=0.5, warmup_updates=0):
        if every < 1 or not 0 < factor <= 1 or warmup_updates < 0:
            numbers = f"every is {every} epochs, factor {factor}, warmup_updates {warmup_updates}"
            raise ValueError(f"{numbers}: give 1 or more, more than 0 and at most 1, and 0 or more")
        super().__init__(lr)
        self.every, self.factor, self.warmup_updates = every, factor, warmup_updates

    def multiplier(self, epoch):
        """What ``lr`` is multiplied by in epoch 0, 1, 2, ..., once it is warm."""
        return self.factor ** (epoch // self.every)

    def __call__(self, optimizer):
        """Sets the rate of the update that comes next. RuntimeError without a plan."""
        super().__call__(optimizer)
        for group in optimizer.param_groups if self.updates < self.warmup_updates else ():
            group["lr"] *= self.updates / self.warmup_updates
