"""From a command line to ``results.json``: what every recipe's ``train.py`` calls.

    run(__file__, corpus=librispeech, task=asr)

A *corpus* is a module of ``spikebrain.data.corpora`` (it has ``prepare``, and ``OPTIONS`` where that takes more
than every corpus's does: name -> default), a *task* a module of ``spikebrain.training`` (it has ``NEEDED``,
``OPTIONAL``, ``KEYS`` and ``train``), or several, of which the YAML's key ``task`` names one.

A task's ``train(hparams, run_opts, prepared)`` trains, evaluates on every dev and test split, and looks inside. It is given

- ``hparams``, dict: a recipe's objects and numbers, those of ``NEEDED`` and ``OPTIONAL``, ours included, and ``invoked_as``, the
  recipe's path and the command line behind it,
- ``run_opts``: a RunOptions of SpeechBrain,
- ``prepared``: the Preparation of the corpus,

and returns the part of ``results.json`` that the task knows, a dict. A task whose runs can be looked into when they have ended has
``reopen(hparams, run_opts, prepared)`` too, which gives the Brain with the weights that were evaluated, and ``REOPENED``, what of
``hparams`` is otherwise then: see :func:`reopen`.
"""

import importlib
import os
import shutil
import sys
import tempfile
import time

import ruamel.yaml
import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import ddp_barrier, ddp_broadcast, ddp_init_group, if_main_process, run_on_main
from speechbrain.utils.run_opts import RunOptions

from spikebrain.data.manifest import DataError
from spikebrain.kernels import native
from spikebrain.spelling import did_you_mean
from spikebrain.training import keys, results
from spikebrain.training.checkpoints import CheckpointError

SYNTHETIC = "synthetic"
SAVED = "hyperparams.yaml"  # what the host calls a run's YAML, with its overrides and references filled in

NEEDED = {
    "seed": "of everything random",
    "model": "what results are filed under",
    "output_folder": "where all of a run goes",
    "save_folder": "manifests, tokenizer and checkpoints",
    "data_folder": "the corpus, or synthetic",
}
OPTIONAL = {
    "protocol": "default",
    "task": None,  # which, where a recipe has several; by default the first
    "synthetic_folder": None,  # where the twin is made; beside the output folder where it is not given
    "synthetic_options": None,  # arguments of the twin's make: seed, utterances
    "strict_counts": False,
    "skip_bad_audio": False,
}
KEYS = NEEDED.keys() | OPTIONAL.keys()


def run(recipe, corpus, task, argv=None):
    """Prepares, trains, evaluates, and writes ``results.json``.

    Arguments
    ---------
    recipe : str
        The recipe's ``train.py``: YAML files are looked for beside it too, and it is saved with the run.
    corpus : module
        See above.
    task : module or tuple of modules
    argv : list of str or None
        YAML file, run options of SpeechBrain and overrides; by default those of the command line.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    RecipeError, DataError, CheckpointError
        Before anything is trained, where it can be known before. Where ``argv`` is not given, the program
        ends with the message and status 1 instead.
    """
    if argv is not None:
        return _run(recipe, corpus, task, list(argv))
    try:
        return _run(recipe, corpus, task, sys.argv[1:])
    except (keys.RecipeError, DataError, CheckpointError) as error:  # one message, and no traceback before it
        sys.exit(f"{os.path.basename(recipe)}: {error}")


def _run(recipe, corpus, task, argv):
    began = time.monotonic()
    native.keep_freed_memory()
    file, run_opts, overrides = RunOptions.from_command_line_args(argv)
    file = keys.find(recipe, file)
    overrides = keys.parse_overrides(overrides)
    task = _chosen(task, file, overrides)
    hparams = load(file, overrides, corpus, task)
    ddp_init_group(run_opts)
    _experiment(recipe, file, overrides, hparams)
    prepared = _prepare(hparams, corpus, _splits(hparams))
    hparams["invoked_as"] = [os.path.abspath(recipe), *argv]
    report = task.train(hparams, run_opts, prepared)
    if if_main_process():
        common = _common(recipe, hparams, corpus, task)
        common["command"] = results.command(hparams["invoked_as"], results.known_folders(recipe))
        report = {**common, "data": prepared.summary(), **report, "seconds": round(time.monotonic() - began, 1)}
        results.write(hparams["output_folder"], report)
    ddp_barrier()
    return report


def _chosen(task, file, overrides):
    """The task that a YAML or an override asks for, of those that its recipe has."""
    tasks = {module.__name__.rpartition(".")[2]: module for module in (task if isinstance(task, tuple) else (task,))}
    name = overrides.get("task", keys.read(file).get("task")) or next(iter(tasks))
    if name not in tasks:
        raise keys.RecipeError(f"{file}: task: {name} is none of this recipe's: {', '.join(tasks)}{did_you_mean(name, tasks)}")
    return tasks[name]


def load(file, overrides, corpus, task):
    """Builds what a recipe's YAML describes, after checking its keys.

    Arguments
    ---------
    file : str
        The YAML file.
    overrides : dict
    corpus, task : module

    Returns
    -------
    dict
        The recipe's objects and numbers, optional keys filled in.

    Raises
    ------
    RecipeError
        An unknown or missing key, or a key that must be given.
    DataError
        No data folder.
    """
    keys.check(file, overrides, KEYS | task.KEYS | options_of(corpus).keys())
    return _built(file, overrides, corpus, task)


def _built(file, overrides, corpus, task):
    missing = [key for key, node in keys.read(file).items() if keys.is_placeholder(node) and key not in overrides]
    if "data_folder" in missing:
        corpus.prepare(None, None)  # says what it needs
    if missing:
        raise keys.RecipeError(f"{file}: {missing[0]} has no value: pass --{missing[0]}=...")
    with open(file, encoding="utf-8") as stream:
        # keys.check has seen the overrides; the host's own check would refuse a new entry of a dict, such as encoder_kwargs.
        try:
            hparams = load_hyperpyyaml(stream, overrides, overrides_must_match=False)
        except (ValueError, ImportError, OSError) as error:  # what a constructor refuses, such as a folder without a model
            raise keys.RecipeError(f"{file}: {error}") from error
    keys.require(hparams, NEEDED | task.NEEDED, file)
    return {**OPTIONAL, **options_of(corpus), **task.OPTIONAL, **hparams}


def reopen(folder, corpus, task, run_opts=None, **changes):
    """The Brain of a run that has ended, with the weights that it was evaluated with. Nothing in the run's folder changes.

    Arguments
    ---------
    folder : str or Path
        The run's ``output_folder``; it may have been moved. Its ``hyperparams.yaml`` can name any code, as every recipe's file can:
        open your own runs, or ones of people whom you trust.
    corpus, task : module
        Those of the run.
    run_opts : RunOptions or None
        By default those of one process on the CPU.
    changes : any
        Keys of the YAML to replace, such as ``data_folder``.

    Returns
    -------
    TaskBrain
        Its ``data.tests`` are the splits that the run reports.

    Raises
    ------
    RecipeError
        There is no run in ``folder``, or its task cannot be reopened.
    DataError, CheckpointError
        The data is not there; there is no checkpoint, or one of another network.
    """
    file = os.path.join(folder, SAVED)
    if not os.path.isfile(file):
        raise keys.RecipeError(f"{file}: no such file: name the output_folder of a run that has ended")
    if not hasattr(task, "reopen"):
        raise keys.RecipeError(f"{folder}: a run of the task {_name(task)} is several trainings, and cannot be reopened as one")
    with tempfile.TemporaryDirectory() as place:
        hparams = _built(_moved(file, folder, place, changes), {}, corpus, task) | task.REOPENED
        own = {**hparams, "save_folder": place}  # manifests are made anew, in a place of their own
        prepared = _prepare(own, corpus, _splits(hparams))
        run_opts = run_opts or RunOptions.from_dictionary({"device": "cpu", "noprogressbar": True})
        return task.reopen({**hparams, "data_folder": own["data_folder"]}, run_opts, prepared)


def _moved(file, folder, place, changes):
    """A copy, in ``place``, of a run's YAML ``file`` with paths as they are now that the run lies in ``folder``, and with ``changes``."""
    tree = keys.read(file)
    old, new = str(tree["output_folder"]), str(folder)

    def there(node):
        """The tree with every path that was moved in its new place."""
        if isinstance(node, dict):
            node.update({key: there(value) for key, value in node.items()})
        elif isinstance(node, list):
            node[:] = [there(one) for one in node]
        elif isinstance(node, str) and (node == old or node.startswith(old + os.sep)):
            return new + node[len(old) :]
        return node

    there(tree).update(changes)
    copy = os.path.join(place, SAVED)
    with open(copy, "w", encoding="utf-8") as stream:
        ruamel.yaml.YAML().dump(tree, stream)
    return copy


def options_of(corpus):
    """What the preparer of ``corpus`` takes beside what all do: name -> default."""
    return getattr(corpus, "OPTIONS", {})


def _name(task):
    return task.__name__.rpartition(".")[2]


def _experiment(recipe, file, overrides, hparams):
    sb.create_experiment_directory(hparams["output_folder"], hyperparams_to_save=file, overrides=overrides)
    if if_main_process():
        # The host saves the file that calls it, which is this one; the recipe's is wanted.
        os.remove(os.path.join(hparams["output_folder"], os.path.basename(__file__)))
        shutil.copy(recipe, hparams["output_folder"])


def _splits(hparams):
    return [split for name in ("train_splits", "dev_splits", "test_splits") for split in hparams.get(name) or []]


def _prepare(hparams, corpus, splits):
    """Runs the preparer on the main process (after making the twin, where asked) and hands its Preparation to all."""
    box = {}

    def prepare():
        """Makes the twin, where it is asked for, and prepares the corpus."""
        if hparams["data_folder"] == SYNTHETIC:
            hparams["data_folder"] = _make_twin(hparams, corpus)
        options = {name: hparams[name] for name in ("strict_counts", "skip_bad_audio", *options_of(corpus))}
        box["prepared"] = corpus.prepare(hparams["data_folder"], hparams["save_folder"], splits, **options)

    run_on_main(prepare)
    prepared, hparams["data_folder"] = ddp_broadcast((box.get("prepared"), hparams["data_folder"]), src=0)
    return prepared


def _make_twin(hparams, corpus):
    name = corpus.__name__.rpartition(".")[2]
    folder = hparams["synthetic_folder"] or os.path.join(os.path.dirname(hparams["output_folder"]), SYNTHETIC)
    importlib.import_module(f"spikebrain.data.synthetic.{name}").make(folder, **(hparams["synthetic_options"] or {}))
    return folder


def _common(recipe, hparams, corpus, task):
    return {
        "task": _name(task),
        "corpus": corpus.CORPUS.name,
        "model": hparams["model"],
        "protocol": hparams["protocol"],
        "seed": hparams["seed"],
        "commit": results.commit(os.path.dirname(os.path.abspath(recipe))),
        "versions": results.versions(),
    }
