"""From a trained network to the one that spike-driven hardware runs, step by step; each step returns a new network.

    driven = convert.unroll_levels(convert.fold_batchnorm(convert.reparameterise(encoder.eval())))
    run = convert.simulate(driven, x, lengths)        # event by event: the trained network's spikes, and what was added for them
    print(convert.audit(driven, x, lengths))        # every product with the kinds of its operands, and what else is computed
"""

from spikebrain.convert.audit import Audit, audit
from spikebrain.convert.fold import fold_batchnorm
from spikebrain.convert.ready import ConversionError, check
from spikebrain.convert.reparameterise import FusedRepSSA, reparameterise
from spikebrain.convert.simulate import Simulation, convert, simulate, told
from spikebrain.convert.unroll import unroll_levels

__all__ = [
    "Audit",
    "ConversionError",
    "FusedRepSSA",
    "Simulation",
    "audit",
    "check",
    "convert",
    "fold_batchnorm",
    "reparameterise",
    "simulate",
    "told",
    "unroll_levels",
]
