"""The options of LIF neurons as switches of a model, for models whose options are these and more."""

from dataclasses import dataclass, fields

from spikebrain.neurons.switches import Switches


@dataclass(frozen=True)
class NeuronSwitches(Switches):
    """What a model's neurons are built with; meanings and defaults as for :class:`spikebrain.neurons.LIF`."""

    decay: float = 0.5
    threshold: float = 1.0
    reset: str = "hard"
    detach_reset: bool = True
    decay_input: bool = False
    surrogate: str = "arctan"
    alpha: float = 5.0

    def neuron_options(self):
        """The keyword arguments of :class:`spikebrain.neurons.LIF`."""
        return {switch.name: getattr(self, switch.name) for switch in fields(NeuronSwitches)}


@dataclass(frozen=True)
class SoftNeuronSwitches(NeuronSwitches):
    """The neurons of PTS-SNN, and of what it is compared with.

    The paper's values are lost (its threshold, decay and steepness are not in the text). Ours: a decay of 0.5, to begin with where
    it is learned; threshold 1; the reset by subtraction, since Eq. 1 names the threshold, and with its derivative; input that is
    not weighted by 1 - decay, with which the net falls nearly silent; the arctan surrogate with alpha 2.
    """

    reset: str = "soft"
    detach_reset: bool = False
    alpha: float = 2.0
