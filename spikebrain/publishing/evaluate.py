"""A published network on the corpus that its card reports: the same splits, heard by the bundle alone.

    for found in evaluate.evaluate("bundle", "/path/to/corpus"):
        print(found)

The corpus's own preparer reads the folder, with the settings that the bundle's ``results.json`` names, and every recording goes through
:mod:`spikebrain.publishing.use`, as a user's would: silence is answered without the network, and words are searched utterance by utterance.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from speechbrain.utils.metric_stats import ErrorRateStats

from spikebrain.data import corpora, manifest
from spikebrain.data import trials as lists
from spikebrain.publishing import contents, use
from spikebrain.publishing.contents import JSON
from spikebrain.publishing.load import load, located
from spikebrain.publishing.parts import BundleError
from spikebrain.publishing.recordings import Recording, Samples
from spikebrain.spelling import did_you_mean
from spikebrain.training import asr, scoring, verify

RESULTS = "results.json"
GROUP = 64  # recordings that are held at once


@dataclass(frozen=True)
class Found:
    """One number.

    split, metric : what it is of
    value : percent, or a cost from 0 to 1
    card : the same in the bundle's ``results.json``
    utterances : how many were heard
    """

    split: str
    metric: str
    value: float
    card: float
    utterances: int

    def __str__(self):
        same = "as on its card" if self.value == self.card else f"{self.card:.4f} on its card"
        return f"{self.split}: {self.metric} {self.value:.4f}, {same} ({self.utterances} utterances)"


@dataclass(frozen=True)
class Task:
    """How a task is evaluated.

    columns : of its manifests
    metrics : those that a bundle can be asked for
    measure : (model, groups of utterances, their trials or None, folder) -> metric -> value
    trials : whether splits are lists of trials
    """

    columns: dict
    metrics: tuple
    measure: Callable
    trials: bool = False


def evaluate(folder, data_folder, splits=None):
    """Measures a bundle on the splits that its ``results.json`` reports.

    Arguments
    ---------
    folder : str or Path
        The bundle, or owner/name on the hub.
    data_folder : str or Path
        The corpus, as its recipe reads it.
    splits : list of str, optional
        Of those that the results report.

    Returns
    -------
    list of Found

    Raises
    ------
    BundleError
        No results, no such split, or a network that hears no audio.
    DataError
        As the corpus's preparer.
    """
    folder = located(folder)
    model = load(folder)
    if model.sample_rate is None:
        raise BundleError(f"{folder}: hears spikes of a cochlea, and recordings are evaluated: run its recipe with --test_only")
    if RESULTS not in model.config["files"]:
        raise BundleError(f"{folder}: holds no {RESULTS} that could be compared with")
    task, results = TASKS[model.task], _results(folder, model.config)
    reported = {name: own for name, own in results["metrics"].items() if set(own) & set(task.metrics)}
    if not reported:
        raise BundleError(f"{folder / RESULTS}: reports none of {', '.join(task.metrics)}, which a network for {model.task} is asked for")
    chosen = _chosen(splits, reported, folder)
    with tempfile.TemporaryDirectory() as place:
        prepared = results["corpus"].prepare(str(data_folder), place, chosen, **results["settings"])
        return [one for split in chosen for one in _measured(model, task, prepared, data_folder, split, reported[split])]


def _results(folder, config):
    """``results.json`` of a bundle, with no more in it than is asked of it."""
    file = folder / RESULTS
    found = contents.parse(contents.read_file(folder, config, RESULTS, JSON), file)
    known = corpora.by_name()
    corpus, metrics = (found.get(key) if type(found) is dict else None for key in ("corpus", "metrics"))
    if type(corpus) is not str or corpus not in known:
        raise BundleError(f"{file}: its corpus is {str(corpus)[:80]!r}, which is none of {', '.join(known)}")
    plain = type(metrics) is dict and all(type(own) is dict for own in metrics.values())
    if not plain or not all(type(value) in (int, float) for own in metrics.values() for value in own.values()):
        raise BundleError(f"{file}: its metrics are no numbers by split and name")
    data = found.get("data")
    settings = data.get("settings", {}) if type(data) is dict else {}
    options = getattr(known[corpus], "OPTIONS", {})
    return {"corpus": known[corpus], "metrics": metrics, "settings": {name: settings[name] for name in options if name in settings}}


def _chosen(splits, reported, folder):
    for name in splits or ():
        if name not in reported:
            raise BundleError(f"{folder}: {RESULTS} has no {name}{did_you_mean(name, reported)}: choose among {', '.join(reported)}")
    return list(splits or reported)


def _measured(model, task, prepared, data_folder, split, card):
    """Found of every metric of a split."""
    utterances = manifest.read(prepared.manifests[split], task.columns)
    trials = None
    if task.trials:
        trials = verify.read_trials({"test_splits": [split], "data_folder": str(data_folder)}, prepared)[split]
        named = {lists.utterance_id(path) for path in lists.utterances(trials)}
        utterances = [one for one in utterances if one.id in named]
    found = task.measure(model, _groups(utterances, data_folder, model.sample_rate), trials)
    return [Found(split, name, value, card[name], len(utterances)) for name, value in found.items() if name in card]


def _groups(utterances, data_folder, rate):
    """(utterances, their samples at ``rate``) in groups, the shortest first."""
    utterances = sorted(utterances, key=lambda one: one.duration)
    for first in range(0, len(utterances), GROUP):
        group = utterances[first : first + GROUP]
        yield group, [_samples(os.path.join(data_folder, one.wav), one, rate) for one in group]


def _samples(path, utterance, rate):
    recording = Recording(path, utterance.id, rate)
    count = min(round(utterance.duration * recording.rate), recording.samples - utterance.start)
    return Samples(recording.mono(utterance.start, count), rate, utterance.id)


def _error_rate(model, groups, trials):
    name, errors = model.decoding["error_rate"], ErrorRateStats()
    units = asr.UNITS[name]
    for group, wavs in groups:
        texts = use.transcribe(model, wavs)
        errors.append([one.id for one in group], [units(text) for text in texts], [units(one.text) for one in group])
    return {name: errors.summarize("error_rate")}


def _accuracy(model, groups, trials):
    right = [named.label == one.label for group, wavs in groups for one, named in zip(group, use.classify(model, wavs), strict=True)]
    return {"accuracy": 100 * sum(right) / len(right)}


def _detection(model, groups, trials):
    if model.decoding["score_norm"] != "none":  # before anything is heard
        how = f"score_norm: {model.decoding['score_norm']}, against a cohort of training speakers"
        raise BundleError(f"the trials of its card were scored with {how}, which no bundle holds: run its recipe with --test_only")
    found = {one.id: embedding for group, wavs in groups for one, embedding in zip(group, use.embed(model, wavs), strict=True)}
    rows = {name: row for row, name in enumerate(found)}
    vectors = torch.stack(list(found.values()))
    mean = vectors.double().mean(0) if model.decoding["subtract_mean"] == "test" else model.centre
    vectors = scoring.unit(vectors, mean)
    enrol, test = ([rows[lists.utterance_id(path)] for path in side] for side in zip(*((t.enrol, t.test) for t in trials), strict=True))
    return verify.metrics_of(scoring.Curve.of(scoring.cosines(vectors[enrol], vectors[test]), torch.tensor([t.same for t in trials])))


TASKS = {
    "asr": Task(manifest.SPEECH_COLUMNS, ("WER", "CER"), _error_rate),
    "classify": Task(manifest.CLASS_COLUMNS, ("accuracy",), _accuracy),
    "identify": Task(manifest.CLASS_COLUMNS, ("accuracy",), _accuracy),
    "verify": Task(manifest.CLASS_COLUMNS, ("EER", "minDCF", "minDCF_0.05"), _detection, trials=True),
}
