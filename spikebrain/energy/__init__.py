"""Operations and energy of a spiking network beside its non-spiking twin.

    counter = energy.Counter(brain.modules)            # names layers as named_modules does
    with counter.listen():                             # operands.listen(counter), and what both orders of scores need
        for batch in split:
            ...                                        # evaluation as always
            counter.add_utterances(feature_frames, decoder_steps)      # two (B,) counts, before subsampling
    results["firing_rate"] = counter.firing_rate()     # {layer: {mean, std, ...}}
    results["energy"] = energy.report(counter, energy.architecture(brain.modules))
    plots.firing_rates(counter.rates())                # {layer: Tensor (C,)}

A twin run does the same; nothing is told, so its energy is the analytic count alone. Networks that no formula counts, such as
classifiers, are reported by ``energy.report_told``, from what their layers told alone. Beside the headline, what is multiplied or
added for a product, stand neurons, norms and the like (:mod:`spikebrain.energy.further`), a twin on integers
(:mod:`spikebrain.energy.scopes`) and both orders of the scores (:mod:`spikebrain.energy.orders`).
"""

from spikebrain.energy.analytic import Architecture, Conv, architecture, macs
from spikebrain.energy.count import Counter
from spikebrain.energy.prices import (
    HOROWITZ_FP32,
    HOROWITZ_INT8,
    HOROWITZ_INT8_SUM32,
    JOUPPI_INT8_SUM32,
    TABLES,
    Prices,
    integer_table,
    saving,
)
from spikebrain.energy.report import report
from spikebrain.energy.scopes import SCOPES
from spikebrain.energy.told import report_told

__all__ = [
    "Architecture",
    "Conv",
    "Counter",
    "HOROWITZ_FP32",
    "HOROWITZ_INT8",
    "HOROWITZ_INT8_SUM32",
    "JOUPPI_INT8_SUM32",
    "Prices",
    "SCOPES",
    "TABLES",
    "architecture",
    "integer_table",
    "macs",
    "report",
    "report_told",
    "saving",
]
