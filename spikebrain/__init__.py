"""Spiking speech processing for SpeechBrain.

``import spikebrain`` needs torch alone; everything that needs SpeechBrain lives in
:mod:`spikebrain.lobes`, :mod:`spikebrain.data` and :mod:`spikebrain.training`.
"""

__version__ = "0.1.0"
