"""Whole published models around the registered sizes, for their parameter counts and for whoever wants one at once."""

from torch import nn

from spikebrain import registry
from spikebrain.lobes.framewise import SpikingClassifier
from spikebrain.lobes.transformer_asr import published_asr

BINS = 140  # channels of SpikeSCR's features: mel bands, or five cochlear channels each


def as_published(name):
    """Arguments of the encoder with which the size ``name`` has its published number of parameters, beside its defaults."""
    return {} if registry.entry(name).classes else {"qk_bias": True}


def published(name, **changes):
    """The published model around the registered size ``name``; ``changes`` go to its encoder.

    Returns an nn.ModuleDict: ``encoder`` and ``head`` where the size was published with classes, else that of
    :func:`published_asr`.
    """
    classes = registry.entry(name).classes
    if classes is None:
        return published_asr(name, **changes)
    model = SpikingClassifier(BINS, classes, encoder=name, encoder_kwargs=changes)
    return nn.ModuleDict({"encoder": model.encoder, "head": model.head})
