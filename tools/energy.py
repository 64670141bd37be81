"""Looks into trained runs: energy of the test split, what is no addition, spikes of one utterance, and whether a run on events is the same.

    python tools/energy.py RUN_FOLDER [--data_folder=/path/to/corpus] [--split=test-clean] [--utterances=50]
    python tools/energy.py results/iml_spikeformer_mini/1 results/transformer_mini/1 --out FOLDER    # beside each other

A run's folder is the ``output_folder`` of a recipe; of emotion runs a fold is looked at, the first or ``--fold``, of a distillation a
stage, the one that it reports or ``--stage``, in whose folder everything goes then. In it are written
``energy.json`` (every number), ``energy.html`` (a page that needs no network), ``energy_by_layer.png`` and ``firing_by_layer.png``. With
several runs, their table and ``quality_over_energy.png`` go to ``--out``, by default the first run's folder.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.dataset import FilteredSortedDynamicItemDataset

from spikebrain import convert, energy, plots
from spikebrain import lengths as frames
from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.energy.proof import prove
from spikebrain.plots import page
from spikebrain.training import looking
from spikebrain.training.checkpoints import CheckpointError
from spikebrain.training.keys import RecipeError

TASKS = (*looking.TASKS, "emotion")
FILE = "energy.json"


class EnergyError(looking.LookingError):
    """A run cannot be looked into; the message names it and the repair."""


def main(argv=None):
    """Looks into every run, writes, and prints a table; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        found = [look(folder, arguments) for folder in arguments.runs]
        for one in found:
            write(one, [other["report"] for other in found])
        if len(found) > 1:
            compare([one["report"] for one in found], arguments.out or arguments.runs[0])
    except (looking.LookingError, RecipeError, DataError, CheckpointError, convert.ConversionError, OSError, ImportError) as error:
        print(f"energy.py: {error}", file=sys.stderr)
        return 1
    print(table([one["report"] for one in found]))
    return 0


def look(folder, options):
    """Everything that is found in the run in ``folder``.

    Arguments
    ---------
    folder : Path
    options : Namespace
        ``data_folder``, ``split``, ``utterances``, ``utterance``, ``fold``, ``stage``, ``device``.

    Returns
    -------
    dict
        ``folder``; ``report``, what ``energy.json`` holds; ``rates``, layer -> Tensor (C,); and ``utterance``, what the page draws.

    Raises
    ------
    EnergyError, RecipeError, DataError, CheckpointError, ConversionError
    """
    results, changes = looking.staged(folder, read(folder), options.stage)
    brain = open_run(folder, results, options, **changes)
    split, dataset = _chosen(brain, options)
    root = torch.nn.ModuleDict(brain.parts).eval()
    counter = looking.listened(brain, dataset)
    one, drawn = _one(brain, root, dataset, options.utterance, bool(counter.spikes))
    fold = next((fold for fold in results.get("folds", ()) if fold["digest"] == brain.fits.get("fold")), None)
    report = {
        **{key: results.get(key) for key in looking.SAID},
        "fold": None if fold is None else f"fold {fold['fold']}",
        "stage": results.get("stage"),
        "split": split,
        "simulated": brain.simulated,
        "utterances": {"looked_at": len(dataset), "of": len(brain.data.tests[split])},
        "metrics": quality(brain, dataset, results),
        "results": (fold or results)["metrics"].get(split, {}),
        "parameters": results["parameters"],
        "energy": cost(folder, brain, counter),
        "firing_rate": counter.firing_rate(),
        **one,
    }
    return {"folder": Path(folder, results.get("stage", "")), "report": report, "rates": counter.rates(), "utterance": drawn}


def read(folder):
    """``results.json`` of the run in ``folder``."""
    file = Path(folder) / "results.json"
    if not file.is_file():
        raise EnergyError(f"{file}: no such file: name the output_folder of a run that has ended")
    return json.loads(file.read_text(encoding="utf-8"))


def open_run(folder, results, options, **changes):
    """The Brain of the run in ``folder``, with the weights that were evaluated, and with ``changes`` of its YAML."""
    if options.fold is not None and results["task"] != "emotion":
        raise EnergyError(f"{folder}: fold: {options.fold}, but a run of the task {results['task']} has none: leave --fold out")
    fold = None if options.fold is None else [options.fold]
    return looking.reopened(folder, results, TASKS, options.device, data_folder=options.data_folder, fold=fold, **changes)


def cost(folder, brain, counter):
    """The energy report of what ``counter`` heard; what it refuses, such as a layer whose operations it does not know, names the run."""
    try:
        return brain.cost(counter)
    except ValueError as error:
        raise EnergyError(f"{folder}: {error}") from error


def quality(brain, dataset, results):
    """Metric -> percent, of the utterances that are looked at."""
    brain.evaluate(dataset, test_loader_kwargs=dict(brain.data.eval_loader))
    known = {name for split in results["metrics"].values() for name in split}
    return {name: value for name, value in brain.validated(0.0).items() if name in known}


def write(found, beside):
    """Writes what :func:`look` found into the run's folder; ``beside`` are the reports of all runs that were looked into."""
    folder, report = found["folder"], found["report"]
    write_atomic(folder / FILE, json.dumps(report, indent=2, allow_nan=False) + "\n")
    plots.save(plots.energy_by_layer(report["energy"], title=page.title(report)), folder / "energy_by_layer.png")
    if found["rates"]:
        plots.save(plots.firing_by_layer(report["firing_rate"], title=page.title(report)), folder / "firing_by_layer.png")
    write_atomic(folder / "energy.html", page.page(report, found["utterance"], beside))


def compare(reports, folder):
    """Writes the table and the picture of several runs into ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_atomic(Path(folder) / "energy_of_runs.txt", table(reports) + "\n")
    plots.save(plots.quality_over_energy(reports), Path(folder) / "quality_over_energy.png")


def table(reports):
    """A line a run and scope: metric, energies in mJ an utterance, ratios; and what was found, a sentence each."""
    rows = [("run", "quality", "scope", "spiking mJ", "twin mJ", "twin/spiking", "int mJ", "quantised mJ", "quant./int", "further mJ")]
    for report in reports:
        name, first = page.title(report), page.quality(report)
        for scope in energy.SCOPES:
            rows.append((name, first, scope, *page.energies(report["energy"][scope])))
            name = first = ""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", *(f"{page.title(report)}: {said}" for report in reports for said in page.verdicts(report))])


def _chosen(brain, options):
    """(name, dataset) of the split, evenly thinned out to the utterances that were asked for; they are sorted by length."""
    splits = brain.data.tests
    split = options.split or next((name for name in brain.hparams.test_splits or () if name in splits), next(iter(splits), None))
    if split not in splits:
        raise EnergyError(f"split: {split} is none that the run reports: {', '.join(splits) or 'there is none'}")
    return split, looking.thinned(splits[split], options.utterances)


@torch.no_grad()
def _one(brain, root, dataset, name, neurons):
    """What is found in one utterance, for ``energy.json``, and what the page draws of it; by default the one of median length.

    Without ``neurons`` there is nothing to simulate.
    """
    name = name or dataset.data_ids[len(dataset) // 2]
    if name not in dataset.data_ids:
        raise EnergyError(f"utterance: {name} is none of the {len(dataset)} that are looked at, such as {dataset.data_ids[0]}")
    (batch,) = make_dataloader(FilteredSortedDynamicItemDataset(dataset, [name]), batch_size=1)
    batch = batch.to(brain.device)
    features, given, counts = _inputs(brain, root, batch)
    found = {"utterance": {"id": name, "seconds": counts / _frames_a_second(brain.parts["features"])}}
    found["audit"] = convert.audit(root, None, None, forward=lambda *_: brain.hear(batch)).as_dict()
    drawn = {"features": features, "trains": {}}
    if given is not None and neurons:
        network = root.get_submodule(brain.simulated)
        proof = prove(network, *given)
        ready = convert.fold_batchnorm(convert.reparameterise(network))
        found |= {"audit_converted": convert.audit(ready, *given).as_dict(), "proof": proof.as_dict()}
        drawn["trains"] = {f"{brain.simulated}.{layer}": train for layer, train in proof.trains.items()}
    return found, drawn


def _inputs(brain, root, batch):
    """Features (L, F) of an utterance, what the simulated network is given (None where there is none of ours), and frames of features."""
    kept = {}

    def keep_features(module, given, out):
        """Keeps the features of the utterance."""
        kept["features"] = out[0][0].cpu()

    def keep_given(module, given):
        """Keeps what the network is given."""
        kept["given"] = given

    hooks = [brain.parts["features"].register_forward_hook(keep_features)]
    if any(name == brain.simulated for name, _ in root.named_modules()):
        hooks.append(root.get_submodule(brain.simulated).register_forward_pre_hook(keep_given))
    try:
        heard, _ = brain.hear(batch)
    finally:
        for hook in hooks:
            hook.remove()
    counts = int(heard[0])
    given = kept.get("given")
    if given is not None:
        x, lengths = given[0], given[1] if len(given) > 1 else None
        x = x[:, : int(frames.absolute(lengths, x)[0])]
        given = (x, torch.ones(1, device=x.device))
    return kept["features"][:counts], given, counts


def _frames_a_second(features):
    """Of a front end: those that are made for a number say it, others say how many samples they go on."""
    return features.frames if hasattr(features, "frames") else features.sample_rate / features.hop


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="output_folder of a run that has ended")
    parser.add_argument("--data_folder", help="the corpus, where it is elsewhere than when the run was trained")
    parser.add_argument("--split", help="one that the run reports; by default its first test split")
    parser.add_argument("--utterances", type=int, metavar="N", help="of the split, evenly over their lengths; by default all")
    parser.add_argument("--utterance", metavar="ID", help="whose spikes are drawn and simulated; by default the one of median length")
    parser.add_argument("--fold", help="of an emotion run; by default its first")
    parser.add_argument("--stage", help="of a distillation; by default the one that the run reports")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the table and the picture of several runs go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
