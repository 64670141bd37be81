"""What SpeechBrain users put in a YAML; the only room that knows the host's contracts."""

from spikebrain.lobes.features import LogMel
from spikebrain.lobes.framewise import FrameEncoder, SpikingClassifier, SpikingEmbedding
from spikebrain.lobes.published import as_published, published
from spikebrain.lobes.transformer_asr import SpikingTransformerASR, published_asr

__all__ = [
    "FrameEncoder",
    "LogMel",
    "SpikingClassifier",
    "SpikingEmbedding",
    "SpikingTransformerASR",
    "as_published",
    "published",
    "published_asr",
]
