"""Runs that have ended, looked into again: how often each neuron fires, and what attention looks at.

A run that keeps its checkpoint says more than its ``results.json``, which holds one summary a layer: reopened, it is listened to over the
utterances that its checkpoints were chosen by, and one of them is followed through its attention. What is found becomes figures 3 and 4
of the IML-Spikeformer paper (arXiv 2507.07396), for one run or for several beside each other.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.dataset import FilteredSortedDynamicItemDataset
from speechbrain.utils.run_opts import RunOptions

from spikebrain import energy
from spikebrain import lengths as frames
from spikebrain.data import corpora
from spikebrain.spelling import did_you_mean
from spikebrain.training import run, splits

TASKS = ("asr", "classify", "identify", "verify")  # whose runs are one training and can be reopened as one
_OF_ONE_STAGE = ("confusion", "firing_rate", "energy", "epoch_seconds", "epochs", "comparison")  # in results.json, of the one it reports
SAID = ("task", "corpus", "model", "protocol", "seed", "commit", "command", "versions")  # of a run's results.json


class LookingError(ValueError):
    """A run cannot be looked into; the message names it and the repair."""


@dataclass(frozen=True)
class Options:
    """What of a run is looked at.

    data_folder : the corpus, where it is elsewhere than when the run was trained
    utterances : how many are listened to, evenly over the split; by default all
    utterance : whose attention is drawn; by default the one of median place, of several runs that of the first
    blocks : whose attention is drawn, counted from 1; by default the first, the middle and the last
    device : where the network runs
    """

    data_folder: str | None = None
    utterances: int | None = None
    utterance: str | None = None
    blocks: tuple = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Found:
    """What one run showed.

    about : dict, what its ``results.json`` says of it, see ``SAID``
    split, looked_at, of : the split that was listened to, how many of its utterances, and how many it has
    rates : layer -> array (C,), firing rate of each neuron: spikes per valid frame and level
    layers : layer -> summary of the same, as ``firing_rate`` of ``results.json``
    utterance, maps : id of the one whose attention it is, and a list of array (H, L, L), one a block; both None where no part of the
        network can say what it attends to
    """

    about: dict
    split: str
    looked_at: int
    of: int
    rates: dict
    layers: dict
    utterance: str | None
    maps: list | None


def look(folder, results, options):
    """Reopens a run and looks at its firing and its attention.

    Arguments
    ---------
    folder : Path
        The run's ``output_folder``.
    results : dict
        Its ``results.json``.
    options : Options

    Returns
    -------
    Found

    Raises
    ------
    LookingError
        For a run of another task or corpus, one that never fires, an utterance or a block that is not there.
    RecipeError, DataError, CheckpointError
        As :func:`spikebrain.training.run.reopen`.
    """
    brain = reopened(folder, results, TASKS, options.device, data_folder=options.data_folder)
    whole, split = splits.looked_at(brain.data), _split(brain)
    dataset = thinned(whole, options.utterances)
    encoder, name, maps = attending(brain), None, None
    if encoder is not None:
        name, holder = _utterance(folder, brain, options.utterance)
        maps = attention(brain, encoder, holder, name)
        _check_blocks(folder, len(maps), options.blocks)
    counter = listened(brain, dataset)
    if not counter.spikes:
        raise LookingError(f"{folder}: its model, {results['model']}, has no layer that fires: name runs of spiking networks")
    rates = {layer: values.numpy() for layer, values in counter.rates().items()}
    about = {key: results.get(key) for key in SAID}
    return Found(about, split, len(dataset), len(whole), rates, counter.firing_rate(), name, maps)


def reopened(folder, results, tasks, device="cpu", **changes):
    """The Brain of a run that has ended, with the weights that were evaluated.

    Arguments
    ---------
    folder : Path
        The run's ``output_folder``.
    results : dict
        Its ``results.json``.
    tasks : collection of str
        Of which its task must be one.
    device : str
        Where its network runs.
    changes : any
        Keys of its YAML to replace, such as ``data_folder``; None leaves a key as it is.

    Raises
    ------
    LookingError, RecipeError, DataError, CheckpointError
        As :func:`look`.
    """
    names = corpora.by_name()
    for what, known in (("task", tasks), ("corpus", names)):
        if results.get(what) not in known:
            raise LookingError(f"{folder}: results.json says {what} {results.get(what)}, which is none of {', '.join(known)}")
    task = importlib.import_module(f"{__package__}.{results['task']}")
    given = {key: str(value) if key == "data_folder" else value for key, value in changes.items() if value is not None}
    run_opts = RunOptions.from_dictionary({"device": device, "noprogressbar": True})
    return run.reopen(folder, names[results["corpus"]], task, run_opts, **given)


def staged(folder, results, stage=None):
    """One training of a run, as if it were a run of its own.

    Arguments
    ---------
    folder : Path
        The run's ``output_folder``.
    results : dict
        Its ``results.json``.
    stage : str, optional
        Of a distillation, such as ``kdcl-20``; by default the one that the run reports.

    Returns
    -------
    (results, changes)
        The results of that training, with its name under ``stage``, and keys of the YAML that are otherwise for it, which
        :func:`reopened` takes. Of a run that is one training its own results, and nothing.

    Raises
    ------
    LookingError
        A stage that was not trained, or one of a run that has none.
    """
    if results["task"] != "distil":
        if stage is not None:
            raise LookingError(f"{folder}: stage: {stage}, but a run of the task {results['task']} has none: leave it out")
        return results, {}
    name = stage or reported(results)
    own = of_stage(folder, results, name)
    if not (Path(folder) / name / "save").is_dir():
        raise LookingError(f"{folder}: stage: {name} has no checkpoint there: train it again")
    return own, {"frames": own["frames"], "save_folder": str(Path(folder) / name / "save")}


def of_stage(source, results, name):
    """The results of one stage of a distillation, as if it were a run of its own; LookingError, which names ``source``, for none."""
    rows = {row["name"]: row for row in results.get("stages", ())}
    if name not in rows:
        raise LookingError(f"{source}: stage: {name} is none that was trained: choose one of {', '.join(rows)}")
    row, own = rows[name], {"task": "classify", "stage": name, "frames": rows[name]["frames"]}
    if name != reported(results):
        results = {key: value for key, value in results.items() if key not in _OF_ONE_STAGE} | {"best_epoch": row["best_epoch"]}
        own["metrics"] = {split: {"accuracy": value} for split, value in row["accuracy"].items()}
    return {**results, **own}


def reported(results):
    """The stage of a distillation whose numbers stand at the head of its ``results.json``, the last of the first arm; else None."""
    return next(iter(results["arms"].values()))[-1] if results["task"] == "distil" else None


def thinned(dataset, number=None):
    """``number`` utterances of ``dataset``, evenly over their order, which is that of their lengths in most; all of them for None."""
    if number is None or number >= len(dataset):
        return dataset
    if number < 1:
        raise LookingError(f"utterances: {number} are none: give 1 or more")
    ids = [dataset.data_ids[place * len(dataset) // number] for place in range(number)]
    return FilteredSortedDynamicItemDataset(dataset, ids)


@torch.no_grad()
def listened(brain, dataset):
    """An :class:`spikebrain.energy.Counter` that has heard every utterance of ``dataset``; what is said of valid frames counts alone."""
    counter = energy.Counter(torch.nn.ModuleDict(brain.parts).eval())
    for batch in make_dataloader(dataset, **brain.data.eval_loader):
        with counter.listen():
            heard = brain.hear(batch.to(brain.device))
        counter.add_utterances(*heard)
    return counter


def attending(brain):
    """The first part of the network that has ``attention_maps(x)``, or None."""
    modules = torch.nn.ModuleDict(brain.parts).modules()
    return next((module for module in modules if callable(getattr(module, "attention_maps", None))), None)


@torch.no_grad()
def attention(brain, encoder, dataset, name):
    """The attention maps of one utterance.

    Arguments
    ---------
    brain : TaskBrain
    encoder : nn.Module
        What :func:`attending` gives.
    dataset : DynamicItemDataset
        Holds the utterance.
    name : str
        Its id.

    Returns
    -------
    list of array (H, L, L)
        One a block, over the utterance's own frames as they reach the encoder.
    """
    torch.nn.ModuleDict(brain.parts).eval()
    kept = []
    handle = encoder.register_forward_pre_hook(lambda module, given: kept.append(given))
    try:
        (batch,) = make_dataloader(FilteredSortedDynamicItemDataset(dataset, [name]), batch_size=1)
        brain.hear(batch.to(brain.device))
    finally:
        handle.remove()
    x, lengths = (*kept[0], None)[:2]
    x = x[:1, : int(frames.absolute(lengths, x)[0])]
    return [scores[0].float().cpu().numpy() for scores in encoder.attention_maps(x)]


def labels(found, folders):
    """A name for each run that no other has: its model, where that is enough, else with its seed, else with its folder's name too."""
    models = [str(one.about["model"]) for one in found]
    seeds = [f"{model}, seed {one.about['seed']}" for model, one in zip(models, found, strict=True)]
    places = [f"{seed}, {Path(folder).resolve().name}" for seed, folder in zip(seeds, folders, strict=True)]
    whole = [f"{seed}, {Path(folder)}" for seed, folder in zip(seeds, folders, strict=True)]
    return next((names for names in (models, seeds, places) if len(set(names)) == len(names)), whole)


def _split(brain):
    """The name of what :func:`splits.looked_at` chooses."""
    if brain.data.valid is not None:
        return brain.hparams.dev_splits[0]
    return next(iter(brain.data.tests), "train")


def _utterance(folder, brain, name):
    """(id, dataset that holds it): the one that is asked for, of any split that the run reports, or the middle one of the dev split."""
    first = splits.looked_at(brain.data)
    if name is None:
        return first.data_ids[len(first) // 2], first
    places = [first, *brain.data.tests.values()]
    for dataset in places:
        if name in dataset.data_ids:
            return name, dataset
    known = list(dict.fromkeys(one for dataset in places for one in dataset.data_ids))
    hint = did_you_mean(name, known) or f", such as {known[0]}"
    raise LookingError(f"{folder}: utterance: {name} is none of the {len(known)} that the run reports{hint}")


def _check_blocks(folder, number, blocks):
    missing = [block for block in blocks if not 1 <= block <= number]
    if missing:
        raise LookingError(f"{folder}: blocks: {missing[0]} is not there, the network has {number}: they count from 1")
