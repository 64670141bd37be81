"""Whether a network can be converted: it must be in evaluation mode and know its statistics."""

from spikebrain.neurons import MultiLevelSpike


class ConversionError(ValueError):
    """A network cannot be converted; the message names the layer and the repair."""


def check(network):
    """Refuses what has no spike-driven form yet.

    Raises
    ------
    ConversionError
        A module in training mode, whose dropout and batch statistics would not be those of inference; or a multi-level neuron that has
        seen no training batch, and so has no threshold.
    """
    for name, module in network.named_modules():
        if module.training:
            what = f"{name or 'the network'} ({type(module).__name__}) is in training mode, with dropout and batch statistics"
            raise ConversionError(f"{what}: call network.eval() first")
        if isinstance(module, MultiLevelSpike) and module.mode == "imls" and not bool((module.running_max > 0).any()):
            what = f"{name} (MultiLevelSpike) has seen no training batch, so that it has no threshold"
            raise ConversionError(f"{what}: train it or load trained weights")
