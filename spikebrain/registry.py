"""Every neuron, encoder and published size by name: one explicit list, over which the laws are tested."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from spikebrain.baselines import spike_driven_transformer
from spikebrain.baselines.gsu import GSU
from spikebrain.baselines.iml_twin import IMLTwin
from spikebrain.baselines.lif_mlp import LIFMLP
from spikebrain.baselines.lif_network import LIFNetwork
from spikebrain.baselines.spikescr_twin import SpikeSCRTwin
from spikebrain.baselines.vanilla_snn import VanillaSNN
from spikebrain.baselines.vgg_bilstm import VGGBiLSTM
from spikebrain.encoders import iml_spikeformer as iml
from spikebrain.encoders import pts_snn, spikescr
from spikebrain.neurons import LIF, PLIF, IterativeLIF, MultiLevelSpike
from spikebrain.spelling import did_you_mean

KINDS = ("neuron", "encoder", "size", "ann")
_BITTAR = "A. Bittar, P. N. Garner, Frontiers in Neuroscience 16, 2022"
_SPIKESCR = "SpikeSCR, arXiv 2412.12858, 2024"
_IML = "IML-Spikeformer, arXiv 2507.07396, IEEE TNNLS 37(3), 2026"
_PTS = "PTS-SNN, arXiv 2602.08240, 2026"
_ALL_BIASES = {"qk_bias": True}  # the published table counts them everywhere


@dataclass(frozen=True)
class Entry:
    """A registered constructor.

    name : what a YAML says
    constructor : builds it; neurons take ``channels``, encoders ``num_layers, d_model, nhead, d_ffn, dropout, causal`` and
        their own switches
    kind : "neuron" and "encoder" follow ``forward(x, lengths=None, state=None) -> (out, state)``; "size" is an encoder with
        a published size's numbers; "ann" a comparator without spikes
    causal : whether a frame depends on itself and earlier ones only
    paper : the source
    parameters : exact trainable parameters of a size, biases and norms as published
    classes : of the classifier around a size, where it was published with one
    as_published : arguments of a size's constructor, beside its defaults, with which it has those parameters
    """

    name: str
    constructor: Callable
    kind: str
    causal: bool
    paper: str
    parameters: int | None = None
    classes: int | None = None
    as_published: dict = field(default_factory=dict, hash=False)


_ENTRIES = (
    Entry("imls", MultiLevelSpike, "neuron", True, _IML),
    Entry("mls", lambda channels, **k: MultiLevelSpike(channels, mode="mls", **k), "neuron", True, _IML),
    Entry("lif_multistep", IterativeLIF, "neuron", True, _IML),
    Entry("lif", LIF, "neuron", True, _SPIKESCR),
    Entry("lif_soft", functools.partial(LIF, reset="soft"), "neuron", True, _SPIKESCR),
    Entry("plif", functools.partial(PLIF, decay_per="channel"), "neuron", True, "W. Fang et al., ICCV 2021"),
    Entry("iml_spikeformer", iml.IMLSpikeformer, "encoder", False, _IML),
    Entry("iml_spikeformer_literal", iml.paper_literal, "encoder", False, _IML),
    Entry("iml_spikeformer_linear", lambda **k: iml.IMLSpikeformer(score="linear", **k), "encoder", False, _IML),
    Entry("iml_spikeformer_sdsa3", lambda **k: iml.IMLSpikeformer(attention="sdsa3", **k), "encoder", False, _IML),
    Entry("iml_spikeformer_mls", lambda **k: iml.IMLSpikeformer(neuron="mls", **k), "encoder", False, _IML),
    Entry("iml_spikeformer_multistep", lambda **k: iml.IMLSpikeformer(neuron="lif_multistep", **k), "encoder", False, _IML),
    Entry("spikescr", spikescr.SpikeSCR, "encoder", False, _SPIKESCR),
    Entry("spikescr_plif", functools.partial(spikescr.SpikeSCR, neuron="plif"), "encoder", False, _SPIKESCR),
    Entry("spikescr_no_gate", functools.partial(spikescr.SpikeSCR, gate=False), "encoder", False, _SPIKESCR),
    Entry("spikescr_no_convolution", functools.partial(spikescr.SpikeSCR, convolution=False), "encoder", False, _SPIKESCR),
    Entry("spikescr_no_rope", functools.partial(spikescr.SpikeSCR, positions="none"), "encoder", False, _SPIKESCR),
    Entry("spikescr_sin", functools.partial(spikescr.SpikeSCR, positions="sin"), "encoder", False, _SPIKESCR),
    Entry("spikescr_sin_lif", functools.partial(spikescr.SpikeSCR, positions="sin_lif"), "encoder", False, _SPIKESCR),
    Entry("lif_network", LIFNetwork, "encoder", True, _BITTAR),
    Entry("plif_network", functools.partial(LIFNetwork, neuron="plif"), "encoder", True, _BITTAR),
    Entry("pts_snn", pts_snn.PTSSNN, "encoder", False, _PTS),
    Entry("pts_snn_no_prompts", functools.partial(pts_snn.PTSSNN, num_prompts=0), "encoder", False, _PTS),
    Entry("pts_snn_no_attention", functools.partial(pts_snn.PTSSNN, attention=False), "encoder", False, _PTS),
    Entry("pts_snn_only_shift", functools.partial(pts_snn.PTSSNN, num_prompts=0, attention=False), "encoder", False, _PTS),
    Entry("pts_snn_literal", pts_snn.paper_literal, "encoder", False, _PTS),
    Entry("vanilla_snn", VanillaSNN, "encoder", True, _PTS),
    Entry("spike_driven_transformer", spike_driven_transformer.SpikeDrivenTransformer, "encoder", False, _IML),
    Entry("lif_mlp", LIFMLP, "encoder", True, _IML),
    Entry("gsu", GSU, "encoder", True, _IML),
    Entry("spikescr_twin", SpikeSCRTwin, "ann", False, "ours"),
    Entry("iml_spikeformer_twin", IMLTwin, "ann", False, _IML),
    Entry("vgg_bilstm", VGGBiLSTM, "ann", False, _IML),
    Entry("iml_spikeformer_aishell_12", iml.aishell_12, "size", False, _IML, 15_781_376, as_published=_ALL_BIASES),
    Entry("iml_spikeformer_aishell_24", iml.aishell_24, "size", False, _IML, 31_562_240, as_published=_ALL_BIASES),
    Entry("iml_spikeformer_aishell_36", iml.aishell_36, "size", False, _IML, 47_343_104, as_published=_ALL_BIASES),
    Entry("iml_spikeformer_librispeech_18", iml.librispeech_18, "size", False, _IML, 56_743_936, as_published=_ALL_BIASES),
    Entry("iml_spikeformer_voxceleb_3", iml.voxceleb_3, "size", False, _IML, 594_816, as_published=_ALL_BIASES),
    Entry("iml_spikeformer_voxceleb_6", iml.voxceleb_6, "size", False, _IML, 1_189_632, as_published=_ALL_BIASES),
    Entry("iml_spikeformer_voxceleb_9", iml.voxceleb_9, "size", False, _IML, 1_784_448, as_published=_ALL_BIASES),
    Entry("spike_driven_transformer_aishell_12", spike_driven_transformer.aishell_12, "size", False, _IML, 15_781_376),
    Entry("spike_driven_transformer_librispeech_18", spike_driven_transformer.librispeech_18, "size", False, _IML, 56_743_936),
    Entry("spikescr_shd_1l_8_128", spikescr.shd_1l_8_128, "size", False, _SPIKESCR, 259_072, 20),
    Entry("spikescr_1l_16_256", spikescr.commands_1l_16_256, "size", False, _SPIKESCR, 1_700_864, 35),
    Entry("spikescr_2l_16_256", spikescr.commands_2l_16_256, "size", False, _SPIKESCR, 3_293_440, 35),
    Entry("pts_snn_iemocap", pts_snn.iemocap, "size", False, _PTS, 1_192_979, 4),
)


def entries(kind=None, causal=None):
    """The registered entries, in order, optionally only those of one ``kind`` or ``causal`` flag."""
    return [e for e in _ENTRIES if (kind is None or e.kind == kind) and (causal is None or e.causal == causal)]


def entry(name):
    """The entry called ``name``; a ValueError lists what there is and names the nearest."""
    found = {e.name: e for e in _ENTRIES}
    if name in found:
        return found[name]
    raise ValueError(f"nothing is registered under {name!r}: choose one of {', '.join(found)}{did_you_mean(name, found)}")


def build(name, **arguments):
    """Builds the entry called ``name``."""
    return entry(name).constructor(**arguments)
