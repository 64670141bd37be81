"""Knowledge distillation along a curriculum (KDCL), and what it is compared with, in one run.

``frames: [100, 40, 20]`` is a curriculum: a network is trained at 100 frames a second, its best checkpoint teaches one at 40, whose
best checkpoint teaches one at 20 (SpikeSCR, arXiv 2412.12858, Algorithm 1). A student is the teacher's network and starts from
its full state; the loss is :func:`spikebrain.learning.kdcl.kdcl_loss`. A teacher is frozen, in evaluation mode, and sees
clean features while its student sees augmented ones (``share_aug: True`` gives both the same masks).

Each *arm* is one way to a network at each number of frames:

- ``kdcl``: the curriculum.
- ``direct``: training from scratch at that number of frames.
- ``direct_long``: the same with as much computation as the curriculum takes to get there, counted in frames: training on a
  frame costs three times what a teacher's look at it costs (forward once, backward twice).
- ``oneshot``: the network at the first number of frames teaches the one at each other, without stages between.
- ``init``: the curriculum without the teacher's loss: each stage starts from the one before, and learns from labels alone.

Every training of an arm is a stage with a folder of its own; stages that several arms need are trained once. A run that was
killed goes on in the stage, and from the epoch, that it was in.
"""

import copy
import hashlib
import os
from dataclasses import dataclass

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from spikebrain.data.classification import augment_alike
from spikebrain.data.manifest import write_atomic
from spikebrain.learning import kdcl
from spikebrain.spelling import did_you_mean
from spikebrain.training import classify, hooks, keys, naming, results
from spikebrain.training.arms import accuracy, by_arm, pictures
from spikebrain.training.checkpoints import Checkpointer, CheckpointError
from spikebrain.training.classify import Classifier, Course
from spikebrain.training.splits import compared

logger = get_logger(__name__)

ARMS = ("kdcl", "direct", "direct_long", "oneshot", "init")
HEAD = "head.weight"  # of a SpikingClassifier, (classes, width)
LOSS = ("ce_weight", "kd_weight", "temperature", "kd_logits")

NEEDED = {
    **classify.NEEDED,
    "frames": "the curriculum, a list of frames a second that fall",
    "kd_epochs": "of each stage after the first",
    "kd_schedule": "as schedule, of these stages",
}
OPTIONAL = {
    **classify.OPTIONAL,
    "arms": ("kdcl",),
    "teacher_folder": None,  # a run at the first number of frames that has ended, instead of a first stage
    "share_aug": False,  # the teacher sees the student's masks
    "ce_weight": 1.0,
    "kd_weight": 0.5,
    "temperature": 1.0,
    "kd_logits": "sum",
}
KEYS = NEEDED.keys() | OPTIONAL.keys()


@dataclass(frozen=True)
class Stage:
    """One training of an arm.

    arm : which
    frames : a second
    epochs : how long
    parent : name of the stage whose best checkpoint it starts from, or None
    taught : whether the parent teaches it, too
    """

    arm: str
    frames: int
    epochs: int
    parent: str | None = None
    taught: bool = False

    @property
    def name(self):
        """Its folder's name."""
        return f"{self.arm}-{self.frames}"


@dataclass(frozen=True)
class Plan:
    """What is trained.

    stages : name -> Stage, each after its parent
    arms : arm -> names of the stages that give its network at each number of frames
    """

    stages: dict
    arms: dict


@dataclass(frozen=True)
class Trained:
    """What a stage ended with.

    name, frames : of the stage
    state : the classifier's state dict at its best epoch, all buffers with it
    epoch : that epoch
    labels : digest of its classes in their order; None where that is not known
    """

    name: str
    frames: int
    state: dict
    epoch: int
    labels: str | None = None

    @property
    def digest(self):
        """A short name of these very weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state.items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class Student(Classifier):
    """A Classifier with a teacher, which speaks while training only. Made by :func:`begin`, which sets the attributes below.

    teacher : dict with ``features`` and ``classifier``, frozen and in evaluation mode; no part of ``modules``
    loss : DistillationOptions
    """

    teacher = None
    loss = kdcl.DistillationOptions()

    def compute_forward(self, batch, stage):
        """Padded batch -> votes (B, K); while training, those of the student and those of the teacher."""
        if stage != sb.Stage.TRAIN:
            return super().compute_forward(batch, stage)
        batch = batch.to(self.device)
        x, lengths = self.part("features")(*batch.sig)
        clean, own = self.teacher["features"](*(batch.sig if self.hears_audio else batch.teacher_sig))
        if self.hparams.share_aug and self.hears_audio and self.hparams.augment is not None:
            x, clean = augment_alike(self.hparams.augment, x, clean, lengths)
        else:
            x = self.augmented(x, lengths)
        with torch.no_grad():
            opinion = self.vote(self.teacher["classifier"], clean, own)
        return self.vote(self.part("classifier"), x, lengths), opinion

    def compute_objectives(self, predictions, batch, stage):
        """The loss of labels and teacher while training, else that of the labels alone."""
        if stage != sb.Stage.TRAIN:
            return super().compute_objectives(predictions, batch, stage)
        return kdcl.kdcl_loss(*predictions, naming.labels_of(batch), self.loss)


def train(hparams, run_opts, prepared):
    """Trains all stages of all arms, evaluates each, and compares them: a task's ``train``, see :mod:`spikebrain.training.run`.

    Returns
    -------
    dict
        That of the first arm's last stage, and ``stages``, all of them.
    """
    check(hparams)
    recordings = classify.make_recordings(hparams, prepared)
    plan = plan_of(hparams)
    trained, reports, rows = _given_teacher(hparams), {}, []
    for stage in plan.stages.values():
        if stage.name in trained:
            continue
        brain = begin(hparams, run_opts, recordings, stage, trained.get(stage.parent))
        report = classify.complete(brain)
        trained[stage.name] = _trained(stage, brain)
        reports[stage.name] = report
        rows.append(_row(stage, report, trained))
        if if_main_process():
            results.write(brain.hparams.output_folder, {**report, "stage": rows[-1]})
    _tell(hparams, plan, rows)
    main = next(report for name in reversed(plan.arms[hparams["arms"][0]]) if (report := reports.get(name)))
    return {**main, "stages": rows, "arms": plan.arms}


def check(hparams):
    """Refuses what cannot be trained.

    Raises
    ------
    RecipeError
    """
    try:
        curriculum = kdcl.check_curriculum(hparams["frames"] if isinstance(hparams["frames"], (list, tuple)) else [hparams["frames"]])
        options_of(hparams)
    except ValueError as error:
        raise keys.RecipeError(str(error)) from error
    if len(curriculum) < 2:
        raise keys.RecipeError(
            f"frames: {list(curriculum)} is a single stage: name 2 numbers or more, or use a recipe that does not distil"
        )
    _check_arms(hparams["arms"])
    if hparams["kd_epochs"] < 1:
        raise keys.RecipeError(f"kd_epochs: {hparams['kd_epochs']} trains nothing: give 1 or more")
    classify.check({**hparams, "frames": curriculum[0]})


def _check_arms(arms):
    if isinstance(arms, str) or not arms:
        raise keys.RecipeError(f"arms: {arms!r} is no list of arms: give some of [{', '.join(ARMS)}]")
    for arm in arms:
        if arm not in ARMS:
            raise keys.RecipeError(f"arms: there is no {arm!r}; there are {', '.join(ARMS)}{did_you_mean(arm, ARMS)}")


def options_of(hparams):
    """The DistillationOptions of a recipe."""
    return kdcl.DistillationOptions(**{name: hparams[name] for name in LOSS})


def plan_of(hparams):
    """The Plan of a recipe that :func:`check` has passed."""
    frames, first, later = [int(number) for number in hparams["frames"]], hparams["number_of_epochs"], hparams["kd_epochs"]
    root = Stage("direct", frames[0], first)
    ways = {"kdcl": _chain("kdcl", frames, later, True), "init": _chain("init", frames, later, False)}
    ways["direct"] = [Stage("direct", number, first) for number in frames[1:]]
    ways["direct_long"] = [Stage("direct_long", number, epochs) for number, epochs in zip(frames[1:], equal_epochs(frames, first, later))]
    # The first step of the curriculum is the same training.
    ways["oneshot"] = [ways["kdcl"][0], *(Stage("oneshot", number, later, root.name, True) for number in frames[2:])]
    chosen = {arm: [root, *ways[arm]] for arm in hparams["arms"]}
    stages = {stage.name: stage for way in chosen.values() for stage in way}
    return Plan(stages, {arm: [stage.name for stage in way] for arm, way in chosen.items()})


def _chain(arm, frames, epochs, taught):
    names = [f"direct-{frames[0]}", *(f"{arm}-{number}" for number in frames[1:])]
    return [Stage(arm, number, epochs, parent, taught) for number, parent in zip(frames[1:], names)]


def equal_epochs(frames, first, later):
    """Epochs of training from scratch that cost as much as the curriculum up to each of its stages but the first; ours.

    Arguments
    ---------
    frames : list of int
        The curriculum.
    first, later : int
        Epochs of its first stage, and of each other.

    Returns
    -------
    list of int, one number for each of ``frames[1:]``

    Example
    -------
    >>> equal_epochs([100, 50], 10, 10)  # 10 x 3 x 100 to train the teacher, 10 x (3 x 50 + 100) the student; 3 x 50 an epoch
    [37]
    """
    cost, epochs = 3 * first * frames[0], []
    for teacher, student in zip(frames, frames[1:]):
        cost += later * (3 * student + teacher)
        epochs.append(round(cost / (3 * student)))
    return epochs


def begin(hparams, run_opts, recordings, stage, parent=None):
    """The Brain of a stage, ready to fit or evaluate.

    Arguments
    ---------
    hparams, run_opts
        As for :func:`train`.
    recordings : Recordings
    stage : Stage
    parent : Trained or None
        What it starts from, and where ``stage.taught`` is taught by.

    Returns
    -------
    Classifier

    Raises
    ------
    CheckpointError
        The parent does not fit: other classes, another width. Both numbers.
    """
    folder = os.path.join(hparams["output_folder"], stage.name)
    schedule = hparams["kd_schedule"] if stage.parent else hparams["schedule"]
    course = Course(stage.frames, stage.epochs, schedule, folder, os.path.join(folder, "save"))
    brain = classify.build(hparams, run_opts, recordings, course, Student if stage.taught else Classifier)
    features, teacher = brain.parts["features"], None
    if parent is not None:
        start_from(brain.parts["classifier"], parent)
        _same_labels(parent, brain)
        brain.fits["teacher"] = parent.digest
        brain.repair = "set {name} as in that run, or remove the folder of this stage"
    if stage.taught:
        brain.loss, brain.teacher = options_of(hparams), frozen(hparams, brain, parent)
        teacher = brain.teacher["features"]
    brain.take(recordings.view(features, teacher, hparams["augment"], hparams["share_aug"]))
    return brain


def start_from(classifier, parent):
    """Gives ``classifier`` the whole state of ``parent`` (a Trained).

    Raises
    ------
    CheckpointError
        It has other classes, another width or other layers: both numbers.
    """
    check_fit(parent, classifier)
    classifier.load_state_dict(parent.state)


def check_fit(parent, classifier):
    """Refuses a ``parent`` (Trained) whose network is not the one of ``classifier``; see :func:`start_from`."""
    own = classifier.state_dict()
    repair = "teacher and student are the same network: train both with the same classes and sizes"
    if HEAD in parent.state:
        for word, theirs, ours in zip(("classes", "width"), parent.state[HEAD].shape, own[HEAD].shape):
            if theirs != ours:
                raise CheckpointError(f"the teacher {parent.name} has {word} {theirs}, its student {ours}: {repair}")
    for name in sorted(own.keys() | parent.state.keys()):
        theirs, ours = (tuple(state[name].shape) if name in state else "nothing" for state in (parent.state, own))
        if theirs != ours:
            raise CheckpointError(f"the teacher {parent.name} has {theirs} as {name}, its student {ours}: {repair}")


def _same_labels(parent, brain):
    ours = brain.fits["labels"]
    if parent.labels not in (None, ours):
        what = f"the teacher {parent.name} has other classes or another order of them (digest {parent.labels}, its student {ours})"
        raise CheckpointError(f"{what}: train both with the same classes")


def frozen(hparams, brain, parent):
    """The teacher of ``brain``, which has just started from ``parent``: its front end and classifier, without gradients, in evaluation."""
    features = keys.make("features", hparams["features"], frames=parent.frames)
    # A copy draws no random numbers: a stage without its teacher's loss goes through the same ones.
    teacher = {"features": features, "classifier": copy.deepcopy(brain.parts["classifier"])}
    return {name: module.to(brain.device).eval().requires_grad_(False) for name, module in teacher.items()}


def _trained(stage, brain):
    (best,) = brain.best_checkpoints()
    return _read(stage.name, best)


def _read(name, checkpoint):
    """The Trained of a Checkpoint."""
    state = torch.load(checkpoint.paramfiles["model"], map_location="cpu", weights_only=True)
    return Trained(name, checkpoint.meta["frames"], state, checkpoint.meta["epoch"], checkpoint.meta["labels"])


def _given_teacher(hparams):
    """Name of the first stage -> the best checkpoint of ``teacher_folder``; empty without one."""
    folder, frames = hparams["teacher_folder"], int(hparams["frames"][0])
    if not folder:
        return {}
    place = os.path.join(folder, "save")
    best = Checkpointer(place).best(1, naming.choice(hparams)) if os.path.isdir(place) else []
    if not best:
        raise CheckpointError(f"teacher_folder: {folder} holds 0 checkpoints in save: name the output_folder of a run that has ended")
    if best[0].meta["frames"] != frames:
        raise CheckpointError(
            f"teacher_folder: {folder} was trained with {best[0].meta['frames']} frames, the curriculum begins with {frames}: "
            f"set frames: [{best[0].meta['frames']}, ...], or name another run"
        )
    name = f"direct-{frames}"
    return {name: _read(name, best[0])}


def _row(stage, report, trained):
    """What ``results.json`` says of a stage."""
    teacher = trained.get(stage.parent)
    seconds = report["epoch_seconds"]
    return {
        "name": stage.name,
        "arm": stage.arm,
        "frames": stage.frames,
        "epochs": stage.epochs,
        "best_epoch": report["best_epoch"],
        "accuracy": {split: values["accuracy"] for split, values in report["metrics"].items()},
        "seconds": sum(seconds),
        "starts_from": stage.parent,
        "teacher": {"name": teacher.name, "frames": teacher.frames, "epoch": teacher.epoch} if stage.taught else None,
        "mJ": report.get("energy", {}).get("full", {}).get("mJ"),
    }


def _tell(hparams, plan, rows):
    """Writes ``stages.txt`` and logs it; draws the arms beside each other."""
    if not if_main_process():
        return
    splits, folder = compared(hparams), hparams["output_folder"]
    text = table(plan, rows, splits)
    write_atomic(os.path.join(folder, "stages.txt"), text)
    logger.info(f"Stage by stage:\n{text}")
    if splits:
        hooks.draw(folder, pictures([{"stages": rows, "arms": plan.arms}], splits))


def table(plan, rows, splits):
    """Accuracies in percent as text: a part for each split with a line a number of frames and a column an arm, and then every stage.

    Arguments
    ---------
    plan : Plan
    rows : list of dict
        ``stages`` of ``results.json``.
    splits : list of str
    """
    frames = sorted({stage.frames for stage in plan.stages.values()}, reverse=True)
    parts = []
    for split in splits:
        found = by_arm({"stages": rows, "arms": plan.arms}, accuracy(split))
        lines = [[f"{number} frames", *(_cell(found[arm].get(number)) for arm in plan.arms)] for number in frames]
        parts.append(_aligned([[f"{split} %", *plan.arms], *lines]))
    return "\n".join([*parts, _aligned(_lines_of_stages(rows, splits))])


def _cell(percent):
    return "-" if percent is None else f"{percent:.2f}"


def _lines_of_stages(rows, splits):
    yield ["stage", "starts from", "teacher", "epochs", "best", "seconds", *(f"{split} %" for split in splits)]
    for row in rows:
        teacher = row["teacher"]["name"] if row["teacher"] else "-"
        numbers = [str(row["epochs"]), str(row["best_epoch"]), f"{row['seconds']:.0f}"]
        yield [row["name"], row["starts_from"] or "-", teacher, *numbers, *(f"{row['accuracy'][split]:.2f}" for split in splits)]


def _aligned(lines):
    lines = list(lines)
    first, *others = (max(map(len, column)) for column in zip(*lines))
    return "".join("  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]) + "\n" for line in lines)
