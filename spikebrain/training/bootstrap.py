"""How sure the difference of two models is: a paired bootstrap over speakers.

Utterances of one speaker are right or wrong together, more so in emotions, so that a corpus of a few speakers has fewer independent
answers than utterances. Speakers, not utterances, are therefore drawn with replacement, as many as there are, and the accuracies
of every model are taken over all utterances of those drawn, of one drawn twice twice. The same draw serves all models: what the voices
of a draw do to all of them alike falls out of their differences. An interval holds the middle 95 % of draws.

Sources: B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7, 1979 (percentiles of resampled data); M. Bisani,
H. Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004 (two systems on the same draws).
"""

import json
import os
from collections import Counter
from dataclasses import dataclass

import torch

from spikebrain.data.manifest import DataError
from spikebrain.training import predictions, results

LEVEL = 0.95  # share of draws that an interval holds
METRICS = ("WA", "UA")  # as spikebrain.training.metrics has them


@dataclass(frozen=True)
class Counts:
    """What models, of one or more runs each, named of the same utterances.

    models : names
    runs : Tensor (M,), runs of each
    speakers : their names, sorted
    right : Tensor (M, S, K) of utterances that are right, by speaker and true class, summed over runs
    tested : Tensor (S, K) of utterances

    Counts are whole numbers in float64, whose sums are exact.
    """

    models: tuple
    runs: torch.Tensor
    speakers: tuple
    right: torch.Tensor
    tested: torch.Tensor

    def without(self, speakers):
        """The same without some speakers. DataError for an unknown one, and where fewer than two are left."""
        for speaker in speakers:
            if speaker not in self.speakers:
                raise DataError(f"{speaker}: is no speaker that is tested; there are {', '.join(self.speakers)}")
        kept = [place for place, speaker in enumerate(self.speakers) if speaker not in speakers]
        if len(kept) < 2:
            raise DataError(f"{len(kept)} of {len(self.speakers)} speakers are left: a draw of speakers needs 2 or more")
        return Counts(self.models, self.runs, tuple(self.speakers[place] for place in kept), self.right[:, kept], self.tested[kept])


def read(folders):
    """The predictions of runs over folds, by model.

    Arguments
    ---------
    folders : list of path
        Output folders of runs that have ended.

    Returns
    -------
    dict
        Name of a model -> list of runs, each a list of Prediction. Models are in the order of their first run.

    Raises
    ------
    DataError
        A folder without results or predictions, one that is named twice, or runs that were not tested alike: of one corpus and fold
        protocol, and each model on the same partitions.
    """
    models, cuts, seen = {}, {}, set()
    for folder in folders:
        run, place = _results(folder), os.path.realpath(folder)
        if place in seen:
            raise DataError(f"{folder}: is named twice: name each run once")
        seen.add(place)
        models.setdefault(run["model"], []).append(predictions.read(folder))
        cuts.setdefault(run["model"], set()).add(_cut(run))
    _cut_alike(cuts)
    return models


def said(folders):
    """What the runs in ``folders`` say of themselves: a list of dicts with corpus, model, protocol, partition, seed and commit."""
    runs = map(_results, folders)
    keys = ("corpus", "model", "protocol", "seed", "commit")
    return [{**{key: run.get(key) for key in keys}, "partition": run["cut"]["partition"]} for run in runs]


def count(models):
    """The Counts of models.

    Arguments
    ---------
    models : mapping
        Name -> list of runs, each a list with ``id``, ``speaker``, ``label`` and ``predicted``, such as Prediction.

    Raises
    ------
    DataError
        Runs did not all test the same utterances, each once, or do not agree on their speakers and labels; or there are fewer than
        two speakers.
    """
    runs = [(name, run) for name, own in models.items() for run in own]
    known = _known(*runs[0])
    for name, run in runs[1:]:
        _agree(runs[0][0], known, name, _known(name, run))
    speakers, labels = (tuple(sorted(set(column))) for column in zip(*known.values()))
    tested = torch.zeros(len(speakers), len(labels), dtype=torch.float64)
    for speaker, label in known.values():
        tested[speakers.index(speaker), labels.index(label)] += 1
    right = torch.zeros(len(models), *tested.shape, dtype=torch.float64)
    for place, name in enumerate(models):
        correct = Counter((p.speaker, p.label) for run in models[name] for p in run if p.predicted == p.label)
        for (speaker, label), number in correct.items():
            right[place, speakers.index(speaker), labels.index(label)] = number
    number = torch.tensor([len(own) for own in models.values()], dtype=torch.float64)
    return Counts(tuple(models), number, speakers, right, tested).without(())


def resample(speakers, draws, seed):
    """How often each speaker is in each draw: Tensor (draws, speakers), float64, rows add up to ``speakers``."""
    drawn = torch.randint(speakers, (draws, speakers), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, speakers, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))


def scores(counts, weights):
    """WA and UA of all utterances together, in percent, of every model in every draw.

    Over several runs of a model they are means, since all runs test the same utterances. A class that a draw lacks has no part in UA.

    Arguments
    ---------
    counts : Counts
    weights : Tensor (D, S)
        As of :func:`resample`.

    Returns
    -------
    dict
        ``{"WA": Tensor (M, D), "UA": Tensor (M, D)}``.
    """
    right, tested = torch.einsum("ds,msk->mdk", weights, counts.right), weights @ counts.tested
    tested = counts.runs[:, None, None] * tested
    recall = torch.where(tested > 0, right / tested.clamp(min=1), 0)
    return {"WA": 100 * right.sum(-1) / tested.sum(-1), "UA": 100 * recall.sum(-1) / (tested > 0).sum(-1)}


def compare(counts, draws=10_000, seed=0):
    """Every model's WA and UA, and by how much the first model differs from each other one.

    Arguments
    ---------
    counts : Counts
    draws, seed : int

    Returns
    -------
    dict
        ``speakers`` and ``utterances``, their numbers; ``models``: name -> ``runs`` and for each metric ``value``, ``low`` and ``high``,
        in percent; ``differences``: a list with the names ``first`` and ``second`` and the same of first - second, in points.

    Raises
    ------
    DataError
        No draws.
    """
    if draws < 1:
        raise DataError(f"draws: {draws}: give 1 or more; 10000 place the ends of an interval well")
    value = scores(counts, torch.ones(1, len(counts.speakers), dtype=torch.float64))
    drawn = scores(counts, resample(len(counts.speakers), draws, seed))
    models = {name: {"runs": int(runs)} for name, runs in zip(counts.models, counts.runs)}
    for place, name in enumerate(counts.models):
        models[name] |= {metric: _interval(value[metric][place], drawn[metric][place]) for metric in METRICS}
    first, *others = counts.models
    differences = [{"first": first, "second": name} for name in others]
    for place, difference in enumerate(differences, 1):
        difference |= {metric: _interval(*(of[metric][0] - of[metric][place] for of in (value, drawn))) for metric in METRICS}
    return {"speakers": len(counts.speakers), "utterances": int(counts.tested.sum()), "models": models, "differences": differences}


def _interval(value, drawn):
    low, high = torch.quantile(drawn, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return {"value": value.item(), "low": low, "high": high}


def _known(name, run):
    """Id -> (speaker, label) of a run's utterances."""
    known = {p.id: (p.speaker, p.label) for p in run}
    if len(known) < len(run):
        twice = next(name for name, number in Counter(p.id for p in run).items() if number > 1)
        raise DataError(f"a run of {name} tested {twice} more than once ({len(run)} predictions of {len(known)} utterances): run it again")
    if not known:
        raise DataError(f"a run of {name} has no predictions: run it again")
    return known


def _agree(first, known, name, other):
    strange = sorted(id for id in known.keys() | other.keys() if known.get(id) != other.get(id))
    if strange:
        sizes = f"a run of {first} with {len(known)} utterances and one of {name} with {len(other)}"
        where = f"{len(strange)} are in one only or have another speaker or label, the first is {strange[0]}"
        raise DataError(f"{sizes} did not test the same: {where}: compare runs of one corpus, over all folds")


def _results(folder):
    path = os.path.join(folder, results.FILE)
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file: name the output_folder of a run that has ended")
    with open(path, encoding="utf-8") as file:
        run = json.load(file)
    if "cut" not in run:
        raise DataError(f"{path}: task {run.get('task')} is not tested over folds: name runs of emotion recipes")
    return run


def _cut(run):
    """(corpus and protocol, partition, folds) by which runs are compared."""
    cut = run["cut"]
    return f"{run['corpus']}, {cut['protocol']}", cut["partition"], tuple((fold["fold"], fold["digest"]) for fold in run["folds"])


def _cut_alike(cuts):
    """Refuses what does not belong together, of name of a model -> set of what :func:`_cut` gives."""
    protocols = sorted({protocol for own in cuts.values() for protocol, *_ in own})
    if len(protocols) > 1:
        raise DataError(f"runs are of {len(protocols)} protocols, {' and '.join(protocols)}: name runs of one corpus and fold_protocol")
    (first, cut), *others = cuts.items()
    for name, other in others:
        if other != cut:
            told = (f"{model} on partitions {sorted(number for _, number, _ in own)}" for model, own in ((first, cut), (name, other)))
            raise DataError(f"{' and '.join(told)} were not tested on the same folds: name runs of the same partitions of each model")
