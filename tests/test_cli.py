"""The ``spikebrain`` command: what it prints, as text and as JSON, and the one line and the status of what cannot be used."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent / "fixtures"))

import tiny_bundles  # noqa: E402
from fake_librispeech import tone  # noqa: E402

import spikebrain  # noqa: E402
from spikebrain import cli  # noqa: E402
from spikebrain.publishing import use  # noqa: E402

RATE = tiny_bundles.RATE


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory):
    """(name of KINDS) -> the folder of that bundle, a str."""
    made = {}

    def write(kind):
        if kind not in made:
            made[kind] = str(tiny_bundles.write(tmp_path_factory.mktemp(kind), kind))
        return made[kind]

    return write


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of three recordings, as str."""
    folder, paths = tmp_path_factory.mktemp("recordings"), []
    for number, seconds in enumerate((0.8, 1.9, 1.2)):
        paths.append(str(folder / f"{number}.flac"))
        soundfile.write(paths[-1], tone(seconds, 200 + 400 * number, RATE), RATE)
    return paths


@pytest.fixture
def said(capsys):
    """(words of the command line) -> (status, lines of the output, lines of the errors)."""

    def run(*words):
        status = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


class Standard(io.BytesIO):
    """A standard input that is a pipe."""

    name = "<stdin>"

    @property
    def buffer(self):
        """The bytes behind it."""
        return self


@pytest.fixture
def pipe(monkeypatch):
    """(path) -> the file is what the standard input gives."""
    return lambda path: monkeypatch.setattr(sys, "stdin", Standard(Path(path).read_bytes()))


def test_transcribe(bundle_of, files, said):
    texts = spikebrain.load(bundle_of("ctc")).transcribe(files)
    assert len(set(texts)) == 3
    assert said("transcribe", bundle_of("ctc"), files[0]) == (0, [texts[0]], [])
    assert said("transcribe", bundle_of("ctc"), *files) == (0, [f"{file}\t{text}" for file, text in zip(files, texts)], [])
    status, lines, _ = said("transcribe", bundle_of("ctc"), *files, "--json")
    assert [json.loads(line) for line in lines] == [{"file": file, "text": text} for file, text in zip(files, texts)] and status == 0


def test_classify(bundle_of, files, said):
    for kind in ("words", "speakers"):
        named = spikebrain.load(bundle_of(kind)).classify(files)
        assert said("classify", bundle_of(kind), files[1]) == (0, [f"{named[1].label}\t{named[1].score:.3f}"], [])
        _, lines, _ = said("classify", bundle_of(kind), *files, "--json")
        assert [json.loads(line) for line in lines] == [
            {"file": file, "label": one.label, "score": one.score} for file, one in zip(files, named)
        ]


def test_windows_have_their_times(bundle_of, files, said):
    status, lines, _ = said("classify", bundle_of("words"), files[1], "--window", 1.0, "--hop", 0.5)
    assert status == 0 and [line.split("\t")[:2] for line in lines] == [["0.00", "1.00"], ["0.50", "1.50"], ["0.90", "1.90"]]
    named = spikebrain.load(bundle_of("words")).classify(files[1], window_s=1.0, hop_s=0.5)
    assert [line.split("\t")[2:] for line in lines] == [[one.label, f"{one.score:.3f}"] for one in named]
    _, lines, _ = said("classify", bundle_of("words"), *files, "--window=1", "--json")
    found = [json.loads(line) for line in lines]
    assert [one["file"] for one in found] == [files[0]] + [files[1]] * 3 + [files[2]] * 2
    assert found[1] == {"file": files[1], "start": 0.0, "end": 1.0, "label": named[0].label, "score": pytest.approx(named[0].score)}


def test_live(bundle_of, files, said, monkeypatch, tmp_path):
    wav, _ = soundfile.read(files[1], dtype="int16")
    monkeypatch.setattr(sys, "stdin", Standard(wav.astype("<i2").tobytes() + b"x"))  # and half a sample
    status, lines, _ = said("classify", bundle_of("words"), "-", "--live", "--window", 1.0, "--hop", 0.5)
    assert (status, lines) == said("classify", bundle_of("words"), files[1], "--window", 1.0, "--hop", 0.5)[:2] and len(lines) == 3


def test_a_stream_is_left_as_people_leave_it(bundle_of):
    words = [sys.executable, "-m", "spikebrain.cli", "classify", bundle_of("words"), "-", "--live", "--window=1"]
    block = (1000 * torch.randn(RATE)).short().numpy().tobytes()
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as live:
        live.stdin.write(block + block)
        live.stdin.flush()
        assert all(live.stdout.readline() for _ in range(3))  # and now it waits for more
        live.send_signal(signal.SIGINT)
        assert live.wait(60) == 130 and live.stderr.read() == b""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as live:
        live.stdin.write(block + block)
        live.stdin.flush()
        assert all(live.stdout.readline() for _ in range(3))  # and now it waits for more
        live.stdout.close()  # as head does
        live.stdin.write(block + block)
        live.stdin.close()
        live.stdin = None
        assert live.wait(60) == 141 and live.stderr.read() == b""


def test_say(said, tmp_path):
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: speech is made with eSpeak NG")
    path = tmp_path / "three.wav"
    assert said("say", "three one four", path) == (0, [], [])
    wav, rate = soundfile.read(path)
    assert rate == 16000 and 0.8 * rate < len(wav) < 4 * rate and abs(wav).max() > 0.1
    status, _, errors = said("say", "three", path)
    assert status == 1 and len(errors) == 1 and errors[0].startswith("spikebrain say: ") and "three.wav" in errors[0]
    status, _, errors = said("say", " ? ", tmp_path / "none.wav")
    assert status == 1 and "holds nothing that can be said" in errors[0] and not (tmp_path / "none.wav").exists()
    status, _, errors = said("say", "three", tmp_path / "other.wav", "--voice=klingon+m9")
    assert status == 1 and "klingon" in errors[0] and not (tmp_path / "other.wav").exists()
    assert (soundfile.read(path)[0] == wav).all()


def test_silence_is_said_to_be(bundle_of, said, tmp_path):
    path = tmp_path / "silence.wav"
    soundfile.write(path, torch.zeros(RATE).numpy(), RATE)
    assert said("classify", bundle_of("words"), path) == (0, ["(silence)\t0.000"], [])
    assert said("transcribe", bundle_of("ctc"), path) == (0, [""], [])
    _, (line,), _ = said("classify", bundle_of("words"), path, "--json")
    assert json.loads(line)["label"] is None


def test_verify(bundle_of, files, said):
    model = spikebrain.load(bundle_of("verify"))
    scores = [model.verify(files[0], file).score for file in files[1:]]
    assert said("verify", bundle_of("verify"), *files) == (0, [f"{file}\t{score:.4f}" for file, score in zip(files[1:], scores)], [])
    limit = sum(scores) / 2
    _, lines, _ = said("verify", bundle_of("verify"), *files, "--threshold", limit, "--json")
    expected = [{"file": f, "enrol": files[0], "score": pytest.approx(s), "same": s > limit} for f, s in zip(files[1:], scores)]
    assert [json.loads(line) for line in lines] == expected
    _, lines, _ = said("verify", bundle_of("verify"), *files, "--threshold", limit)
    assert sorted(line.split("\t")[-1] for line in lines) == ["another speaker", "same speaker"]


def test_the_standard_input(bundle_of, files, said, pipe):
    (text,) = said("transcribe", bundle_of("ctc"), files[1])[1]
    pipe(files[1])
    assert said("transcribe", bundle_of("ctc"), "-") == (0, [text], [])
    pipe(files[1])
    _, lines, _ = said("transcribe", bundle_of("ctc"), files[0], "-", "--json")
    assert json.loads(lines[1]) == {"file": "-", "text": text}
    pipe(files[1])
    assert said("transcribe", bundle_of("ctc"), "-", "-") == (
        1, [], ["spikebrain transcribe: -: the standard input is one recording, name it once"]
    )  # fmt: skip
    pipe(__file__)
    status, lines, (error,) = said("transcribe", bundle_of("ctc"), "-")
    assert status == 1 and lines == [] and error.startswith("spikebrain transcribe: <stdin>: is no audio that can be read")


def test_more_recordings_than_are_heard_at_once(bundle_of, files, said, monkeypatch):
    _, expected, _ = said("transcribe", bundle_of("ctc"), *files * 2)
    monkeypatch.setattr(cli, "GROUP", 2)
    assert said("transcribe", bundle_of("ctc"), *files * 2)[1] == expected and len(expected) == 6


def test_bad_recordings_are_a_line_each_and_keep_nobody_from_being_heard(bundle_of, files, said, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    missing = tmp_path / "missing.flac"
    status, lines, errors = said("transcribe", bundle_of("ctc"), files[0], text, files[1], missing, files[2])
    assert status == 1 and [line.split("\t")[0] for line in lines] == files
    assert errors == [
        f"spikebrain transcribe: {text}: is no audio that can be read (8 bytes): give WAV or FLAC",
        f"spikebrain transcribe: {missing}: there is no such file",
    ]
    status, lines, errors = said("verify", bundle_of("verify"), files[0], text, files[1])
    assert (status, len(lines), len(errors)) == (1, 1, 1) and lines[0].startswith(files[1])
    status, lines, errors = said("verify", bundle_of("verify"), text, files[0], files[1])
    assert (status, len(lines), len(errors)) == (1, 0, 1) and str(text) in errors[0]


@pytest.mark.parametrize(
    "words, error",
    [
        (["transcribe", "words"], "spikebrain transcribe: transcribe: this is a bundle of the task classify, expected asr: use classify"),
        (["classify", "ctc"], "expected classify or identify: use transcribe"),
        (["verify", "words"], "of the task classify, expected verify: use classify"),
        (["classify", "words", "--hop=0.5"], "hop: 0.5 s, but there is no window: give both"),
        (["classify", "words", "--window=0"], "window: 0 s, but this model hears 0.1 to 40 s at once"),
        (["classify", "words", "--window=1", "--hop=2"], "hop: 2 s, expected 0.01 to 1, the window"),
    ],
)
def test_what_does_not_go_together_is_one_line(bundle_of, files, said, words, error):
    command, kind, *options = words
    status, lines, errors = said(command, bundle_of(kind), *files[:2], *options)
    assert status == 1 and lines == [] and len(errors) == 1 and error in errors[0] and errors[0].startswith(f"spikebrain {command}: ")


def test_a_bundle_that_is_none_is_one_line(files, said, tmp_path):
    for bundle in (tmp_path, files[0], tmp_path / "not" / "there"):
        status, lines, errors = said("transcribe", bundle, files[0])
        assert status == 1 and lines == [] and len(errors) == 1 and errors[0].startswith("spikebrain transcribe: ")


@pytest.mark.parametrize(
    "words",
    ["transcribe", "transcribe bundle", "verify bundle one.wav", "sing", "classify b f --window=x", "classify b f --live --window=1",
     "classify b - --live"],
)  # fmt: skip
def test_a_command_line_that_is_none_ends_with_2(said, capsys, words):
    with pytest.raises(SystemExit) as ended:
        said(*words.split())
    assert ended.value.code == 2 and "usage: spikebrain" in capsys.readouterr().err


def test_as_a_command_from_a_pipe(bundle_of, files):
    with open(files[0], "rb") as sound:
        words = [sys.executable, "-m", "spikebrain.cli", "classify", bundle_of("words"), "-", "--json"]
        done = subprocess.run(words, stdin=sound, capture_output=True, text=True, check=True)
    one = use.classify(spikebrain.load(bundle_of("words")), files[0])
    assert json.loads(done.stdout) == {"file": "-", "label": one.label, "score": pytest.approx(one.score)} and done.stderr == ""
