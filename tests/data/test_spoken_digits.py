"""Spoken digits laid out as three corpora: a small source, the faults of one, the tool, and the real recordings."""

import re
import zlib
from collections import Counter

import numpy as np
import pytest
import soundfile
from fake_librispeech import tone

from spikebrain.data import connected_digits, manifest, spoken_digits, trials
from spikebrain.data.corpora import gsc, librispeech, voxceleb
from spikebrain.data.manifest import DataError

HEAD = "path,speaker,gender,label,transcript,duration,sample_rate,split,split_official\n"
SPEAKERS = {"anna": ("f", "test"), "bert": ("m", "train"), "carl": ("m", "test")}


@pytest.fixture
def source(tmp_path):
    """Three speakers who say two digits twelve times, at 8 kHz; two of them are those of the trials."""
    folder = tmp_path / "digits"
    (folder / "recordings").mkdir(parents=True)
    lines = []
    for number, (speaker, (sex, split)) in enumerate(SPEAKERS.items()):
        for digit in (3, 7):
            for take in range(12):
                name = f"recordings/{digit}_{speaker}_{take}.flac"
                soundfile.write(folder / name, tone(0.25, 200 + 50 * number, 8000), 8000, subtype="PCM_16")
                lines.append(f"{name},{speaker},{sex},{digit},X,0.25,8000,{split},{'test' if take < 5 else 'train'}\n")
    (folder / "metadata.csv").write_text(HEAD + "".join(lines))
    return folder


def test_layout(source, tmp_path):
    out = spoken_digits.make(tmp_path / "out", source)
    lines = (out / "iden_split.txt").read_text().splitlines()
    assert len(lines) == 72 and Counter(line[0] for line in lines) == {"1": 12, "2": 30, "3": 30}
    assert lines[0] == "3 id10001/takes-00-04/30000.wav" and "2 id10002/takes-05-09/70009.wav" in lines
    assert "1 id10003/takes-10-19/70011.wav" in lines
    assert (out / "vox1_meta.csv").read_text().splitlines()[1:] == [
        "id10001\tanna\tf\t\ttest",
        "id10002\tbert\tm\t\tdev",
        "id10003\tcarl\tm\t\ttest",
    ]
    listed = trials.read(out / "veri_test.txt")
    assert {trials.speaker_of(path) for path in trials.utterances(listed)} == {"id10001", "id10003"}
    wav, rate = soundfile.read(out / "wav" / "id10002" / "takes-05-09" / "70009.wav")
    power = np.square(np.abs(np.fft.rfft(wav)))
    assert rate == 16000 and len(wav) == 4000 and power.argmax() * rate / len(wav) == 248  # its tone, of 250 Hz, to a bin of 4 Hz
    assert power[1100:].sum() < 1e-4 * power.sum()  # nothing above 4.4 kHz


def test_the_preparer_reads_it(source, tmp_path):
    out = spoken_digits.make(tmp_path / "out", source)
    done = voxceleb.prepare(str(out), str(tmp_path / "save"))
    counts = {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()}
    assert counts == {"iden-train": (12, 3), "iden-valid": (30, 3), "iden-test": (30, 3), "vox1-dev": (24, 1), "vox1-o": (48, 2)}


def test_as_speech_commands(source, tmp_path):
    out = spoken_digits.make(tmp_path / "out", source, "gsc")
    done = gsc.prepare(str(out), str(tmp_path / "save"), classes=["three", "seven"])
    counts = {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()}
    assert counts == {"train": (12, 3), "valid": (30, 3), "test": (30, 3)} and not done.skipped
    names = {path.relative_to(out).as_posix() for path in out.glob("*/*.wav")}
    speakers = {name.partition("/")[2].partition("_nohash_")[0] for name in names}
    assert len(names) == 72 and len(speakers) == 3 and all(re.fullmatch("[0-9a-f]{8}", one) for one in speakers)
    takes = {int(line.rpartition("_")[2].removesuffix(".wav")) for line in (out / "testing_list.txt").read_text().splitlines()}
    assert takes == set(range(5))
    anna = f"{zlib.crc32(b'anna'):08x}"
    as_voxceleb = spoken_digits.make(tmp_path / "voxceleb", source) / "wav" / "id10001" / "takes-05-09" / "30007.wav"
    assert (out / "three" / f"{anna}_nohash_7.wav").read_bytes() == as_voxceleb.read_bytes()


def test_as_strings(source, tmp_path, monkeypatch):
    monkeypatch.setattr(connected_digits, "SPLITS", {"train-clean-100": 9, "dev-clean": 4, "test-clean": 4, "test-other": 110})
    out = spoken_digits.make(tmp_path / "out", source, "librispeech")
    done = librispeech.prepare(str(out), str(tmp_path / "save"))
    counts = {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()}
    assert counts == {"train-clean-100": (9, 1), "dev-clean": (4, 1), "test-clean": (4, 1), "test-other": (110, 2)} and not done.skipped
    told = manifest.read(done.manifests["test-other"])
    assert all(set(one.text.split()) <= {"THREE", "SEVEN"} and 3 <= len(one.text.split()) <= 6 for one in told)
    numbers = Counter(word for one in told for word in one.text.split())
    assert abs(numbers["THREE"] - numbers["SEVEN"]) <= 2  # dealt evenly
    for one in told[:5]:  # 0.25 s a digit, and between and around them 0.05 to 0.2 s
        digits = len(one.text.split())
        assert 0.25 * digits + 0.05 * (digits + 1) <= one.duration <= 0.25 * digits + 0.2 * (digits - 1) + 0.3
    assert {path.parent.name for path in out.glob("test-other/*/*/*.flac")} == {"400", "401"}  # chapters of 50
    wav, rate = soundfile.read(next(out.glob("test-other/1001/400/*.flac")))
    assert rate == 16000 and 0 < np.abs(wav[:600]).max() < 0.002  # noise at the beginning, and no digital silence
    again = spoken_digits.make(tmp_path / "again", source, "librispeech")
    files = sorted(path.relative_to(out) for path in out.rglob("*.*") if path.suffix in (".flac", ".txt"))
    assert len(files) > 127 and all((out / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_no_recording_is_in_two_splits():
    found = {(tested, take): connected_digits.split_of(tested, take) for tested in (False, True) for take in range(50)}
    assert Counter(found.values()) == {"test-clean": 5, "dev-clean": 5, "train-clean-100": 40, "test-other": 50}


@pytest.mark.full
def test_the_strings_that_shipped_models_learnt(real_data, tmp_path):
    out = spoken_digits.make(tmp_path / "out", real_data / "digits", "librispeech")
    names = sorted(path.relative_to(out) for path in out.glob("*/*/*/*.*"))
    assert len(names) == 1950 + len(list(out.glob("*/*/*/*.txt")))
    assert all((out / name).read_bytes() == (real_data / "connected_digits" / name).read_bytes() for name in names)


def test_it_is_kept_while_it_fits(source, tmp_path, monkeypatch):
    out = spoken_digits.make(tmp_path / "out", source)
    monkeypatch.setitem(spoken_digits.LAYOUTS, "voxceleb", lambda *_: 1 / 0)
    assert spoken_digits.make(out, source) == out
    with open(source / "metadata.csv", "a") as file:
        file.write("recordings/3_anna_0.flac,anna,f,3,X,0.25,8000,test,train\n")
    with pytest.raises(ZeroDivisionError):
        spoken_digits.make(out, source)


def change(old, new):
    def plant(source):
        path = source / "metadata.csv"
        path.write_text(path.read_text().replace(old, new))

    return plant


FAULTS = {
    "no folder": (
        lambda source: source.rename(source.with_name("away")),
        r"metadata\.csv: there is no such file: name the folder of a corpus",
    ),
    "no column": (
        change("split_official", "official"),
        r"metadata\.csv: holds 72 recordings and lacks the columns \['split_official'\]: it needs path, speaker",
    ),
    "no recordings": (lambda source: (source / "metadata.csv").write_text(HEAD), r"metadata\.csv: holds 0 recordings"),
    "name": (
        change("3_bert_1.flac", "bert.flac"),
        r"metadata\.csv: 1 of its 72 recordings are not named .*, the first is recordings/bert\.flac",
    ),
    "absent": (
        lambda source: [(source / "recordings" / f"3_bert_{take}.flac").unlink() for take in (1, 2)],
        r"metadata\.csv: 2 of its 72 recordings are not there, the first is recordings/3_bert_1\.flac: restore them, or remove their lines",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_source(source, tmp_path, fault):
    plant, message = FAULTS[fault]
    plant(source)
    with pytest.raises(DataError) as error:
        spoken_digits.make(tmp_path / "out", source)
    assert re.search(message, str(error.value)) and not (tmp_path / "out").exists()


def test_tool(source, tmp_path, load_tool, capsys):
    tool = load_tool("make_corpus")
    tool.main(["voxceleb", str(tmp_path / "out"), "--from", str(source)])
    assert str(tmp_path / "out") in capsys.readouterr().out and (tmp_path / "out" / "iden_split.txt").is_file()
    with pytest.raises(SystemExit, match=r"^make_corpus: .*nowhere/metadata\.csv: there is no such file"):
        tool.main(["voxceleb", str(tmp_path / "other"), "--from", str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shd", "OUT", "--from", "FOLDER"], "--from: shd is made of no existing recordings, only gsc, librispeech, voxceleb are"),
        (["voxceleb", "OUT", "--from", "FOLDER", "--seed", "1"], "--from: takes all of FOLDER and draws nothing: leave --seed and"),
        (["voxceleb", "OUT", "--from", "FOLDER", "--utterances", "dev=3"], "--from: takes all of FOLDER"),
    ],
)
def test_arguments_that_do_not_go_together(load_tool, capsys, arguments, message):
    with pytest.raises(SystemExit):
        load_tool("make_corpus").parse(arguments)
    assert message in capsys.readouterr().err


def test_real_digits_as_words(real_data, tmp_path):
    out = spoken_digits.make(tmp_path / "out", real_data / "digits", "gsc")
    done = gsc.prepare(str(out), str(tmp_path / "save"), classes=list(spoken_digits.WORDS))
    counts = {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()}
    assert counts == {"train": (2400, 6), "valid": (300, 6), "test": (300, 6)} and not done.skipped


def test_real_digits(real_data, tmp_path):
    out = spoken_digits.make(tmp_path / "out", real_data / "digits")
    done = voxceleb.prepare(str(out), str(tmp_path / "save"))
    counts = {split: (c["utterances"], c["speakers"]) for split, c in done.counts.items()}
    assert counts == {"iden-train": (2400, 6), "iden-valid": (300, 6), "iden-test": (300, 6), "vox1-dev": (2000, 4), "vox1-o": (1000, 2)}
    meta = [line.split("\t") for line in (out / "vox1_meta.csv").read_text().splitlines()[1:]]
    assert [row[1] for row in meta] == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    assert done.settings["removed_speakers"]["vox1-dev"]["names"] == [row[0] for row in meta if row[1] in ("lucas", "theo")]
    assert done.settings["trials"] == len(trials.read(out / "veri_test.txt")) and not done.skipped
