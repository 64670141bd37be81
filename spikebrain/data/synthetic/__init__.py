"""Synthetic twins of the corpora, made here in the corpora's real on-disk layout.

``MAKERS`` maps a corpus's name to the module that makes it: ``make(out, seed, utterances)``
writes the folder, ``UTTERANCES`` holds the default number of utterances a split.
"""

from importlib import import_module

MAKERS = {
    "aishell": "spikebrain.data.synthetic.aishell",
    "casia": "spikebrain.data.synthetic.casia",
    "emodb": "spikebrain.data.synthetic.emodb",
    "emovo": "spikebrain.data.synthetic.emovo",
    "gsc": "spikebrain.data.synthetic.gsc",
    "iemocap": "spikebrain.data.synthetic.iemocap",
    "librispeech": "spikebrain.data.synthetic.librispeech",
    "shd": "spikebrain.data.synthetic.shd",
    "ssc": "spikebrain.data.synthetic.ssc",
    "urdu": "spikebrain.data.synthetic.urdu",
    "voxceleb": "spikebrain.data.synthetic.voxceleb",
}


def maker(name):
    """The module that makes the synthetic twin of corpus ``name`` (any case); an unknown name is a ValueError that lists the known ones."""
    if name.lower() not in MAKERS:
        raise ValueError(f"corpus {name!r} has no synthetic twin; there is: {', '.join(sorted(MAKERS))}")
    return import_module(MAKERS[name.lower()])
