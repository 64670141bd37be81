"""How often each layer of a network computed: from what it told, from its place, or from a formula.

A product tells its dense multiply-accumulates, which are its weight's elements times the positions at which it was computed. So
frames, and with them biases, norms and residual sums, follow from what was declared; nothing is guessed from the shape of a tensor,
which holds padding too.
"""

from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from spikebrain.blocks.masked_norm import MaskedBatchNorm, NormedNeuron
from spikebrain.energy.count import Counter, inside


@dataclass(frozen=True)
class Positions:
    """Where and how often layers computed, over all utterances of a split.

    Arguments
    ---------
    counter : Counter
    frames, pairs : int
        Frames of the encoder, and pairs of frames of one utterance: sum n and sum n^2.
    steps, step_pairs, crossed : int
        Steps of the decoder, pairs of them, and pairs of a step and a frame: sum u, sum u^2, sum u n; 0 without a decoder.
    decoder : str, optional
        Name of the decoder, whose layers compute once a step.
    formula : dict
        Layer -> positions, of layers that tell of nothing and are counted by a formula.
    """

    counter: Counter
    frames: int
    pairs: int = 0
    steps: int = 0
    step_pairs: int = 0
    crossed: int = 0
    decoder: str | None = None
    formula: dict = field(default_factory=dict)

    @property
    def utterances(self):
        """Their number."""
        return len(self.counter.feature_frames)

    def of(self, name):
        """Positions at which a layer without a weight matrix computes: frames, or steps inside the decoder."""
        if self.decoder is not None and inside(name, self.decoder):
            return self.steps
        return self.frames * self.micro_steps(name)

    def micro_steps(self, name):
        """How many micro-steps a frame has inside the layer ``name``, where they are folded into the batch; else 1."""
        return next((steps for block, steps in self._folded.items() if inside(name, block)), 1)

    @cached_property
    def _folded(self):
        return self.counter.micro_steps()

    def of_weight(self, name, module):
        """Positions at which a layer with a weight matrix computed.

        Raises
        ------
        ValueError
            Where neither the layer, nor the one that holds it, told of a product with it, and no formula counts it.
        """
        if name in self.formula:
            return self.formula[name]
        told = self.counter.products.get((name, "weight")) or self.counter.products.get((covering(self.counter, name), "weight"))
        if told is None:
            if self.decoder is not None and inside(name, self.decoder):
                return self.steps
            raise ValueError(unknown(name, module))
        return told.macs // module.weight.numel()


def covering(counter, name):
    """The module that told of the product of the layer ``name``, which it holds; None where there is none.

    A module may tell of one layer: with two of them it would not be known which one its product is of.
    """
    holder = name.rpartition(".")[0]
    if (holder, "weight") not in counter.products:
        return None
    held = [child for child in counter.silent(holder) if child.rpartition(".")[0] == holder and child != holder]
    return holder if held == [name] else None


def unknown(name, module):
    """The message of a refusal."""
    return f"{name} ({type(module).__name__}) holds a weight but told of no product, so its energy is unknown"


def folds(counter):
    """(layers that get a bias from a batch norm, batch norms that fold into them): two sets of names, as blocks declare them."""
    layers, norms = set(), set()
    for block, name in counter.modules.items():
        for layer, holders in getattr(block, "FOLDS", ()):
            found = [_norm(f"{name}.{holder}".lstrip("."), getattr(block, holder)) for holder in holders]
            found = [norm for norm in found if norm]
            norms.update(found)
            layers.update([f"{name}.{layer}".lstrip(".")] if found else [])
    return layers, norms


def _norm(name, holder):
    if isinstance(holder, NormedNeuron):
        name, holder = f"{name}.norm", holder.norm
    return name if isinstance(holder, MaskedBatchNorm) else None


def has_weight(module):
    """Whether a module holds a ``weight`` of two or more dimensions that is multiplied; an embedding's is only looked up."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() >= 2 and not isinstance(module, nn.Embedding)


def check_known(counter, name, module):
    """Raises ValueError for a module that holds parameters, but no weight, and told of no product."""
    if has_weight(module) or not any(True for _ in module.parameters(recurse=False)):
        return
    if all(name != told for told, _ in counter.products):
        raise ValueError(f"{unknown(name, module)}: neither is its type one of energy.further.RULES")
