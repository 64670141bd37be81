"""Verification of speakers: whether two utterances are of one person, whom the network has never heard.

The network learns to name the training speakers, as in :mod:`spikebrain.training.speaker`; what is left of it is the embedding.
Checkpoints are chosen by how well speakers are named on the first dev split (new recordings of training speakers, never of those of
the trials). Then every utterance of a list of trials is embedded once and whole, a trial's score is the cosine of its two embeddings,
and reported are the equal error rate and the lowest detection cost (:mod:`spikebrain.training.scoring`).

``subtract_mean`` takes a mean from all embeddings before the cosine: ``test`` that of the embeddings which the trials name, as
MFA-Conformer's code does, so that the score of a trial depends on the others; ``train`` (ours) that of the training utterances.
"""

import os
from itertools import islice

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from spikebrain import plots
from spikebrain.data import manifest
from spikebrain.data import trials as lists
from spikebrain.data.manifest import CLASS_COLUMNS, write_atomic
from spikebrain.training import hooks, keys, naming, scoring, speaker, splits

logger = get_logger(__name__)

NEEDED = speaker.NEEDED
OPTIONAL = {
    **speaker.OPTIONAL,
    "subtract_mean": "none",  # or train, test
    "score_norm": "none",  # or z, s, as: with a cohort of the mean embedding of each training speaker
    "score_norm_top": 300,  # of as
}
KEYS = NEEDED.keys() | OPTIONAL.keys()
REOPENED = speaker.REOPENED
MEANS = ("none", "train", "test")


class Verifier(speaker.SpeakerBrain):
    """A SpeakerBrain that compares utterances; made by :func:`_made`, which sets the attributes below.

    recordings : SpeakerRecordings
    trials : dict, split -> list of Trial
    embeddings : dict, id of an utterance -> Tensor (E,), of the trials that were evaluated last; None while speakers are named
    compared : split whose trials these embeddings are of
    """

    recordings = embeddings = compared = None
    trials = {}
    _found = _cohort = None

    def compute_objectives(self, predictions, batch, stage):
        """As for every speaker task; of utterances of trials the embeddings are kept, and there is no loss."""
        if self.embeddings is None:
            return super().compute_objectives(predictions, batch, stage)
        self.embeddings |= dict(zip(batch.id, predictions.detach().cpu(), strict=True))
        return torch.zeros(())

    def evaluate(self, test_set, *args, **kwargs):
        """As the host's, over a split that is named or one of trials."""
        self.compared = next((split for split in self.trials if set(test_set.data_ids) <= set(self.data.tests[split].data_ids)), None)
        self.embeddings = None if self.compared is None else {}
        try:
            return super().evaluate(test_set, *args, **kwargs)
        finally:
            self._found, self.embeddings = self.embeddings, None

    def validated(self, stage_loss):
        """What was counted last: of named speakers loss, accuracy and error rate, of trials those of :func:`metrics_of`."""
        if self.compared is None:
            return super().validated(stage_loss)
        found = self.scored()
        return {} if found is None else metrics_of(found[2])

    def on_stage_start(self, stage, epoch=None):
        """As for every speaker task; a validation is of named speakers, and weights that change have another cohort."""
        super().on_stage_start(stage, epoch)
        if stage != sb.Stage.TEST:
            self.compared, self._cohort = None, None

    def scored(self):
        """(trials, scores, Curve) of the embeddings that were found last; None where they leave no trial of one of the two kinds."""
        ids = self._found.keys()
        pairs = [t for t in self.trials[self.compared] if {lists.utterance_id(t.enrol), lists.utterance_id(t.test)} <= ids]
        if len({trial.same for trial in pairs}) < 2:
            return None
        named = {lists.utterance_id(path) for path in lists.utterances(pairs)}  # of trials that were left out there may be more
        scores = self.score(pairs, {name: embedding for name, embedding in self._found.items() if name in named})
        return pairs, scores, scoring.Curve.of(scores, torch.tensor([trial.same for trial in pairs]))

    def score(self, pairs, embeddings):
        """Scores (N,) of trials."""
        rows = {name: row for row, name in enumerate(embeddings)}
        found, mean, cohort = torch.stack(list(embeddings.values())), None, None
        if self.hparams.subtract_mean == "test":
            mean = found.double().mean(0)
        elif self.hparams.subtract_mean == "train":
            mean = self.cohort[0].double().mean(0)
        if self.hparams.score_norm != "none":
            cohort = scoring.speaker_means(scoring.unit(self.cohort[0], mean), self.cohort[1])
        sides = [[rows[lists.utterance_id(path)] for path in (trial.enrol, trial.test)] for trial in pairs]
        options = (self.hparams.score_norm, self.hparams.score_norm_top)
        return scoring.normalised(scoring.unit(found, mean), torch.tensor(sides), cohort, *options)

    @property
    def cohort(self):
        """Embeddings (N, E) of all training utterances, whole, and the numbers of their speakers (N,)."""
        if self._cohort is None:
            self._cohort = self.embed_all(self.recordings.cohort())
        return self._cohort

    @torch.no_grad()
    def embed_all(self, dataset):
        """Embeddings (N, E) of a dataset with speakers, and their numbers (N,), with the weights and in the precision of an evaluation."""
        self.modules.eval()
        loader = make_dataloader(dataset, **self.data.eval_loader)
        with self.evaluation_ctx:
            found = [
                (self.compute_forward(batch, sb.Stage.TEST).cpu(), naming.labels_of(batch).cpu())
                for batch in islice(loader, self.debug_batches if self.debug else None)
            ]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def metrics_of(curve):
    """``{"EER": percent, "minDCF": cost, ...}``; costs are normalised, from 0 to 1, at a share of same-speaker trials of 1 % and of 5 %."""
    return {"EER": 100 * curve.eer, "minDCF": curve.min_dcf(0.01), "minDCF_0.05": curve.min_dcf(0.05)}


def train(hparams, run_opts, prepared):
    """Trains, evaluates the dev splits and the trials, and looks inside: a task's ``train``, see :mod:`spikebrain.training.run`."""
    check(hparams)
    brain = _made(hparams, run_opts, prepared)
    brain.learn()
    metrics, curves = {}, {}
    for split, dataset in brain.data.tests.items():
        brain.evaluate(dataset, test_loader_kwargs=dict(brain.data.eval_loader))
        metrics[split] = _told(brain, split, curves)
    hooks.draw(hparams["output_folder"], {"det": lambda: plots.det(curves, title=hparams["model"])} if curves else {})
    numbers = {split: len(pairs) for split, pairs in brain.trials.items()}
    return {"metrics": metrics, "trials": numbers, **brain.report()}


def reopen(hparams, run_opts, prepared):
    """The Brain of a run that has ended, with its evaluated weights: a task's ``reopen``, see :mod:`spikebrain.training.run`."""
    brain = _made(hparams, run_opts, prepared)
    brain.on_evaluate_start()
    return brain


def check(hparams):
    """Refuses what cannot be trained or scored.

    Raises
    ------
    RecipeError
    """
    speaker.check(hparams)
    for name, known in (("subtract_mean", MEANS), ("score_norm", scoring.NORMALISATIONS)):
        if hparams[name] not in known:
            raise keys.RecipeError(f"{name}: {hparams[name]!r} is none of {', '.join(known)}")
    if hparams["score_norm"] == "as" and hparams["score_norm_top"] < 2:
        raise keys.RecipeError(f"score_norm_top: {hparams['score_norm_top']} has no deviation: give 2 or more")
    both = set(hparams["dev_splits"] or ()) & set(hparams["test_splits"] or ())
    if both:
        raise keys.RecipeError(f"test_splits: {', '.join(sorted(both))} chooses the checkpoint too: what is tested must not")


def read_trials(hparams, prepared):
    """Split -> list of Trial of every test split; trials of utterances that were not prepared are left out with ``skip_bad_audio`` only.

    Raises
    ------
    RecipeError
        A split without a list of trials.
    DataError
        As :func:`spikebrain.data.trials.read` and :func:`spikebrain.data.trials.usable` do.
    """
    found = {}
    for split in hparams["test_splits"] or ():
        if not prepared.settings.get("trial_list"):
            raise keys.RecipeError(f"test_splits: {split} has no list of trials: name a split of verification, such as vox1-o")
        file = os.path.join(hparams["data_folder"], prepared.settings["trial_list"])
        ids = {utterance.id for utterance in manifest.read(prepared.manifests[split], CLASS_COLUMNS)}
        found[split], _ = lists.usable(lists.read(file), ids, f"{file}, for {split}", hparams.get("skip_bad_audio", False))
    return found


def refuse_tested(speakers, trials):
    """Refuses to train on those who are tested; the development splits lack them, other splits may not.

    Arguments
    ---------
    speakers : collection of str
        Those of training.
    trials : dict
        Split -> list of Trial.

    Raises
    ------
    RecipeError
    """
    for split, pairs in trials.items():
        tested = {lists.speaker_of(path) for path in lists.utterances(pairs)}
        heard = sorted(tested.intersection(speakers))
        if heard:
            raise keys.RecipeError(
                f"train_splits: {len(heard)} of the {len(tested)} speakers whom {split} tests are among the {len(speakers)} of training, "
                f"the first is {heard[0]}: train on a development split, such as vox1-dev, which leaves them out"
            )


def _made(hparams, run_opts, prepared):
    trials = read_trials(hparams, prepared)
    train_on, valid, reported = splits.manifests(hparams, prepared)
    named = {split: path for split, path in reported.items() if split not in trials}
    compared = {split: reported[split] for split in trials}
    recordings = speaker.make_recordings(hparams, train_on, valid, named, compared)
    refuse_tested(recordings.labels, trials)
    brain = speaker.build(hparams, run_opts, recordings, Verifier, kept=())
    brain.recordings, brain.trials = recordings, trials
    return brain


def _told(brain, split, curves):
    """The metrics of a split that was evaluated; of trials, after writing ``scores_<split>.txt`` and adding the curve for the picture."""
    if brain.compared is None:
        logger.info(f"{split}: accuracy {brain.tally.accuracy:.2f} % of {brain.tally.utterances} utterances")
        return {"accuracy": brain.tally.accuracy}
    scored = brain.scored()
    if scored is None:  # with --debug, which looks at two batches
        logger.warning(f"{split}: the utterances that were looked at leave no trial of one of the two kinds: there is nothing to report")
        return {}
    pairs, scores, curve = scored
    if if_main_process():
        write_scores(os.path.join(brain.hparams.output_folder, f"scores_{split}.txt"), pairs, scores)
    curves[split] = {
        "miss": curve.miss.tolist(), "false_alarm": curve.false_alarm.tolist(), "EER": curve.eer, "minDCF": (curve.min_dcf(), curve.point())
    }  # fmt: skip
    found = metrics_of(curve)
    logger.info(f"{split}: EER {found['EER']:.2f} %, minDCF {found['minDCF']:.3f} of {len(pairs)} trials")
    return found


def write_scores(path, pairs, scores):
    """Writes a line a trial, ``score label enrol test``, with all digits of the score."""
    lines = (f"{score!r} {int(trial.same)} {trial.enrol} {trial.test}\n" for score, trial in zip(scores.tolist(), pairs, strict=True))
    write_atomic(path, "".join(lines))
