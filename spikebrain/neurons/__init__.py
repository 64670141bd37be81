"""Neurons: parameters and statistics; how they fire over frames or levels is computed in ``kernels``."""

from spikebrain.neurons.iterative import IterativeLIF
from spikebrain.neurons.lif import LIF, PLIF, LIFState
from spikebrain.neurons.multilevel import FiringOptions, MultiLevelSpike

__all__ = ["LIF", "PLIF", "FiringOptions", "IterativeLIF", "LIFState", "MultiLevelSpike"]
