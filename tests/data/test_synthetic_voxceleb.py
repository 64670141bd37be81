"""The VoxCeleb twin: the corpus's layout, voices unseen in training, videos unlike each other, sentences that tell no speaker."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from spikebrain.data import manifest, trials
from spikebrain.data.corpora import voxceleb as corpus
from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic import speech, voxceleb

pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")

SMALL = {"dev": 21, "test": 24}


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """A small twin: three speakers of development, four of the trials."""
    return voxceleb.make(tmp_path_factory.mktemp("twin") / "VoxCeleb", 5, SMALL)


@pytest.fixture(scope="module")
def said():
    """What is said by default."""
    return {split: voxceleb.takes(1234, split, number) for split, number in voxceleb.UTTERANCES.items()}


def test_layout(twin):
    names = {path.relative_to(twin).as_posix() for path in twin.rglob("*") if path.is_file()}
    recordings = {name for name in names if name.startswith("wav/")}
    assert names - recordings == {"iden_split.txt", "veri_test.txt", "vox1_meta.csv", "synthetic.json"}
    assert len(recordings) == sum(SMALL.values())
    for name in recordings:
        assert not trials.path_problem(name.removeprefix("wav/"))
        info = soundfile.info(twin / name)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16") and 1 < info.duration < 8
    meta = [line.split("\t") for line in (twin / "vox1_meta.csv").read_text().splitlines()]
    assert meta[0] == ["VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality", "Set"]
    assert [row[0] for row in meta[1:]] == sorted({name.split("/")[1] for name in recordings})
    assert {row[2] for row in meta[1:]} == {"m", "f"} and Counter(row[4] for row in meta[1:]) == {"dev": 3, "test": 4}


def test_the_preparer_reads_it(twin, tmp_path):
    done = corpus.prepare(str(twin), str(tmp_path), ["iden-train", "iden-valid", "iden-test", "vox1-dev", "vox1-valid", "vox1-o"])
    counts = {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()}
    assert not done.skipped and counts["vox1-o"] == (24, 4) and counts["vox1-dev"][1] == counts["vox1-valid"][1] == 3
    assert counts["vox1-dev"][0] + counts["vox1-valid"][0] == 21
    assert [counts[split][1] for split in corpus.PARTS] == [7, 7, 7] and sum(counts[split][0] for split in corpus.PARTS) == 45
    listed = trials.read(twin / "veri_test.txt")
    ids = [u.id for u in manifest.read(done.manifests["vox1-o"], manifest.CLASS_COLUMNS)]
    assert trials.usable(listed, ids, "list") == (listed, [])


def test_without_trials(tmp_path):
    out = voxceleb.make(tmp_path / "twin", 5, {"dev": 12})
    assert list(corpus.prepare(str(out), str(tmp_path / "save")).manifests) == list(corpus.PARTS)
    with pytest.raises(DataError, match="utterances: split 'test': 11 utterances are no two speakers: ask for 12 or more"):
        voxceleb.make(tmp_path / "other", 5, {"test": 11})


def test_the_fewest_trials(tmp_path):
    out = voxceleb.make(tmp_path / "twin", 5, {"test": 12})
    assert Counter(trial.same for trial in trials.read(out / "veri_test.txt")) == {True: 24, False: 24}


def test_speakers_of_trials_are_unseen(said):
    variants = {split: {take.voice.name.partition("+")[2] for take in takes} for split, takes in said.items()}
    assert len(variants["dev"]) >= 60 and len(variants["test"]) >= 16 and not variants["dev"] & variants["test"]
    assert variants["dev"] | variants["test"] <= set(speech.variants())
    speakers = {split: {trials.speaker_of(take.path) for take in takes} for split, takes in said.items()}
    assert {split: len(names) for split, names in speakers.items()} == {split: len(names) for split, names in variants.items()}
    assert not speakers["dev"] & speakers["test"]


def test_every_speaker_has_videos_in_each_part(said):
    for split, number in voxceleb.UTTERANCES.items():
        parts, videos = defaultdict(Counter), {}
        for take in said[split]:
            parts[trials.speaker_of(take.path)][take.part] += 1
            assert videos.setdefault(take.path.rpartition("/")[0], take.part) == take.part
        assert sum(map(Counter.total, parts.values())) == number == len({take.path for take in said[split]})
        assert all(set(mine) == set("123") and mine["1"] >= mine["2"] and mine["1"] >= mine["3"] for mine in parts.values())
        assert all(len(video.split("/")[1]) == 11 for video in videos)


def test_sentences_do_not_tell_speakers(said):
    everything = said["dev"] + said["test"]
    assert len({take.text for take in everything}) > 0.99 * len(everything)
    words = {split: Counter(word for take in takes for word in take.text.split()) for split, takes in said.items()}
    assert set(words["test"]) <= set(words["dev"]) and len(words["dev"]) > 100
    # The most frequent word of a speaker is nobody's own: all say nearly as much of it.
    heard = Counter(trials.speaker_of(take.path) for take in said["dev"] if "the" in take.text.split())
    assert max(heard.values()) < 3 * min(heard.values())


def test_a_speaker_differs_between_videos_but_not_much(said):
    moods = defaultdict(list)
    for take in said["dev"]:
        moods[trials.speaker_of(take.path)].append((take.voice.rate, take.voice.pitch))
    spread = np.array([np.ptp(mood, axis=0) for mood in moods.values()])
    assert (spread > 0).all() and (spread[:, 1] <= 16).all()
    assert len({take.voice.name for take in said["dev"]}) == len(moods) and len({take.voice.pitch_range for take in said["dev"]}) > 20


def spectrum(wav):
    """Power of a wave in six bands of 0.1 to 6.4 kHz, in dB against their mean."""
    power = np.square(np.abs(np.fft.rfft(wav)))
    edges = (np.array([100, 200, 400, 800, 1600, 3200, 6400]) * len(wav) / 16000).astype(int)
    bands = 10 * np.log10([power[a:b].mean() for a, b in zip(edges, edges[1:])])
    return bands - bands.mean()


def test_a_video_has_a_sound_of_its_own(said):
    first = said["dev"][0]
    videos = {take.channel: take for take in said["dev"][:24]}  # of one speaker

    def sounds(channel, text, seed):
        return spectrum(voxceleb.render(replace(first, channel=channel, text=text, seed=seed)))

    said_twice = [[sounds(channel, take.text, (1, i)) for i, take in enumerate(said["dev"][:2])] for channel in videos]
    within = np.mean([np.abs(a - b).mean() for a, b in said_twice])
    between = np.mean([np.abs(a - b).mean() for (a, _), (_, b) in zip(said_twice, said_twice[1:])])
    assert between > 1.5 * within


def test_levels_and_noise_differ(said):
    takes = {take.path.rpartition("/")[0]: take for take in said["test"]}
    power, floor = [], []
    for take in list(takes.values())[:20]:
        wav = voxceleb.render(take).astype(np.float64)
        assert np.isfinite(wav).all() and np.abs(wav).max() < 1
        loud = np.square(wav[: len(wav) // 160 * 160].reshape(-1, 160)).mean(1)
        power.append(10 * np.log10(np.quantile(loud, 0.9)))
        floor.append(10 * np.log10(np.quantile(loud, 0.02)))
    assert np.std(power) > 2 and np.std(np.subtract(power, floor)) > 3 and np.min(np.subtract(power, floor)) > 5


def test_trials_are_balanced(said):
    paths = [take.path for take in said["test"]]
    female = set(list(dict.fromkeys(map(trials.speaker_of, paths)))[::3])
    made = trials.balanced(paths, female, 7)
    assert made == trials.balanced(paths, female, 7) != trials.balanced(paths, female, 8)
    same = [trial for trial in made if trial.same]
    assert len(made) == 2 * len(same) > 6 * len(paths) and set(trials.utterances(made)) == set(paths)
    assert len({frozenset((trial.enrol, trial.test)) for trial in made}) == len(made)
    assert all(trial.same == (trials.speaker_of(trial.enrol) == trials.speaker_of(trial.test)) for trial in made)
    assert all(trial.enrol.split("/")[1] != trial.test.split("/")[1] for trial in same)
    sexes = [(trials.speaker_of(t.enrol) in female) == (trials.speaker_of(t.test) in female) for t in made if not t.same]
    assert 0.6 < np.mean(sexes) < 0.9  # half of them on purpose, and half of the others by chance
    assert trials.balanced(paths[:4]) == []


def test_voices_have_a_sex():
    from spikebrain.data.synthetic import reading

    for variants in voxceleb.VARIANTS.values():
        assert len(set(variants)) == len(variants) and 0.1 < np.mean([reading.sex(variant) == "F" for variant in variants]) < 0.5
