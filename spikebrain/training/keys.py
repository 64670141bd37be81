"""Recipe files: finding them, and refusing keys that nobody reads.

HyperPyYAML refuses an override that matches no key, but not a key of the file that no
code ever looks at, and not a misspelt key handed to an included block. Here both stop
before anything is built, with the nearest known name.
"""

import os
import re
from pathlib import Path

import ruamel.yaml
from speechbrain.utils.run_opts import RunOptions

from spikebrain.spelling import did_you_mean

_REFERENCE = re.compile(r"<([A-Za-z_]\w*)")


class RecipeError(ValueError):
    """A recipe file or an override cannot be used; the message names the file or key and the repair."""


def find(recipe, path):
    """The YAML file ``path``: as given, or beside the recipe file ``recipe``.

    Raises
    ------
    RecipeError
        In neither place: lists the files that the recipe has.
    """
    beside = Path(recipe).resolve().parent / path
    for candidate in (Path(path), beside):
        if candidate.is_file():
            return str(candidate)
    have = sorted(os.path.relpath(f, beside.parent.parent) for f in beside.parent.glob("*.yaml"))
    raise RecipeError(f"{path}: no such file, here or beside {Path(recipe).name}; there are: {', '.join(have) or 'none'}")


def read(path):
    """The tree of a YAML file as written: tags are kept, nothing is built or resolved."""
    with open(path, encoding="utf-8") as file:
        return ruamel.yaml.YAML().load(file)


def parse_overrides(overrides):
    """Overrides, a YAML string as SpeechBrain's command line gives it or a mapping, as a dict; RecipeError for what is no YAML."""
    if isinstance(overrides, str):
        try:
            overrides = ruamel.yaml.YAML(typ="safe").load(overrides)
        except ruamel.yaml.constructor.DuplicateKeyError as error:
            raise RecipeError(f"an override is given twice: {error.problem}: give it once") from error
        except ruamel.yaml.error.YAMLError as error:
            raise RecipeError(f"the overrides are no YAML: {error}") from error
    return dict(overrides or {})


def check(path, overrides, known):
    """Refuses keys that nothing reads.

    Arguments
    ---------
    path : str
        A recipe's YAML file.
    overrides : dict
        Overrides from the command line.
    known : collection of str
        Keys that the runner and the task read; an override may name one that the file leaves out. Run options
        of SpeechBrain, keys that another entry refers to and names that begin with ``__`` are known too.

    Raises
    ------
    RecipeError
        An override that nothing reads, a key of the file that nothing reads, or a key handed to an
        included file that has no such key: names the nearest known one.
    """
    tree = read(path)
    _compare(overrides, set(tree) | set(known), f"--{{}}: {path} has no such key")
    readable = set(known) | set(RunOptions().as_dict()) | _referenced(tree)
    unread = {key: None for key in tree if not key.startswith("__") and key not in readable}
    _compare(unread, readable, f"{path}: nothing reads the key {{}}")
    _check_included(tree, Path(path).parent)
    for key, value in overrides.items():
        if isinstance(value, dict) and _include(tree.get(key)):
            _compare(value, read(Path(path).parent / _include(tree[key])), f"--{key}: {_include(tree[key])} has no key {{}}")


def require(hparams, needed, path):
    """Raises RecipeError when a key of ``needed`` (name -> meaning) is missing from ``hparams``."""
    missing = [key for key in needed if key not in hparams]
    if missing:
        raise RecipeError(f"{path}: lacks the key {missing[0]} ({needed[missing[0]]}); missing in all: {', '.join(missing)}")


def make(key, factory, **arguments):
    """What the factory under a recipe's ``key`` makes of ``arguments``; what it refuses is a RecipeError that names the key."""
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{key}: {error}") from error


def is_placeholder(node):
    """True for a value written as ``!PLACEHOLDER``."""
    return _tag(node) == "!PLACEHOLDER"


def _compare(given, names, message):
    for key in given:
        if key not in names:
            raise RecipeError(message.format(key) + (did_you_mean(key, names) or f"; known keys: {', '.join(sorted(map(str, names)))}"))


def _tag(node):
    tag = getattr(node, "tag", None)
    return getattr(tag, "value", None) or ""


def _include(node):
    tag = _tag(node)
    return tag.removeprefix("!include:") if tag.startswith("!include:") else None


def _children(node):
    if isinstance(node, dict):
        return list(node.values())
    return list(node) if isinstance(node, list) else []


def _referenced(node):
    """Names of the top-level keys that ``!ref`` and ``!copy`` below ``node`` point to."""
    if _tag(node) in ("!ref", "!copy"):
        return set(_REFERENCE.findall(str(node.value)))
    return set().union(*map(_referenced, _children(node)))


def _check_included(node, folder):
    file = _include(node)
    if file:
        block = read(folder / file)
        if isinstance(node, dict):
            _compare(node, block, f"{file} has no key {{}}")
        _check_included(block, (folder / file).parent)
    else:
        for child in _children(node):
            _check_included(child, folder)
