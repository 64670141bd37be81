"""Identification of speakers: who of those that were heard in training speaks an utterance. See :mod:`spikebrain.training.speaker`."""

from speechbrain.utils.logger import get_logger

from spikebrain.training import speaker, splits

logger = get_logger(__name__)

NEEDED, OPTIONAL, KEYS, REOPENED = speaker.NEEDED, speaker.OPTIONAL, speaker.KEYS, speaker.REOPENED


class Identifier(speaker.SpeakerBrain):
    """A SpeakerBrain whose layer that names speakers belongs to the network."""


def train(hparams, run_opts, prepared):
    """Trains, evaluates on every dev and test split, and looks inside: a task's ``train``, see :mod:`spikebrain.training.run`."""
    speaker.check(hparams)
    brain = _made(hparams, run_opts, prepared)
    brain.learn()
    metrics = {split: evaluate(brain, split, dataset) for split, dataset in brain.data.tests.items()}
    return {"metrics": metrics, **brain.report()}


def reopen(hparams, run_opts, prepared):
    """The Brain of a run that has ended, with its evaluated weights: a task's ``reopen``, see :mod:`spikebrain.training.run`."""
    brain = _made(hparams, run_opts, prepared)
    brain.on_evaluate_start()
    return brain


def _made(hparams, run_opts, prepared):
    recordings = speaker.make_recordings(hparams, *splits.manifests(hparams, prepared), {})
    return speaker.build(hparams, run_opts, recordings, Identifier)


def evaluate(brain, split, dataset):
    """Names the speaker of every utterance of a split: ``{"accuracy": percent}``."""
    brain.evaluate(dataset, test_loader_kwargs=dict(brain.data.eval_loader))
    logger.info(f"{split}: accuracy {brain.tally.accuracy:.2f} % of {brain.tally.utterances} utterances")
    return {"accuracy": brain.tally.accuracy}
