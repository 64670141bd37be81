"""What holds for every synthetic twin: repeatable, whole or absent, kept while it fits, and asked for in numbers that make sense."""

import hashlib
import multiprocessing
import os
import subprocess
import sys

import pytest

from spikebrain.data.manifest import DataError
from spikebrain.data.synthetic import MAKERS, emotion, folder, librispeech, maker

EMOTIONS = ("casia", "emodb", "emovo", "iemocap", "urdu")
# Little of each twin, as arguments of its make, and what its messages count.
SMALL = {
    "aishell": {"utterances": {"train": 3, "test": 2}},
    "gsc": {"utterances": {"valid": 1}, "words": ["go", "no"]},
    "librispeech": {"utterances": {"train-clean-100": 3, "test-clean": 2}},
    "shd": {"utterances": {"test": 3}},
    "ssc": {"utterances": {"valid": 1}},
    "voxceleb": {"utterances": {"dev": 2, "test": 12}},
    **{name: {"utterances": {"all": 1}} for name in EMOTIONS},
}
COUNTED = {"gsc": "clips a word", "shd": "recordings", "ssc": "recordings a word"}
COUNTED |= dict.fromkeys(("aishell", "librispeech", "voxceleb"), "utterances")
COUNTED |= dict.fromkeys(EMOTIONS, emotion.WHAT)


def digest(out):
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """A folder with a small twin of every corpus."""
    pytest.importorskip("espeakng_loader", reason="needs the synthetic extra")
    out = tmp_path_factory.mktemp("twins")
    for name, arguments in SMALL.items():
        maker(name).make(out / name, 7, **arguments)
    return out


def test_every_twin_is_here():
    assert set(SMALL) == set(COUNTED) == set(MAKERS)
    assert maker("LibriSpeech") is librispeech
    with pytest.raises(ValueError, match="corpus 'nowhere' has no synthetic twin; there is: .*librispeech"):
        maker("nowhere")


def test_same_seed_same_bytes_in_another_process(twins, tmp_path):
    code = "from pathlib import Path; from spikebrain.data.synthetic import maker\n"
    code += f"for name, arguments in {SMALL!r}.items(): maker(name).make(Path({str(tmp_path)!r}) / name, 7, **arguments)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert digest(tmp_path) == digest(twins)


@pytest.mark.parametrize("name", SMALL)
def test_another_seed_gives_other_recordings(name, twins, tmp_path):
    first, other = (digest(out) for out in (twins / name, maker(name).make(tmp_path / name, 8, **SMALL[name])))
    assert first.keys() & other.keys() >= {folder.STAMP}
    first, other = ({made[path] for path in made if path.endswith((".wav", ".flac", ".h5"))} for made in (first, other))
    assert len(first) == len(other) > 0 and not first & other


@pytest.mark.parametrize("name", SMALL)
def test_settings_decide_whether_it_is_kept(name, twins, monkeypatch):
    before = digest(twins)
    monkeypatch.setattr(maker(name), "_fill", lambda *_: 1 / 0)
    assert maker(name).make(twins / name, 7, **SMALL[name]) == twins / name
    split, number = next(iter(SMALL[name]["utterances"].items()))
    for change in ({"seed": 8}, {"utterances": {split: number + 1}}):
        with pytest.raises(ZeroDivisionError):
            maker(name).make(**{"out": twins / name, "seed": 7, **SMALL[name], **change})
    assert digest(twins) == before


# What is given for a twin whose first split is "{0}", and counts "{1}", and what is said of it.
WRONG = {
    "unknown": (lambda split: {"nowhere": 3}, r"utterances: the synthetic .* has no split 'nowhere': choose from {0}\b"),
    "misspelt": (lambda split: {split[:-1]: 3}, r"; did you mean {0}\?$"),
    "none": (lambda split: {split: 0}, "utterances: split '{0}': 0 {1}: ask for a whole number of at least 1, or leave the split out"),
    "a part": (lambda split: {split: 2.5}, r"split '{0}': 2\.5 {1}: ask for a whole number"),
    "a word": (lambda split: {split: "many"}, "split '{0}': 'many' {1}: ask for a whole number"),
    "no mapping": (lambda split: 7, "utterances: 7 does not say how many {1} each split has: write for example {{{0}: 10}}"),
}


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("name", SMALL)
def test_wrong_numbers_are_told(name, fault, tmp_path):
    given, message = WRONG[fault]
    split = next(iter(maker(name).UTTERANCES))
    with pytest.raises(DataError, match=message.format(split, COUNTED[name])):
        maker(name).make(tmp_path / "twin", 7, given(split))
    assert not list(tmp_path.iterdir())


def fill(text="a"):
    """What fills a folder with two files that hold ``text``."""

    def write(out):
        (out / "inner").mkdir()
        (out / "first.txt").write_text(text)
        (out / "inner" / "second.txt").write_text(text)

    return write


def test_a_complete_one_is_kept_and_others_are_replaced(tmp_path):
    out = folder.make_folder(tmp_path / "twin", {"seed": 7}, fill())
    first, made = digest(out), (out / "first.txt").stat().st_mtime_ns
    assert folder.make_folder(out, {"seed": 7}, fill()) == out and (out / "first.txt").stat().st_mtime_ns == made
    (out / "inner" / "second.txt").unlink()
    assert digest(folder.make_folder(out, {"seed": 7}, fill())) == first
    (out / "first.txt").write_text("longer")
    assert digest(folder.make_folder(out, {"seed": 7}, fill())) == first
    folder.make_folder(out, {"seed": 8}, fill("b"))
    assert (out / "first.txt").read_text() == "b"
    assert [path.name for path in tmp_path.iterdir()] == ["twin"]


def test_a_half_made_one_is_replaced(tmp_path):
    def die(out):
        fill()(out)
        os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=folder.make_folder, args=(tmp_path / "twin", {}, die))
    process.start()
    process.join()
    assert process.exitcode == 9 and [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    out = folder.make_folder(tmp_path / "twin", {}, fill())
    assert len(digest(out)) == 3 and list(tmp_path.iterdir()) == [out]


def test_what_was_not_made_here_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"mine: is there and is no synthetic corpus \(synthetic\.json is missing\)"):
        folder.make_folder(tmp_path / "mine", {}, fill())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert (folder.make_folder(tmp_path / "empty", {}, fill()) / "first.txt").is_file()


def test_failing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        folder.make_folder(tmp_path / "twin", {}, lambda out: fill()(out) or 1 / 0)
    assert not list(tmp_path.iterdir())


def test_tool(twins, tmp_path, checkout):
    command = [sys.executable, checkout / "tools" / "make_corpus.py", "librispeech", tmp_path / "twin", "--seed", "7", "--utterances"]
    numbers = [f"{split}={number}" for split, number in SMALL["librispeech"]["utterances"].items()]
    done = subprocess.run([*command, *numbers], capture_output=True, text=True, check=True)
    assert str(tmp_path / "twin") in done.stdout
    assert digest(tmp_path / "twin") == digest(twins / "librispeech")
    wrong = subprocess.run([*command, "dev=4"], capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.startswith("make_corpus: utterances: the synthetic LibriSpeech has no split 'dev'")
    assert "Traceback" not in wrong.stderr
