"""What SpeechBrain users put in a YAML; the only room that knows the host's contracts."""

from spikebrain.lobes.features import LogMel
from spikebrain.lobes.framewise import FrameEncoder, SpikingClassifier, SpikingEmbedding
from spikebrain.lobes.published import published
from spikebrain.lobes.rate import RateClassifier
from spikebrain.lobes.speaker import SpeakerEmbedding, SpeakerLoss
from spikebrain.lobes.transformer_asr import SpikingTransformerASR, published_asr
from spikebrain.lobes.utterance_features import Emotion2Vec, Fbank, HuggingFace

__all__ = [
    "Emotion2Vec",
    "Fbank",
    "FrameEncoder",
    "HuggingFace",
    "LogMel",
    "RateClassifier",
    "SpeakerEmbedding",
    "SpeakerLoss",
    "SpikingClassifier",
    "SpikingEmbedding",
    "SpikingTransformerASR",
    "published",
    "published_asr",
]
