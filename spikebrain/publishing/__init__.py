"""Trained networks as folders that anyone can load, check and trust: made, loaded, used, described and pushed."""

from spikebrain.publishing.load import BundleError, Model, load

__all__ = ["BundleError", "Model", "load"]
