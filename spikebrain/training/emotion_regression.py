"""Logistic regression on the statistics of stored features, over the same folds as :mod:`spikebrain.training.emotion`.

Nothing of it is drawn: runs of two seeds are equal, and validation utterances are left alone, so that it trains on what networks train on.
"""

from functools import partial

import torch
from speechbrain.utils.logger import get_logger

from spikebrain.baselines.statistics_regression import StatisticsRegression
from spikebrain.training import emotion, keys

logger = get_logger(__name__)

NEEDED = {"features": emotion.NEEDED["features"]}
OPTIONAL = {
    **emotion.CUT,
    "strength": 1.0,  # inverse of the penalty
    "input_norm": "none",  # or layer, as PTS-SNN normalises
    "number_of_epochs": None,  # there are none
}
KEYS = NEEDED.keys() | OPTIONAL.keys()


def train(hparams, run_opts, prepared):
    """Fits and tests every fold, and adds them up: a task's ``train``, see :mod:`spikebrain.training.run`."""
    del run_opts  # of devices and precisions: it has none
    return {**emotion.over_folds(hparams, prepared, partial(fit_fold, hparams)), "task": "emotion"}


def fit_fold(hparams, corpus, fold, folder):
    """Fits and tests one fold: its report."""
    try:
        regression = StatisticsRegression(len(corpus.labels), hparams["strength"], hparams["input_norm"])
    except ValueError as error:
        raise keys.RecipeError(str(error)) from error
    labels = {u.id: corpus.labels.index(u.label) for u in corpus.utterances}
    regression.fit([corpus.features[name] for name in fold.train], torch.tensor([labels[name] for name in fold.train]))
    confusion, named = {}, {}
    for split in ("valid", "test"):
        ids = getattr(fold, split)
        named[split] = dict(zip(ids, regression.predict([corpus.features[name] for name in ids]).tolist(), strict=True))
        confusion[split] = torch.zeros(len(corpus.labels), len(corpus.labels), dtype=torch.int64)
        for name, given in named[split].items():
            confusion[split][labels[name], given] += 1
    logger.info(f"fold {fold.name}: {int(confusion['test'].trace())} of {len(fold.test)} test utterances are right")
    number = regression.parameters
    own = {"parameters": {"total": number, "trainable": number, "by_module": {"regression": number}}}
    return emotion.conclude(hparams, corpus, fold, folder, confusion, named["test"], own)
