"""Front ends with the number of frames as their knob: the published one bit by bit, and ours by its promises."""

import logging

import pytest
import torch

from spikebrain.lobes.features import EventFrames, FrameRateMel

PAPER = {400: (20, 401), 200: (40, 201), 100: (80, 101), 40: (200, 41)}


def word(seconds=1.0, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return 0.1 * torch.randn(1, round(16000 * seconds), dtype=dtype)


@pytest.mark.parametrize("number", PAPER)
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_the_published_front_end_is_torchaudios(number):
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram, Resample

    hop, wanted = PAPER[number]
    features, wav = FrameRateMel(number, preset="paper"), word()
    out, lengths = features(wav)
    assert features.hop == hop and out.shape == (1, wanted, 140) and lengths.tolist() == [1.0]
    mel = MelSpectrogram(8000, n_fft=256, hop_length=hop, f_min=50, f_max=14000, n_mels=140, power=2)
    reference = AmplitudeToDB("power")(mel(Resample(16000, 8000)(wav))).transpose(1, 2)
    assert torch.allclose(out, reference, atol=2e-3)
    assert out[..., :87].std() > 1, "the comparison would say nothing about a silent spectrogram"


def test_fifty_three_published_bands_hear_nothing_and_the_log_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        features = FrameRateMel(100, preset="paper")
    silent = (features.bank.sum(0) == 0).nonzero().flatten().tolist()
    assert silent == list(range(87, 140)) and len(silent) == 53
    assert "53 of 140 mel bands hear nothing: audio at 8000 Hz ends at 4000 Hz" in caplog.text
    assert (features(word())[0][..., 87:] == -100).all()


@pytest.mark.parametrize("preset, level", [("paper", -100.0), ("sane", 0.0)])
def test_silence_is_exactly_the_floor(preset, level):
    out, _ = FrameRateMel(40, preset=preset)(torch.zeros(2, 16000))
    assert (out == level).all()


def test_ours_hears_every_sample_however_few_the_frames():
    for number, window in ((100, 400), (40, 800), (20, 1600)):
        features = FrameRateMel(number)
        assert (features.window, features.hop) == (window, 16000 // number) and features.window >= 2 * features.hop
        quiet, _ = features(torch.zeros(1, 16000))
        at = torch.linspace(0, 15999, 37).long()
        clicks = torch.zeros(37, 16000).scatter_(1, at.unsqueeze(1), 0.1)
        assert ((features(clicks)[0] - quiet).abs().amax((1, 2)) > 1).all(), number


def test_the_published_window_does_not():
    click = torch.zeros(1, 16000)
    click[0, 800 * 10 + 400] = 0.1  # a hop of 50 ms leaves 18 ms between windows of 32 ms
    assert FrameRateMel(20, preset="paper")(click)[0].max() < -85
    assert FrameRateMel(20)(click)[0].max() > 1


@pytest.mark.parametrize("rate", [16000, 8000])
def test_levels_do_not_depend_on_the_number_of_frames(rate):
    """The bands of noise of mean square 0.01 hold its power, 0.005 each side of the spectrum, less what lies below f_min."""
    for number in (100, 40, 20):
        features = FrameRateMel(number, rate=rate, f_max=rate // 2, n_mels=30)
        power = (10 ** (features(word())[0][:, 2:-2] - 10)).mean(1).sum().item()
        assert power == pytest.approx(0.005 * rate / 16000 * (1 - 2 * 100 / rate), rel=0.1)


@pytest.mark.parametrize("rate", [16000, 8000])
def test_features_alone_are_those_in_a_batch(rate):
    features, counts = FrameRateMel(40, rate=rate, f_max=3900).double(), [16000, 12345, 8000, 401]
    wavs = word(1.0, dtype=torch.float64).expand(4, -1) * torch.tensor([[1.0], [0.5], [2.0], [1.0]], dtype=torch.float64)
    batch, lengths = features(wavs, torch.tensor(counts) / 16000)
    for i, count in enumerate(counts):
        alone, _ = features(wavs[i : i + 1, :count])
        frames = 1 + -(-count * rate // 16000) // features.hop
        assert alone.shape[1] == frames == round(float(lengths[i]) * batch.shape[1])
        assert torch.allclose(alone[0], batch[i, :frames], rtol=0, atol=1e-9)


def test_a_batch_of_different_lengths_is_refused_where_signals_are_mirrored():
    with pytest.raises(ValueError, match="utterances of 4000 to 8000 samples.*seconds: 1.0"):
        FrameRateMel(100, preset="paper")(word().expand(2, -1), torch.tensor([1.0, 0.5]))


def test_a_front_end_has_no_state_to_share_and_follows_to_float64():
    features = FrameRateMel(100)
    assert not features.state_dict() and not list(features.parameters())
    assert features(word(dtype=torch.float64))[0].dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert features(word())[0].dtype == torch.float32


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"frames": 30}, "frames: 30 a second do not divide the analysis rate of 16000 Hz: the nearest number that does is 32"),
        ({"frames": 0}, "frames: 0 a second"),
        ({"frames": 100, "preset": "best"}, "preset: 'best' is none of paper, sane"),
        ({"frames": 100, "f_max": 9000}, "f_max is 9000 Hz.*not above 8000"),
    ],
)
def test_what_cannot_be_analysed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FrameRateMel(**arguments)


def test_events_pass_through():
    features, x = EventFrames(40), torch.rand(2, 5, 140)
    out, lengths = features(x, torch.tensor([1.0, 0.6]))
    assert out is x and lengths.tolist() == pytest.approx([1.0, 0.6]) and features.step_ms == 25
    assert features(x)[1].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="20 channels, 140 are expected: set channels: 20"):
        features(torch.rand(2, 5, 20))
    with pytest.raises(ValueError, match="frames is 0"):
        EventFrames(0)
