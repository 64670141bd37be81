"""What SpeechBrain users put in a YAML; the only room that knows the host's contracts."""

from spikebrain.lobes.features import LogMel
from spikebrain.lobes.transformer_asr import SpikingTransformerASR, published_asr

__all__ = ["LogMel", "SpikingTransformerASR", "published_asr"]
