"""The pooled embedding: the published sizes of its encoder, no padding in it, and pooling by hand."""

import pytest
import torch

from spikebrain import lengths as frames
from spikebrain.lobes.pooled import PooledEmbedding

SMALL = {"num_layers": 1, "d_model": 16, "nhead": 2, "d_ffn": 32, "dropout": 0.0, "final_norm": False}


@pytest.mark.parametrize("encoder", ["iml_spikeformer", "iml_spikeformer_twin", "spike_driven_transformer"])
@pytest.mark.parametrize("layers, parameters", [(3, 594_816), (6, 1_189_632), (9, 1_784_448)])
def test_encoders_of_identification_have_their_published_sizes(encoder, layers, parameters):
    size = {"num_layers": layers, "d_model": 128, "nhead": 4, "d_ffn": 512, "qk_bias": True, "final_norm": False}
    with torch.device("meta"):
        model = PooledEmbedding(80, encoder, size)
    assert sum(p.numel() for p in model.encoder.model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters()) == parameters + 80 * 128 + 128


@pytest.mark.parametrize("pooling, width", [("mean", 16), ("attentive", 32)])
def test_an_utterance_alone_has_the_embedding_of_the_batch(pooling, width):
    torch.manual_seed(0)
    model = PooledEmbedding(20, "iml_spikeformer", SMALL, pooling, attention_channels=4).double()
    for _ in range(3):
        model.train()(torch.randn(3, 30, 20).double())
    model.eval()
    x, counts = torch.randn(2, 30, 20).double(), [30, 17]
    lengths = torch.tensor(counts) / 30
    together = model(x, lengths)
    assert together.shape == (2, 1, width)
    for row, count in enumerate(counts):
        assert torch.allclose(model(x[row : row + 1, :count]), together[row : row + 1], atol=1e-10)
    assert not torch.allclose(model(x)[1], together[1], atol=1e-6), "padding that is pooled must be seen here"
    if pooling == "mean":
        assert torch.allclose(together.squeeze(1), frames.masked_mean(model.encoder(x, lengths), lengths))


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling.*max"):
        PooledEmbedding(20, "iml_spikeformer", SMALL, "max")
