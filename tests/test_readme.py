"""What the README says to type exists, and its first try gives what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from spikebrain import cli

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)  # (language, text)
COMMANDS = [line.split("  #")[0].strip() for language, block in BLOCKS if not language for line in block.splitlines()]


def words_of(program):
    """The words of each command line, or part of a pipe, that begins with ``program``."""
    parts = [shlex.split(part) for line in COMMANDS for part in line.split(" | ")]
    return [words for words in parts if words[:1] == [program]]


def test_every_command_of_spikebrain_is_one():
    used = {words[1] for words in words_of("spikebrain")}
    assert used <= cli.COMMANDS.keys() and {"say", "transcribe", "classify", "evaluate", "push"} <= used


def test_every_file_that_is_named_is_there():
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT)
    scripts = [word for words in words_of("python") for word in words[1:2]]
    yamls = [f"{Path(words[1]).parent}/{words[2]}" for words in words_of("python") if words[2].endswith(".yaml")]  # beside train.py
    assert len(links) > 20 and len(scripts) > 2 and yamls
    for name in [*links, *scripts, *yamls, *re.findall(r"`((?:tools|pretrained|recipes)/[\w/.]+)`", TEXT)]:
        assert name.startswith("https://") or (ROOT / name).exists(), name
    for recipe, yaml in re.findall(r"\| \[([\w-]+)\]\(recipes/.*?`(hparams/[\w.]+)`", TEXT):
        assert (ROOT / "recipes" / recipe / yaml).is_file()


def test_the_first_try(tmp_path, capfd):
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: speech is made with eSpeak NG")
    say, transcribe = (next(words for words in words_of("spikebrain") if words[1] == verb) for verb in ("say", "transcribe"))
    wav = tmp_path / say[3]
    assert cli.main(["say", say[2], str(wav)]) == 0
    assert cli.main(["transcribe", str(ROOT / transcribe[2]), str(wav)]) == 0
    assert capfd.readouterr().out.splitlines() == [say[2].upper()]


def test_the_first_try_in_python(tmp_path):
    pytest.importorskip("espeakng_loader", reason="pip install spikebrain[synthetic]: speech is made with eSpeak NG")
    (code,) = [block for language, block in BLOCKS if language == "python"]
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    assert cli.main(["say", "three one four", str(tmp_path / "digits.wav")]) == 0
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "THREE ONE FOUR\n", done.stderr
