"""From manifests to batches for classification: clips, labels, event frames, and two resolutions of one recording."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataloader import make_dataloader

from spikebrain.data import classification, manifest
from spikebrain.data.classification import ClassDataOptions, Recordings, augment_alike
from spikebrain.data.manifest import CLASS_COLUMNS, DataError, Utterance
from spikebrain.frontend.augmentation import EventDrop, SpecAugment

RATE = 16000
AUDIO = SimpleNamespace(domain="audio")


def events(step_ms, channels=140):
    return SimpleNamespace(domain="events", step_ms=step_ms, channels=channels)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A folder with clips of three words, one longer and some shorter than a second, and a long recording that two clips are cut from."""
    folder = tmp_path_factory.mktemp("spoken")
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        samples = 24000 if number == 0 else 9000 + 500 * number
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(samples), RATE, subtype="PCM_16")
        rows.append(Utterance(f"u{number}", f"{number}.wav", samples / RATE, f"s{number % 4}", label=("yes", "no", "go")[number % 3]))
    soundfile.write(folder / "noise.wav", 0.1 * rng.standard_normal(80000), RATE, subtype="PCM_16")
    rows += [Utterance(f"quiet{start}", "noise.wav", 1.0, label="_silence_", start=start) for start in (16000, 40000)]
    manifest.write(folder / "train.csv", rows, CLASS_COLUMNS)
    manifest.write(folder / "test.csv", rows[1:4], CLASS_COLUMNS)
    return folder


def recordings(folder, labels=None, valid=(), tests=("test",), **options):
    paths = {name: str(folder / f"{name}.csv") for name in ("train", *tests)}
    found = {name: paths[name] for name in tests}
    return Recordings([paths["train"]], list(valid), found, str(folder), labels, ClassDataOptions(**options))


def batches(data, split="train"):
    dataset, loader = (data.train, data.train_loader) if split == "train" else (data.tests[split], data.eval_loader)
    return list(make_dataloader(dataset, **loader))


def by_id(data, key="sig", split="train"):
    """id -> tensor without padding."""
    out = {}
    for batch in batches(data, split):
        values, lengths = getattr(batch, key)
        counts = (lengths * values.shape[1]).round().long()
        out.update({name: value[:count] for name, value, count in zip(batch.id, values, counts)})
    return out


def test_labels_are_numbers_in_the_order_of_the_corpus_or_of_the_alphabet(spoken):
    order = ("_silence_", "yes", "no", "go")
    for labels, wanted in ((order, order), (None, ("_silence_", "go", "no", "yes"))):
        task = recordings(spoken, labels)
        assert task.labels == wanted
        for batch in batches(task.view(AUDIO)):
            assert batch.label_encoded.data.dtype == torch.int64 and batch.label_encoded.data.shape == (len(batch.id), 1)
            truth = [task.view(AUDIO).train.data[name]["label"] for name in batch.id]
            assert [wanted[number] for number in batch.label_encoded.data.flatten()] == truth


def test_clips_are_those_of_the_files_whole_or_cut_from_a_longer_recording(spoken):
    found = by_id(recordings(spoken).view(AUDIO))
    for number in range(12):
        wav, _ = soundfile.read(spoken / f"{number}.wav", dtype="float32")
        assert torch.equal(found[f"u{number}"], torch.from_numpy(wav))
    noise, _ = soundfile.read(spoken / "noise.wav", dtype="float32")
    assert torch.equal(found["quiet40000"], torch.from_numpy(noise[40000:56000]))


@pytest.mark.parametrize("pad", [True, False])
def test_clips_of_one_length(spoken, pad):
    data, plain = recordings(spoken, seconds=1.0, pad=pad).view(AUDIO), by_id(recordings(spoken).view(AUDIO))
    for batch in batches(data):
        assert not pad or (batch.sig.data.shape[1] == RATE and (batch.sig.lengths == 1).all())
    found = by_id(data)
    assert len(found["u0"]) == RATE and torch.equal(found["u0"], plain["u0"][:RATE])
    assert len(found["u1"]) == (RATE if pad else 9500)
    assert torch.equal(found["u1"][:9500], plain["u1"]) and not found["u1"][9500:].any()


def test_memory_gives_the_same_samples_and_touches_training_alone(spoken, monkeypatch):
    plain = by_id(recordings(spoken).view(AUDIO))
    read, load = [], classification.ReadAudio.preload.__globals__["audio"].load
    monkeypatch.setattr("spikebrain.data.pipelines.audio.load", lambda path, rate: read.append(path) or load(path, rate))
    task = recordings(spoken, cache_audio=True)
    data = task.view(AUDIO)
    assert len(read) == len(set(read)) == 13  # the recording that two clips are cut from once
    cached = by_id(data)
    task.view(AUDIO, teacher=AUDIO)
    assert len(read) == 13 and cached.keys() == plain.keys() and all(torch.equal(cached[name], plain[name]) for name in plain)


def test_order_is_drawn_anew_for_training_and_fixed_for_tests(spoken):
    data = recordings(spoken, batch_size=3).view(AUDIO)
    assert data.train_loader["shuffle"] is True and "shuffle" not in data.eval_loader
    seconds = [data.tests["test"].data[name]["duration"] for batch in batches(data, "test") for name in batch.id]
    assert seconds == sorted(seconds)


def test_looking_at_a_test_split_draws_no_number_that_training_would_have_drawn(spoken):
    data = recordings(spoken).view(AUDIO)
    before = torch.get_rng_state(), data.generator.get_state()
    batches(data, "test")
    assert all(torch.equal(a, b) for a, b in zip(before, (torch.get_rng_state(), data.generator.get_state())))


def test_datasets_may_go_to_worker_processes(spoken):
    data = recordings(spoken, cache_audio=True, seconds=1.0).view(AUDIO)
    item, again = (dataset[3] for dataset in (data.train, pickle.loads(pickle.dumps(data.train))))
    assert torch.equal(item["sig"], again["sig"]) and item["label_encoded"] == again["label_encoded"]


@pytest.fixture(scope="module")
def cochlear(tmp_path_factory):
    """A folder with a file of 12 recordings of spikes, and manifests of it."""
    pytest.importorskip("h5py", reason="pip install spikebrain[spikes]")
    import fake_events

    from spikebrain.data import events as files

    folder = tmp_path_factory.mktemp("cochlear")
    recorded = [fake_events.recording(number, 0.4 + 0.05 * number) for number in range(12)]
    fake_events.write(folder / "shd_train.h5", recorded, [number % 3 for number in range(12)], [0] * 12)
    rows, _ = files.utterances(str(folder), "shd_train.h5", 20)
    manifest.write(folder / "train.csv", rows, files.COLUMNS)
    manifest.write(folder / "test.csv", rows[:5], files.COLUMNS)
    return folder


def test_both_resolutions_of_one_recording_hold_the_same_events(cochlear):
    task = recordings(cochlear, batch_size=4)
    data = task.view(events(25), teacher=events(10))
    for _ in range(2):
        seen = []
        for batch in batches(data):
            (coarse, few), (fine, many) = batch.sig, batch.teacher_sig
            assert coarse.shape[0] == fine.shape[0] == len(batch.id) and coarse.shape[2] == fine.shape[2] == 140
            assert coarse.shape[1] < fine.shape[1] / 2
            assert torch.equal(coarse.sum((1, 2)), fine.sum((1, 2))) and (coarse.sum((1, 2)) > 100).all()
            frames = (few * coarse.shape[1]).round(), (many * fine.shape[1]).round()
            assert ((frames[0] * 25 - frames[1] * 10).abs() <= 25).all()
            seen += batch.id
        assert sorted(seen) == sorted(data.train.data)


def test_training_is_augmented_before_padding_and_a_teacher_and_tests_are_not(cochlear):
    drop = EventDrop(probability=1.0, time_share=0.5, band=20)
    task = recordings(cochlear)
    plain = task.view(events(25), teacher=events(10))
    augmented = task.view(events(25), teacher=events(10), augment=drop)
    student, teacher = by_id(augmented), by_id(augmented, "teacher_sig")
    clean = by_id(plain), by_id(plain, "teacher_sig")
    for name, frames in clean[0].items():
        assert student[name].shape == frames.shape and student[name].sum() < 0.7 * frames.sum()
        assert torch.equal(teacher[name], clean[1][name])
    tests = by_id(augmented, split="test")
    assert all(torch.equal(tests[name], clean[0][name]) for name in tests)
    alone = by_id(task.view(events(25), augment=drop))
    assert all(alone[name].sum() < 0.7 * frames.sum() for name, frames in clean[0].items())


def test_a_shared_augmentation_leaves_out_the_same_times_and_channels(cochlear):
    torch.manual_seed(1)
    task = recordings(cochlear, batch_size=1)
    drop = EventDrop(probability=1.0, time_share=0.4, band=30)
    data = task.view(events(20), teacher=events(5), augment=drop, share=True)
    clean = task.view(events(20), teacher=events(5))
    coarse, fine = by_id(clean), by_id(clean, "teacher_sig")
    for batch in batches(data):
        (name,), student, teacher = batch.id, batch.sig.data[0], batch.teacher_sig.data[0]
        lost = [frames - kept for frames, kept in ((coarse[name], student), (fine[name], teacher))]
        assert all((part >= 0).all() and part.sum() > 0 for part in lost)
        # A frame of 20 ms is as four of 5 ms, up to the last of each.
        whole = len(teacher) // 4
        folded = lost[1][: 4 * whole].unflatten(0, (whole, 4)).sum(1)
        assert (folded[:-1] - lost[0][: whole - 1]).abs().sum() <= 0.1 * lost[0].sum() + 3


def test_masks_are_shared_in_a_batch_of_features_and_random_numbers_go_on_as_without():
    augment, x, teacher = SpecAugment(10, 0.25, -7.0), torch.rand(6, 20, 40) + 2, torch.rand(6, 100, 40) + 2
    torch.manual_seed(3)
    alone = augment(x, None)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    student, shared = augment_alike(augment, x, teacher, None)
    assert torch.equal(student, alone) and torch.equal(torch.get_rng_state(), state)
    masked = student == -7
    assert masked.any() and not masked.all()
    assert torch.equal(shared == -7, masked.repeat_interleave(5, 1)) and torch.equal(shared[shared != -7], teacher[shared != -7])


def test_event_frames_from_memory_are_the_same(cochlear):
    plain, cached = (by_id(recordings(cochlear, cache_audio=cache).view(events(10))) for cache in (False, True))
    assert all(torch.equal(plain[name], cached[name]) and cached[name].dtype == torch.float32 for name in plain)


def test_what_cannot_be_classified_is_said(spoken, cochlear):
    with pytest.raises(DataError, match=r"train: u1 has the label 'no', which is none of the 3 classes \(4 such utterances\)"):
        recordings(spoken, ["yes", "go", "_silence_"])
    rows = [row for row in manifest.read(spoken / "train.csv", CLASS_COLUMNS) if row.label == "yes"]
    manifest.write(spoken / "yes.csv", rows, CLASS_COLUMNS)
    with pytest.raises(DataError, match="hold 1 class: yes: a task needs 2"):
        Recordings([str(spoken / "yes.csv")], [], {}, str(spoken))
    with pytest.raises(DataError, match=r"train.csv \+ .*yes.csv: u0 appears more than once"):
        Recordings([str(spoken / "train.csv"), str(spoken / "yes.csv")], [], {}, str(spoken))
    with pytest.raises(DataError, match="front ends read audio, events"):
        recordings(spoken).view(AUDIO, teacher=events(10))
    with pytest.raises(DataError, match="front ends read None"):
        recordings(spoken).view(torch.nn.Identity())


@pytest.mark.parametrize("options, message", [({"seconds": 0.0}, "seconds: 0.0 is no length"), ({"batch_size": 0}, "batch_size: 0")])
def test_options_are_checked(options, message):
    with pytest.raises(DataError, match=message):
        ClassDataOptions(**options)
