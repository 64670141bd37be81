"""Which splits a run trains on, chooses its checkpoints by, reports and listens to."""

from spikebrain.training.keys import RecipeError


def check(hparams):
    """Refuses a recipe that trains on nothing.

    Raises
    ------
    RecipeError
    """
    if not hparams["train_splits"]:
        raise RecipeError("train_splits: is empty: name at least one split, or use --test_only with the splits of the training run")


def manifests(hparams, prepared):
    """Where the utterances of a recipe's splits are written.

    Arguments
    ---------
    hparams : dict
        ``train_splits``, ``dev_splits`` and ``test_splits``.
    prepared : Preparation

    Returns
    -------
    (train, valid, reported)
        Paths of the training manifests, a list; that of the first dev split, which chooses the checkpoints, a list of one or none; and
        split -> path of every dev and test split.
    """
    dev = list(hparams["dev_splits"] or ())
    reported = dict.fromkeys([*dev, *(hparams["test_splits"] or ())])
    paths = prepared.manifests
    return [paths[split] for split in hparams["train_splits"]], [paths[split] for split in dev[:1]], {s: paths[s] for s in reported}


def compared(hparams):
    """Names of the dev split that chooses the checkpoints, where there is one, and of the test splits."""
    return [*(hparams["dev_splits"] or ())[:1], *(hparams["test_splits"] or ())]


def looked_at(data):
    """The dataset that is listened to after training: validation, else the first that is reported, else training."""
    return next(dataset for dataset in (data.valid, *data.tests.values(), data.train) if dataset is not None)
