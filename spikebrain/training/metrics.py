"""What emotion recognition reports, from a confusion matrix (K, K): rows are the true class, columns the named one. All in percent.

Names are the field's, which turn the plain ones around: *weighted* accuracy is the share of utterances that are right, so that
classes weigh as much as they have utterances; *unweighted* accuracy is the mean recall, each class alike.
"""

import torch


def report(confusion):
    """``{"WA": ..., "UA": ..., "WF1": ...}`` of a confusion matrix, Tensor (K, K) of counts, at least one of them above 0."""
    return {"WA": weighted_accuracy(confusion), "UA": unweighted_accuracy(confusion), "WF1": weighted_f1(confusion)}


def weighted_accuracy(confusion):
    """Utterances that are right."""
    return 100 * int(confusion.trace()) / int(confusion.sum())


def unweighted_accuracy(confusion):
    """Mean recall of the classes that occur; one that has no utterance has no recall."""
    there = confusion.sum(1) > 0
    return 100 * float((confusion.diagonal()[there].double() / confusion.sum(1)[there]).mean())


def weighted_f1(confusion):
    """Mean F1 of the classes, each weighing as much as it has utterances; that of a class never named and never true is 0."""
    true, named, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    f1 = 2 * right.double() / (true + named).clamp(min=1)
    return 100 * float((f1 * true).sum() / true.sum())


def missing(confusion):
    """Places of the classes that have no utterance."""
    return torch.nonzero(confusion.sum(1) == 0).flatten().tolist()
