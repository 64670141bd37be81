"""Whole published models around the registered sizes, for their parameter counts and for whoever wants one at once."""

from torch import nn

from spikebrain import registry
from spikebrain.lobes.framewise import SpikingClassifier
from spikebrain.lobes.rate import RateClassifier
from spikebrain.lobes.transformer_asr import published_asr

BINS = 140  # channels of SpikeSCR's features: mel bands, or five cochlear channels each
_BY_RATE = {"pts_snn_iemocap": 768}  # sizes whose classes are neurons: channels of their features


def published(name, **changes):
    """The published model around the registered size ``name``; ``changes`` go to its encoder.

    Returns an nn.ModuleDict: ``encoder`` and ``head``, or ``readout`` where classes are neurons, where the size was published with
    classes, else that of :func:`published_asr`.
    """
    classes = registry.entry(name).classes
    if classes is None:
        return published_asr(name, **changes)
    if name in _BY_RATE:
        model = RateClassifier(_BY_RATE[name], classes, encoder=name, encoder_kwargs=changes)
    else:
        model = SpikingClassifier(BINS, classes, encoder=name, encoder_kwargs=changes)
    return nn.ModuleDict(dict(model.named_children()))
