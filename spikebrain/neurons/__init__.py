"""Spiking neurons: parameters, statistics and states. How time or levels are computed is the business of ``kernels``."""

from spikebrain.neurons.iterative import IterativeLIF
from spikebrain.neurons.multilevel import FiringOptions, MultiLevelSpike

__all__ = ["FiringOptions", "IterativeLIF", "MultiLevelSpike"]
