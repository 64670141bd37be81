"""What the Brains of all tasks share: updates, epochs, which checkpoint is best, and which ones fit."""

import math
import os
import time
from contextlib import nullcontext

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from speechbrain.utils.repro import SaveableGenerator

from spikebrain import operands
from spikebrain.training import firing, hooks, results, splits
from spikebrain.training.checkpoints import CheckpointError
from spikebrain.training.history import History
from spikebrain.training.sharding import sharded_loader

logger = get_logger(__name__)

# Keys that every task reads and a recipe may leave out.
OPTIONAL = {
    "dev_splits": (),  # the first one chooses the checkpoints
    "test_splits": (),
    "firing_by_epoch": (),  # layers whose firing rate is kept at each validation, by name or by the end of it; * stands for anything
    "extra_loggers": (),
}


class TaskBrain(sb.Brain):
    """SpeechBrain's Brain with whole checkpoints, a schedule that leads, and a history.

    A task gives ``compute_forward``, ``compute_objectives``, :meth:`validated` and what :mod:`spikebrain.training.hooks`
    asks for; its builder calls :meth:`keep_history` and :meth:`take`, and sets the other attributes below.

    parts : dict, the modules that are used, as they are
    history : History, a recoverable
    data : AsrData or ClassData, with the generator of its training loader as a recoverable
    fits : numbers that a checkpoint must have to fit this run
    repair : what to do about a checkpoint that does not fit; ``{name}`` is the number that differs
    tracked : what chooses checkpoints, lowest first; of equal ones the next name decides
    kept : how many of the best checkpoints are kept
    simulated : name, below ``parts``, of the network that is run on events when a run is looked into: forward(x, lengths)
    """

    history = data = rates = None
    parts = fits = {}
    repair = "set {name} as in that run"
    tracked = ("valid_loss", "epoch")
    kept = 1
    simulated = ""

    def keep_history(self, folder):
        """Writes what each epoch gives to ``history.jsonl`` in ``folder``."""
        self.history = History(os.path.join(folder, "history.jsonl"))
        self.checkpointer.add_recoverable("history", self.history)

    def take(self, data):
        """Takes the datasets and their loaders' options, once."""
        self.data = data
        self.checkpointer.add_recoverable("loader_generator", SaveableGenerator({"loader": data.generator}))

    def learn(self):
        """Trains to the end, or what is left of it."""
        loaders = {"train_loader_kwargs": dict(self.data.train_loader), "valid_loader_kwargs": dict(self.data.eval_loader)}
        self.fit(self.hparams.epoch_counter, self.data.train, self.data.valid, **loaders)

    def report(self):
        """What ``results.json`` says of every training: sizes, epochs, time, and what a look inside shows (main process)."""
        rates = firing.by_epoch(self.history.rows)
        return {
            "parameters": results.parameters(self.parts),
            "epochs": self.hparams.epoch_counter.current,
            "epoch_seconds": [row["seconds"] for row in self.history.rows],
            "hardware": results.hardware(self.device),
            **({"firing_by_epoch": rates} if rates else {}),
            **hooks.look(self, splits.looked_at(self.data), self.data.eval_loader),
        }

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
        """Looks at the clock, and before a validation forgets the spikes of the last one."""
        self.began = time.monotonic()
        if stage == sb.Stage.VALID and self.hparams.firing_by_epoch:
            self.rates = firing.Rates(self.parts, self.hparams.firing_by_epoch)

    def evaluate_batch(self, batch, stage):
        """As the host's; a validation is listened to where ``firing_by_epoch`` names layers."""
        with operands.listen(self.rates) if stage == sb.Stage.VALID and self.rates else nullcontext():
            return super().evaluate_batch(batch, stage)

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
        row = {"lr": rate, "seconds": self.train_stats["seconds"], "updates": self.optimizer_step, **numbers}
        self.history.add(epoch=epoch, **row, **({"firing": self.rates.of(epoch)} if valid and self.rates else {}))
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
