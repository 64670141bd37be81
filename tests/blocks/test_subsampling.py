"""Convolutional subsampling: exact counts, frames by formula, no frame that has seen its neighbour's padding."""

import pytest
import torch

from spikebrain import operands
from spikebrain.blocks.subsampling import Conv2dSubsampling, VGGSubsampling, make, subsampled_frames


@pytest.mark.parametrize("factor, channels, parameters, bands", [(4, 256, 592_640, 19), (6, 512, 6_559_232, 12)])
def test_parameters_and_width_of_the_published_front_ends(factor, channels, parameters, bands):
    with torch.device("meta"):
        front = Conv2dSubsampling(channels, factor)
    assert sum(p.numel() for p in front.parameters()) == parameters
    assert front.out_features == bands * channels


@pytest.mark.parametrize("activation", ["relu", "spike"])
@pytest.mark.parametrize("factor", [4, 6])
def test_an_utterance_is_the_same_alone_and_in_a_batch(factor, activation):
    torch.manual_seed(0)
    front = Conv2dSubsampling(3, factor, n_mels=40, activation=activation).double()
    for _ in range(3):
        front(torch.randn(2, 60, 40, dtype=torch.float64))
    front.eval()
    x = torch.randn(3, 61, 40, dtype=torch.float64)
    counts = [61, 33, 20]
    out, lengths = front(x, torch.tensor(counts) / 61)
    for i, n in enumerate(counts):
        alone, none = front(x[i : i + 1, :n])
        left = subsampled_frames(n, factor)
        assert none is None and alone.shape[1] == left == round(float(lengths[i]) * out.shape[1])
        assert torch.allclose(alone[0], out[i, :left], atol=1e-12)
        assert out[i, left:].abs().sum() == 0
    assert out.abs().max() > 0


def test_too_short_or_too_wide_says_so():
    with pytest.raises(ValueError, match="has 5 feature frames, 4x subsampling needs 7"):
        Conv2dSubsampling(2)(torch.zeros(2, 30, 80), torch.tensor([1.0, 5 / 30]))
    with pytest.raises(ValueError, match="x has 40 mel bands, the front end expects 80: set n_mels=40"):
        Conv2dSubsampling(2)(torch.zeros(1, 30, 40))
    with pytest.raises(ValueError, match="choose 4"):
        Conv2dSubsampling(2, factor=8)


def test_spiking_front_end_counts_the_accumulates_of_its_second_convolution():
    """Hand count: a spike reaches every kernel position that covers it, times the filters."""
    torch.manual_seed(0)
    front = Conv2dSubsampling(2, 4, n_mels=15, activation="spike", levels=4)
    events, x = [], torch.randn(1, 19, 15)
    with operands.listen(events.append):
        front(x)
    first, product = (e for e in events if isinstance(e, operands.Product))
    assert first.module is front.conv_1 and first.accumulates is None and first.macs == 9 * 7 * 9 * 2  # frames, bands, kernel, filters
    fresh = Conv2dSubsampling(2, 4, n_mels=15, activation="spike", levels=4)
    fresh.load_state_dict(front.state_dict())
    y = fresh.train()._activate(fresh.conv_1(x.unsqueeze(1)), fresh.sn_1, torch.tensor([9]))
    level = (y * 4).round()
    ones = torch.ones(1, 2, 3, 3)
    assert product.accumulates == int(torch.nn.functional.conv2d(level, ones, stride=2).sum()) * 2


@pytest.mark.parametrize("kind", [4, 6, "vgg"])
def test_a_recipe_names_its_front_end_and_counts_its_frames_by_formula(kind):
    front = make(kind, 8, 20)
    assert type(front) is (VGGSubsampling if kind == "vgg" else Conv2dSubsampling)
    for n in (15, 16, 17, 31):
        out, _ = front(torch.zeros(1, n, 20))
        assert out.shape == (1, subsampled_frames(n, kind), front.out_features)


def test_the_published_front_end_of_recurrent_recognisers():
    front = make("vgg", 256)
    assert front.channels == (64, 128) and front.out_features == 2560
    assert sum(p.numel() for p in front.parameters()) == 259_008


def test_maps_keep_their_scale():
    torch.manual_seed(1)
    x = torch.randn(4, 200, 40)
    own = VGGSubsampling(40, (32, 16))(x)[0]
    assert 0.3 < own.std() < 2 and own.std(1).mean() > 0.2  # over time too
    shrunk = VGGSubsampling(40, (32, 16))
    for conv in shrunk.convs:
        conv.reset_parameters()
    assert shrunk(x)[0].std(1).mean() < 0.05


def test_a_front_end_that_is_none():
    with pytest.raises(ValueError, match="factor is 5: choose 4 .* or the front end vgg"):
        make(5)
    with pytest.raises(ValueError, match="activation is 'spike', but a VGG front end has ReLU: set relu, or subsampling: 4"):
        make("vgg", activation="spike")
