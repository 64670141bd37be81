"""What is left out and masked: sizes, places, how often, and that padding does not matter."""

import pickle

import pytest
import torch

from spikebrain.frontend.augmentation import EventDrop, SpecAugment, event_drop_shd, event_drop_ssc


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


def runs(mask):
    """Starts and sizes of the stretches of True in a 1-D mask."""
    edges = torch.diff(mask.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, ends = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
    return [(start, end - start) for start, end in zip(starts, ends, strict=True)]


def dropped(x):
    """(stretches of frames, bands of channels) that are 0 throughout."""
    return runs((x == 0).all(1)), runs((x == 0).all(0))


SPANS = [(100, 0.2, 20), (101, 0.2, 20), (126, 0.1, 12), (40, 0.2, 8), (9, 0.1, 0), (1, 0.2, 0)]


@pytest.mark.parametrize(("frames", "share", "span"), SPANS)
def test_a_stretch_is_of_fixed_size(frames, share, span):
    starts = set()
    for _ in range(300):
        stretches, bands = dropped(EventDrop(1, share, band=1)(torch.ones(frames, 140)))
        assert bands == [] and [size for _, size in stretches] == ([span] if span else [])
        starts.update(start for start, _ in stretches)
    if span:
        assert min(starts) == 0 and max(starts) <= frames - span - 1
        assert max(starts) > 0.9 * (frames - span - 1)


def test_a_band_is_narrower_than_its_limit():
    sizes, starts = [], set()
    for _ in range(3000):
        stretches, bands = dropped(EventDrop(1, 0, band=20)(torch.ones(50, 140)))
        assert stretches == [] and len(bands) <= 1
        sizes.append(bands[0][1] if bands else 0)
        starts.update(start for start, _ in bands)
    counts = torch.bincount(torch.tensor(sizes), minlength=20)
    assert len(counts) == 20 and counts.min() > 3000 / 20 * 0.6 and counts.max() < 3000 / 20 * 1.4
    assert min(starts) == 0 and max(starts) == 140 - 20 - 1


@pytest.mark.parametrize("probability", [0, 0.5, 1])
def test_each_happens_by_itself(probability):
    drop, number = EventDrop(probability, 0.2, band=20), 2000
    seen = torch.zeros(2, 2)
    for _ in range(number):
        x = drop(torch.ones(100, 140))
        stretches, bands = dropped(x)
        # A band of width 0 leaves no trace: of 20 widths, one.
        seen[int(bool(stretches)), int(bool(bands))] += 1
    time, band = seen.sum(1)[1] / number, seen.sum(0)[1] / number
    assert abs(time - probability) < 0.04 and abs(band - probability * 19 / 20) < 0.04
    assert abs(seen[1, 1] / number - time * band) < 0.03


def test_what_is_not_dropped_stays_and_the_input_is_untouched():
    x = torch.randint(1, 5, (100, 140)).float()
    before = x.clone()
    out = EventDrop(1, 0.2, 20)(x)
    kept = out != 0
    assert torch.equal(x, before) and torch.equal(out[kept], x[kept]) and not torch.equal(out, x)


def test_presets_are_the_papers():
    shd, ssc = event_drop_shd(), event_drop_ssc()
    assert (shd.probability, shd.time_share, shd.band) == (0.5, 0.2, 20)
    assert (ssc.probability, ssc.time_share, ssc.band) == (0.5, 0.1, 10)


def test_draws_follow_the_global_seed_also_when_pickled():
    drop = pickle.loads(pickle.dumps(EventDrop(1)))
    torch.manual_seed(5)
    first = drop(torch.ones(100, 140))
    torch.manual_seed(5)
    assert torch.equal(EventDrop(1)(torch.ones(100, 140)), first)


@pytest.mark.parametrize("settings", [{"probability": 1.1}, {"probability": -0.1}, {"time_share": 1.0}, {"time_share": -0.1}, {"band": 0}])
def test_wrong_settings_of_drop(settings):
    with pytest.raises(ValueError, match=r"they lie in \[0, 1\], in \[0, 1\) and from 1 on"):
        EventDrop(**settings)


@pytest.mark.parametrize("shape", [(2, 100, 140), (100, 20)])
def test_drop_wants_one_utterance(shape):
    with pytest.raises(ValueError, match=r"x has shape .*expected \(frames, channels\) with more than band = 20 channels"):
        EventDrop()(torch.ones(shape))


def masks(x):
    """Per utterance: (bands, stretches) of the masked cells of a batch of ones."""
    return [(runs((one == 0).all(0)), runs((one == 0).all(1))) for one in x]


def test_the_band_is_shared_and_the_stretches_are_not():
    different = 0
    for _ in range(50):
        found = masks(SpecAugment()(torch.ones(8, 101, 140)))
        assert all(bands == found[0][0] for bands, _ in found)
        different += len({str(stretches) for _, stretches in found}) > 4
    assert different == 50


def test_widths_lie_below_their_limits_and_reach_them():
    widths, spans, last = set(), set(), 0
    for _ in range(400):
        for bands, stretches in masks(SpecAugment()(torch.ones(4, 101, 140)))[:1]:
            assert len(bands) <= 1 and len(stretches) <= 1
            widths.update([size for _, size in bands] or [0])
            spans.update([size for _, size in stretches] or [0])
            last = max([last, *(start + size for start, size in bands)])
    assert widths == set(range(10)) and spans == set(range(25)) and 130 < last <= 140


def test_a_stretch_is_drawn_from_an_utterances_own_frames():
    lengths = torch.tensor([1.0, 0.4, 0.08])
    spans = [set(), set(), set()]
    for _ in range(400):
        x = SpecAugment(frequency_width=0)(torch.ones(3, 100, 30), lengths)
        for seen, (_, stretches), frames in zip(spans, masks(x), (100, 40, 8), strict=True):
            seen.update([size for _, size in stretches] or [0])
            assert all(start + size <= frames for start, size in stretches)
    assert [max(seen) for seen in spans] == [24, 9, 1]


def test_padding_is_never_masked_and_changes_nothing():
    lengths, value = torch.tensor([0.5, 1.0]), -7.0
    x = torch.randn(2, 60, 40)
    for _ in range(20):
        state = torch.get_rng_state()
        out = SpecAugment(mask_value=value)(x, lengths)
        torch.set_rng_state(state)
        longer = SpecAugment(mask_value=value)(torch.nn.functional.pad(x, (0, 0, 0, 30)), lengths * 60 / 90)
        assert torch.equal(longer[:, :60], out) and (longer[:, 60:] == 0).all()
        assert torch.equal(out[0, 30:], x[0, 30:])


def test_masked_cells_hold_the_value_and_no_others_change():
    x = torch.randn(4, 101, 140)
    before = x.clone()
    out = SpecAugment(mask_value=-100.0)(x)
    assert torch.equal(x, before) and (out == -100).any()
    assert torch.equal(out[out != -100], x[out != -100])
    assert SpecAugment().mask_value == 0.0


def test_nothing_is_masked_where_nothing_is_asked():
    x = torch.randn(4, 101, 140)
    assert torch.equal(SpecAugment(frequency_width=0, time_share=0)(x), x)


@pytest.mark.parametrize("settings", [{"frequency_width": -1}, {"time_share": 1.1}, {"time_share": -0.1}])
def test_wrong_settings_of_specaugment(settings):
    with pytest.raises(ValueError, match=r"they lie from 0 on and in \[0, 1\]"):
        SpecAugment(**settings)


def test_specaugment_wants_a_batch():
    with pytest.raises(ValueError, match=r"x has shape \(101, 140\), expected \(B, L, C\)"):
        SpecAugment()(torch.ones(101, 140))
    with pytest.raises(ValueError, match="at least frequency_width = 10 channels"):
        SpecAugment()(torch.ones(2, 101, 9))
