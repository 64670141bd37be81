"""What identification and verification of speakers share: a network that is trained to name the training speakers.

Features are normalised, an embedding network gives one vector an utterance, and a linear layer, or cosines with a vector a speaker, name
the speaker. Trained are random crops of utterances, measured whole ones. The checkpoint is the one with the fewest errors on the first
dev split; of equals the one with the lower loss there, then the earlier. With ``avg_checkpoints`` the weights of several are averaged.
"""

import copy
import hashlib
import os
import warnings
from dataclasses import fields

import speechbrain as sb
import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier as CosineClassifier
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.repro import SaveableGenerator
from speechbrain.utils.seed import seed_everything
from speechbrain.utils.train_logger import FileTrainLogger

from spikebrain import energy, operands
from spikebrain import lengths as frames
from spikebrain.data.speakers import RANGES, SpeakerDataOptions, SpeakerRecordings
from spikebrain.frontend.normalisation import UtteranceNormalization
from spikebrain.lobes import SpeakerLoss
from spikebrain.training import brain as shared
from spikebrain.training import checkpoints, keys, naming, results, splits

# Every key that both tasks read from a recipe's YAML, and what it means.
NEEDED = {
    "features": "a front end from samples and lengths to features and lengths, such as spikebrain.lobes.LogMel",
    "normalize": "of features: called with features, lengths and epoch, such as spikebrain.frontend.normalisation.UtteranceNormalization",
    "embedding_model": "!name: of spikebrain.lobes.SpeakerEmbedding, or what is built alike, that lacks nothing",
    "loss": "softmax over a linear layer; or am, aam: over cosines with a margin",
    "number_of_epochs": "of training",
    "opt_class": "an optimizer that lacks only the parameters",
    "schedule": "!name: of a learning-rate schedule, called with the optimizer before each update",
    "train_splits": "list of splits to train on",
}
OPTIONAL = {
    **shared.OPTIONAL,
    "margin": 0.2,  # of am and aam
    "scale": 30.0,
    "fea_augment": None,  # of a batch of normalised features, while training
    "avg_checkpoints": 1,  # how many of the best checkpoints are averaged
}
BATCHING = {field.name: field.default for field in fields(SpeakerDataOptions)} | {"seed": None}
OPTIONAL |= {name: default for name, default in BATCHING.items() if name != "seed"}
KEYS = NEEDED.keys() | OPTIONAL.keys()
REOPENED = {"cache_audio": False, "noise_folder": None, "rir_folder": None}  # a run that has ended trains no more
LOSSES = ("softmax", "am", "aam")


class SpeakerBrain(shared.TaskBrain):
    """Trains and measures; see the module. Made by :func:`build`, which sets the attributes below.

    labels : tuple of str, the training speakers
    criterion : (logits (B, S), labels (B,)) -> mean loss
    averaged : epochs whose weights were averaged for evaluation, best first
    """

    tally = criterion = None
    labels = averaged = ()
    simulated = "embedding_model.encoder.model"

    def compute_forward(self, batch, stage):
        """Padded batch -> embeddings (B, E)."""
        x, lengths = self.hear_features(batch.to(self.device))
        if stage == sb.Stage.TRAIN and self.hparams.fea_augment is not None:
            x = self.hparams.fea_augment(x)
        return self.part("embedding_model")(x, lengths).squeeze(1)

    def hear_features(self, batch):
        """Normalised features (B, L, F) of a batch, and their relative lengths."""
        x, lengths = self.part("features")(*batch.sig)
        return self.part("normalize")(x, lengths, epoch=self.hparams.epoch_counter.current), lengths

    def named(self, embeddings):
        """Logits or cosines (B, S) of embeddings (B, E)."""
        return self.modules["classifier"](embeddings.unsqueeze(1)).squeeze(1)

    def compute_objectives(self, predictions, batch, stage):
        """The mean loss of a batch; counts it outside of training."""
        labels, logits = naming.labels_of(batch), self.named(predictions)
        loss = self.criterion(logits, labels)
        if stage != sb.Stage.TRAIN:
            self.tally.add(logits, labels, loss)
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Fresh counts."""
        super().on_stage_start(stage, epoch)
        self.tally = naming.Tally()

    def validated(self, stage_loss):
        """Loss, accuracy and error rate."""
        return self.tally.numbers()

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Loads the mean of the weights of the best checkpoints, ``avg_checkpoints`` of them."""
        self.check_fit()
        best = self.best_checkpoints()
        self.checkpointer.load_modules(best[0], but=["model"])
        self.checkpointer.recoverables["model"].load_state_dict(checkpoints.average(best, "model", self.device))
        self.averaged = [checkpoint.meta["epoch"] for checkpoint in best]

    @property
    def encoder(self):
        """The module that is listened to."""
        return self.parts["embedding_model"].encoder.model

    def hear(self, batch):
        """Embeds a batch, and where it belongs to the network names its speakers: frames of each utterance, and no decoder step."""
        x, lengths = self.hear_features(batch)
        embeddings = self.parts["embedding_model"](x, lengths)
        if "classifier" in self.parts:
            self.parts["classifier"](embeddings)
            operands.tell_real(self.parts["classifier"], len(x), self.parts["classifier"].weight.numel())
        return frames.absolute(lengths, x), torch.zeros(len(x))

    def cost(self, counter):
        """The energy report of what ``counter`` heard."""
        return energy.report_told(counter, "embedding_model.encoder.model.layers", "embedding_model.encoder")

    def report(self):
        """As that of every task, with the size of the encoder alone and of what only training needs, and what was averaged."""
        there = super().report()
        everything = results.parameters({**self.parts, "classifier": self.modules["classifier"]})
        encoder = sum(p.numel() for p in self.encoder.parameters())
        own = {"speakers": len(self.labels), "averaged_epochs": list(self.averaged)}
        return {**there, "parameters": {**everything, "encoder": encoder}, **own}


def check(hparams):
    """Refuses what cannot be trained.

    Raises
    ------
    RecipeError
    """
    splits.check(hparams)
    if hparams["number_of_epochs"] < 1:
        raise keys.RecipeError(f"number_of_epochs: {hparams['number_of_epochs']} trains nothing: give 1 or more")
    if hparams["avg_checkpoints"] < 1:
        raise keys.RecipeError(f"avg_checkpoints: {hparams['avg_checkpoints']} leaves nothing to evaluate: give 1 or more")
    if hparams["loss"] not in LOSSES:
        raise keys.RecipeError(f"loss: {hparams['loss']!r} is none of {', '.join(LOSSES)}")


def make_recordings(hparams, train, valid, tests, trials):
    """The utterances of a task: SpeakerRecordings, from manifests as it takes them."""
    options = {name: hparams[name] for name in BATCHING}
    for name in RANGES:
        options[name] = tuple(options[name]) if isinstance(options[name], list) else options[name]
    return SpeakerRecordings(train, valid, tests, trials, hparams["data_folder"], SpeakerDataOptions(**options))


def build(hparams, run_opts, recordings, kind, kept=("classifier",)):
    """A Brain of ``kind`` with its data; everything random in it begins with the run's seed.

    Arguments
    ---------
    hparams : dict
    run_opts : RunOptions
    recordings : SpeakerRecordings
    kind : type
        A SpeakerBrain.
    kept : tuple of str
        What of the training network belongs to the network that is reported, beside features and embedding.
    """
    seed_everything(hparams["seed"])
    embedding = keys.make("embedding_model", hparams["embedding_model"])
    width, speakers = embedding_size(embedding, hparams["features"]), len(recordings.labels)
    modules = {"features": hparams["features"], "normalize": hparams["normalize"], "embedding_model": embedding}
    softmax = hparams["loss"] == "softmax"
    modules["classifier"] = torch.nn.Linear(width, speakers) if softmax else CosineClassifier(width, out_neurons=speakers)
    own = {**hparams, **_objects(hparams)}
    saved = torch.nn.ModuleDict({name: modules[name] for name in ("embedding_model", "classifier")})
    recoverables = {"model": saved, "schedule": own["schedule"], "counter": own["epoch_counter"], "generator": SaveableGenerator()}
    if not isinstance(modules["normalize"], UtteranceNormalization):  # which has nothing to save
        recoverables["normalizer"] = modules["normalize"]
    checkpointer = checkpoints.Checkpointer(hparams["save_folder"], recoverables)
    brain = kind(modules, hparams["opt_class"], own, run_opts, checkpointer)
    brain.parts = {name: module for name, module in modules.items() if name != "classifier" or name in kept}
    brain.labels, brain.criterion = recordings.labels, make_loss(hparams)
    brain.tracked, brain.kept = naming.choice(hparams), hparams["avg_checkpoints"]
    brain.fits = {"speakers": speakers, "labels": _digest(recordings.labels), "embedding": width, "loss": hparams["loss"]}
    brain.fits["parameters"] = sum(p.numel() for p in embedding.parameters())
    brain.repair = "set the model, {name} and train_splits as in that run"
    brain.keep_history(hparams["output_folder"])
    brain.take(recordings.data())
    return brain


def make_loss(hparams):
    """(logits (B, S), labels (B,)) -> mean loss, for one of LOSSES."""
    if hparams["loss"] == "softmax":
        return torch.nn.functional.cross_entropy
    margin = keys.make("loss", SpeakerLoss, loss=hparams["loss"], margin=hparams["margin"], scale=hparams["scale"])
    return lambda cosines, labels: margin(cosines.unsqueeze(1), labels.unsqueeze(1))


def embedding_size(embedding, features):
    """Channels of an embedding, from a second of silence through copies of front end and network."""
    front, model = copy.deepcopy(features), copy.deepcopy(embedding).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neurons say that they were not trained yet
        return model(*front(torch.zeros(1, features.sample_rate))).shape[-1]


def _objects(hparams):
    """What belongs to one training alone."""
    return {
        "schedule": keys.make("schedule", hparams["schedule"]),
        "epoch_counter": EpochCounter(hparams["number_of_epochs"]),
        "train_logger": FileTrainLogger(os.path.join(hparams["output_folder"], "train_log.txt")),
    }


def _digest(labels):
    return hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16]
