"""``tools/results.py`` on runs over folds: their table, and the sentences that say what folds are worth."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from spikebrain.data import folds
from spikebrain.data.folds import Protocol
from spikebrain.data.manifest import Utterance

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("results")


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "recipes" / "URDU").mkdir(parents=True)
    return tmp_path


# 9 speakers of 5 utterances each: six are heard in two emotions, all of SF1 to SF3 are happy.
EMOTIONS = ("angry", "neutral", "sad")
SPEAKERS = {f"SM{n}": (EMOTIONS[n % 3], EMOTIONS[(n + 1) % 3]) for n in range(6)} | {f"SF{n}": ("happy",) for n in (1, 2, 3)}
UTTERANCES = [
    Utterance(f"{speaker}_{n}", f"{speaker}_{n}.wav", 1.0, speaker, label=labels[n % len(labels)])
    for speaker, labels in SPEAKERS.items()
    for n in range(5)
]
PROTOCOLS = {"random": Protocol("id", 5), "paper": Protocol("id", 10), "speaker": Protocol("speaker", 4, valid=0.1)}
PAIRS = {"1": [["SM1_0", "SM1_1", 0.99, 1.2], ["SF1_0", "SF2_0", 1.0, 2.0]], "3": [["SM1_0", "SM1_1", 0.99, 1.2]]}


def plan_of(cut, partition=0):
    return folds.make(UTTERANCES, {name: asdict(protocol) for name, protocol in PROTOCOLS.items()}, cut, None, partition)


def emotion(cut="random", seed=1, WA=80.0, model="pts_snn_mini", partition=0, leaks=None, **changes):
    """A run over folds of UTTERANCES."""
    plan = plan_of(cut, partition)
    run = {
        "task": "emotion", "corpus": "URDU", "model": model, "protocol": cut, "seed": seed,
        "command": f"python recipes/URDU/train.py hparams/{model}.yaml --data_folder=synthetic --seed={seed}",
        "metrics": {"test": {"WA": WA, "UA": WA - 2, "WF1": WA - 1}},
        "spread": {"test": {"WA": 4.0 + seed, "UA": 6.0, "WF1": 5.0}},
        "pooled": {"valid": {"WA": 99.0, "UA": 99.0, "WF1": 99.0}, "test": {"WA": WA + 1, "UA": 1.0, "WF1": 1.0}},
        "parameters": {"total": 1000, "trainable": 1000, "by_module": {}},
        "cut": {"protocol": cut, "count": None, "partition": partition},
        "leaks": leaks or {},
        "folds": [{"fold": fold.name, "digest": fold.digest, "notes": list(fold.notes)} for fold in plan],
    }  # fmt: skip
    return run | changes


@pytest.fixture
def page(tool, checkout):
    """The page made of runs, which are kept; a pair gives the protocol that a run is filed under."""

    def make(*runs):
        for place, run in enumerate(runs):
            run, protocol = run if isinstance(run, tuple) else (run, None)
            folder = checkout / "runs" / str(place)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "results.json").write_text(json.dumps(run))
            tool.keep(folder, protocol, checkout)
        return tool.render(checkout)

    return make


def rows(text):
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


def test_a_row_has_means_over_folds_their_spread_and_all_folds_together(page):
    text = page(emotion(WA=80.0), emotion(seed=2, WA=82.0), emotion(model="regression", spread={"test": {"WA": None}}))
    ours, other = rows(text)
    assert ours == {
        "model": "pts_snn_mini", "n": "2",
        "test WA": "81.00 ± 1.41", "test UA": "79.00 ± 1.41", "test WF1": "80.00 ± 1.41",
        "WA between folds": "5.50", "UA between folds": "6.00", "WF1 between folds": "5.00",  # 5 and 6 of the two runs
        "pooled WA": "82.00 ± 1.41",
        "parameters": "1,000", "firing rate": "-", "encoder_blocks": "-", "encoder+frontend": "-", "full": "-",
    }  # fmt: skip
    assert (other["WA between folds"], other["UA between folds"], other["pooled WA"]) == ("-", "-", "81.00")
    assert text.count("Emotions are recognised over folds") == 1 and text.count("## URDU, random\n") == 1


def test_random_folds_are_said_to_leak(page):
    """Voices are counted here from the folds themselves."""
    plan = plan_of("random")
    speaker = {u.id: u.speaker for u in UTTERANCES}
    tested = [{speaker[name] for name in fold.test} for fold in plan]
    heard = [{speaker[name] for name in fold.train} & there for fold, there in zip(plan, tested)]
    total, known = sum(map(len, tested)), sum(map(len, heard))
    assert known > 20 and all(heard)
    text = page(emotion(leaks=PAIRS))
    assert "Tested on 5 folds (1, 2, 3, 4, 5) of the protocol random, partition 0." in text
    leaking = f"of {total} voices that they test, counted fold by fold, {known} are heard in training too, in 5 of 5 folds."
    assert f"**These folds leak**: {leaking} Numbers here are of known voices, not of new ones." in text
    pairs = "2 pairs of recordings share audio of which one is tested and the other trained on, or used to choose a model, in 2 of 5 folds."
    assert pairs in text
    assert "not ranked" not in text and "Nobody who is tested" not in text


def test_speaker_folds_are_reported_and_not_ranked(page):
    run = emotion("speaker", leaks={"2": PAIRS["1"][1:]})
    lacking = [fold["fold"] for fold in run["folds"] if any(note.startswith("test has no") for note in fold["notes"])]
    assert lacking
    text = page(run)
    assert "Nobody who is tested is heard in training. Models are reported here, not ranked" in text and "**These folds leak**" not in text
    assert "1 pair of recordings shares audio of which one is tested" in text
    assert f"Test lacks classes in {len(lacking)} of 4 folds ({', '.join(lacking)})" in text
    assert "No two recordings that share audio" in page(emotion("speaker", model="other", partition=1) | {"protocol": "speaker+1"})


def test_folds_are_called_leaking_by_what_their_notes_say_not_by_name(page):
    run = emotion("speaker")
    run["folds"][0]["notes"].append("2 of the 3 speakers of test are in train")
    assert "of 3 voices that they test, counted fold by fold, 2 are heard in training too, in 1 of 4 folds" in page(run)


def test_protocols_and_partitions_stand_apart(page):
    text = page(emotion(), emotion("speaker"), (emotion("speaker", partition=1), "speaker+1"), (emotion("paper"), "paper"))
    assert [line for line in text.splitlines() if line.startswith("##")] == [
        f"## URDU, {protocol}" for protocol in ("paper", "random", "speaker", "speaker+1")
    ]
    assert "of the protocol speaker, partition 1." in text


def test_a_run_is_not_filed_with_other_folds(page, tool, checkout):
    page(emotion("speaker"))
    said = r"URDU, speaker: pts_snn_mini \(seed 2\) and pts_snn_mini \(seed 1\) were tested on different folds: .*such as speaker\+1"
    with pytest.raises(tool.ResultsError, match=said):
        page(emotion("speaker", seed=2, partition=1))
    part = emotion("speaker", seed=3)
    with pytest.raises(tool.ResultsError, match="different folds"):
        page(part | {"folds": part["folds"][:1]})
    with pytest.raises(tool.ResultsError, match="under random, but its folds are those of fold_protocol speaker: pass --protocol=speaker"):
        page((emotion("speaker", seed=2), "random"))
    assert [path.name for path in checkout.glob("recipes/URDU/results/*")] == ["pts_snn_mini-speaker-1.json"]


def test_what_runs_over_folds_must_say_is_asked_of_them(page, tool):
    run = emotion()
    del run["cut"], run["leaks"]
    with pytest.raises(tool.ResultsError, match=r"lacks the key cut \(missing in all: cut, leaks\)"):
        page(run)


def test_other_tasks_have_no_sentences_about_folds(page):
    run = {key: value for key, value in emotion().items() if key not in ("cut", "folds", "leaks", "spread", "pooled")}
    text = page(run | {"task": "classify"})
    assert "Tested on" not in text and "between folds" not in text and "pooled" not in text


def shares(silent):
    return {"rate": 0.2, "silent": silent, "saturated": 0.05, "layers": "heavy"}


def test_gains_have_a_table_and_kept_runs_are_lean(page, checkout):
    def calibration(silent):
        at = {"WA": 80.0, "hidden": shares(silent), "output": shares(0.5), "layers": {"a": {"current": [1] * 1000}}}
        return {"untrained": {"0.1": at | {"WA": 25.0}, "1": at}, "trained": {"0.1": at, "1": at}}

    text = page(emotion(calibration=calibration(0.3)), emotion(seed=2, calibration=calibration(0.4)), emotion(model="plain"))
    assert "| pts_snn_mini | 0.1 | 25.0 > 80.0 | 35.0 > 35.0 | 5.0 > 5.0 | 20.0 > 20.0 | 50.0 > 50.0 | 5.0 > 5.0 |" in text
    assert "| plain | 0.1" not in text
    kept = json.loads((checkout / "recipes" / "URDU" / "results" / "pts_snn_mini-random-1.json").read_text())
    assert set(kept["calibration"]["trained"]["1"]) == {"WA", "hidden", "output"}


def test_comparisons_are_written_out(page, checkout):
    own = {metric: {"value": 50.0, "low": 40.0, "high": 60.0} for metric in ("WA", "UA")}
    found = {"without": ["SM5"], "speakers": 28, "utterances": 320, "models": {"a": {"runs": 9, **own}, "b": {"runs": 9, **own}}}
    found["differences"] = [{"first": "a", "second": "b", **own}]
    runs = [{"model": name, "protocol": "speaker", "seed": 1} for name in "ab"]
    (checkout / "recipes" / "URDU" / "comparisons").mkdir()
    place = checkout / "recipes" / "URDU" / "comparisons" / "speaker.json"
    place.write_text(json.dumps({"draws": 100, "seed": 0, "level": 0.95, "runs": runs, "found": [found]}))
    text = page(emotion())
    assert "## URDU, models compared: speaker" in text and "without SM5" in text
    assert "| a - b | +50.00 [+40.00, +60.00] |" in text and "Of 2 runs: a (speaker, seed 1), b (speaker, seed 1)." in text


def test_energy_of_kept_runs_has_a_table(tool, checkout, page, tmp_path):
    report = {"task": "emotion", "corpus": "URDU", "model": "pts", "protocol": "random", "seed": 1, "fold": "fold 1", "split": "test"}
    scope = {"mJ": 0.5, "twin_mJ": 2.0, "integer_mJ": 0.1, "quantised_mJ": 0.2, "quantised_ratio": 0.5, "further_mJ": 0.01, "lines": []}
    finding = {"layer": "a", "part": "weight", "sort": "product", "accumulate_only": False, "why": "real"}
    audit = {"findings": [finding], "accumulate_only": False, "products": 1}
    whole = {**report, "metrics": {"WA": 80.0}, "energy": dict.fromkeys(tool.SCOPES, scope), "audit": audit}
    folder = tmp_path / "looked"
    folder.mkdir()
    (folder / "energy.json").write_text(json.dumps(whole))
    kept = tool.keep_energy(folder, "random", checkout)
    assert kept == checkout / "recipes" / "URDU" / "energy" / "pts-random-1.json"
    text = page(emotion())
    assert "## Energy of trained runs" in text and "WA 80.00 %" in text and "4.00x" in text
    (folder / "energy.json").write_text(json.dumps({**whole, "command": "python /home/somebody/train.py"}))
    with pytest.raises(ValueError, match="known on one machine only"):
        tool.keep_energy(folder, None, checkout)
