"""The cache of features: one file an utterance, which is used only where model, recording and content fit."""

import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_models
import torch
from fake_librispeech import tone
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from spikebrain.data import feature_cache
from spikebrain.data.feature_cache import FeatureCache, Filled, channel_statistics
from spikebrain.data.manifest import DataError, Utterance
from spikebrain.lobes.utterance_features import Fbank

RATE = 16000


class Counting:
    """An extractor that counts its calls, and spoils its features where it is asked to."""

    def __init__(self, extractor=None, spoil=lambda features: features):
        self.extractor, self.spoil, self.calls = extractor or Fbank(n_mels=20), spoil, 0
        for name in ("sample_rate", "channels", "frames_per_second", "shortest", "fingerprint"):
            setattr(self, name, getattr(self.extractor, name))

    def __call__(self, samples):
        self.calls += 1
        return self.spoil(self.extractor(samples))


@pytest.fixture
def corpus(tmp_path):
    """Three recordings of 0.5, 1 and 1.5 s, as Utterances."""
    made = []
    for number, seconds in enumerate((0.5, 1.0, 1.5)):
        path = tmp_path / "audio" / f"u{number}.wav"
        made.append(Utterance(f"u{number}", write(path, tone(seconds, 150 + 50 * number)), seconds))
    return made


def write(path, wav, rate=RATE, **how):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, wav, rate, **how)
    return str(path)


def make(tmp_path, extractor=None, **options):
    return FeatureCache(str(tmp_path / "cache"), extractor or Counting(), **options)


def get(cache, utterance):
    return cache.get(utterance.wav, utterance.start, utterance.duration)


def samples_of(utterance):
    return torch.from_numpy(soundfile.read(utterance.wav, dtype="float32")[0])


def entries(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def test_the_second_time_it_comes_from_disk(corpus, tmp_path):
    cache, wanted = make(tmp_path), [Fbank(n_mels=20)(samples_of(utterance)) for utterance in corpus]
    for _ in range(2):
        assert all(torch.equal(get(cache, utterance), features) for utterance, features in zip(corpus, wanted, strict=True))
    later = make(tmp_path)
    assert torch.equal(get(later, corpus[2]), wanted[2]) and get(later, corpus[2]).dtype == torch.float32
    assert (cache.extractor.calls, later.extractor.calls) == (3, 0)
    assert [path.suffix for path in entries(tmp_path)] == [".safetensors"] * 3
    assert (cache.channels, cache.frames_per_second) == (20, 100)


def test_parts_of_one_recording_are_entries_of_their_own(corpus, tmp_path):
    cache, whole = make(tmp_path), samples_of(corpus[2])
    for start, duration in ((0, 0.5), (4000, 0.25), (8000, None)):
        end = None if duration is None else start + round(duration * RATE)
        assert torch.equal(cache.get(corpus[2].wav, start, duration), Fbank(n_mels=20)(whole[start:end]))
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_other_rates_are_resampled_and_channels_averaged(tmp_path, ending):
    from torchaudio.functional import resample

    stereo = np.stack([tone(1.1, 200, 44100), tone(1.1, 300, 44100)], 1)
    path = write(tmp_path / "audio" / f"a.{ending}", stereo, 44100, subtype="PCM_16")
    mono = torch.from_numpy(soundfile.read(path, dtype="float32")[0]).mean(1)
    cache = make(tmp_path)
    assert torch.equal(cache.get(path), Fbank(n_mels=20)(resample(mono, 44100, RATE)))
    part = cache.get(path, 22050, 0.5)
    assert torch.equal(part, Fbank(n_mels=20)(resample(mono[22050:44100], 44100, RATE))) and len(part) == 51


@pytest.fixture(autouse=True)
def warnings_alone(caplog):
    """Whatever level the runs of other tests have left."""
    caplog.set_level(logging.WARNING, feature_cache.logger.name)


def remade(cache, utterance, caplog, why):
    """``get`` of an entry that does not fit: made again, with a line that says why."""
    caplog.clear()
    calls, features = cache.extractor.calls, get(cache, utterance)
    assert cache.extractor.calls == calls + 1 and torch.equal(get(cache, utterance), features) and cache.extractor.calls == calls + 1
    (line,) = [record.getMessage() for record in caplog.records if "made again" in record.getMessage()]
    assert line.endswith(f".safetensors {why}: made again") and utterance.id in line
    return features


def test_another_model(corpus, tmp_path, caplog):
    get(make(tmp_path), corpus[0])
    other = make(tmp_path, Counting(Fbank(n_mels=20, f_max=4000)))
    features = remade(other, corpus[0], caplog, "is of another model or of other options")
    assert torch.equal(features, Fbank(n_mels=20, f_max=4000)(samples_of(corpus[0])))
    assert len(entries(tmp_path)) == 1


def test_another_recording_under_the_same_name(corpus, tmp_path, caplog):
    cache = make(tmp_path)
    get(cache, corpus[0])
    os.utime(corpus[0].wav, ns=(0, 0))  # touched: its bytes are the same
    get(cache, corpus[0])
    assert cache.extractor.calls == 1
    write(Path(corpus[0].wav), tone(0.5, 333))
    features = remade(cache, corpus[0], caplog, "is of another recording")
    assert torch.equal(features, Fbank(n_mels=20)(samples_of(corpus[0])))
    write(Path(corpus[0].wav), tone(0.7, 333))
    assert len(cache.get(corpus[0].wav)) == 71 and len(entries(tmp_path)) == 1


def test_another_limit_and_another_version(corpus, tmp_path, caplog, monkeypatch):
    get(make(tmp_path), corpus[2])
    short = make(tmp_path, max_seconds=0.8)
    assert len(remade(short, corpus[2], caplog, "is of another part of the recording")) == 81
    monkeypatch.setattr(feature_cache, "VERSION", "0")
    remade(short, corpus[2], caplog, "is of another version of spikebrain")


def test_damage_anywhere_is_noticed(corpus, tmp_path):
    cache = make(tmp_path)
    right = get(cache, corpus[0])
    (entry,) = entries(tmp_path)
    sound = entry.read_bytes()
    header = 8 + int.from_bytes(sound[:8], "little")
    spread = [*range(0, header, 3), *range(header, len(sound), 97), len(sound) - 1]
    calls = cache.extractor.calls
    for place in spread:
        entry.write_bytes(sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :])
        assert torch.equal(get(cache, corpus[0]), right), place
    # The spaces that fill up the header may change unseen, and nothing else.
    assert len(spread) - sound[:header].count(b" ") <= cache.extractor.calls - calls <= len(spread)


@pytest.mark.parametrize("left", [0, 7, 60, 0.5, -1])
def test_a_truncated_entry(corpus, tmp_path, caplog, left):
    cache = make(tmp_path)
    right = get(cache, corpus[0])
    (entry,) = entries(tmp_path)
    sound = entry.read_bytes()
    entry.write_bytes(sound[: int(left * len(sound)) if left == 0.5 else left])
    assert torch.equal(remade(cache, corpus[0], caplog, "is damaged"), right)
    assert len(entry.read_bytes()) == len(sound)


def test_fill_extracts_what_is_missing(corpus, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(feature_cache, "PROGRESS_S", 0.0)
    cache = make(tmp_path)
    get(cache, corpus[1])
    with caplog.at_level(logging.INFO, feature_cache.logger.name):
        assert cache.fill(corpus) == Filled(made=2, kept=1, remade={}, cropped=0, skipped=())
    assert [record.getMessage().split(" utterances")[0] for record in caplog.records] == ["features: 1 of 2", "features: 2 of 2"]
    assert "s left" in caplog.text
    assert cache.fill(corpus) == Filled(0, 3, {}, 0, ()) and cache.extractor.calls == 3
    assert cache.fill([]) == Filled(0, 0, {}, 0, ())


def test_fill_says_once_what_it_makes_again(corpus, tmp_path, caplog):
    make(tmp_path).fill(corpus)
    entries(tmp_path)[0].write_bytes(b"")
    other = make(tmp_path, Counting(Fbank(n_mels=20, n_fft=512)))
    done = other.fill(corpus)
    assert done == Filled(3, 0, {"is damaged": 1, "is of another model or of other options": 2}, 0, ())
    assert "cache: 2 of 3 entries made again: each is of another model" in caplog.text and len(caplog.records) == 2


@pytest.fixture
def faulty(corpus, tmp_path):
    """The corpus with recordings that cannot be used; id -> what is said of each."""
    audio = tmp_path / "audio"
    (audio / "noise.wav").write_bytes(b"RIFFnothing")
    write(audio / "empty.wav", np.zeros(0, np.float32))
    short = write(audio / "short.wav", tone(1.0))
    bad = [Utterance(name, str(audio / f"{name}.wav"), 1.0) for name in ("gone", "noise", "empty")]
    bad += [Utterance("short", short, 1.5), Utterance("nothing", short, 1e-5)]
    said = {
        "gone": "there is no such file: restore it or set the data folder",
        "noise": "; 11 bytes): restore the file",
        "empty": "holds 0 samples (0.000 s), the utterance goes from sample 0 to 16000: restore the file",
        "short": "holds 16000 samples (1.000 s), the utterance goes from sample 0 to 24000: restore the file or prepare the corpus again",
        "nothing": "lasts 0.0000 s (0 samples), at least 0.0001 s are needed: remove it or restore its audio",
    }
    return corpus + bad, said


def test_what_cannot_be_used_is_refused_before_anything_is_extracted(faulty, tmp_path):
    cache, (utterances, said) = make(tmp_path), faulty
    with pytest.raises(DataError, match=r"gone\.wav: there is no such file.* --skip_bad_audio=True to leave it out\. 4 more: .*noise\.wav"):
        cache.fill(utterances)
    assert cache.extractor.calls == 0
    for utterance in utterances[3:]:
        with pytest.raises(DataError) as error:
            get(cache, utterance)
        assert str(error.value).startswith(f"{utterance.wav}: ") and said[utterance.id] in str(error.value)
    with pytest.raises(DataError, match=r"empty\.wav: lasts 0\.0000 s \(0 samples\)"):
        cache.get(utterances[5].wav)


def test_what_cannot_be_used_is_left_out_by_name(faulty, tmp_path, caplog):
    utterances, said = faulty
    done = make(tmp_path).fill(utterances, skip_bad_audio=True)
    assert done.made == 3 and [item.id for item in done.skipped] == list(said)
    assert all(said[item.id] in item.reason and not item.reason.startswith("/") for item in done.skipped)
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [f"left out {item.path}" for item in done.skipped]


def test_samples_that_are_not_finite(corpus, tmp_path):
    wav = tone(1.0)
    wav[[100, 200]] = np.nan
    bad = Utterance("bad", write(tmp_path / "audio" / "bad.wav", wav, subtype="FLOAT"), 1.0)
    with pytest.raises(DataError, match=r"bad\.wav: 2 of 16000 samples are NaN or infinite"):
        make(tmp_path).fill([bad, *corpus])
    done = make(tmp_path).fill([bad, *corpus], skip_bad_audio=True)
    assert done.made == 3 and done.skipped[0].reason.startswith("2 of 16000 samples are NaN")
    assert not any(path.name.startswith("bad-") for path in entries(tmp_path)) and len(entries(tmp_path)) == 3


def test_shorter_than_a_frame_or_than_asked(tmp_path):
    path = write(tmp_path / "audio" / "short.wav", tone(0.02, rate=44100), 44100)
    with pytest.raises(DataError, match=r"short\.wav: lasts 0\.0200 s \(882 samples\), at least 0\.5000 s are needed"):
        make(tmp_path, min_seconds=0.5).get(path)
    assert len(make(tmp_path).get(path)) == 3
    needs_more = Counting()
    needs_more.shortest = 400
    with pytest.raises(DataError, match=r"at least 0\.0250 s are needed"):
        make(tmp_path, needs_more).get(path)


def test_a_minute_is_cropped_where_a_limit_is_set(corpus, tmp_path, caplog):
    long = Utterance("long", write(tmp_path / "audio" / "long.flac", tone(60.0), subtype="PCM_16"), 60.0)
    assert len(get(make(tmp_path), long)) == 6001 and not caplog.records
    cache = make(tmp_path, max_seconds=7.5)
    features = get(cache, long)
    assert torch.equal(features, Fbank(n_mels=20)(samples_of(long)[: 7 * RATE + RATE // 2])) and len(features) == 751
    assert "long.flac lasts 60.00 s, is cropped to max_seconds: 7.5" in caplog.text
    caplog.clear()
    get(cache, long)
    assert not caplog.records
    done = make(tmp_path, max_seconds=1.0).fill([*corpus, long])
    assert done.cropped == 2
    assert f"max_seconds: 1 crops 2 of 4 utterances; the longest, {long.wav}, lasts 60.00 s" in caplog.text


def test_limits_that_leave_nothing(tmp_path):
    with pytest.raises(DataError, match=r"max_seconds: 0 is not more than min_seconds: 0\.0"):
        make(tmp_path, max_seconds=0)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda x: x * float("nan"), r"u0\.wav: 1020 of 1020 features are NaN or infinite: mend the extractor or its weights"),
        (lambda x: x[:, :5], r"u0\.wav: its features are \(51, 5\), expected \(frames, 20\)"),
        (lambda x: x[:0], r"its features are \(0, 20\)"),
        (lambda x: x[0], r"its features are \(20,\)"),
    ],
)
def test_features_that_make_no_sense_are_not_kept(corpus, tmp_path, spoil, match):
    with pytest.raises(DataError, match=match):
        get(make(tmp_path, Counting(spoil=spoil)), corpus[0])
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written(corpus, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cache/u0-\w+\.safetensors: cannot write \d+ bytes .*: free space or set another folder"):
        get(make(tmp_path), corpus[0])


def test_names_of_entries(tmp_path):
    cache = make(tmp_path)
    for folder in ("a", "b"):
        cache.get(write(tmp_path / folder / "Ärger 1 #2.wav", tone(0.1, 100 if folder == "a" else 300)))
    names = [path.name for path in entries(tmp_path)]
    assert len(names) == 2 and all(name.startswith("Ärger_1__2-") for name in names) and cache.extractor.calls == 2


def test_a_corpus_can_be_moved(corpus, tmp_path):
    make(tmp_path, root=str(tmp_path / "audio")).fill(corpus)
    shutil.move(tmp_path / "audio", tmp_path / "elsewhere")
    later = make(tmp_path, root=str(tmp_path / "elsewhere"))
    assert len(later.get(str(tmp_path / "elsewhere" / "u1.wav"), 0, 1.0)) == 101 and later.extractor.calls == 0


def test_it_serves_a_dataset_and_a_worker(corpus, tmp_path):
    cache = FeatureCache(str(tmp_path / "cache"), Fbank())
    cache.fill(corpus)
    item = provides("feats")(takes("wav", "start", "duration")(cache.get))
    data = {u.id: {"wav": u.wav, "start": u.start, "duration": u.duration} for u in corpus}
    assert [len(row["feats"]) for row in DynamicItemDataset(data, [item], ["id", "feats"])] == [51, 101, 151]
    assert torch.equal(get(pickle.loads(pickle.dumps(cache)), corpus[0]), get(cache, corpus[0]))


def test_a_speech_model_behind_the_cache(corpus, tmp_path):
    pytest.importorskip("transformers", reason="needs the ssl extra")
    from spikebrain.lobes.utterance_features import HuggingFace

    extractor = HuggingFace(tiny_models.save(tmp_path / "model", tiny_models.build("wavlm")))
    cache = FeatureCache(str(tmp_path / "cache"), extractor)
    assert cache.fill(corpus).made == 3
    assert [len(get(cache, utterance)) for utterance in corpus] == [24, 49, 74]
    assert all(torch.equal(get(cache, utterance), extractor(samples_of(utterance))) for utterance in corpus)
    other = HuggingFace(tiny_models.save(tmp_path / "other", tiny_models.build("wavlm", seed=1)))
    assert FeatureCache(str(tmp_path / "cache"), other).fill(corpus).remade == {"is of another model or of other options": 3}


def test_statistics_are_those_of_all_frames_together():
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(frames, 6, generator=generator) * 0.1 + 1000 for frames in (1, 50, 7, 200)]
    joined = torch.cat(features).double()
    for order in (features, features[::-1], [joined.float()]):
        got = channel_statistics(iter(order))
        assert got.frames == 258 and got.mean.dtype == got.std.dtype == torch.float32
        torch.testing.assert_close(got.mean.double(), joined.mean(0), rtol=1e-6, atol=0)
        torch.testing.assert_close(got.std.double(), joined.std(0, correction=0), rtol=1e-6, atol=0)


def test_statistics_of_a_channel_that_does_not_vary():
    features = torch.randn(30, 3)
    features[:, 1], features[:, 2] = 0.0, 0.1
    std = channel_statistics([features, features[:7]]).std
    assert std[1:].tolist() == [1, 1] and 0 < std[0] != 1


def test_statistics_of_nothing():
    with pytest.raises(DataError, match="statistics of 0 frames: the training part of the fold holds no utterance"):
        channel_statistics([])


def test_real_recordings(real_data, tmp_path):
    heads = [(path, soundfile.info(path)) for path in sorted(real_data.rglob("*.flac"))[:5]]
    assert heads, "no FLAC in $SPIKEBRAIN_DATA"
    utterances, cache = [Utterance(path.stem, str(path), head.duration) for path, head in heads], make(tmp_path)
    assert cache.fill(utterances).made == len(utterances)
    for utterance, (_, head) in zip(utterances, heads, strict=True):
        features = get(cache, utterance)
        assert features.isfinite().all() and len(features) == 1 + -(-head.frames * RATE // head.samplerate) // 160
    assert cache.extractor.calls == len(utterances)
