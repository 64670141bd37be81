"""Neurons that run for one step from rest: a threshold, with the surrogate derivative of a neuron and no memory.

    s = 1[x >= threshold]        (PTS-SNN Eq. 8)
"""

import torch

from spikebrain.neurons.lif import PLIF


class SingleStepPLIF(PLIF):
    """A layer of PLIF neurons that begins anew at every frame, so that frames are told apart by nothing but their input.

    Arguments as for :class:`spikebrain.neurons.PLIF`. The decay multiplies a membrane of 0: it is there, as the paper counts one for
    each PLIF layer, but has no effect and no gradient, and is frozen (ours), since training in several processes stumbles over a
    parameter without one. ``decay_input`` is not heard: Eq. 8 has no decay.

    Example
    -------
    >>> SingleStepPLIF(1)(torch.tensor([[[0.9], [0.9], [1.0]]]))[0].flatten().tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, channels, decay=0.5, decay_per="layer", **options):
        super().__init__(channels, decay, decay_per, **{**options, "decay_input": False})
        self.logit.requires_grad_(False)

    def decays(self, like):
        """Zeros (C,): nothing is left of a membrane after a frame."""
        return torch.zeros(self.channels, dtype=like.dtype, device=like.device)
