"""Classification by frames that vote: keywords, digits, emotions, at a chosen number of frames a second.

A front end gives frames, an encoder and a linear layer name a class at each, and the class with most votes wins (SpikeSCR
Eq. 14-16, :mod:`spikebrain.learning.losses`). The checkpoint is the one with the fewest errors on the first dev split; of equals
the one with the lower loss there, then the earlier. No test utterance is looked at before training has ended, but with
``report_max_test``, whose numbers are for comparison with papers that choose on the test set.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import islice

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.logger import get_logger
from speechbrain.utils.repro import SaveableGenerator
from speechbrain.utils.seed import seed_everything
from speechbrain.utils.train_logger import FileTrainLogger

from spikebrain import energy
from spikebrain import lengths as frames
from spikebrain.data.classification import ClassDataOptions, Recordings
from spikebrain.learning.losses import summed_softmax, votes_loss
from spikebrain.training import brain as shared
from spikebrain.training import keys, naming, splits
from spikebrain.training.checkpoints import Checkpointer

logger = get_logger(__name__)

# Every key that this task reads from a recipe's YAML, and what it means.
NEEDED = {
    "features": "!name: of a front end that lacks only frames, such as spikebrain.lobes.features.FrameRateMel",
    "classifier": "!name: of spikebrain.lobes.SpikingClassifier, or what is built alike, that lacks only input_size and classes",
    "frames": "frames a second",
    "number_of_epochs": "of training",
    "opt_class": "an optimizer that lacks only the parameters",
    "schedule": "!name: of a learning-rate schedule, called with the optimizer before each update",
    "train_splits": "list of splits to train on",
}
OPTIONAL = {
    **shared.OPTIONAL,
    "augment": None,  # of a batch of features and their lengths, or of one recording's event frames
    "paper_padding": False,  # padded frames vote, as in the published code
    "report_max_test": False,  # look at the test splits after each epoch, and report the best of them too
}
BATCHING = {field.name: field.default for field in fields(ClassDataOptions)} | {"seed": None}
OPTIONAL |= {name: default for name, default in BATCHING.items() if name != "seed"}
KEYS = NEEDED.keys() | OPTIONAL.keys()
REOPENED = {"cache_audio": False}  # a run that has ended trains no more

COMPARISON = "highest test accuracy over the epochs, chosen on the test split itself: for comparison with papers that report it"


@dataclass(frozen=True)
class Course:
    """One training.

    frames : a second
    epochs : how long
    schedule : makes its learning-rate schedule
    folder, save_folder : where results and checkpoints go
    """

    frames: int
    epochs: int
    schedule: Callable
    folder: str
    save_folder: str


class Tally(naming.Tally):
    """Counts of a split, with ``confusion`` (K, K) int64: rows are the true class, columns the named one.

    Arguments
    ---------
    classes : int
        K.
    """

    def __init__(self, classes):
        super().__init__()
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, logits, labels, loss):
        """Counts a batch: ``logits`` (B, K), here votes, ``labels`` (B,), and the mean loss of its utterances."""
        super().add(logits, labels, loss)
        named = torch.stack([labels, logits.argmax(-1)]).cpu()
        self.confusion.index_put_(tuple(named), torch.ones((), dtype=torch.int64), accumulate=True)


class Classifier(shared.TaskBrain):
    """Trains and evaluates; see the module. Made by :func:`build`, which sets the attributes below.

    labels : tuple of str, the classes
    best_epoch : the epoch whose weights were evaluated
    """

    tally = best_epoch = None
    labels = ()
    simulated = "classifier"

    def compute_forward(self, batch, stage):
        """Padded batch -> votes (B, K)."""
        batch = batch.to(self.device)
        x, lengths = self.part("features")(*batch.sig)
        if stage == sb.Stage.TRAIN:
            x = self.augmented(x, lengths)
        return self.vote(self.part("classifier"), x, lengths)

    def augmented(self, x, lengths):
        """Features (B, L, C) with parts masked, where there is an augmentation; event frames have been augmented when they were read."""
        return self.hparams.augment(x, lengths) if self.hears_audio and self.hparams.augment is not None else x

    @property
    def hears_audio(self):
        """Whether the front end reads audio, or recordings that are spikes already."""
        return self.parts["features"].domain == "audio"

    def vote(self, classifier, x, lengths):
        """Features (B, L, C) -> votes (B, K)."""
        return summed_softmax(classifier(x, lengths), None if self.hparams.paper_padding else lengths)

    def compute_objectives(self, predictions, batch, stage):
        """The mean cross-entropy of a batch's votes; counts them outside of training."""
        labels = naming.labels_of(batch)
        loss = votes_loss(predictions, labels)
        if stage != sb.Stage.TRAIN:
            self.tally.add(predictions, labels, loss)
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Fresh counts."""
        super().on_stage_start(stage, epoch)
        self.tally = Tally(len(self.labels))

    def validated(self, stage_loss):
        """Loss, accuracy and error rate."""
        return self.tally.numbers()

    def further_numbers(self):
        """With ``report_max_test``, the accuracy on each test split."""
        if not self.hparams.report_max_test:
            return {}
        return {f"{split}_accuracy": self.measure(self.data.tests[split]).accuracy for split in self.hparams.test_splits}

    @torch.no_grad()
    def measure(self, dataset):
        """Counts a dataset with the weights as they are: a Tally."""
        self.modules.eval()
        self.tally = Tally(len(self.labels))
        loader = make_dataloader(dataset, **self.data.eval_loader)
        for batch in islice(loader, self.debug_batches if self.debug else None):
            self.evaluate_batch(batch, sb.Stage.TEST)
        return self.tally

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Loads the best checkpoint."""
        self.check_fit()
        (best,) = self.best_checkpoints()
        self.checkpointer.load_modules(best)
        self.best_epoch = best.meta["epoch"]

    @property
    def encoder(self):
        """The module that is listened to."""
        return self.parts["classifier"].encoder.model

    def hear(self, batch):
        """Classifies a batch: frames of each utterance, and no decoder step."""
        x, lengths = self.parts["features"](*batch.sig)
        self.parts["classifier"](x, lengths)
        return frames.absolute(lengths, x), torch.zeros(len(x))

    def cost(self, counter):
        """The energy report of what ``counter`` heard."""
        return energy.report_told(counter, "classifier.encoder.model.layers", "classifier.encoder")


def train(hparams, run_opts, prepared):
    """Trains, evaluates on every dev and test split, and looks inside: a task's ``train``, see :mod:`spikebrain.training.run`."""
    check(hparams)
    return complete(_made(hparams, run_opts, prepared))


def reopen(hparams, run_opts, prepared):
    """The Brain of a run that has ended, with its best weights: a task's ``reopen``, see :mod:`spikebrain.training.run`."""
    brain = _made(hparams, run_opts, prepared)
    brain.on_evaluate_start()
    return brain


def _made(hparams, run_opts, prepared):
    recordings = make_recordings(hparams, prepared)
    course = Course(hparams["frames"], hparams["number_of_epochs"], hparams["schedule"], hparams["output_folder"], hparams["save_folder"])
    brain = build(hparams, run_opts, recordings, course)
    brain.take(recordings.view(brain.parts["features"], augment=hparams["augment"]))
    return brain


def check(hparams):
    """Refuses what cannot be trained.

    Raises
    ------
    RecipeError
    """
    splits.check(hparams)
    if hparams["report_max_test"] and not hparams["test_splits"]:
        raise keys.RecipeError("report_max_test: True, but test_splits is empty: name a split, or set report_max_test: False")
    if hparams["number_of_epochs"] < 1:
        raise keys.RecipeError(f"number_of_epochs: {hparams['number_of_epochs']} trains nothing: give 1 or more")
    if isinstance(hparams["frames"], (list, tuple)):
        raise keys.RecipeError(f"frames: {list(hparams['frames'])} is a curriculum: use a recipe that distils, or give one number")


def make_recordings(hparams, prepared):
    """The utterances of all splits, their labels in the corpus's order, where it has one."""
    options = ClassDataOptions(**{name: hparams[name] for name in BATCHING})
    return Recordings(*splits.manifests(hparams, prepared), hparams["data_folder"], prepared.settings.get("classes"), options)


def build(hparams, run_opts, recordings, course, kind=Classifier):
    """A Brain of ``kind`` that lacks its data only; everything random in it begins with the run's seed."""
    seed_everything(hparams["seed"])
    features = keys.make("features", hparams["features"], frames=course.frames)
    classes = len(recordings.labels)
    classifier = keys.make("classifier", hparams["classifier"], input_size=features.channels, classes=classes)
    parts = {"features": features, "classifier": classifier}
    own = {**hparams, **_objects(course)}
    recoverables = {"model": classifier, "schedule": own["schedule"], "counter": own["epoch_counter"], "generator": SaveableGenerator()}
    brain = kind(parts, hparams["opt_class"], own, run_opts, Checkpointer(course.save_folder, recoverables))
    brain.parts, brain.labels = parts, recordings.labels
    brain.tracked = naming.choice(hparams)
    digest = hashlib.sha256("\n".join(recordings.labels).encode()).hexdigest()[:16]
    brain.fits = {"frames": course.frames, "classes": classes, "labels": digest, **_sizes(classifier)}
    brain.keep_history(course.folder)
    return brain


def _objects(course):
    """What belongs to one training alone."""
    run_on_main(os.makedirs, args=[course.folder], kwargs={"exist_ok": True})
    return {
        "output_folder": course.folder,
        "schedule": keys.make("schedule", course.schedule),
        "epoch_counter": EpochCounter(course.epochs),
        "train_logger": FileTrainLogger(os.path.join(course.folder, "train_log.txt")),
    }


def _sizes(classifier):
    return {"width": classifier.encoder.output_size, "parameters": sum(p.numel() for p in classifier.parameters())}


def complete(brain):
    """Trains a Brain to the end, or what is left of it, and evaluates its best checkpoint: the task's part of ``results.json``."""
    brain.learn()
    tallies = {split: evaluate(brain, split, dataset) for split, dataset in brain.data.tests.items()}
    own = {
        "metrics": {split: {"accuracy": tally.accuracy} for split, tally in tallies.items()},
        "labels": list(brain.labels),
        "confusion": {split: tally.confusion.tolist() for split, tally in tallies.items()},
        "frames": brain.parts["features"].frames,
        "best_epoch": brain.best_epoch,
    }
    return own | highest(brain) | brain.report()


def evaluate(brain, split, dataset):
    """Counts a split with the best checkpoint: a Tally."""
    brain.evaluate(dataset, test_loader_kwargs=dict(brain.data.eval_loader))
    logger.info(f"{split}: accuracy {brain.tally.accuracy:.2f} % of {brain.tally.utterances} utterances")
    return brain.tally


def highest(brain):
    """With ``report_max_test``, what ``results.json`` says of the best epoch of each test split; else nothing."""
    if not brain.hparams.report_max_test:
        return {}
    best = {}
    for split in brain.hparams.test_splits:
        row = max(brain.history.rows, key=lambda row: row[f"{split}_accuracy"])
        best[split] = {"accuracy": row[f"{split}_accuracy"], "epoch": row["epoch"]}
    return {"comparison": {"what": COMPARISON, "max_test": best}}
