"""The VoxCeleb preparer: its splits, who is kept out of training, and one planted fault after another."""

import json
import re
import shutil
import zipfile
from collections import Counter
from functools import partial

import fake_voxceleb as fake
import preparing
import pytest
from fake_voxceleb import SPEAKERS, TESTED, VIDEOS, VOX2
from preparing import truncate
from speechbrain.dataio.dataio import load_data_csv

from spikebrain.data import preparation, trials
from spikebrain.data.corpora import voxceleb
from spikebrain.data.manifest import DataError, Utterance
from spikebrain.data.preparation import Published
from spikebrain.data.trials import Trial

prepare = partial(preparing.prepare, voxceleb)
refusal = partial(preparing.refusal, voxceleb)
left_out = partial(preparing.left_out, voxceleb)
manifests = partial(preparing.manifests, voxceleb)

IDENTIFICATION = list(voxceleb.PARTS)
PUBLISHED_SPLITS = [split for split in voxceleb.SPLITS if split not in voxceleb.VALIDATION]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound tree: six speakers of VoxCeleb1, two of whom are those of the trials, and two of VoxCeleb2."""
    return fake.make_tree(tmp_path_factory.mktemp("voxceleb") / "VoxCeleb")


@pytest.fixture
def tree(sound, tmp_path):
    """A copy of the sound tree, to be damaged."""
    return shutil.copytree(sound, tmp_path / "VoxCeleb")


def test_reads_the_layout(sound):
    first = voxceleb.read(str(sound), "vox1-dev")[0]
    assert first == Utterance("id10001-1zcIwhmdeo4-00001", "wav/id10001/1zcIwhmdeo4/00001.wav", 0.25, "id10001", label="id10001")
    assert {u.speaker for u in voxceleb.read(str(sound), "iden-test")} == set(SPEAKERS)
    assert {u.id for u in voxceleb.read(str(sound), "vox1-o")} == {trials.utterance_id(path) for path in fake.paths(TESTED)}
    assert {u.wav for u in voxceleb.read(str(sound), "vox2-dev")} == {f"vox2/wav/{path}" for path in fake.paths(VOX2)}


def test_writes_manifests_and_counts(sound, tmp_path):
    done = prepare(sound, tmp_path)
    assert {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()} == {
        **dict.fromkeys(IDENTIFICATION, (12, 6)),
        "vox1-dev": (24, 4),
        "vox2-dev": (12, 2),
        "vox1-o": (12, 2),
    }
    assert list(done.manifests) == PUBLISHED_SPLITS and not done.complete and not done.skipped
    assert done.differences[-2:] == (
        "vox1-o has 12 utterances (published: 4708), 0.00 h (none), 2 speakers (40)",
        "veri_test.txt has 12 trials (published: 37720)",
    )
    row = load_data_csv(done.manifests["iden-train"], {"data_root": "/corpus"})["id10001-1zcIwhmdeo4-00001"]
    wav = "/corpus/wav/id10001/1zcIwhmdeo4/00001.wav"
    assert row == {"duration": 0.25, "wav": wav, "start": "0", "spk_id": "id10001", "label": "id10001"}


def test_identification_follows_the_official_list(sound, tmp_path):
    made = manifests(prepare(sound, tmp_path, splits=IDENTIFICATION))
    for split, video in zip(IDENTIFICATION, VIDEOS):
        assert {u.wav.split("/")[2] for u in made[split]} == {video}
        assert Counter(u.label for u in made[split]) == dict.fromkeys(SPEAKERS, 2)


def test_published_counts():
    iden, dev = ([voxceleb.PUBLISHED[split].utterances for split in splits] for splits in (IDENTIFICATION, ("vox1-dev", "vox2-dev")))
    # Table 3 of the paper: 145,265 utterances to develop on, 8,251 to test; table 4: 148,642 and 4,874, of which the trials name 4,708.
    assert iden[0] + iden[1] == 145265 and sum(iden) == dev[0] + 4874 == voxceleb.RECORDINGS["wav"]
    assert dev[1] == voxceleb.RECORDINGS["vox2/wav"]
    assert voxceleb.published_counts("veri_test.txt") == voxceleb.PUBLISHED == voxceleb.CORPUS.published
    other = voxceleb.published_counts("list_test_hard.txt")
    assert [split for split in voxceleb.SPLITS if other[split] != voxceleb.PUBLISHED[split]] == ["vox1-dev", "vox1-o"]


def test_counts_as_published_are_complete(sound, tmp_path, monkeypatch):
    for split, number, speakers in (*((s, 12, 6) for s in IDENTIFICATION), ("vox1-dev", 24, 4), ("vox2-dev", 12, 2), ("vox1-o", 12, 2)):
        monkeypatch.setitem(voxceleb.PUBLISHED, split, Published(number, None, speakers))
    monkeypatch.setattr(voxceleb, "PUBLISHED_TRIALS", 12)
    assert prepare(sound, tmp_path, strict_counts=True).complete
    # Development and the validation made of it count as one; validation alone is our own.
    assert prepare(sound, tmp_path, splits=["vox1-dev", "vox1-valid", "vox2-dev", "vox2-valid"], strict_counts=True).complete
    assert not prepare(sound, tmp_path, splits=["vox1-valid"]).complete
    monkeypatch.setattr(voxceleb, "PUBLISHED_TRIALS", 13)
    assert prepare(sound, tmp_path).differences == ("veri_test.txt has 12 trials (published: 13)",)


def test_a_speaker_of_the_trials_is_removed_from_training_and_reported(tree, tmp_path, caplog):
    stray = fake.path(tree, TESTED[0], place="vox2/wav")
    stray.parent.mkdir(parents=True)
    shutil.copy(fake.path(tree, TESTED[0]), stray)
    done = prepare(tree, tmp_path, splits=["vox1-dev", "vox2-dev", "vox1-o"])
    made = manifests(done)
    assert {u.speaker for u in made["vox1-dev"]} == set(SPEAKERS) - set(TESTED) and {u.speaker for u in made["vox2-dev"]} == set(VOX2)
    removed = {"vox1-dev": {"count": 2, "names": list(TESTED)}, "vox2-dev": {"count": 1, "names": [TESTED[0]]}}
    assert done.summary()["settings"]["removed_speakers"] == removed and not done.skipped
    told = [r.getMessage() for r in caplog.records if "removed" in r.getMessage()]
    assert told == [
        "VoxCeleb: vox1-dev: removed 2 speakers that veri_test.txt tests from training: id10005, id10006",
        "VoxCeleb: vox2-dev: removed 1 speakers that veri_test.txt tests from training: id10005",
    ]
    caplog.clear()
    assert prepare(tree, tmp_path, splits=["vox1-dev", "vox2-dev", "vox1-o"]) == done
    assert [r.getMessage() for r in caplog.records if "removed" in r.getMessage()] == told


def test_settings_name_the_trials(sound, tmp_path):
    settings = prepare(sound, tmp_path).settings
    assert settings["trial_list"] == "veri_test.txt" and settings["trials"] == 12 and len(settings["trials_hash"]) == 64
    assert "valid_share" not in settings and prepare(sound, tmp_path, splits=IDENTIFICATION).settings == {}
    assert prepare(sound, tmp_path, splits=["vox1-valid", "vox1-dev"], valid_share=0.4).settings["valid_share"] == 0.4
    json.dumps(settings)


def test_another_list_of_trials(tree, tmp_path):
    (tree / "lists").mkdir()
    same = [Trial(True, *fake.paths([speaker])[:2]) for speaker in SPEAKERS[:2]]
    trials.write(tree / "lists" / "mine.txt", [*same, Trial(False, same[0].enrol, same[1].enrol)])
    done = prepare(tree, tmp_path, splits=["vox1-dev", "vox1-o"], trial_list="lists/mine.txt")
    assert done.settings["trial_list"] == "lists/mine.txt" and done.settings["trials"] == 3
    assert {u.speaker for u in manifests(done)["vox1-dev"]} == set(SPEAKERS[2:]) and done.counts["vox1-o"]["utterances"] == 4
    assert done.differences[0].startswith("vox1-dev has 24 utterances (published: none)")
    assert voxceleb.read(str(tree), "vox1-o", trial_list="lists/mine.txt") == manifests(done)["vox1-o"]


def test_a_swapped_trial_is_another_result(tree, tmp_path):
    first = prepare(tree, tmp_path, splits=["vox1-o"])
    path = tree / "veri_test.txt"
    path.write_text("".join(sorted(path.read_text().splitlines(True))))
    second = prepare(tree, tmp_path, splits=["vox1-o"])
    assert first.data_hash == second.data_hash and first.settings["trials_hash"] != second.settings["trials_hash"]


@pytest.mark.parametrize("area", ["vox1", "vox2"])
def test_validation_is_taken_out_where_it_is_asked_for(sound, tmp_path, area):
    whole = {u.id for u in manifests(prepare(sound, tmp_path))[f"{area}-dev"]}
    made = manifests(prepare(sound, tmp_path, splits=[f"{area}-dev", f"{area}-valid"]))
    dev, valid = made[f"{area}-dev"], made[f"{area}-valid"]
    assert {u.id for u in dev} | {u.id for u in valid} == whole and len(dev) + len(valid) == len(whole)
    assert {u.speaker for u in dev} == {u.speaker for u in valid}
    videos = [{u.wav.rpartition("/")[0] for u in split} for split in (dev, valid)]
    assert not videos[0] & videos[1] and len(videos[1]) == len({u.speaker for u in valid})
    assert voxceleb.read(str(sound), f"{area}-valid") == valid


def test_share_of_the_videos():
    many = [f"id1/v{video:02d}/{utterance}.wav" for video in range(40) for utterance in range(3)]
    paths = [*many, "id2/only/1.wav", "id2/only/2.wav", "id3/a/1.wav", "id3/b/1.wav"]
    for share, number in ((0.001, 1), (0.1, 4), (0.999, 39)):
        chosen = Counter(video.partition("/")[0] for video in voxceleb.validation_videos(paths, share))
        assert chosen == {"id1": number, "id3": 1}
    assert voxceleb.validation_videos(paths, 0.1) > voxceleb.validation_videos(paths, 0.03)


def test_the_choice_of_videos_stays_what_it_is():
    # Drawn once: a change would mix what published results have validated with what others have trained on.
    assert voxceleb.validation_videos([f"id10001/{v}/00001.wav" for v in "abcdefgh"], 0.25) == {"id10001/b", "id10001/g"}


WRONG_OPTIONS = [
    ({"valid_share": 1.5}, r"valid_share: 1\.5 is no share of the videos: give more than 0 and less than 1"),
    ({"valid_share": 0}, "valid_share: 0 is no share"),
    ({"valid_share": "all"}, "valid_share: 'all' is no share"),
    ({"trial_list": "/etc/passwd"}, "trial_list: '/etc/passwd' is no path inside the data folder: put the list there"),
    ({"trial_list": 5}, "trial_list: 5 is no path inside the data folder"),
    ({"trial_list": "../veri_test.txt"}, "trial_list: .* is no path inside the data folder"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_wrong_options(sound, tmp_path, options, message):
    assert re.search(message, refusal(sound, tmp_path, **options))


def test_options_are_those_of_the_preparer(sound, tmp_path):
    assert prepare(sound, tmp_path, **voxceleb.OPTIONS) == prepare(sound, tmp_path)


def remove(*names):
    def plant(tree):
        for name in names:
            (tree / name).unlink()

    return plant


def append(name, line):
    def plant(tree):
        with open(tree / name, "a") as file:
            file.write(line)

    return plant


def only_archives(tree):
    shutil.rmtree(tree / "wav")
    shutil.rmtree(tree / "vox2")
    (tree / "vox1_dev_wav_partaa").write_bytes(b"PK")


def test_lists_for_what_is_not_asked_for_may_be_absent(tree, tmp_path):
    (tree / "veri_test.txt").unlink()
    assert list(prepare(tree, tmp_path).manifests) == IDENTIFICATION
    (tree / "iden_split.txt").rename(tree / "hidden.txt")
    fake.make_tree(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "veri_test.txt", tree)
    assert list(prepare(tree, tmp_path).manifests) == ["vox1-dev", "vox2-dev", "vox1-o"]


# What no skipping mends: what is planted, what is asked for, and the message.
NO_TASK = {
    "no iden list": (
        remove("iden_split.txt"),
        {"splits": ["iden-train"]},
        r"iden_split\.txt: there is no such file, which splits identification: it is published as meta/iden_split\.txt at https://.*, put",
    ),
    "no trial list": (
        remove("veri_test.txt"),
        {"splits": ["vox1-dev"]},
        r"veri_test\.txt: there is no such list of trials \(the speakers in it are kept out of training\): it is published as meta/veri",
    ),
    "no list of that name": (
        None,
        {"splits": ["vox1-o"], "trial_list": "list_test_hard.txt"},
        r"list_test_hard\.txt: there is no such list of trials \(set trial_list to one that is\)",
    ),
    "iden line": (
        append("iden_split.txt", "1 id10001/1zcIwhmdeo4/00001.wav x\n"),
        {},
        r"iden_split\.txt:37: has 3 words, expected 2, <1\|2\|3> <speaker>",
    ),
    "iden part": (
        append("iden_split.txt", "4 id10001/1zcIwhmdeo4/00001.wav\n" * 2),
        {},
        r"iden_split\.txt:37: begins with '4', expected 1 \(training\), 2 .* \(2 such lines\)",
    ),
    "iden path": (append("iden_split.txt", "1 /etc/passwd\n"), {}, r"iden_split\.txt:37: names '/etc/passwd', which leads out"),
    "trial line": (append("veri_test.txt", "1 a b\n"), {}, r"veri_test\.txt:13: names 'a', expected <speaker>/<video>/<utterance>\.wav"),
    "only archives": (
        only_archives,
        {},
        r"holds vox1_dev_wav_partaa and no wav/: run cat vox1_dev_wav_part\* > vox1_dev_wav\.zip and unzip -n",
    ),
}


@pytest.mark.parametrize("fault", NO_TASK)
def test_no_task_is_named(tree, tmp_path, fault):
    plant, options, message = NO_TASK[fault]
    if plant:
        plant(tree)
    for skip in (False, True):
        said = refusal(tree, tmp_path, skip_bad_audio=skip, **options)
        assert re.search(message, said), said


def test_all_speakers_are_tested(tree, tmp_path):
    same = [Trial(True, *fake.paths([speaker])[:2]) for speaker in SPEAKERS]
    trials.write(tree / "all.txt", [*same, Trial(False, same[0].enrol, same[1].enrol)])
    said = refusal(tree, tmp_path, splits=["vox1-dev"], trial_list="all.txt")
    assert "vox1-dev: all 6 speakers of wav/ are in all.txt, 0 are left to train on: train on another split" in said
    assert prepare(tree, tmp_path, splits=["vox2-dev"], trial_list="all.txt").counts["vox2-dev"]["utterances"] == 12


def keep(speaker, *names, place="wav"):
    """Plants a speaker of whom only these utterances (video, number) are there, and in the lists."""

    def plant(tree):
        kept = {f"{speaker}/{video}/{number}.wav" for video, number in names}
        gone = set(fake.paths([speaker])) - kept
        for path in gone:
            (tree / place / path).unlink()
        lines = (tree / "iden_split.txt").read_text().splitlines(True)
        (tree / "iden_split.txt").write_text("".join(line for line in lines if line.split()[1] not in gone))

    return plant


def unconverted(tree):
    for number in ("00001", "00002"):
        path = fake.path(tree, VOX2[0], utterance=number, place="vox2/wav")
        (tree / "vox2" / "dev" / "aac" / VOX2[0] / VIDEOS[0]).mkdir(parents=True, exist_ok=True)
        path.rename(tree / "vox2" / "dev" / "aac" / VOX2[0] / VIDEOS[0] / f"{number}.m4a")


def archive(*absent):
    """Plants an archive of all recordings, of which those named are not unpacked (and in no list)."""

    def plant(tree):
        with zipfile.ZipFile(tree / "vox1_dev_wav.zip", "w") as file:
            for name in fake.paths(SPEAKERS[:4]):
                file.writestr(f"wav/{name}", b"")
        for name in absent:
            keep(SPEAKERS[0], *((v, n) for v in VIDEOS for n in fake.UTTERANCES if f"{SPEAKERS[0]}/{v}/{n}.wav" != name))(tree)

    return plant


FIRST, LAST = f"{SPEAKERS[0]}/{VIDEOS[0]}/00001.wav", f"{TESTED[1]}/{VIDEOS[2]}/00002.wav"
# What is planted, the splits asked for, the message, and how many utterances of which split are left.
FAULTS = {
    "iden_split names absent files": (
        lambda tree: fake.path(tree).unlink(),
        IDENTIFICATION,
        r"wav/id10001/1zcIwhmdeo4/00001\.wav: is not there, but line 1 of iden_split\.txt names it: restore it, or remove the line",
        {"iden-train": 11},
    ),
    "named by two parts": (
        append("iden_split.txt", f"3 {FIRST}\n"),
        IDENTIFICATION,
        r"is named by lines 1, 37 of iden_split\.txt: an utterance belongs to 1 part",
        {"iden-train": 11, "iden-test": 12},
    ),
    "tested, not trained": (
        keep(SPEAKERS[1], (VIDEOS[1], "00001"), (VIDEOS[2], "00001"), (VIDEOS[2], "00002")),
        IDENTIFICATION,
        r"wav/id10002: has 3 utterances, none of them for training \(part 1 of iden_split\.txt\), but iden-valid tests .* 1 more:",
        {"iden-train": 10, "iden-valid": 10, "iden-test": 10},
    ),
    "one utterance, tested": (
        keep(SPEAKERS[1], (VIDEOS[2], "00001")),
        IDENTIFICATION,
        r"wav/id10002/x6uYqmx31kE/00001\.wav: is the only utterance of id10002: a speaker needs 2 or more to be trained and recognised",
        {"iden-test": 10},
    ),
    "one utterance, trained": (
        keep(SPEAKERS[1], (VIDEOS[0], "00001")),
        [*IDENTIFICATION, "vox1-dev"],
        r"wav/id10002/1zcIwhmdeo4/00001\.wav: is the only utterance of id10002",
        {"iden-train": 10, "vox1-dev": 18},
    ),
    "trials name absent files": (
        lambda tree: [fake.path(tree, TESTED[1], VIDEOS[2], number).unlink() for number in fake.UTTERANCES],
        ["vox1-o"],
        r"wav/id10006/x6uYqmx31kE/00001\.wav: is not there, but 2 of 12 trials of veri_test\.txt name it: restore.* 1 more: wav/id10006/",
        {"vox1-o": 10},
    ),
    "a tested recording is cut": (
        lambda tree: truncate(fake.path(tree, TESTED[1]), 0.5),
        ["vox1-dev", "vox1-o"],
        r"wav/id10006/1zcIwhmdeo4/00001\.wav: is truncated or damaged",
        {"vox1-dev": 24, "vox1-o": 11},
    ),
    "not converted": (
        unconverted,
        ["vox2-dev"],
        r"vox2/dev/aac/id00012/1zcIwhmdeo4/00001\.m4a: is 1 of 2 \.m4a files without their \.wav: convert each, for example "
        r"ffmpeg -i vox2/dev/aac/id00012/1zcIwhmdeo4/00001\.m4a -ac 1 -ar 16000 vox2/wav/id00012/1zcIwhmdeo4/00001\.wav",
        {"vox2-dev": 10},
    ),
    "zip half unpacked": (
        archive(FIRST),
        ["vox1-dev"],
        r"vox1_dev_wav\.zip: is half unpacked, 1 of its 24 recordings are not there, the first is id10001/1zcIwhmdeo4/00001: run unzip -n",
        {"vox1-dev": 23},
    ),
    "zip cut short": (
        lambda tree: (tree / "vox1_dev_wav.zip").write_bytes(b"PK\3\4"),
        ["vox1-dev"],
        r"vox1_dev_wav\.zip: cannot be looked into \(.*\): download it again, or remove it where all of it is unpacked",
        {"vox1-dev": 24},
    ),
    "pieces of an archive": (
        lambda tree: [(tree / f"vox1_dev_wav_part{piece}").write_bytes(b"PK") for piece in ("aa", "ab")],
        ["vox1-dev"],
        r"vox1_dev_wav_partaa: lies beside 36 of 153516 recordings: run cat vox1_dev_wav_part\* > vox1_dev_wav\.zip and .* 1 more:",
        {"vox1-dev": 24},
    ),
    "pieces of the other archive": (
        lambda tree: (tree / "vox2" / "vox2_dev_aac_partaa").write_bytes(b"PK"),
        ["vox2-dev"],
        r"vox2/vox2_dev_aac_partaa: lies beside 12 of 1092009 recordings: run cat vox2/vox2_dev_aac_part\*",
        {"vox2-dev": 12},
    ),
    "not in a video": (
        lambda tree: fake.path(tree).rename(tree / "wav" / SPEAKERS[0] / "00001.wav"),
        ["vox1-dev"],
        r"wav/id10001/00001\.wav: is no wav/<speaker>/<video>/<utterance>\.wav: move or remove it",
        {"vox1-dev": 23},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_or_left_out(tree, tmp_path, fault):
    plant, splits, message, numbers = FAULTS[fault]
    plant(tree)
    said = refusal(tree, tmp_path, splits=splits)
    assert re.search(message, said), said
    done, kept = left_out(tree, tmp_path, splits=splits)
    assert {split: len(kept[split]) for split in numbers} == numbers
    assert re.search(message.split(".* ")[0].strip(), "".join(f"{item.path}: {item.reason}\n" for item in done.skipped))


def test_an_archive_beside_what_a_list_names(tree, tmp_path):
    (tree / "vox1_dev_wav_partaa").write_bytes(b"PK")
    fake.path(tree).unlink()
    fake.path(tree, TESTED[0]).unlink()
    for split in ("iden-train", "vox1-o"):
        assert "; vox1_dev_wav_partaa lies there, unpack all of it" in refusal(tree, tmp_path, splits=[split])


def test_an_unpacked_archive_is_no_fault(tree, tmp_path, monkeypatch):
    archive()(tree)
    (tree / "vox1_dev_wav_partaa").write_bytes(b"PK")
    monkeypatch.setitem(voxceleb.RECORDINGS, "wav", 36)
    assert not prepare(tree, tmp_path).skipped
    shutil.copytree(tree / "vox2" / "wav", tree / "vox2" / "aac")
    for path in list((tree / "vox2" / "aac").rglob("*.wav")):
        path.rename(path.with_suffix(".m4a"))
    assert not prepare(tree, tmp_path).skipped  # all of them are converted


def test_nothing_is_converted(tree, tmp_path):
    shutil.move(tree / "vox2" / "wav", tree / "vox2" / "aac")
    for path in list((tree / "vox2" / "aac").rglob("*.wav")):
        path.rename(path.with_suffix(".m4a"))
    assert "is 1 of 12 .m4a files without their .wav" in refusal(tree, tmp_path, splits=["vox2-dev"])
    with pytest.raises(DataError, match=r"vox2-dev\.csv: holds 0 utterances"):
        prepare(tree, tmp_path, splits=["vox2-dev"], skip_bad_audio=True)


def test_a_test_alone_needs_no_training_recordings(tree, tmp_path):
    for path in fake.paths(SPEAKERS):
        if VIDEOS[2] not in path:
            (tree / "wav" / path).unlink()
    assert prepare(tree, tmp_path, splits=["iden-test"]).counts["iden-test"]["utterances"] == 12


def test_what_is_not_prepared_is_not_looked_at(tree, tmp_path, monkeypatch):
    looked, place = [], preparation.list_files
    monkeypatch.setattr(preparation, "list_files", lambda folder, root: looked.append(root) or place(folder, root))
    prepare(tree, tmp_path, splits=[*IDENTIFICATION, "vox1-dev", "vox1-o"])
    assert looked == ["wav"]  # once for all of them


def test_notices_an_unpacked_recording(tree, tmp_path):
    first = prepare(tree, tmp_path)
    new = fake.path(tree, "id10007")
    for video in VIDEOS[:2]:
        new = fake.path(tree, "id10007", video)
        new.parent.mkdir(parents=True)
        shutil.copy(fake.path(tree), new)
    assert prepare(tree, tmp_path).counts["vox1-dev"]["utterances"] == first.counts["vox1-dev"]["utterances"] + 2
