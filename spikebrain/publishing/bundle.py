"""A run becomes a bundle: a folder of plain data that anyone can load, check and trust.

    bundle.json         what the network is made of, how it is used, whose data it learned, and size and hash of every other file
    model.safetensors   weights, buffers and statistics of features
    tokens.json         of recognisers: what each token id stands for
    results.json        what the run reports; energy.json, where tools/energy.py looked into it
    proof.safetensors   an input, and what the network gives for it
    README.md           the card

and, for SpeechBrain's own interfaces, what :mod:`spikebrain.publishing.interfaces` names.

The run is reopened with the weights that were evaluated, as :func:`spikebrain.training.run.reopen` does it: publish runs of your own, or of
people whom you trust. What is written names no code.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from spikebrain.data import tokens
from spikebrain.data.manifest import write_atomic
from spikebrain.publishing import card, contents, interfaces, parts, proof
from spikebrain.publishing.contents import CONFIG, FORMAT, PROOF, TOKENS, WEIGHTS
from spikebrain.publishing.load import Model
from spikebrain.publishing.parts import CENTRE, BundleError
from spikebrain.training import keys, looking, run

RESULTS, ENERGY, CARD = "results.json", "energy.json", "README.md"
ACTIVATIONS = {f"{kind.__module__}.{kind.__name__}": word for word, kind in parts.ACTIVATIONS.items()}
ACTIVATIONS |= {f"torch.nn.{parts.ACTIVATIONS[word].__name__}": word for word in ("relu", "gelu")}


def make(run_folder, out, licence="Apache-2.0", statement=None, data_folder=None, stage=None, seeds=(), speechbrain=False):
    """Publishes a run, and proves that the bundle gives what the run's network gives.

    Arguments
    ---------
    run_folder : str or Path
        The run's ``output_folder``, of the task asr, classify, identify or verify; or distil, of which one stage is published.
    out : str or Path
        The bundle's folder, which is not there yet: it is written whole or not at all.
    licence : str
        Of the weights, as Hugging Face names it.
    statement : str or None
        What the network was trained on; by default the corpus and its counts, as ``results.json`` has them.
    data_folder : str or Path, optional
        The corpus, where it is elsewhere than when the run was trained.
    stage : str, optional
        Of distil, such as ``kdcl-20``; by default the one that the run reports.
    seeds : sequence of str or Path
        ``results.json`` of further runs of the same recipe with other seeds, for the card's column of spreads.
    speechbrain : bool
        Whether SpeechBrain's own interfaces can load the folder too: :mod:`spikebrain.publishing.interfaces`.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    BundleError
        ``out`` is there, a network is none that can be published, ``seeds`` are of another recipe, or the proof fails.
    LookingError, RecipeError, DataError, CheckpointError
        As :func:`spikebrain.training.looking.reopened`.
    """
    run_folder, out = Path(run_folder), Path(out)
    if out.exists():
        raise BundleError(f"{out}: is there: name another folder, or remove it")
    results, changes = looking.staged(run_folder, _results(run_folder / RESULTS), stage)
    brain = looking.reopened(run_folder, results, looking.TASKS, data_folder=data_folder, **changes)
    others = [_results(Path(file)) for file in seeds]
    if "stage" in results:
        others = [looking.of_stage(file, other, results["stage"]) for file, other in zip(seeds, others, strict=True)]
    tree = keys.read(run_folder / run.SAVED)
    config = {**describe(brain, results, tree), "licence": licence, "data": statement or statement_of(results)}
    config |= {"versions": results["versions"], "command": results["command"], "commit": results["commit"]}
    model, state = _model(brain, config)
    config["parameters"] = sum(p.numel() for p in model.network.parameters())
    files = {WEIGHTS: safetensors.torch.save(state, {"format": "pt"}), PROOF: proof.make(model), RESULTS: _json(results)}
    if model.pieces is not None:
        files[TOKENS] = _json({"pieces": list(model.pieces)})
    looked = run_folder / results.get("stage", "") / ENERGY
    if looked.is_file():
        files[ENERGY] = looked.read_bytes()
    host = interfaces.files(config, files[WEIGHTS], getattr(brain, "tokenizer", None)) if speechbrain else {}
    energy = json.loads(files[ENERGY]) if ENERGY in files else None
    files[CARD] = card.card(config, results, energy, others, speechbrain).encode()
    write(out, config, files, host)
    return out


def write(out, config, files, host=None):
    """Writes a bundle and proves it in a fresh process; on whatever failure nothing of it is left.

    Arguments
    ---------
    out : Path
    config : dict
        Of ``bundle.json``, without ``files``, ``speechbrain`` and ``seal``.
    files : dict
        Name -> bytes.
    host : dict, optional
        The same of what SpeechBrain's interfaces read.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    listed = {"files": _listed(files), **({"speechbrain": _listed(host)} if host else {})}
    try:
        for name, data in {**files, **(host or {})}.items():
            write_atomic(partial / name, data)
        write_atomic(partial / CONFIG, contents.seal({"format": FORMAT, **config, **listed}))
        proof.check_afresh(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _listed(files):
    """Name -> bytes, as ``bundle.json`` lists them."""
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in sorted(files.items())}


def _results(file):
    if not file.is_file():
        raise BundleError(f"{file}: no such file: name the output_folder of a run that has ended, and for seeds such files")
    return json.loads(file.read_text(encoding="utf-8"))


def statement_of(results):
    """A sentence on the training data, from ``results.json``."""
    data = results["data"]
    counts = [f"{split} ({n['utterances']:,} utterances, {n['hours']:.2f} h)" for split, n in data["splits"].items()]
    whole = "complete" if data.get("complete") else "an excerpt or a twin: its counts are not the published ones"
    return f"{data['corpus']}, {whole}. Splits that training and evaluation read: {', '.join(counts)}. No other data was used."


def describe(brain, results, tree):
    """What ``bundle.json`` says of a reopened run's network and its use.

    Arguments
    ---------
    brain : TaskBrain
    results : dict
        Of ``results.json``.
    tree : dict
        The YAML of the run, as written.

    Raises
    ------
    BundleError
        For a part that is none of :data:`spikebrain.publishing.parts.PARTS`, or an argument that it does not take.
    """
    task = results["task"]
    said = {
        "task": task,
        "model": results["model"],
        "corpus": results["corpus"],
        "network": _DESCRIBED[task](brain, tree),
        "sample_rate": getattr(brain.parts["features"], "sample_rate", None),
        "decoding": _DECODING[task](brain),
    }
    if task in ("classify", "identify"):
        said["labels"] = list(brain.labels)
    parts.check_network(task, said["network"], f"{run.SAVED}: network")
    return said


def _asr_parts(brain, tree):
    nodes = {name: tree["modules"][name] for name in brain.parts}
    return {name: _node(node, name, nodes, brain) for name, node in nodes.items()}


def _classify_parts(brain, tree):
    features, labels = brain.parts["features"], brain.labels
    network = {name: _node(tree[name], name, {}, brain) for name in ("features", "classifier")}
    network["features"]["arguments"]["frames"] = features.frames
    network["classifier"]["arguments"] |= {"input_size": features.channels, "classes": len(labels)}
    return network


def _speaker_parts(brain, tree):
    return {name: _node(tree[name], name, {}, brain) for name in ("features", "normalize", "embedding_model")}


def _identify_parts(brain, tree):
    classifier = brain.parts["classifier"]
    speakers, width = classifier.weight.shape
    if isinstance(classifier, nn.Linear):
        node = {"part": "SpeakerLogits", "arguments": {"in_features": width, "out_features": speakers}}
    else:
        node = {"part": "SpeakerCosines", "arguments": {"input_size": width, "out_neurons": speakers}}
    return {**_speaker_parts(brain, tree), "classifier": node}


_DESCRIBED = {"asr": _asr_parts, "classify": _classify_parts, "identify": _identify_parts, "verify": _speaker_parts}


def _node(node, name, nodes, brain):
    """A part of a YAML as ``bundle.json`` names it, with its constructor's defaults."""
    path = _tag(node)[1]
    found = [key for key, part in parts.PARTS.items() if path in part.paths]
    if not found:
        raise BundleError(f"{run.SAVED}: {name} is built by {path or 'nothing'}, which is no part that can be published")
    if not isinstance(node, dict) and getattr(node, "value", None):
        raise BundleError(f"{run.SAVED}: {name} has arguments without names: name them")
    given = node if isinstance(node, dict) else {}
    arguments = {str(key): _plain(value, f"{name}/{key}", nodes, brain) for key, value in given.items()}
    described = {"part": found[0], "arguments": arguments}
    return {**described, "arguments": parts.with_defaults(described)}


def _tag(node):
    """(what follows "!", what follows ":") of a node's tag, such as ("new", "package.Name")."""
    tag = getattr(getattr(node, "tag", None), "value", None) or ""
    kind, _, path = tag.partition(":")
    return kind.removeprefix("!"), path


def _plain(value, where, nodes, brain):
    """A value of a YAML as JSON has it."""
    kind, path = _tag(value)
    if (kind, path) == ("apply", "getattr"):
        source, attribute = value
        owner = next(name for name, node in nodes.items() if node is source)
        return getattr(brain.parts[owner], str(attribute))
    if path in ACTIVATIONS:
        return ACTIVATIONS[path]
    if path:
        raise BundleError(f"{run.SAVED}: {where} is {path}, which is no plain value: a network with it cannot be published")
    if isinstance(value, dict):
        return {str(key): _plain(one, f"{where}/{key}", nodes, brain) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one, where, nodes, brain) for one in value]
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return None


def _asr_decoding(brain):
    hparams = brain.hparams
    if hparams.lm_folder and hparams.lm_weight:
        raise BundleError(
            f"lm_folder: the run was decoded with a language model of weight {hparams.lm_weight}, which a bundle does not hold: "
            "evaluate it with lm_weight: 0.0 and lm_folder: null, and publish that"
        )
    return {key: getattr(hparams, key) for key in contents.DECODING["asr"]}


def _verify_decoding(brain):
    """The cosine at which misses and false alarms are equally many, on the first list of trials."""
    hparams = brain.hparams
    card = {"subtract_mean": hparams.subtract_mean, "score_norm": hparams.score_norm}
    for split, dataset in brain.data.tests.items():
        if split in brain.trials:
            hparams.score_norm = "none"
            hparams.subtract_mean = "none" if hparams.subtract_mean == "none" else "train"  # of two recordings there is no list
            brain.evaluate(dataset, test_loader_kwargs=dict(brain.data.eval_loader))
            scored = brain.scored()
            return {"threshold": None if scored is None else _threshold(*scored[1:]), "threshold_of": split, **card}
    return {"threshold": None, "threshold_of": None, **card}


def _threshold(scores, curve):
    values = scores.double().unique()
    place = int((curve.miss - curve.false_alarm).abs().argmin())  # the scores below this place are refused
    low, high = values[max(place - 1, 0)], values[min(place, len(values) - 1)]
    return float((low + high) / 2)


_DECODING = {
    "asr": _asr_decoding,
    "classify": lambda brain: {key: getattr(brain.hparams, key) for key in contents.DECODING["classify"]},
    "identify": lambda brain: {},
    "verify": _verify_decoding,
}


def _model(brain, config):
    """(Model, state): the network of a Brain as a Model of its own modules, and what of it is saved."""
    network = nn.ModuleDict({name: brain.parts[name] for name in config["network"]}).cpu()
    state = parts.state_of(network)
    model = Model(config, network, pieces_of(brain.tokenizer) if config["task"] == "asr" else None)
    if config["task"] == "verify" and brain.hparams.subtract_mean != "none":
        model.centre = state[CENTRE] = brain.cohort[0].double().mean(0).float()
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise BundleError(f"{bad[0]} holds NaN or infinite values, as {len(bad)} tensors do: the run has diverged, train it again")
    return model, state


def pieces_of(tokenizer):
    """What each id of a SentencePiece ``tokenizer`` stands for, a tuple of str; "▁" is a space.

    Raises
    ------
    BundleError
        Where joining them is not what SentencePiece gives, as for pieces that are bytes: tried on every id, and on sequences of ids.
    """
    pieces = tuple(_surface(tokenizer, number) for number in range(len(tokenizer)))
    generator = torch.Generator().manual_seed(proof.SEED)
    drawn = [torch.randint(len(pieces), (1 + n % 12,), generator=generator).tolist() for n in range(200)]
    model = Model({"task": "asr", "sample_rate": None}, nn.ModuleDict(), pieces)
    for ids in [*([number] for number in range(len(pieces))), *drawn]:
        if model.text(ids) != tokenizer.decode_ids(ids):
            both = f"{tokenizer.decode_ids(ids)!r}, their pieces {model.text(ids)!r}"
            raise BundleError(f"tokenizer: ids {ids} are {both}: use a tokenizer of this package's: unigram, bpe or char")
    return pieces


def _surface(tokenizer, number):
    if tokenizer.is_control(number):
        return ""
    return tokenizer.decode_ids([number]) if number == tokens.BLANK else tokenizer.id_to_piece(number)


def _json(content):
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
