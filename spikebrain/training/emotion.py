"""Emotion recognition on stored features, over folds.

A corpus is cut into folds (:mod:`spikebrain.data.folds`); in each a network is trained on its own, its checkpoint chosen on the
fold's validation utterances, and its test utterances named once. Reported are weighted and unweighted accuracy and weighted F1 as
means over folds, their spread, and those of the confusion matrix of all folds together.

Features are extracted once an utterance and kept (:mod:`spikebrain.data.feature_cache`); what normalises them is learned from a
fold's training utterances alone. A run that was killed goes on in the fold, and from the epoch, that it was in. With ``jobs`` folds
are trained side by side, each by this same command with ``--fold``.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

from spikebrain import plots
from spikebrain.data import duplicates, folds, manifest
from spikebrain.data.classification import ClassData, EncodeLabel
from spikebrain.data.emotion import COLUMNS
from spikebrain.data.feature_cache import FeatureCache, channel_statistics
from spikebrain.lobes.stored import StoredFeatures
from spikebrain.training import calibration, classify, hooks, keys, metrics, naming, predictions, results
from spikebrain.training.classify import Classifier, Course

logger = get_logger(__name__)

NEEDED = {
    "features": "an extractor, such as spikebrain.lobes.utterance_features.Fbank",
    "classifier": "!name: of spikebrain.lobes.RateClassifier, or what is built alike, that lacks only input_size and classes",
    "loss": "!name: of a loss of logits (B, K) and labels (B,), such as spikebrain.learning.losses.focal_label_smoothing_loss",
    "number_of_epochs": "of training, in each fold",
    "opt_class": "an optimizer that lacks only the parameters",
    "schedule": "!name: of a learning-rate schedule, called with the optimizer before each update",
}
# What is cut, and into what: of whatever is trained fold by fold.
CUT = {
    "train_splits": (folds.SPLIT,),  # what is cut into folds
    "fold_protocol": "paper",  # or random, speaker: see spikebrain.data.folds
    "fold_count": None,  # how many, where the protocol leaves it open
    "partition": 0,  # another number, other folds; the run's seed changes training only
    "fold": None,  # a list of names: these folds alone
    "jobs": 1,  # folds that are trained side by side
    "cache_folder": None,  # of extracted features; beside the output folder where it is not given
    "min_seconds": 0.0,  # shorter utterances are refused
    "max_seconds": None,  # longer ones are cropped
}
OPTIONAL = {
    **CUT,
    "normalise": "global",  # by mean and deviation of a fold's training utterances; or none
    "batch_size": 32,
    "eval_batch_size": 64,
    "gains": (),  # of features, at which a trained and an untrained network are looked at
    "report_max_test": False,  # look at the test utterances after each epoch, and report the best of them too
    "firing_by_epoch": (),
    "extra_loggers": (),
}
KEYS = NEEDED.keys() | OPTIONAL.keys()
REOPENED = {}
NORMALISATIONS = ("global", "none")
_OF_THE_FIRST = ("parameters", "firing_rate", "energy", "hardware")  # of results.json: numbers of the first fold
# Where and how folds are computed, and what they are filed under: nothing that changes their numbers.
_ASIDE = """output_folder save_folder data_folder synthetic_folder synthetic_options cache_folder fold jobs invoked_as protocol
extra_loggers""".split()
_ONCE = (*_OF_THE_FIRST, "calibration")  # in the results of the run, not again in each of several folds
# What classify.build and its Brain read, and folds do not leave open.
_FIXED = {"dev_splits": ("valid",), "test_splits": ("test",), "augment": None, "paper_padding": False}


class Emotion(Classifier):
    """A Classifier of whole utterances, whose network answers once.

    named : dict, id of an utterance -> number of the class that it was given, of what was evaluated last
    """

    named = {}

    def vote(self, classifier, x, lengths):
        """Features (B, L, C) -> logits (B, K)."""
        return classifier(x, lengths)

    def compute_objectives(self, predictions, batch, stage):
        """The recipe's loss of a batch; counts it outside of training."""
        labels = naming.labels_of(batch)
        loss = self.hparams.loss(predictions, labels)
        if stage != sb.Stage.TRAIN:
            self.tally.add(predictions, labels, loss)
            self.named |= dict(zip(batch.id, predictions.argmax(-1).tolist(), strict=True))
        return loss

    def on_stage_start(self, stage, epoch=None):
        """Fresh counts."""
        super().on_stage_start(stage, epoch)
        self.named = {}

    def validated(self, stage_loss):
        """Loss, WA, UA and WF1, and the error rate by which checkpoints are chosen, 100 - WA."""
        found = metrics.report(self.tally.confusion)
        return {"loss": self.tally.loss, **found, "error": 100 - found["WA"]}


class ReadStored:
    """Id of an utterance -> its features, Tensor (L, C), from memory."""

    def __init__(self, features):
        self.features = features

    def __call__(self, name):
        return self.features[name]


class Corpus:
    """The utterances of a corpus with their features.

    Arguments
    ---------
    utterances : list of Utterance
    features : dict
        Id -> Tensor (L, C).
    extractor : object
        What made them: ``channels`` and ``frames_per_second``.
    labels : tuple of str
    """

    def __init__(self, utterances, features, extractor, labels):
        self.utterances, self.features, self.extractor, self.labels = utterances, features, extractor, labels

    def front_end(self, fold, normalise):
        """The StoredFeatures of a fold."""
        mean, std = None, None
        if normalise == "global":
            mean, std, _ = channel_statistics(self.features[name] for name in fold.train)
        return StoredFeatures(self.extractor.channels, self.extractor.frames_per_second, mean, std)

    def data(self, fold, options, seed):
        """The ClassData of a fold; ``options`` are the sizes of batches, ``seed`` is that of their order."""
        generator = torch.Generator().manual_seed(seed)
        names = {"train": fold.train, "valid": fold.valid, "test": fold.test}
        sets = {split: self._dataset(chosen) if chosen else None for split, chosen in names.items()}
        return ClassData(
            train=sets["train"],
            valid=sets["valid"],
            tests={split: sets[split] for split in ("valid", "test") if sets[split] is not None},
            train_loader={"batch_size": options["batch_size"], "shuffle": True, "generator": generator},
            eval_loader={"batch_size": options["eval_batch_size"], "generator": torch.Generator()},
            generator=generator,
        )

    def _dataset(self, names):
        chosen = set(names)
        data = {u.id: {"name": u.id, "label": u.label} for u in self.utterances if u.id in chosen}
        reading = provides("sig")(takes("name")(ReadStored(self.features)))
        encode = provides("label_encoded")(takes("label")(EncodeLabel(self.labels)))
        return DynamicItemDataset(data, [reading, encode], ["id", "sig", "label_encoded"])


def train(hparams, run_opts, prepared):
    """Trains and tests every fold, and adds them up: a task's ``train``, see :mod:`spikebrain.training.run`."""
    check(hparams)
    return over_folds(hparams, prepared, partial(train_fold, hparams, run_opts))


def over_folds(hparams, prepared, train_one):
    """Whatever is trained fold by fold: the task's part of ``results.json``.

    Arguments
    ---------
    hparams : dict
        With the keys of ``CUT``, ``model``, ``seed`` and ``number_of_epochs``.
    prepared : Preparation
    train_one : callable
        (Corpus, Fold, folder) -> the fold's report: see :func:`train_fold`.
    """
    if hparams["jobs"] < 1:
        raise keys.RecipeError(f"jobs: {hparams['jobs']} trains nothing: give 1 or more")
    cut = _cut(hparams, prepared)
    chosen = _chosen(cut.plan, hparams["fold"])
    if hparams["jobs"] > 1 and len(chosen) > 1:
        _side_by_side(hparams, chosen)
    corpus = None
    reports = {}
    for fold in chosen:
        reports[fold.name] = _ended(hparams, fold, len(chosen))
        if reports[fold.name] is None:
            corpus = corpus or _load(hparams, prepared, cut)
            reports[fold.name] = train_one(corpus, fold, _folder(hparams, fold, len(chosen)))
    together = _together(hparams, chosen, list(reports.values()), _leaks(cut.plan, cut.utterances, hparams["data_folder"]))
    return {**together, "left_out": cut.left_out}


def reopen(hparams, run_opts, prepared):
    """The Brain of one fold of a run that has ended, with its best weights: a task's ``reopen``, see :mod:`spikebrain.training.run`.

    It is the first that ``hparams["fold"]`` names, or the first of all.
    """
    check(hparams)
    cut = _cut(hparams, prepared)
    fold = _chosen(cut.plan, hparams["fold"])[0]
    several = _folder(hparams, fold, len(cut.plan))
    folder = several if os.path.isdir(several) else _folder(hparams, fold, 1)
    brain = _made(hparams, run_opts, _load(hparams, prepared, cut), fold, folder)
    brain.on_evaluate_start()
    return brain


def check(hparams):
    """Refuses what cannot be trained.

    Raises
    ------
    RecipeError
    """
    if hparams["normalise"] not in NORMALISATIONS:
        raise keys.RecipeError(f"normalise: {hparams['normalise']!r} is none of {', '.join(NORMALISATIONS)}")
    for name in ("number_of_epochs", "batch_size", "eval_batch_size"):
        if hparams[name] < 1:
            raise keys.RecipeError(f"{name}: {hparams[name]} trains nothing: give 1 or more")
    if any(not gain > 0 for gain in hparams["gains"]):
        raise keys.RecipeError(f"gains: {list(hparams['gains'])}: give numbers above 0")


def train_fold(hparams, run_opts, corpus, fold, folder):
    """Trains and tests one fold: its report, which is also written into ``folder`` as ``results.json``."""
    for note in fold.notes:
        logger.warning(f"fold {fold.name}: {note}")
    brain = _made(hparams, run_opts, corpus, fold, folder)
    before = calibration.measure(brain, hparams["gains"])
    brain.learn()
    tallies, named = {}, {}
    for split, dataset in brain.data.tests.items():
        tallies[split] = classify.evaluate(brain, split, dataset)
        named[split] = dict(brain.named)  # measuring again adds to it
    own = {"best_epoch": brain.best_epoch, **classify.highest(brain), **brain.report()}
    if hparams["gains"]:
        own["calibration"] = {"untrained": before, "trained": calibration.measure(brain, hparams["gains"])}
    return conclude(hparams, corpus, fold, folder, {split: tally.confusion for split, tally in tallies.items()}, named["test"], own)


def _made(hparams, run_opts, corpus, fold, folder):
    """The Brain of a fold, ready to fit or evaluate."""
    stored = corpus.front_end(fold, hparams["normalise"])
    own = {**hparams, **_FIXED, "features": lambda frames: stored}
    course = Course(stored.frames, hparams["number_of_epochs"], hparams["schedule"], folder, os.path.join(folder, "save"))
    brain = classify.build(own, run_opts, corpus, course, Emotion)
    brain.fits["fold"] = fold.digest
    brain.take(corpus.data(fold, hparams, hparams["seed"]))
    return brain


def conclude(hparams, corpus, fold, folder, confusion, named, own):
    """The report of a fold, also written into ``folder`` as ``results.json``, beside the class that every test utterance was given.

    Arguments
    ---------
    confusion : dict
        Split -> Tensor (K, K).
    named : dict
        Id of each test utterance -> number of the class it was given.
    own : dict
        What else the report holds.
    """
    report = {
        **_asked(hparams, fold),
        "sizes": {split: len(getattr(fold, split)) for split in ("train", "valid", "test")},
        "notes": list(fold.notes),
        "metrics": {split: metrics.report(counts) for split, counts in confusion.items()},
        "confusion": {split: counts.tolist() for split, counts in confusion.items()},
        "labels": list(corpus.labels),
        **own,
    }
    if if_main_process():
        known = {u.id: u for u in corpus.utterances}
        given = [(known[name], corpus.labels[number]) for name, number in sorted(named.items())]
        predictions.write(folder, [predictions.Prediction(fold.name, u.id, u.speaker, u.label, label) for u, label in given])
        results.write(folder, {"folds": [report]})
    return report


def _leaks(plan, utterances, data_folder):
    """Fold -> pairs of recordings that share audio of which it tests one and has the other in training, plain values; warned of."""
    found = duplicates.leaks(plan, duplicates.find(utterances, data_folder))
    for name, pairs in found.items():
        such = f"such as {pairs[0].first} and {pairs[0].second}"
        logger.warning(f"fold {name}: {len(pairs)} of its test recordings share audio with others, {such}")
    return {name: [list(pair) for pair in pairs] for name, pairs in found.items()}


# Which folds, where, and what of them is there already.


class _Cut(NamedTuple):
    """utterances, and rooted, the same with whole paths; cache of their features; plan, their folds; left_out, ids without features."""

    utterances: list
    rooted: list
    cache: object
    plan: list
    left_out: list


def _cut(hparams, prepared):
    utterances = [u for split in hparams["train_splits"] for u in manifest.read(prepared.manifests[split], COLUMNS)]
    how = [prepared.settings["folds"], *(hparams[name] for name in ("fold_protocol", "fold_count", "partition"))]
    plan = folds.make(utterances, *how)
    _chosen(plan, hparams["fold"])  # refuses a fold that is not there before features are made
    cache = _cache(hparams)
    rooted = [manifest.rooted(u, hparams["data_folder"]) for u in utterances]
    left_out = _fill(cache, rooted, hparams["skip_bad_audio"])
    if left_out:
        utterances, rooted = ([u for u in found if u.id not in left_out] for found in (utterances, rooted))
        plan = folds.make(utterances, *how)
    return _Cut(utterances, rooted, cache, plan, left_out)


def _chosen(plan, names):
    if names is None:
        return plan
    there = {fold.name: fold for fold in plan}
    names = [str(name) for name in (names if isinstance(names, (list, tuple)) else [names])]
    for name in names:
        if name not in there:
            raise keys.RecipeError(f"fold: there is no {name!r}; there are {', '.join(there)}")
    return [there[name] for name in names]


def _folder(hparams, fold, number):
    """A run of one fold is that fold's; a run of several has a folder for each."""
    return hparams["output_folder"] if number == 1 else os.path.join(hparams["output_folder"], f"fold-{fold.name}")


def _asked(hparams, fold):
    """What a fold's report says of what was asked, by which it is known again."""
    asked = {name: hparams[name] for name in ("model", "seed", "number_of_epochs")}
    return {"fold": fold.name, "digest": fold.digest, "settings": _settings(hparams), **asked}


def _settings(hparams):
    """SHA-256 of all settings but those of ``_ASIDE``, 16 digits: a fold that was trained with others is trained again."""
    said = {name: _said(value) for name, value in hparams.items() if name not in _ASIDE}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _said(value):
    """A setting as plain values: of an extractor what it does, of other objects what they are, of factories their arguments too."""
    if isinstance(value, dict):
        return {str(name): _said(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_said(one) for one in value]
    if isinstance(value, partial):
        return [_said(value.func), _said(value.args), _said(value.keywords)]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return getattr(value, "fingerprint", None) or getattr(value, "__qualname__", None) or type(value).__qualname__


def _ended(hparams, fold, number):
    """The report of a fold that has been trained before, as it is asked for now; else None."""
    path = os.path.join(_folder(hparams, fold, number), results.FILE)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    # A fold that was a run of its own has what is said once a run beside it.
    report = {name: run[name] for name in _OF_THE_FIRST if name in run} | run["folds"][0]
    return report if _asked(hparams, fold).items() <= report.items() else None


def _cache(hparams):
    """What features are read from: a cache of what the extractor makes, or files that are there, which can be ``limited``."""
    features, limits = hparams["features"], (hparams["min_seconds"], hparams["max_seconds"])
    if hasattr(features, "limited"):  # the face of the cache without its keeping: see Emotion2VecFiles
        return features.limited(*limits)
    folder = hparams["cache_folder"] or os.path.join(os.path.dirname(hparams["output_folder"]), "features")
    return FeatureCache(folder, features, *limits, hparams["data_folder"])


def _fill(cache, utterances, skip_bad_audio):
    """Has all features there; returns the ids of utterances that have none, and are left out of the folds."""
    left_out = sorted(item.id for item in run_on_main(cache.fill, args=[utterances, skip_bad_audio]).skipped)
    if left_out:
        logger.warning(f"{len(left_out)} of {len(utterances)} utterances are left out of all folds: {', '.join(left_out)}")
    return left_out


def _load(hparams, prepared, cut):
    labels = tuple(prepared.settings.get("classes") or sorted({u.label for u in cut.rooted}))
    features = {u.id: cut.cache.get(u.wav, u.start, u.duration) for u in cut.rooted}
    return Corpus(cut.rooted, features, hparams["features"], labels)


def _side_by_side(hparams, chosen):
    """Trains the folds that are missing, ``jobs`` at a time, each by this run's own command."""
    missing = [fold for fold in chosen if _ended(hparams, fold, len(chosen)) is None]
    with ThreadPoolExecutor(hparams["jobs"]) as pool:
        list(pool.map(lambda fold: _train_elsewhere(hparams, fold, _folder(hparams, fold, len(chosen))), missing))


def _train_elsewhere(hparams, fold, folder):
    changes = {"fold": f"[{fold.name}]", "jobs": 1, "output_folder": folder, "data_folder": hparams["data_folder"]}
    changes["cache_folder"] = _cache(hparams).folder
    script, *argv = hparams["invoked_as"]
    kept = [word for word in argv if word.lstrip("-").partition("=")[0] not in changes]
    command = [sys.executable, script, *kept, *(f"--{name}={value}" for name, value in changes.items())]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "output.txt"), "w", encoding="utf-8") as log:
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if ended.returncode:
        raise keys.RecipeError(f"fold {fold.name} ended with status {ended.returncode}: {log.name} says why; run again to go on")


# All folds together.


def _together(hparams, chosen, reports, leaking):
    """The task's part of ``results.json``; writes what was said of every test utterance, and draws."""
    first = reports[0]
    pooled = {split: sum(torch.tensor(r["confusion"][split]) for r in reports if split in r["confusion"]) for split in ("valid", "test")}
    values = {name: [r["metrics"]["test"][name] for r in reports] for name in ("WA", "UA", "WF1")}
    report = {
        "metrics": {"test": {name: statistics.mean(v) for name, v in values.items()}},
        "spread": {"test": {name: statistics.stdev(v) if len(v) > 1 else None for name, v in values.items()}},
        "pooled": {split: metrics.report(counts) for split, counts in pooled.items()},
        "confusion": {split: counts.tolist() for split, counts in pooled.items()},
        "labels": first["labels"],
        "cut": {name: hparams[f"fold_{name}"] for name in ("protocol", "count")} | {"partition": hparams["partition"]},
        "leaks": leaking,
        "folds": [{k: v for k, v in r.items() if k not in _ONCE or (k == "calibration" and len(reports) == 1)} for r in reports],
        # Of the first fold: parameters are those of every fold, the others differ a little.
        **{name: first[name] for name in _OF_THE_FIRST if name in first},
    }
    if all("calibration" in r for r in reports):
        report["calibration"] = calibration.together(reports)
    if if_main_process():
        if len(chosen) > 1:
            each = [predictions.read(_folder(hparams, fold, len(chosen))) for fold in chosen]
            predictions.write(hparams["output_folder"], [prediction for fold in each for prediction in fold])
        hooks.draw(hparams["output_folder"], _pictures(hparams, report))
    return report


def _pictures(hparams, report):
    """Name -> what draws it."""
    title = f"{hparams['model']}, {len(report['folds'])} folds"
    pictures = {"confusion": lambda: plots.confusion(report["confusion"]["test"], report["labels"], title)}
    if "calibration" in report:
        pictures["neuron_health"] = lambda: plots.neuron_health({hparams["model"]: report["calibration"]})
    return pictures
