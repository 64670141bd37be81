"""Spiking speech processing for SpeechBrain.

    spikebrain.load("path/to/bundle").transcribe("speech.flac")

``import spikebrain`` needs torch alone; everything that needs SpeechBrain lives in
:mod:`spikebrain.lobes`, :mod:`spikebrain.data`, :mod:`spikebrain.training` and :mod:`spikebrain.publishing`.
"""

__version__ = "0.1.0"


def load(path, check=False):
    """The model in a bundle, a folder or ``owner/name`` on the hub: :func:`spikebrain.publishing.load.load`."""
    from spikebrain import publishing

    return publishing.load(path, check)
