"""Property 22: the analytic count gives the published energies of the Transformer rows; and it equals a count by hooks."""

import pytest
import torch
from torch import nn

from spikebrain import energy
from spikebrain.blocks.subsampling import Conv2dSubsampling

PER_MAC = energy.HOROWITZ_FP32.mac_pJ * 1e-9
PROJECTOR = "Transformer.custom_src_module"


def recogniser(blocks, width, heads, ffn, vocabulary, factor, decoders=6, mels=80):
    """The paper's ANN twin from real modules, without memory behind its weights."""
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    from speechbrain.nnet.linear import Linear

    with torch.device("meta"):
        frontend = Conv2dSubsampling(width, factor, mels)
        model = TransformerASR(vocabulary, frontend.out_features, width, heads, blocks, decoders, ffn, normalize_before=True, causal=False)
        heads = {name: Linear(input_size=width, n_neurons=vocabulary) for name in ("ctc_lin", "seq_lin")}
    return nn.ModuleDict({"frontend": frontend, "Transformer": model, **heads})


def millijoules(parts):
    return sum(parts.values()) * PER_MAC


@pytest.mark.parametrize("blocks, published", [(12, 10.38), (24, 15.58), (36, 20.78)])
@pytest.mark.parametrize("frames", [283, 286])
def test_aishell_rows(blocks, published, frames):
    sizes = energy.architecture(recogniser(blocks, 256, 4, 2048, 4233, 4))
    assert sizes.encoder_frames(frames) == 70
    total = sum(millijoules(parts) for parts in energy.macs(sizes, [frames], [11]).values())
    assert total == pytest.approx(published, abs=0.01)


def test_librispeech_row():
    sizes = energy.architecture(recogniser(18, 512, 8, 2048, 5000, 6))
    total = sum(millijoules(parts) for parts in energy.macs(sizes, [281], [16]).values())
    assert total == pytest.approx(32.63, abs=0.05)


def test_breakdown_of_the_aishell_row():
    counts = energy.macs(energy.architecture(recogniser(12, 256, 4, 2048, 4233, 4)), [283], [11])
    frontend = {name: count * PER_MAC for name, count in counts["frontend"].items()}
    assert frontend == pytest.approx({"frontend.conv_1": 0.058, "frontend.conv_2": 3.61, PROJECTOR: 0.40}, abs=0.005)
    encoder = [count * PER_MAC for count in counts["encoder"].values()]
    assert encoder == pytest.approx([5.07, 0.14], abs=0.006)
    ctc = counts["decoder"].pop("ctc") * PER_MAC
    assert (ctc, millijoules(counts["decoder"])) == pytest.approx((0.35, 0.76), abs=0.005)


def hooked_macs(modules, frames, steps):
    """Products of a real forward pass, as torch's own counter sees them (it counts two operations a product)."""
    from torch.utils.flop_counter import FlopCounterMode

    modules.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        x, lengths = modules["frontend"](torch.randn(1, frames, modules["frontend"].n_mels))
        encoded, decoded = modules["Transformer"](x, torch.ones(1, steps, dtype=torch.long), lengths)
        modules["ctc_lin"](encoded), modules["seq_lin"](decoded)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("factor, frames, steps", [(4, 43, 5), (6, 61, 9)])
def test_count_equals_a_real_forward_pass(factor, frames, steps):
    modules = recogniser(2, 16, 2, 24, 13, factor, decoders=3, mels=23).to_empty(device="cpu")
    for parameter in modules.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1)
    for name, buffer in modules.named_buffers():
        assert buffer.is_floating_point(), name
        buffer.zero_()
    counts = energy.macs(energy.architecture(modules), [frames], [steps])
    assert sum(sum(parts.values()) for parts in counts.values()) == hooked_macs(modules, frames, steps)


def test_utterances_add_up():
    sizes = energy.architecture(recogniser(2, 16, 2, 24, 13, 4, decoders=2))
    one, other, both = (energy.macs(sizes, *counts) for counts in (([40], [3]), ([90], [8]), ([40, 90], [3, 8])))
    for scope, parts in both.items():
        assert parts == {name: one[scope][name] + other[scope][name] for name in parts}


def test_too_short_an_utterance_is_refused():
    sizes = energy.architecture(recogniser(1, 16, 2, 24, 13, 4))
    with pytest.raises(ValueError, match="an utterance of 6 feature frames leaves none after 2 convolutions"):
        energy.macs(sizes, [50, 6], [1, 1])


def test_ctc_alone_has_no_decoder_parts():
    modules = recogniser(1, 16, 2, 24, 13, 4, decoders=0)
    del modules["seq_lin"]
    assert list(energy.macs(energy.architecture(modules), [50], [0])["decoder"]) == ["ctc"]


def test_an_encoder_without_a_formula_is_refused():
    from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

    with torch.device("meta"):
        model = TransformerASR(13, 80, 16, 2, 1, 0, 24, encoder_module="conformer", normalize_before=True, causal=False)
    with pytest.raises(ValueError, match="Transformer.encoder is a ConformerEncoder"):
        energy.architecture({"Transformer": model})


def test_a_front_end_without_a_formula_is_refused():
    modules = recogniser(1, 16, 2, 24, 13, 4)
    modules["frontend"].conv_2 = nn.Conv2d(16, 16, 3, 2, padding=1)
    with pytest.raises(ValueError, match=r"frontend.conv_2 \(Conv2d\) is no plain unpadded 2-D convolution"):
        energy.architecture(modules)


def test_a_model_without_transformer_is_refused():
    with pytest.raises(ValueError, match="no module Transformer"):
        energy.architecture({"embedding_model": nn.Linear(2, 2)})
