"""Synthetic twins of the corpora, made here in the corpora's real on-disk layout.

``MAKERS`` maps a corpus's name to the module that makes it. Its ``make(out, seed, utterances)`` writes the folder ``out`` (str or Path),
or keeps the complete one that is there, as :func:`spikebrain.data.synthetic.folder.make_folder` says, and returns its Path.
``utterances`` is a mapping of splits to numbers, of what the module says, by default its ``UTTERANCES``; splits that are not named are not
made. The same seed gives the same bytes. It raises a DataError for an unknown split or a number below 1, and where ``out`` holds something
that was not made here; and an ImportError that names the extra, where a package is not installed (espeakng_loader, and h5py for
recordings of spikes).
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
