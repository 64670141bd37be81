"""What the Brains of all tasks share: updates, epochs, which checkpoint is best, and which ones fit."""

import math
import time

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from spikebrain.training.checkpoints import CheckpointError
from spikebrain.training.sharding import sharded_loader

logger = get_logger(__name__)


class TaskBrain(sb.Brain):
    """SpeechBrain's Brain with whole checkpoints, a schedule that leads, and a history.

    A task gives ``compute_forward``, ``compute_objectives``, :meth:`validated` and what :mod:`spikebrain.training.hooks`
    asks for; its builder sets the attributes below.

    parts : dict, the modules that are used, as they are
    history : History, a recoverable
    fits : numbers that a checkpoint must have to fit this run
    repair : what to do about a checkpoint that does not fit; ``{name}`` is the number that differs
    tracked : what chooses checkpoints, lowest first; of equal ones the next name decides
    kept : how many of the best checkpoints are kept
    """

    history = None
    parts = fits = {}
    repair = "set {name} as in that run"
    tracked = ("valid_loss", "epoch")
    kept = 1

    def validated(self, stage_loss):
        """The numbers of a validation that has ended, by name: its loss and what the task counts."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it counts")

    def further_numbers(self):
        """What else an epoch's row of the history holds, by name."""
        return {}

    def part(self, name):
        """A module: in training as it is wrapped for several processes or compiled, else as it is, so that no new shape compiles again."""
        return self.modules[name] if self.modules.training else self.parts[name]

    def on_stage_start(self, stage, epoch=None):
        """Looks at the clock."""
        self.began = time.monotonic()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Keeps the training loss; after validation, logs the epoch and saves."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": stage_loss, "seconds": time.monotonic() - self.began}
            if not self.hparams.dev_splits:
                self.end_epoch(epoch, {})
        elif stage == sb.Stage.VALID:
            self.end_epoch(epoch, self.validated(stage_loss))

    def end_epoch(self, epoch, valid):
        """Logs an epoch's numbers and saves a checkpoint."""
        rate = self.optimizer.param_groups[0]["lr"]
        numbers = {"train_loss": self.train_stats["loss"], **{f"valid_{name}": value for name, value in valid.items()}}
        numbers |= self.further_numbers()
        self.history.add(epoch=epoch, lr=rate, seconds=self.train_stats["seconds"], updates=self.optimizer_step, **numbers)
        self.checkpointer.save_checkpoint(meta={"epoch": epoch, **numbers, **self.fits})
        self.checkpointer.keep(self.kept, self.tracked)
        if if_main_process():
            self.history.write()
        for log in (self.hparams.train_logger, *self.hparams.extra_loggers):  # on all processes: loggers meet in a broadcast
            log.log_stats({"epoch": epoch, "lr": rate}, train_stats={"loss": self.train_stats["loss"]}, valid_stats=valid or None)

    def make_dataloader(self, dataset, stage, ckpt_prefix="dataloader-", **options):
        """As the host's, but dynamic batches are shared out anew each epoch, and a schedule hears how long training is."""
        train = stage == sb.Stage.TRAIN
        if train and self.distributed_launch and "batch_sampler" in options:
            loader = sharded_loader(self, dataset, options)
        else:
            loader = super().make_dataloader(dataset, stage, ckpt_prefix, **options)
        if train and hasattr(self.hparams.schedule, "plan"):
            epochs = self.hparams.epoch_counter.limit
            self.hparams.schedule.plan(len(loader) // self.grad_accumulation_factor * epochs, epochs)
        return loader

    def on_fit_start(self):
        """As the host's, after making sure that the last checkpoint fits this run."""
        self.check_fit()
        super().on_fit_start()

    def check_fit(self):
        """Refuses checkpoints that were trained as something else.

        Raises
        ------
        CheckpointError
            Both numbers and the repair.
        """
        for checkpoint in self.checkpointer.list_checkpoints():
            for name, ours in self.fits.items():
                theirs = checkpoint.meta.get(name, ours)
                if theirs != ours:
                    raise CheckpointError(
                        f"{checkpoint.path}: was trained with {name} {theirs}, this run has {name} {ours}: "
                        f"{self.repair.format(name=name)}, or start anew in another output_folder"
                    )

    def best_checkpoints(self):
        """The ``kept`` best checkpoints, best first. CheckpointError where there is none."""
        best = self.checkpointer.best(self.kept, self.tracked)
        if not best:
            raise CheckpointError(f"{self.checkpointer.checkpoints_dir}: holds 0 checkpoints to evaluate: train first")
        return best

    def optimizers_step(self):
        """One update: the schedule sets this update's rate, and the norm of *all* gradients is clipped.

        The host applies schedules after the update, so that its first one is not warmed up, and clips the
        first parameter group only.
        """
        self.hparams.schedule(self.optimizer)
        self.scaler.unscale_(self.optimizer)
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.modules.parameters(), limit)
        if torch.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
        else:
            logger.warning(f"Gradient norm is {norm}: update {self.optimizer_step + 1} is left out")
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
