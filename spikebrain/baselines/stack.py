"""What networks of layers that carry a state share: checking what comes in, and handing it from layer to layer."""

from spikebrain import lengths as frames
from spikebrain import operands


def check(network, x, state):
    """Refuses what does not fit ``network``, which has ``input_size`` and ``layers``.

    Raises
    ------
    ValueError
        When x (B, L, N) has another number of channels, or the state another number of layers.
    """
    if x.shape[-1] != network.input_size:
        raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {network.input_size}: set input_size: {x.shape[-1]}")
    if state is not None and len(state.layers) != len(network.layers):
        raise ValueError(f"the state has {len(state.layers)} layers, the network {len(network.layers)}: pass the state that it returned")


def before(network, state):
    """The state of every layer before the first frame, None where there is none."""
    return [None] * len(network.layers) if state is None else state.layers


def run(network, x, lengths, state):
    """Runs features through ``network.layers``, each a map of (declared train, state) to the same two.

    Arguments
    ---------
    x : Tensor (B, L, N)
    lengths : Tensor (B,) or None
    state : NamedTuple with ``layers``, or None

    Returns
    -------
    (train, states) : declared :class:`operands.Spikes` of the last layer, and a tuple of what each layer carries on

    Raises
    ------
    ValueError
        As for :func:`check`.
    """
    check(network, x, state)
    counts, after = frames.absolute(lengths, x), []
    train = operands.Spikes.real(frames.zero_past(x, counts), counts)
    for layer, own in zip(network.layers, before(network, state), strict=True):
        train, own = layer(train, own)
        after.append(own)
    return train, tuple(after)
