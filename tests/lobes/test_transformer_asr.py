"""The host's contract, without a copy of any of its recipes: what SpeechBrain's train.py files ask of the module."""

import copy
import logging

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.decoders import CTCScorer, S2STransformerBeamSearcher, ScorerBuilder
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.nnet.linear import Linear
from speechbrain.utils.checkpoints import Checkpointer, average_checkpoints

from spikebrain import registry
from spikebrain.lobes import SpikingTransformerASR, published_asr

STOCK = """
Transformer: !new:{name}
    input_size: 24
    tgt_vocab: 12
    d_model: 16
    nhead: 2
    num_encoder_layers: 2
    num_decoder_layers: {decoder}
    d_ffn: 32
    dropout: 0.0
    activation: !name:torch.nn.GELU
    encoder_module: {encoder}
    attention_type: {attention}
    normalize_before: True
    causal: False
"""


def from_yaml(encoder="iml_spikeformer", attention="regularMHA", decoder=1):
    torch.manual_seed(0)
    text = STOCK.format(name="spikebrain.lobes.SpikingTransformerASR", encoder=encoder, attention=attention, decoder=decoder)
    return load_hyperpyyaml(text)["Transformer"]


def speech(batch=3, frames=14):
    torch.manual_seed(1)
    return torch.randn(batch, frames, 24), torch.tensor([1.0, 0.5, 0.8][:batch]), torch.randint(1, 12, (batch, 5))


# By the letter of its paper pts_snn_literal is silent at first, and its layers have no gradient.
@pytest.mark.parametrize("encoder", [e.name for e in registry.entries("encoder") if e.name != "pts_snn_literal"])
def test_two_changed_lines_of_yaml_train_one_step(encoder):
    net = from_yaml(encoder)
    x, lengths, tokens = speech()
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    before = copy.deepcopy(net.state_dict())
    encoded, decoded = net(x, tokens, lengths, pad_idx=0)
    assert encoded.shape == (3, 14, 16) and decoded.shape == (3, 5, 16)
    (encoded.square().mean() + decoded.square().mean()).backward()
    optimiser.step()
    changed = [k for k, v in net.state_dict().items() if not torch.equal(v, before[k])]
    assert any(k.startswith("encoder.model.layers.1") for k in changed)


def test_is_the_default_encoder_and_stock_names_fall_through():
    assert type(SpikingTransformerASR(12, 24, d_model=16, nhead=2, num_encoder_layers=1).encoder.model).__name__ == "IMLSpikeformer"
    for encoder in ("transformer", "conformer", "branchformer"):
        ours = from_yaml(encoder)
        torch.manual_seed(0)
        stock = load_hyperpyyaml(
            STOCK.format(
                name="speechbrain.lobes.models.transformer.TransformerASR.TransformerASR",
                encoder=encoder,
                attention="regularMHA",
                decoder=1,
            )
        )["Transformer"]
        assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in stock.state_dict().items()}
        assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), stock.state_dict().values(), strict=True))


def test_ctc_only_returns_two_values_and_keeps_the_length():
    net = from_yaml(decoder=0)
    x, lengths, _ = speech()
    out, attention = net(src=x, tgt=None, wav_len=lengths)
    assert out.shape == (3, 14, 16) and attention == [None, None]
    assert torch.allclose(net.eval().encode(x, lengths), net(x, None, lengths)[0])
    assert not any("decoder" in k for k in net.state_dict())


def test_weights_that_begin_at_zero_stay_there():
    bias = from_yaml("pts_snn").encoder.model.bias
    assert not bias.up.weight.any() and bias.down.weight.any()


def test_hidden_states_only_where_they_are_asked_for():
    net = SpikingTransformerASR(12, 24, d_model=16, nhead=2, num_encoder_layers=3, num_decoder_layers=0, output_hidden_states=True)
    x, lengths, _ = speech()
    _, _, hidden = net(x, None, lengths)
    assert len(hidden) == 4 and all(h.shape == (3, 14, 16) for h in hidden)


@pytest.mark.parametrize("asked", ["RelPosMHAXL", "RoPEMHA", "regularMHA"])
def test_the_encoder_decides_on_positions_and_the_log_says_so(asked, caplog):
    with caplog.at_level(logging.WARNING):
        net = from_yaml(attention=asked)
    assert net.attention_type == "regularMHA" and hasattr(net, "positional_encoding")
    assert ("does not fit" in caplog.text) == (asked != "regularMHA")
    x, _, _ = speech(1)
    net.train()(x, None)
    net.eval()
    assert not torch.allclose(net(x, torch.ones(1, 3, dtype=torch.long))[0].flip(1), net(x.flip(1), torch.ones(1, 3, dtype=torch.long))[0])


def test_padded_batch_equals_single_utterances_through_encode_and_wrapper():
    net = from_yaml(decoder=0).double()
    x, lengths, _ = speech()
    x = x.double()
    for _ in range(2):
        net(torch.randn_like(x), None)
    wrapper = EncoderWrapper(net.eval())
    together = wrapper(x, lengths)
    for i, n in enumerate((14, 7, 11)):
        assert torch.allclose(wrapper(x[i : i + 1, :n]), together[i : i + 1, :n], atol=1e-10)


def test_beam_search_runs_on_it():
    net = from_yaml().eval()
    seq_lin, ctc_lin = Linear(input_size=16, n_neurons=12), Linear(input_size=16, n_neurons=12)
    searcher = S2STransformerBeamSearcher(
        modules=[net, seq_lin], bos_index=1, eos_index=2, min_decode_ratio=0.0, max_decode_ratio=1.0, beam_size=3,
        using_eos_threshold=False, scorer=ScorerBuilder(full_scorers=[CTCScorer(ctc_lin, 0, 2)], weights={"ctc": 0.4}),
    )  # fmt: skip
    x, lengths, _ = speech()
    with torch.no_grad():
        hypotheses = searcher(net.encode(x, lengths), lengths)[0]
    assert len(hypotheses) == 3 and all(isinstance(token, int) for h in hypotheses for token in h)


def test_checkpoints_average_and_load(tmp_path):
    net = from_yaml()
    x, lengths, tokens = speech()
    keeper = Checkpointer(tmp_path, {"model": net})
    states = []
    for _ in range(2):
        net(x, tokens, lengths)[1].square().sum().backward()
        torch.optim.SGD(net.parameters(), 1e-2).step()
        keeper.save_checkpoint()
        states.append(copy.deepcopy(net.state_dict()))
    mean = average_checkpoints(keeper.list_checkpoints(), "model")
    fresh = from_yaml()
    fresh.load_state_dict(mean, strict=True)
    for key, value in fresh.state_dict().items():
        assert torch.allclose(value, (states[0][key] + states[1][key]) / 2, atol=1e-6), key
    key = "encoder.model.layers.0.attention.sn_in.running_max"
    assert not torch.equal(states[0][key], states[1][key]), "statistics are averaged with the weights"


def test_runs_in_bfloat16_under_the_hosts_autocast():
    net = from_yaml()
    x, lengths, tokens = speech()
    with torch.autocast("cpu", torch.bfloat16):
        encoded, decoded = net(x, tokens, lengths)
    (encoded.float().square().sum() + decoded.float().square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_callable_encoders_work_too():
    class Constant(torch.nn.Module):
        position = "none"

        def __init__(self, num_layers, d_model, **rest):
            super().__init__()
            self.linear = torch.nn.Linear(d_model, d_model)

        def forward(self, x, lengths=None, state=None):
            return self.linear(x), None

    net = SpikingTransformerASR(12, 24, d_model=16, nhead=2, encoder_module=Constant)
    assert net.attention_type == "RoPEMHA" and net(*speech()[:1], None)[0].shape == (3, 14, 16)


def test_wrong_yaml_says_what_to_change():
    with pytest.raises(ValueError, match="did you mean iml_spikeformer"):
        from_yaml("iml_spikeforme")
    with pytest.raises(ValueError, match="have no meaning for SpeechBrain's transformer"):
        SpikingTransformerASR(12, 24, encoder_module="transformer", encoder_kwargs={"levels": 4})
    with pytest.raises(ValueError, match="layerdrop_prob is 0.1"):
        SpikingTransformerASR(12, 24, layerdrop_prob=0.1)
    with pytest.raises(TypeError, match="no option 'time_steps'"):
        SpikingTransformerASR(12, 24, encoder_kwargs={"time_steps": 4})
    with pytest.raises(ValueError, match="dynamic chunk training"):
        from_yaml().encoder(torch.zeros(1, 3, 16), dynchunktrain_config=object())


def test_is_a_stock_transformer_to_isinstance():
    assert issubclass(SpikingTransformerASR, TransformerASR)


@pytest.mark.parametrize(
    "name, with_bias, without",
    [
        ("iml_spikeformer_aishell_12", 30_351_890, 30_345_746),
        ("iml_spikeformer_aishell_24", 46_132_754, 46_120_466),
        ("iml_spikeformer_aishell_36", 61_913_618, 61_895_186),
        ("iml_spikeformer_librispeech_18", 99_364_624, 99_346_192),
    ],
)
def test_published_models_have_exactly_the_published_parameters(name, with_bias, without):
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    with torch.device("meta"):
        assert count(published_asr(name, qk_bias=True)) == with_bias
        assert count(published_asr(name)) == without
