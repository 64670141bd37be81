"""Encoders behind features of any width: the embedding's contract with SpeechBrain, the classifier, and published models."""

import copy

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models.Xvector import Xvector

from spikebrain import lobes, registry
from spikebrain.blocks.masked_norm import MaskedBatchNorm
from spikebrain.learning.losses import summed_softmax, votes_loss
from spikebrain.lobes import FrameEncoder, SpikingClassifier, SpikingEmbedding

SMALL = {"num_layers": 1, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.1}
# By the letter of its paper pts_snn_literal is silent at first, and says the same of every utterance.
NAMES = [e.name for e in registry.entries() if e.kind in ("encoder", "size") and e.name != "pts_snn_literal"]
LENGTHS = torch.tensor([1.0, 0.5, 0.75])
YAML = """
embedding_model: !new:spikebrain.lobes.SpikingEmbedding
    input_size: 24
    embedding_size: 32
    encoder: {name}
    encoder_kwargs: {{num_layers: 1, d_model: 16, nhead: 2}}
    device: cpu
"""


def features(seed=0, frames=12, dtype=torch.float64):
    return torch.randn(3, frames, 20, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def calibrated(model):
    """In float64 and evaluation, lively: statistics of batches like those of the tests."""
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.momentum = 1.0
            torch.nn.init.constant_(module.bias, 0.5)
    for seed in (1, 2, 3):
        model(features(seed, 40))
    return model.eval()


def embedding(name="spikescr"):
    torch.manual_seed(0)
    return SpikingEmbedding(20, 8, name, SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_embedding_of_any_registered_encoder(name):
    model = embedding(name)
    out = model(features(dtype=torch.float32), LENGTHS)
    assert out.shape == (3, 1, 8)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_embedding_does_not_depend_on_padding_or_neighbours(name):
    model, x = calibrated(embedding(name)), features()
    together = model(x, LENGTHS)
    for filler in (0.0, 100.0):
        padded = torch.cat([x, torch.full((3, 6, 20), filler, dtype=torch.float64)], 1)
        padded[1, 6:], padded[2, 9:] = filler, filler
        assert torch.allclose(model(padded, LENGTHS * 12 / 18), together, atol=1e-10)
    for row, n in enumerate((12, 6, 9)):
        assert torch.allclose(model(x[row : row + 1, :n]), together[row : row + 1], atol=1e-10)
    assert not torch.allclose(model(x), together, atol=1e-3), "without lengths padding would be pooled"
    assert (together[0] - together[1]).abs().max() > 1e-3, "an embedding that says nothing would pass"


def test_embedding_is_mean_and_deviation_of_the_utterance():
    model, x = calibrated(embedding()), features()
    hidden = model.encoder(x, LENGTHS)
    assert hidden.shape == (3, 12, 16) and hidden.max() > 1
    for row, n in enumerate((12, 6, 9)):
        own = hidden[row, :n]
        pooled = torch.cat([own.mean(0), (own.var(0, unbiased=False) + 1e-5).sqrt()])
        assert torch.allclose(model(x, LENGTHS)[row, 0], model.head(pooled), atol=1e-12)


def test_an_utterance_of_one_frame_has_finite_gradients():
    model, x = embedding(), features(dtype=torch.float32)[:, :1].requires_grad_()
    model(x, torch.tensor([1.0, 1.0, 1.0])).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["spikescr", "iml_spikeformer"])
def test_embedding_stands_where_a_stock_one_stood(name):
    """The same call and the same shape as SpeechBrain's Xvector, from a YAML."""
    model = load_hyperpyyaml(YAML.format(name=name))["embedding_model"]
    stock = Xvector(in_channels=24, lin_neurons=32, tdnn_blocks=1, tdnn_channels=[16], tdnn_kernel_sizes=[1], tdnn_dilations=[1])
    x = torch.randn(3, 12, 24)
    assert model(x, LENGTHS).shape == stock(x, LENGTHS).shape == (3, 1, 32)
    assert model(x).shape == stock(x).shape


def test_half_precision_goes_in_and_comes_out_finite():
    model, x = calibrated(embedding()).float(), features(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, LENGTHS)
    assert out.dtype == torch.bfloat16 and torch.allclose(out.float(), model(x, LENGTHS), atol=0.5)


def test_a_projection_stands_before_encoders_that_do_not_read_features():
    plain, reads = FrameEncoder(20, "iml_spikeformer", SMALL), FrameEncoder(20, "spikescr", SMALL)
    assert isinstance(plain.projection, torch.nn.Linear) and plain.projection.weight.shape == (16, 20)
    assert isinstance(reads.projection, torch.nn.Identity) and reads.model.input_size == 20
    assert plain.output_size == reads.output_size == 16
    assert SMALL == {"num_layers": 1, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.1}, "arguments are not written to"


def test_classifier_names_a_class_at_every_frame():
    torch.manual_seed(0)
    model = calibrated(SpikingClassifier(20, 5, encoder_kwargs=SMALL))
    logits = model(features(), LENGTHS)
    assert logits.shape == (3, 12, 5) and model.head.bias is None
    assert torch.allclose(logits, model.encoder(features(), LENGTHS) @ model.head.weight.T)
    assert not logits[1, 6:].any() and not logits[2, 9:].any() and logits[0].abs().max() > 0.1
    bound = (6 / (16 + 5)) ** 0.5
    assert 0.8 * bound < model.head.weight.abs().max() <= bound


@pytest.mark.parametrize("name", NAMES)
def test_votes_do_not_depend_on_padding(name):
    torch.manual_seed(0)
    model, x = calibrated(SpikingClassifier(20, 5, name, SMALL)), features()
    votes = summed_softmax(model(x, LENGTHS), LENGTHS)
    padded = torch.cat([x, torch.full((3, 6, 20), 9.0, dtype=torch.float64)], 1)
    assert torch.allclose(summed_softmax(model(padded, LENGTHS * 12 / 18), LENGTHS * 12 / 18), votes, atol=1e-10)
    assert torch.allclose(votes.sum(-1), torch.tensor([12.0, 6.0, 9.0], dtype=torch.float64))


def test_classifier_trains_and_copies_are_independent():
    torch.manual_seed(0)
    model, labels = SpikingClassifier(20, 3, encoder_kwargs=SMALL), torch.tensor([0, 1, 2])
    twin, optimiser, losses = copy.deepcopy(model), torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(40):
        optimiser.zero_grad()
        loss = votes_loss(summed_softmax(model(features(dtype=torch.float32), LENGTHS), LENGTHS), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    fresh = SpikingClassifier(20, 3, encoder_kwargs=SMALL)
    fresh.load_state_dict(model.state_dict())
    x = features(dtype=torch.float32)
    assert torch.equal(fresh.eval()(x, LENGTHS), model.eval()(x, LENGTHS))
    assert not torch.equal(twin.head.weight, model.head.weight)


@pytest.mark.parametrize(
    "name, changes, exact, millions",
    [
        ("spikescr_shd_1l_8_128", {}, 261_632, 0.25),
        ("spikescr_shd_1l_8_128", {"gate": False}, 228_096, 0.22),
        ("spikescr_shd_1l_8_128", {"convolution": False}, 157_056, 0.15),
        ("spikescr_1l_16_256", {}, 1_709_824, 1.63),
        ("spikescr_2l_16_256", {}, 3_302_400, 3.15),
        ("spikescr_1l_16_256", {"gate": False}, 1_577_216, 1.50),
        ("spikescr_1l_16_256", {"convolution": False}, 909_312, 0.87),
    ],
)
def test_published_models_have_the_printed_size(name, changes, exact, millions):
    """Tables 1 and 10 of SpikeSCR; M is 2^20."""
    with torch.device("meta"):
        model = lobes.published(name, **changes)
    count = sum(p.numel() for p in model.parameters())
    assert count == exact and round(count / 2**20, 2) == millions
    assert list(model) == ["encoder", "head"] and model["head"].out_features == registry.entry(name).classes


def test_a_published_model_runs():
    model = lobes.published("spikescr_shd_1l_8_128").eval()
    x = torch.poisson(torch.full((2, 30, 140), 0.5))
    assert model["head"](model["encoder"](x, torch.tensor([1.0, 0.5]))).shape == (2, 30, 20)


def test_wrong_names_and_widths_say_what_to_do():
    with pytest.raises(ValueError, match="under 'spikescrr': .*; did you mean spikescr"):
        SpikingEmbedding(20, encoder="spikescrr")
    with pytest.raises(ValueError, match="x has 40 channels, encoder expects 20: set input_size: 40"):
        embedding()(torch.zeros(1, 3, 40))
    with pytest.raises(TypeError, match="no option 'd_modle'; did you mean d_model?"):
        SpikingClassifier(20, 5, encoder_kwargs={"d_modle": 3})
