"""``tools/bootstrap.py``: folders of runs in, two tables and a file out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spikebrain.training import predictions
from spikebrain.training.predictions import Prediction

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("bootstrap")


@pytest.fixture
def kept(tmp_path):
    """Writes the folder of a run of 6 speakers: who is right, by speaker, in all of his 3 utterances."""

    def write(name, model, right):
        told = [(f"S{s}", n, good) for s, good in enumerate(right) for n in range(3)]
        answers = [Prediction("1", f"{s}-{n}", s, "sad" if n else "happy", "sad" if bool(n) == good else "happy") for s, n, good in told]
        predictions.write(tmp_path / name, answers)
        run = {"model": model, "corpus": "URDU", "cut": {"protocol": "speaker", "partition": 0}, "folds": [{"fold": "1", "digest": "d"}]}
        (tmp_path / name / "results.json").write_text(json.dumps(run))
        return str(tmp_path / name)

    return write


def rows(text):
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|") and "---" not in line]


def test_models_and_their_difference_with_and_without_a_speaker(tool, kept, tmp_path, capsys):
    """The first model is right on five of six speakers; the second on S0 alone, the one speaker that the first is wrong on."""
    folders = [kept("1", "pts", [0, 1, 1, 1, 1, 1]), kept("2", "pts", [0, 1, 1, 1, 1, 1]), kept("3", "head", [1, 0, 0, 0, 0, 0])]
    assert tool.main([*folders, "--without", "S0", "--draws", "500", "--seed", "3", "--out", str(tmp_path / "out" / "found.json")]) == 0
    text = capsys.readouterr().out
    whole, left = text.split("15 utterances of 5 speakers, without S0, in percent")
    assert whole.startswith("18 utterances of 6 speakers, in percent; in brackets the middle 95 % of 500 draws of speakers (seed 3).")
    header, pts, head, title, difference = rows(whole)
    assert header == ["model", "runs", "WA", "UA"] and pts[:2] == ["pts", "2"] and head[:2] == ["head", "1"]
    assert pts[2].startswith("83.33 [") and pts[2].endswith(", 100.00]") and title == ["difference", "WA", "UA"]
    assert difference[0] == "pts - head" and difference[1].startswith("+66.67 [") and difference[1].endswith(", +100.00]")
    assert rows(left)[1:3] == [["pts", "2"] + 2 * ["100.00 [100.00, 100.00]"], ["head", "1"] + 2 * ["0.00 [0.00, 0.00]"]]
    assert rows(left)[4][1] == "+100.00 [+100.00, +100.00]"

    report = json.loads((tmp_path / "out" / "found.json").read_text())
    assert (report["draws"], report["seed"], report["level"]) == (500, 3, 0.95)
    assert [found["without"] for found in report["found"]] == [[], ["S0"]] and report["found"][0]["speakers"] == 6
    assert report["found"][0]["differences"][0]["WA"]["value"] == pytest.approx(200 / 3)
    assert str(tmp_path) not in json.dumps(report)
    assert tool.compare([Path(folder) for folder in folders], ["S0"], 500, 3) == report


def test_without_nobody_there_is_one_comparison(tool, kept, capsys):
    assert tool.main([kept("1", "a", [1, 0, 1, 0, 1, 0]), kept("2", "b", [1, 0, 1, 0, 1, 1]), "--draws", "50"]) == 0
    assert capsys.readouterr().out.count("| model |") == 1


def test_a_process_of_its_own_says_what_is_wrong_and_writes_nothing(kept, tmp_path):
    folders = [kept("1", "a", [1, 0, 1, 0, 1, 0]), kept("2", "a", [1, 0, 1, 0, 1, 1])]
    command = [sys.executable, ROOT / "tools" / "bootstrap.py", *folders, "--out", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and not (tmp_path / "found.json").exists()
    assert done.stderr == "bootstrap.py: all 2 runs are of a: name runs of 2 models or more\n"


def test_unequal_utterances_and_unknown_speakers_are_said(tool, kept, capsys):
    assert tool.main([kept("1", "a", [1, 0, 1, 0, 1, 0]), kept("2", "b", [1, 0, 1, 0, 1])]) == 1
    assert "a run of a with 18 utterances and one of b with 15 did not test the same: 3 are in one only" in capsys.readouterr().err
    assert tool.main([kept("3", "a", [1, 0, 1]), kept("4", "b", [1, 0, 1]), "--without", "SM5"]) == 1
    assert "SM5: is no speaker that is tested; there are S0, S1, S2" in capsys.readouterr().err
