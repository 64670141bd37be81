"""Prints what a recipe's YAML, or a published size, would build; needs no data and leaves no file.

    python tools/describe.py recipes/LibriSpeech/hparams/iml_spikeformer.yaml [--key=value ...]
    python tools/describe.py recipes/IEMOCAP/hparams/pts_snn.yaml --channels=768   # of features that a model in a folder gives
    python tools/describe.py --size iml_spikeformer_aishell_12 [--qk_bias=False]
    python tools/describe.py --size spikescr_1l_16_256 [--gate=False]

The answer is JSON: ``parameters.total``, ``parameters.trainable`` and ``parameters.by_module``.
"""

import argparse
import importlib
import io
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references

from spikebrain import lobes, registry
from spikebrain.spelling import did_you_mean
from spikebrain.training import keys, results


def main(argv=None):
    """Prints the description as JSON on standard output; bad arguments end in one line on standard error."""
    arguments, overrides = _arguments(argv)
    try:
        written = published(arguments.size, **overrides) if arguments.size else recipe(arguments.yaml, overrides)
    except (OSError, ValueError) as error:
        raise SystemExit(f"describe.py: {error}") from error
    print(json.dumps(written, indent=2))


def recipe(path, overrides):
    """What the YAML file ``path`` with ``overrides`` (a dict) builds under ``modules``, or its front end and classifier, or its embedding.

    Where the overrides say ``channels`` and the file has no such key, features have so many, and no front end is built. Only what
    these need is built: no checkpointer, logger or tokenizer, so nothing touches the disk.
    RecipeError, a ValueError, names a file or key that is not there.
    """
    channels = overrides.get("channels")
    text = _networks_alone(path, overrides)
    modules = _without_memory(lambda: _built(load_hyperpyyaml(text), path, channels))
    return {"yaml": str(path), "parameters": results.parameters(modules)}


def _built(tree, path, channels):
    """The modules of a recipe; a classifier is made for its front end's channels and its corpus's number of classes."""
    if "modules" in tree:
        return tree["modules"]
    if "embedding_model" in tree:  # what names the training speakers is made when their number is known
        return {"embedding_model": tree["embedding_model"]()}
    if "features" not in tree:
        return {"classifier": tree["classifier"](input_size=channels, classes=_classes(tree, path))}
    features = tree["features"]
    if "frames" in tree:  # a front end that is made for a number of frames; others extract what is stored, and are not trained
        features = features(frames=tree["frames"][0] if isinstance(tree["frames"], list) else tree["frames"])
    classifier = tree["classifier"](input_size=features.channels, classes=_classes(tree, path))
    return {"features": features, "classifier": classifier} if "frames" in tree else {"classifier": classifier}


def _classes(tree, path):
    """How many classes: those that the YAML chooses, or all of the corpus, after which the recipe's folder is named."""
    chosen = tree.get("classes") or tree.get("emotions")
    if chosen is None:
        return importlib.import_module(f"spikebrain.data.corpora.{Path(path).resolve().parent.parent.name.lower()}").CLASSES
    return len(chosen) if isinstance(chosen, list) else chosen


def published(name, **changes):
    """The whole published model around the registered size ``name``, with ``changes`` to its encoder."""
    sizes = [entry.name for entry in registry.entries("size")]
    if name not in sizes:
        raise ValueError(f"{name} is no published size; there are: {', '.join(sizes)}{did_you_mean(name, sizes)}")
    changes = {**registry.entry(name).as_published, **changes}
    try:
        modules = _without_memory(lambda: lobes.published(name, **changes))
    except TypeError as error:
        raise ValueError(error) from error
    return {"size": name, **changes, "parameters": results.parameters(modules)}


NETWORKS = ("modules", "embedding_model", "features", "classifier", "frames", "classes", "emotions")


def _networks_alone(path, overrides):
    """What of the YAML describes networks, with every reference resolved and every placeholder filled."""
    if not Path(path).is_file():
        raise keys.RecipeError(f"{path}: no such file")
    tree = keys.read(path)
    stored = "channels" in overrides and "channels" not in tree and "features" in tree
    overrides = {key: value for key, value in overrides.items() if key != "channels" or not stored}
    unknown = [key for key in overrides if key not in tree]
    if unknown:
        raise keys.RecipeError(f"--{unknown[0]}: {path} has no such key{did_you_mean(unknown[0], tree)}")
    if not {"modules", "classifier", "embedding_model"} & set(tree):
        raise keys.RecipeError(f"{path}: lacks the key modules, there is nothing to describe")
    given = {key: "not-needed" for key, node in tree.items() if keys.is_placeholder(node)}
    if "ssl_folder" in given.keys() - overrides.keys() and not stored:
        what = "ssl_folder has no value, and its model's channels are read"
        raise keys.RecipeError(f"{path}: {what}: pass --ssl_folder=... or --channels=768")
    with open(path, encoding="utf-8") as file:
        resolved = ruamel.yaml.YAML().load(resolve_references(file, {**given, **overrides}))
    text = io.StringIO()
    alone = [key for key in NETWORKS[:2] if key in tree]  # each is a whole network
    wanted = alone or [key for key in NETWORKS[2:] if not (stored and key == "features")]
    ruamel.yaml.YAML().dump({key: resolved[key] for key in wanted if key in tree}, text)
    return text.getvalue()


def _without_memory(build):
    """What ``build()`` makes, on the meta device where all of it can be made there (some constructors compute)."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        return build()


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("yaml", nargs="?", help="a recipe's YAML file, followed by --key=value overrides")
    what.add_argument("--size", help="a registered size, followed by --key=value changes to its encoder")
    arguments, rest = parser.parse_known_args(argv)
    return arguments, dict(_override(word, parser) for word in rest)


def _override(word, parser):
    key, equals, value = word.removeprefix("--").partition("=")
    if not word.startswith("--") or not equals:
        parser.error(f"{word} is no override: write --key=value")
    return key, _value(value)


def _value(word):
    return ruamel.yaml.YAML(typ="safe").load(word)


if __name__ == "__main__":
    main()
