"""Manifests: what is written is read, by us and by SpeechBrain; bad ones are refused; writing is all or nothing."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from speechbrain.dataio.dataio import load_data_csv

from spikebrain.data import manifest
from spikebrain.data.manifest import DataError, Utterance

GOOD = [Utterance("a-1-0", "dev/a/a-1-0.flac", 1.25, "a", "IT'S ONE, TWO"), Utterance("b-1-0", "dev/b/b-1-0.flac", 2.0000625, "b", "THREE")]


def test_round_trip(tmp_path):
    manifest.write(tmp_path / "dev.csv", GOOD)
    assert manifest.read(tmp_path / "dev.csv") == GOOD


def test_stock_loader_reads_it(tmp_path):
    manifest.write(tmp_path / "dev.csv", GOOD)
    data = load_data_csv(tmp_path / "dev.csv", {"data_root": "/corpus"})
    assert data["a-1-0"] == {"duration": 1.25, "wav": "/corpus/dev/a/a-1-0.flac", "spk_id": "a", "wrd": "IT'S ONE, TWO"}


def test_other_columns(tmp_path):
    columns = {"ID": "id", "duration": "duration", "wav": "wav", "command": "label"}
    words = [Utterance("x", "yes/x.wav", 1.0, label="yes")]
    manifest.write(tmp_path / "words.csv", words, columns)
    assert (tmp_path / "words.csv").read_text() == "ID,duration,wav,command\nx,1.0,$data_root/yes/x.wav,yes\n"
    assert manifest.read(tmp_path / "words.csv", columns) == words


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([], "dev: holds 0 utterances"),
        ([GOOD[0], GOOD[1], GOOD[0]], "dev: a-1-0 appears more than once"),
        ([GOOD[0], replace(GOOD[1], duration=0.0)], r"dev: b-1-0 \(duration 0.0 s\) is not longer than 0 s"),
        ([replace(GOOD[0], duration=float("nan")), replace(GOOD[1], duration=-1.0)], r"duration nan s\).*\(2 such utterances\)"),
        ([replace(GOOD[0], text="  ")], "dev: a-1-0 has an empty transcript"),
    ],
)
def test_refuses(utterances, message):
    with pytest.raises(DataError, match=message):
        manifest.validate(utterances, "dev")


def test_read_names_what_is_wrong(tmp_path):
    path = tmp_path / "dev.csv"
    with pytest.raises(DataError, match=r"dev\.csv: there is no such manifest"):
        manifest.read(path)
    path.write_text("ID,wav,spk_id,wrd\na,b,c,D\n")
    with pytest.raises(DataError, match=r"lacks \['duration'\]"):
        manifest.read(path)
    path.write_text("ID,duration,wav,spk_id,wrd\na,long,b,c,D\n")
    with pytest.raises(DataError, match=r"dev\.csv:2: duration is 'long'"):
        manifest.read(path)


FULL_DISK = """
import resource, sys
from spikebrain.data import manifest
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    manifest.write_atomic(sys.argv[1], "x" * 5000)
except manifest.DataError as error:
    print(error)
"""


def test_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "dev.csv"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert f"{path}: cannot write 5000 bytes (File too large): free space" in done.stdout
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["dev.csv"]


def test_written_files_are_readable_by_others(tmp_path):
    manifest.write_atomic(tmp_path / "new", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
