"""One file a corpus, each with the same two verbs.

``read(data_folder, split)`` gives the utterances of a split, ``prepare(data_folder,
save_folder, splits=None, **options)`` writes manifests and returns a Preparation.
"""

import importlib
import pkgutil


def by_name():
    """The module of every corpus, by the name that results are filed under, such as ``"AISHELL-1"``."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.CORPUS.name: module for module in modules}
