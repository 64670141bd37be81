"""LogMel: exact frames, and nothing of the padding."""

import pytest
import torch

from spikebrain.lobes.features import LogMel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_alone_are_those_in_a_batch(dtype):
    features, counts = LogMel().to(dtype), [16000, 12345, 8000, 401]
    wavs = torch.randn(4, 16000, dtype=dtype)
    batch, lengths = features(wavs, torch.tensor(counts) / 16000)
    assert batch.dtype == dtype
    assert (lengths * batch.shape[1]).round().tolist() == [1 + count // 160 for count in counts]
    for i, count in enumerate(counts):
        alone, one = features(wavs[i : i + 1, :count])
        assert alone.shape[1] == 1 + count // 160 and one.tolist() == [1.0]
        assert torch.allclose(alone[0], batch[i, : alone.shape[1]], rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-10)


def test_autocast_does_not_touch_features():
    features, wavs = LogMel(), torch.randn(1, 8000)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = features(wavs)
    assert inside.dtype == torch.float32 and torch.equal(inside, features(wavs)[0])


def test_a_tone_is_loudest_in_its_band():
    features = LogMel(n_mels=40)
    centres = features.fbank.compute_fbanks.f_central
    tone = torch.sin(2 * torch.pi * centres[20] * torch.arange(16000) / 16000).unsqueeze(0)
    assert features(tone)[0][0, 50].argmax() == 20


def test_upper_edge():
    assert LogMel(f_max=4000).fbank.compute_fbanks.f_central.max() < 4000
    with pytest.raises(ValueError, match="f_max is 9000 Hz.*not above 8000: set f_max: 8000"):
        LogMel(f_max=9000)


def test_pre_emphasis_takes_a_share_of_each_sample_from_the_next_one():
    torch.manual_seed(0)
    x, lengths = torch.randn(2, 4000, dtype=torch.float64), torch.tensor([1.0, 0.6])
    plain, emphasised = LogMel().double(), LogMel(pre_emphasis=0.97).double()
    by_hand = torch.stack([torch.cat([row[:1], row[1:] - 0.97 * row[:-1]]) for row in x])
    out, _ = emphasised(x, lengths)
    assert torch.allclose(out, plain(by_hand, lengths)[0], atol=1e-10)
    assert torch.allclose(out[1, :16], emphasised(x[1:, :2400])[0][0], atol=1e-10), "the samples behind an utterance's end are heard"
