"""The declared kind of an operand, and one call that tells a listener of a product.

A spiking network's energy depends on what its products multiply: a binary spike or an
integer level turns a multiplication into accumulations, a real number does not. Whether
a tensor is a spike train is not guessed from its values; the module that multiplies
*declares* it here. Counting (``energy``), auditing (``convert``) and firing-rate
statistics are listeners. Where nobody listens, nothing is computed.

    events = []
    with listen(events.append):
        encoder(x, lengths)
"""

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch

_listeners = []


class Kind(str, Enum):
    """What an operand's elements can be."""

    BINARY = "binary"  # 0 or 1
    LEVEL = "level"  # an integer 0..T, standing for that many binary spikes
    REAL = "real"


class Spikes(NamedTuple):
    """A declared spike train, as it passes from a neuron to the product that reads it; or, where one is expected, real numbers.

    value : Tensor (B, L, C), what the product multiplies: level * gain; carries the gradient
    code : Tensor (B, L, C), uint8, the level in bits 0-6; all that a product keeps for its backward pass
    gain : Tensor (C,) or (B, 1, C), value of one spike; None where trains with different gains were added, so that a product must
        keep the value itself (``code`` may then be None too, while nobody listens)
    levels : T, the largest level; 1 for a binary train, None for real numbers, which have neither code nor gain
    counts : Tensor (B,), int64, valid frames of each utterance; frames past them hold no spike
    """

    value: torch.Tensor
    code: torch.Tensor | None
    gain: torch.Tensor | None
    levels: int | None
    counts: torch.Tensor

    @classmethod
    def real(cls, value, counts):
        """Real numbers ``value`` (B, L, C), 0 past ``counts`` (B,) frames, as a product of spikes takes them."""
        return cls(value, None, None, None, counts)

    @property
    def kind(self):
        """Kind.BINARY for T = 1, Kind.REAL where there is no T, else Kind.LEVEL."""
        if self.levels is None:
            return Kind.REAL
        return Kind.BINARY if self.levels == 1 else Kind.LEVEL

    @property
    def level(self):
        """The integer levels (B, L, C), uint8."""
        return self.code & 127

    def plus(self, other):
        """The sum of two trains, whose level is the sum of their levels: an addition of events, not a product."""
        a, b = self.gain, other.gain
        alike = a is not None and b is not None and a.dim() == b.dim() == 1 and (torch.compiler.is_compiling() or torch.equal(a, b))
        code = self.code + other.code if alike or listening() else None
        return Spikes(self.value + other.value, code, self.gain if alike else None, self.levels + other.levels, self.counts)

    def split(self, widths):
        """The train's channels apart: a list of trains of ``widths`` channels, ints whose sum is C, in order."""
        parts = ([None] * len(widths) if t is None else t.split(widths, -1) for t in (self.value, self.code, self.gain))
        return [self._replace(value=value, code=code, gain=gain) for value, code, gain in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Product:
    """One product as it happened, over valid frames only.

    module : the nn.Module that multiplied
    part : which of its products (``"weight"``, ``"scores"``, ``"values"``, ...)
    left, right : kinds of the two operands
    macs : multiply-accumulates that a dense implementation needs
    accumulates : additions that are left when only spikes are processed, a level-3
        spike counting 3; None where no operand is a spike (``macs`` is then the cost)
    """

    module: torch.nn.Module
    part: str
    left: Kind
    right: Kind
    macs: int
    accumulates: int | None = None


@dataclass(frozen=True)
class Firing:
    """What one layer of neurons fired, over valid frames only.

    module : the neuron
    counts : Tensor (C,), float64, spikes per channel, a level-3 spike counting 3
    frames : number of valid (utterance, frame) pairs behind ``counts``
    levels : T, so that ``counts / (frames * levels)`` is the firing rate
    saturated : Tensor (C,), float64, how often a channel fired all T spikes
    """

    module: torch.nn.Module
    counts: torch.Tensor
    frames: int
    levels: int
    saturated: torch.Tensor


@contextmanager
def listen(listener):
    """Calls ``listener(event)`` for every Product and Firing inside the block. Blocks nest."""
    _listeners.append(listener)
    try:
        yield listener
    finally:
        _listeners.remove(listener)


def listening():
    """True inside a :func:`listen` block; callers compute an event only then."""
    return bool(_listeners)


def tell(event):
    """Hands ``event`` to every listener."""
    for listener in _listeners:
        listener(event)


def tell_real(module, times, macs, part="weight"):
    """Declares a product of real numbers: ``macs`` for each of ``times``, an int or a Tensor that is summed. Free where nobody listens."""
    if listening():
        tell(Product(module, part, Kind.REAL, Kind.REAL, int(torch.as_tensor(times).sum()) * macs))
