"""The Speech Commands twin: the corpus's layout, voices unseen in training, one clip unlike the other."""

import numpy as np
import pytest
import soundfile

from spikebrain.data import manifest
from spikebrain.data.corpora import gsc as corpus
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic import gsc, speech

pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")

SMALL = {"train": 12, "valid": 2, "test": 3}
FEW = ["backward", "go", "no", "yes"]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A small twin of four words."""
    return gsc.make(tmp_path_factory.mktemp("twin") / "GSC", 5, SMALL, FEW)


def test_layout(twin):
    names = {path.relative_to(twin).as_posix() for path in twin.rglob("*") if path.is_file()}
    recordings = {f"_background_noise_/{name}.wav" for name in gsc.RECORDINGS}
    clips = names - recordings - {"validation_list.txt", "testing_list.txt", "synthetic.json"}
    assert recordings < names and len(clips) == 4 * 17
    assert all(path.partition("/")[0] in FEW and len(corpus._speaker(path)) == 8 for path in clips)
    assert all(0 <= int(corpus._speaker(path), 16) < 2**32 for path in clips)
    listed = [(twin / name).read_text().split() for name in corpus.LISTS.values()]
    assert [len(paths) for paths in listed] == [8, 12] and set(sum(listed, [])) < clips
    for path in clips | recordings:
        info = soundfile.info(twin / path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == 20 * 16000 if path in recordings else 11200 <= info.frames <= 16000


def test_the_preparer_reads_it(twin, tmp_path):
    done = corpus.prepare(str(twin), str(tmp_path), classes=FEW)
    assert {split: counts["utterances"] for split, counts in done.counts.items()} == {split: 4 * n for split, n in SMALL.items()}
    assert not done.complete and not done.skipped


def test_the_preparer_splits_it_by_speaker(tmp_path):
    speakers = len(gsc.VOICES["test"])
    out = gsc.make(tmp_path / "twin", 5, {"test": speakers}, ["go", "no"])
    done = corpus.prepare(str(out), str(tmp_path / "save"), classes=["go", "no"], split_by="speaker")
    assert [counts["speakers"] for counts in done.counts.values()] == [speakers - 4, 2, 2]
    assert sum(counts["utterances"] for counts in done.counts.values()) == 2 * speakers


def test_the_twelve_classes(tmp_path):
    out = gsc.make(tmp_path / "twin", 5, {"train": 1, "valid": 1, "test": 1}, [*corpus.COMMANDS, "bed"])
    done = corpus.prepare(str(out), str(tmp_path / "save"), classes=12)
    for path in done.manifests.values():
        assert {u.label for u in manifest.read(path, manifest.CLASS_COLUMNS)} == set(corpus.labels(12))


def test_voices_are_unseen():
    voices = {split: set(names) for split, names in gsc.VOICES.items()}
    assert len(voices["train"]) >= 40 and len(voices["valid"]) >= 8 and len(voices["test"]) >= 16
    assert len(set.union(*voices.values())) == sum(map(len, voices.values()))
    assert set.union(*voices.values()) <= set(speech.variants())


@pytest.mark.parametrize("seed", [0, 1234])
def test_what_is_said_by_default(seed):
    said = {split: gsc.clips(seed, split, number) for split, number in gsc.UTTERANCES.items()}
    paths = [clip.path for those in said.values() for clip in those]
    assert len(set(paths)) == len(paths)
    speakers = {split: {corpus._speaker(clip.path) for clip in those} for split, those in said.items()}
    assert {split: len(names) for split, names in speakers.items()} == {split: len(names) for split, names in gsc.VOICES.items()}
    assert len(set.union(*speakers.values())) == sum(map(len, speakers.values()))
    for split, those in said.items():
        for word in corpus.WORDS:
            mine = [clip for clip in those if clip.word == word]
            assert len(mine) == gsc.UTTERANCES[split]
            assert len({clip.voice.name for clip in mine}) == min(len(mine), len(gsc.VOICES[split]))
    assert gsc.UTTERANCES["train"] >= 60


def test_more_clips_leave_the_others_as_they_were():
    few, many = ({c.path: c for c in gsc.clips(3, "train", number, FEW)} for number in (5, 9))
    assert len(many) == 36 and all(many[path] == clip for path, clip in few.items())


def measure(clip, recordings):
    """Samples of a clip, when its voice begins (s), its level and the noise before the voice (dB)."""
    wav = gsc.render(clip, recordings).astype(np.float64)
    power = 10 * np.log10(np.square(wav[: len(wav) // 160 * 160].reshape(-1, 160)).mean(1) + 1e-12)
    return len(wav), int((power > power.max() - 15).argmax()) / 100, power.max(), np.quantile(power, 0.02)


def test_clips_differ_as_recordings_do():
    recordings = [gsc.background(name, 3) for name in gsc.RECORDINGS]
    measured = np.array([measure(clip, recordings) for clip in gsc.clips(3, "train", 60, ["seven"])])
    samples, onset, level, floor = measured.T
    assert samples.max() == 16000 and 0.02 < np.mean(samples < 16000) < 0.3 and samples.min() >= 11200
    assert onset.std() > 0.1 and onset.max() < 0.9
    assert level.std() > 3 and (level - floor).std() > 4
    assert (level - floor).min() > 3  # no word drowns


def test_no_word_is_cut_short():
    # The slowest voices say the longest words within the second.
    said = [clip for clip in gsc.clips(1234, "test", 18, ["backward", "follow", "forward", "zero"])]
    lengths = [len(gsc._trimmed(speech.speak_at(clip.word, 16000, clip.voice))) for clip in said]
    assert max(lengths) < 16000 * 0.88  # a mood may slow a voice by 12 %


def test_background_recordings_differ():
    def slope(wav):
        power = np.square(np.abs(np.fft.rfft(wav)))
        return 10 * np.log10(power[40000:80000].mean() / power[2000:10000].mean())  # 2..4 kHz against 0.1..0.5 kHz

    slopes = {name: slope(gsc.background(name, 3)) for name in gsc.RECORDINGS}
    assert (
        slopes["exercise_bike"] < slopes["pink_noise"] - 2 < slopes["white_noise"] - 4 and slopes["white_noise"] < slopes["running_tap"] - 1
    )
    assert abs(slopes["white_noise"]) < 1


def test_words_are_chosen(twin, monkeypatch):
    monkeypatch.setattr(gsc, "_fill", lambda *_: 1 / 0)
    assert gsc.make(twin, 5, SMALL, FEW[::-1]) == twin  # their order is of no interest
    with pytest.raises(ZeroDivisionError):
        gsc.make(twin, 5, SMALL, FEW[1:])
    with pytest.raises(DataError, match=r"words: 'yess' is no word of Speech Commands; did you mean yes\?"):
        gsc.make(twin, words=["go", "yess"])


def test_all_words_by_default(tmp_path):
    out = gsc.make(tmp_path / "twin", 7, {"test": 1})
    assert len((out / "testing_list.txt").read_text().split()) == 35
    assert len({path.parent.name for path in out.rglob("*_nohash_*.wav")}) == 35
