"""What SpeechBrain users put in a YAML; the only room that knows the host's contracts."""

from spikebrain.lobes.features import LogMel
from spikebrain.lobes.framewise import FrameEncoder, SpikingClassifier, SpikingEmbedding
from spikebrain.lobes.published import published
from spikebrain.lobes.rate import RateClassifier
from spikebrain.lobes.transformer_asr import SpikingTransformerASR, published_asr

__all__ = [
    "FrameEncoder",
    "LogMel",
    "RateClassifier",
    "SpikingClassifier",
    "SpikingEmbedding",
    "SpikingTransformerASR",
    "published",
    "published_asr",
]
