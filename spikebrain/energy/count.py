"""Adds up what a network tells of its products and its spikes.

A :class:`Counter` is a listener of :mod:`spikebrain.operands`. It knows the modules of
one network by name, adds their events over any number of batches, and answers with
operations per product and firing rates per channel. It computes nothing itself: which
frames are valid, what an operand is and how many additions a spike costs is said by the
module that multiplies.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from spikebrain import operands
from spikebrain.encoders.iml_spikeformer import IMLSpikeformerBlock, RepSSA
from spikebrain.neurons import IterativeLIF
from spikebrain.operands import Firing, Kind, Product

_WRAPPERS = {"module", "_orig_mod"}  # what DistributedDataParallel and torch.compile put into a name
_SILENT, _INACTIVE, _SATURATED = 0.001, 0.01, 0.9


@dataclass(frozen=True)
class Operations:
    """The sum of one product's events.

    macs : multiply-accumulates of a dense implementation
    accumulates : additions that spikes leave of them, or None where both operands are real
    left, right : kinds of the operands
    """

    left: Kind
    right: Kind
    macs: int
    accumulates: int | None

    def __add__(self, other):
        both = None if self.accumulates is None else self.accumulates + other.accumulates
        return Operations(self.left, self.right, self.macs + other.macs, both)


@dataclass
class FiringSum:
    """The sum of one layer's firing: per-channel ``counts`` and ``saturated`` (C,), over ``frames``, of ``levels`` at most."""

    counts: torch.Tensor
    saturated: torch.Tensor
    frames: int
    levels: int

    @property
    def rates(self):
        """Firing rate of each channel, (C,), float64: spikes per frame and level, 0..1."""
        return self.counts / max(self.frames * self.levels, 1)


@dataclass(frozen=True)
class Heard:
    """What an attention heard, over valid frames: ``spikes`` in all, and ``met``, the sum over utterances of spikes times frames."""

    spikes: int
    met: int

    def __add__(self, other):
        return Heard(self.spikes + other.spikes, self.met + other.met)


class Counter:
    """Collects operations and firing rates of the network ``root``.

    Arguments
    ---------
    root : nn.Module
        The network; layers are named as ``root.named_modules()`` names them, without the
        parts that wrappers add.

    Attributes
    ----------
    products : dict
        (layer name, part) -> :class:`Operations`, in the order in which they were first told.
    spikes : dict
        layer name -> :class:`FiringSum`.
    heard : dict
        name of a :class:`RepSSA` -> :class:`Heard`, where :meth:`listen` was used: what its other order is worked out from.
    feature_frames, decoder_steps : list of int
        One number an utterance, from :meth:`add_utterances`.

    Raises
    ------
    ValueError
        At an event of a module that is not inside ``root``, or one that contradicts itself
        or an earlier event of the same layer; the message names the layer.
    """

    def __init__(self, root):
        self.modules = {module: clean_name(name) for name, module in root.named_modules()}
        self.products, self.spikes, self.heard = {}, {}, {}
        self.feature_frames, self.decoder_steps = [], []

    def __call__(self, event):
        if isinstance(event, Firing):
            self._add_firing(self._name(event), event)
        elif isinstance(event, Product):
            self._add_product(self._name(event), event)
        else:
            raise ValueError(f"Counter was told of a {type(event).__name__}, but knows Product and Firing")

    @contextmanager
    def listen(self):
        """:func:`spikebrain.operands.listen` for this counter, which also hears what each :class:`RepSSA` reads. Leaves no hook behind."""
        with ExitStack() as hooks, operands.listen(self):
            for module, name in self.modules.items():
                if isinstance(module, RepSSA):
                    hooks.callback(module.qk.register_forward_pre_hook(partial(self._hear, name)).remove)
            yield self

    def add_utterances(self, feature_frames, decoder_steps):
        """Says which utterances the events were of.

        Arguments
        ---------
        feature_frames : iterable (B,) of int, or Tensor
            Frames of each utterance before any subsampling, without padding.
        decoder_steps : iterable (B,) of int, or Tensor
            Positions that the decoder computes for each utterance (tokens and end), 0 without a decoder.
        """
        frames, steps = _integers(feature_frames), _integers(decoder_steps)
        if len(frames) != len(steps):
            raise ValueError(f"add_utterances got {len(frames)} feature_frames and {len(steps)} decoder_steps: pass both for all")
        self.feature_frames += frames
        self.decoder_steps += steps

    def rates(self):
        """Firing rate of every channel of every layer that fired or could have: {layer: Tensor (C,), float64, on CPU}."""
        return {name: spikes.rates.cpu() for name, spikes in self.spikes.items()}

    def firing_rate(self):
        """One summary a layer, as plain numbers.

        Returns
        -------
        dict
            layer -> ``mean`` and ``std`` of the channels' rates, ``below_0.001``, ``below_0.01`` (inactive) and
            ``above_0.9`` (saturated) as fractions of the channels, ``at_ceiling`` as the fraction of (frame, channel)
            pairs that fired all levels, and ``channels``, ``levels``, ``frames``.
        """
        return {name: _summary(spikes) for name, spikes in self.spikes.items()}

    def levels(self):
        """T, the most spikes that a neuron of the network can fire in a frame; None where nothing fired or could have."""
        modules = {name: module for module, name in self.modules.items()}
        return max((getattr(modules[name], "levels", spikes.levels) for name, spikes in self.spikes.items()), default=None)

    def micro_steps(self):
        """{block: T} of blocks that hear every frame T times, in T micro-steps that are folded into the batch."""
        blocks = {name: block for block, name in self.modules.items() if isinstance(block, IMLSpikeformerBlock)}
        folded = {name: [part.levels for part in block.modules() if isinstance(part, IterativeLIF)] for name, block in blocks.items()}
        return {name: levels[0] for name, levels in folded.items() if levels}

    def silent(self, prefix=""):
        """Names of layers under ``prefix`` that hold a weight of two or more dimensions but never told of a product."""
        told = {name for name, _ in self.products}
        holders = [name for module, name in self.modules.items() if _has_matrix(module)]
        return [name for name in holders if inside(name, prefix) and name not in told]

    def _hear(self, name, module, args):
        spikes, counts = args[0], args[0].counts
        fired = spikes.level.flatten(1).sum(1, dtype=torch.long)
        now = Heard(int(fired.sum()), int((fired * counts).sum()))
        self.heard[name] = self.heard[name] + now if name in self.heard else now

    def _name(self, event):
        if event.module not in self.modules:
            kind = type(event.module).__name__
            raise ValueError(f"a {kind} told of a {type(event).__name__}, but is no part of the counted network: give Counter its root")
        return self.modules[event.module]

    def _add_product(self, name, event):
        _check_product(f"{name}.{event.part}", event)
        new = Operations(event.left, event.right, int(event.macs), None if event.accumulates is None else int(event.accumulates))
        old = self.products.get((name, event.part))
        if old is not None and (old.left, old.right) != (new.left, new.right):
            before, now = f"{old.left.value} by {old.right.value}", f"{new.left.value} by {new.right.value}"
            raise ValueError(f"{name}.{event.part} multiplied {before} before and {now} now: give its two uses two names")
        self.products[name, event.part] = new if old is None else old + new

    def _add_firing(self, name, event):
        old = self.spikes.get(name)
        counts, saturated = event.counts.detach().double(), event.saturated.detach().double()
        if old is None:
            self.spikes[name] = FiringSum(counts.clone(), saturated.clone(), int(event.frames), int(event.levels))
            return
        if (old.levels, old.counts.shape) != (event.levels, counts.shape):
            raise ValueError(
                f"{name} fired {old.counts.numel()} channels at {old.levels} levels before and {counts.numel()} at {event.levels} now: "
                "count networks of different sizes apart"
            )
        old.counts, old.saturated, old.frames = old.counts + counts, old.saturated + saturated, old.frames + int(event.frames)


def clean_name(name):
    """A module's name without the parts that wrappers for parallel training and compilation add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def inside(name, prefix):
    """True when the layer ``name`` is the module ``prefix`` or lies within it; the empty prefix holds everything."""
    return not prefix or name == prefix or name.startswith(prefix + ".")


def _check_product(label, event):
    spiking = (event.left, event.right) != (Kind.REAL, Kind.REAL)
    if spiking and event.accumulates is None:
        kinds = f"{event.left.value} by {event.right.value}"
        raise ValueError(f"{label} multiplies {kinds} but says no accumulates: tell how many additions the spikes leave")
    if not spiking and event.accumulates is not None:
        raise ValueError(f"{label} multiplies real by real but says {event.accumulates} accumulates: declare its spiking operand")
    if event.macs < 0 or (event.accumulates or 0) < 0:
        raise ValueError(f"{label} counts {event.macs} macs and {event.accumulates} accumulates: neither can be negative")


def _summary(spikes):
    rates = spikes.rates
    pairs = max(spikes.frames * rates.numel(), 1)
    return {
        "mean": float(rates.mean()),
        "std": float(rates.std(correction=0)),
        "below_0.001": float((rates < _SILENT).double().mean()),
        "below_0.01": float((rates < _INACTIVE).double().mean()),
        "above_0.9": float((rates > _SATURATED).double().mean()),
        "at_ceiling": float(spikes.saturated.sum() / pairs),
        "channels": rates.numel(),
        "levels": spikes.levels,
        "frames": spikes.frames,
    }


def _has_matrix(module):
    return any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False))


def _integers(values):
    return torch.as_tensor(values).long().reshape(-1).tolist()
