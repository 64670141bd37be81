"""``tools/results.py``: tables are made of kept runs, and a run that names a machine is not kept."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("results")


RUN = {
    "task": "asr",
    "corpus": "LibriSpeech",
    "model": "iml_spikeformer_mini",
    "protocol": "default",
    "seed": 1,
    "command": "python ./recipes/LibriSpeech/train.py hparams/a.yaml --data_folder=$SPIKEBRAIN_DATA/digits --seed=1",
    "metrics": {"test-clean": {"WER": 2.0}, "test-other": {"WER": 20.0}},
    "parameters": {"total": 1234567, "trainable": 1234567, "by_module": {"Transformer": 1234567}},
    "firing_rate": {"a": {"mean": 0.1, "channels": 30}, "b": {"mean": 0.5, "channels": 10}},
    "energy": {
        "encoder_blocks": {"mJ": 0.25, "twin_mJ": 1.0},
        "encoder+frontend": {"mJ": 1.25, "twin_mJ": 2.0},
        "full": {"mJ": 2.25, "twin_mJ": 3.0},
        "counting": {"utterances": 9, "prices": {"mac_pJ": 4.6, "ac_pJ": 0.9, "node_nm": 45}},
    },
    "data": {"corpus": "LibriSpeech", "complete": False, "splits": {"test-clean": {"utterances": 1200, "hours": 1.5, "speakers": 3}}},
}


def changed(**changes):
    return {**copy.deepcopy(RUN), **changes}


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "recipes" / "LibriSpeech").mkdir(parents=True)
    return tmp_path


def run_folder(checkout, run):
    folder = checkout / "runs" / str(run.get("seed"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(run))
    return folder


def rows(text):
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


def test_this_repositorys_table_is_up_to_date():
    ended = subprocess.run([sys.executable, "tools/results.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_without_runs_the_page_says_how_to_keep_one(tool, checkout):
    assert "No run is kept yet" in tool.render(checkout) and rows(tool.render(checkout) + "\n| a |\n") == []


def test_seeds_become_mean_and_spread(tool, checkout):
    for seed, score in ((1, 2.0), (2, 3.0), (3, 4.0)):
        run = changed(seed=seed, metrics={"test-clean": {"WER": score}}, command=RUN["command"].replace("--seed=1", f"--seed={seed}"))
        tool.keep(run_folder(checkout, run), "digits", checkout)
    text = tool.render(checkout)
    (row,) = rows(text)
    assert row == {
        "model": "iml_spikeformer_mini",
        "n": "3",
        "test-clean WER": "3.00 ± 1.00",
        "parameters": "1,234,567",
        "firing rate": "0.200 ± 0.000",  # 30 neurons at 0.1 and 10 at 0.5
        "encoder_blocks": "0.25 (1)",
        "encoder+frontend": "1.25 (2)",
        "full": "2.25 (3)",
    }
    assert "## LibriSpeech, digits" in text and "test-clean 1,200 utterances (1.50 h)" in text
    assert "4.6 pJ a multiply-accumulate, 0.9 pJ an accumulation, 45 nm" in text
    assert text.count("--seed=SEED`, SEED 1, 2, 3") == 1


def distilled(seed, kdcl, direct, mJ=0.02):
    """A run with three arms, of which the first stage is shared; accuracies at 40 frames."""
    accuracy = {"direct-100": 95.0, "kdcl-40": kdcl, "direct-40": direct, "init-40": kdcl - 1}
    stages = [
        {"name": name, "frames": int(name.rpartition("-")[2]), "accuracy": {"valid": 99.0, "test-clean": percent}, "mJ": mJ}
        for name, percent in accuracy.items()
    ]
    arms = {arm: ["direct-100", f"{arm}-40"] for arm in ("kdcl", "direct", "init")}
    return changed(task="distil", model="spikescr_kdcl", seed=seed, stages=stages, arms=arms, metrics={"test-clean": {"accuracy": kdcl}})


def test_arms_have_a_table_with_the_lead_of_the_curriculum(tool, checkout):
    for run in (distilled(1, 90.0, 89.0), distilled(2, 92.0, 88.0), distilled(3, 91.0, 90.0, mJ=0.05)):
        tool.keep(run_folder(checkout, run), None, checkout)
    tool.keep(run_folder(checkout, changed(seed=9)), None, checkout)
    text = tool.render(checkout)
    assert text.count("Arms of spikescr_kdcl ([what they are](GSC/README.md#the-curriculum)):") == 1
    table = {row["arm"]: row for row in rows(text.partition("Arms of spikescr_kdcl")[2])}
    assert table["kdcl"] == {
        "arm": "kdcl", "n": "3", "test-clean, 100 frames": "95.00 ± 0.00", "test-clean, 40 frames": "91.00 ± 1.00",
        "mJ, 100 frames": "0.03", "mJ, 40 frames": "0.03", "frames for test-clean, equal": "100 (0 % fewer, 0 % less energy)",
        "kdcl ahead, test-clean, 40 frames": "-",
    }  # fmt: skip
    assert table["direct"]["test-clean, 40 frames"] == "89.00 ± 1.00"
    # Differences 1, 4 and 1: mean 2, standard deviation sqrt 3, of the mean 1.
    assert table["direct"]["kdcl ahead, test-clean, 40 frames"] == "+2.00 ± 1.00 (n 3)"
    assert table["init"]["kdcl ahead, test-clean, 40 frames"] == "+1.00 ± 0.00 (n 3)"
    assert "standard error" in text and "standard error" not in tool.render(ROOT / "tests")


@pytest.mark.parametrize("kdcl, said", [(94.6, "40 (60 % fewer, 75 % less energy)"), (94.4, "100 (0 % fewer, 0 % less energy)")])
def test_frames_are_saved_where_half_a_point_is_lost_at_most(tool, checkout, kdcl, said):
    run = distilled(1, kdcl, 89.0, mJ=0.02)
    run["stages"][0]["mJ"] = 0.08  # at 100 frames
    tool.keep(run_folder(checkout, run), None, checkout)
    table = {row["arm"]: row for row in rows(tool.render(checkout).partition("Arms of")[2])}
    assert table["kdcl"]["frames for test-clean, equal"] == said
    assert table["direct"]["frames for test-clean, equal"] == "100 (0 % fewer, 0 % less energy)"


def test_the_lead_is_taken_within_a_seed(tool, checkout):
    whole, without = distilled(1, 90.0, 91.0), distilled(2, 99.0, 10.0)
    del without["arms"]["direct"]
    for run in (whole, without):
        tool.keep(run_folder(checkout, run), None, checkout)
    table = {row["arm"]: row for row in rows(tool.render(checkout).partition("Arms of")[2])}
    assert table["direct"]["kdcl ahead, test-clean, 40 frames"] == "-1.00 (n 1)" and table["direct"]["n"] == "1"
    assert table["direct"]["test-clean, 40 frames"] == "91.00" and table["kdcl"]["n"] == "2"


def test_a_stage_that_was_given_or_not_counted_is_a_dash(tool, checkout):
    run = distilled(1, 90.0, 89.0, mJ=None)
    del run["stages"][0]
    run["stages"][2]["frames"] = 20  # the arm init goes another way
    tool.keep(run_folder(checkout, run), None, checkout)
    table = {row["arm"]: row for row in rows(tool.render(checkout).partition("Arms of")[2])}
    assert table["kdcl"] == {
        "arm": "kdcl", "n": "1", "test-clean, 40 frames": "90.00", "test-clean, 20 frames": "-", "mJ, 40 frames": "-", "mJ, 20 frames": "-",
        "frames for test-clean, equal": "40 (0 % fewer)", "kdcl ahead, test-clean, 20 frames": "-",
    }  # fmt: skip
    assert table["init"]["test-clean, 20 frames"] == "89.00" and table["init"]["kdcl ahead, test-clean, 20 frames"] == "-"


def test_the_page_on_arms_that_is_pointed_to_names_every_arm(tool):
    from spikebrain.training.distil import ARMS

    page, _, heading = tool.ARMS_PAGE.partition("#")
    part = (ROOT / "recipes" / page).read_text().lower().partition(f"## {heading.replace('-', ' ')}\n")[2]
    assert all(f"| `{arm}` |" in part for arm in ARMS) and tool.CURRICULUM in ARMS


def test_one_run_has_no_spread_and_a_twin_no_firing_rate(tool, checkout):
    tool.keep(run_folder(checkout, RUN), None, checkout)
    twin = changed(model="transformer_mini", seed=7, firing_rate={}, metrics={"test-clean": {"WER": 5.5}})
    tool.keep(run_folder(checkout, twin), None, checkout)
    spiking, other = rows(tool.render(checkout))
    assert (spiking["test-clean WER"], spiking["test-other WER"]) == ("2.00", "20.00")
    assert (other["model"], other["firing rate"], other["test-other WER"]) == ("transformer_mini", "-", "-")


def test_protocols_are_not_mixed(tool, checkout):
    for protocol in ("one", "two"):
        tool.keep(run_folder(checkout, RUN), protocol, checkout)
    assert [line for line in tool.render(checkout).splitlines() if line.startswith("##")] == ["## LibriSpeech, one", "## LibriSpeech, two"]


def test_keep_files_a_run_and_changes_nothing_but_its_protocol(tool, checkout):
    path = tool.keep(run_folder(checkout, RUN), "digits", checkout)
    assert path == checkout / "recipes" / "LibriSpeech" / "results" / "iml_spikeformer_mini-digits-1.json"
    assert json.loads(path.read_text()) == {**RUN, "protocol": "digits"}


def test_a_kept_run_is_not_replaced_by_another(tool, checkout):
    kept = tool.keep(run_folder(checkout, RUN), None, checkout)
    assert tool.keep(run_folder(checkout, RUN), None, checkout) == kept  # the same run again is no harm
    with pytest.raises(ValueError, match="iml_spikeformer_mini-default-1.json holds another run: remove it first"):
        tool.keep(run_folder(checkout, changed(metrics={"test-clean": {"WER": 1.0}})), None, checkout)
    assert json.loads(kept.read_text()) == RUN


def test_check_fails_until_the_page_is_written(tool, checkout, capsys):
    arguments = ["--root", str(checkout)]
    assert tool.main([*arguments, "--keep", str(run_folder(checkout, RUN))]) == 0
    assert tool.main([*arguments, "--check"]) == 0
    kept = checkout / "recipes" / "LibriSpeech" / "results" / "iml_spikeformer_mini-default-1.json"
    kept.write_text(kept.read_text().replace("20.0", "19.0"))
    assert tool.main([*arguments, "--check"]) == 1
    assert "recipes/README.md is out of date: run python tools/results.py" in capsys.readouterr().err
    assert tool.main(arguments) == 0 and tool.main([*arguments, "--check"]) == 0


def test_the_table_of_the_front_page(tool, checkout, capsys):
    arguments, front = ["--root", str(checkout)], checkout / "README.md"
    run = {**RUN, "protocol": "connected_digits", "model": "iml_spikeformer_mini", "metrics": {"test-clean": {"WER": 12.5}}}
    assert tool.main([*arguments, "--keep", str(run_folder(checkout, run))]) == 0
    front.write_text("# Mine\n")
    assert tool.main(arguments) == 1 and "README.md: has no place for the table: write <!-- made by" in capsys.readouterr().err
    front.write_text(f"# Mine\n{tool.front_page.BEGIN}\nold\n{tool.front_page.END}\nand on\n")
    assert tool.main([*arguments, "--check"]) == 1 and "README.md is out of date" in capsys.readouterr().err
    assert tool.main(arguments) == 0 and tool.main([*arguments, "--check"]) == 0
    text = front.read_text()
    assert text.startswith("# Mine\n") and text.endswith("\nand on\n") and "old" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| [")]
    assert "12.50 (iml_spikeformer_mini)" in row and "strings of real digits, voices of training" in row


@pytest.mark.parametrize(
    "text",
    ["/data/corpora/LibriSpeech", "--data_folder=/disk/x", "~/runs", "C:\\runs\\1", "\\\\host\\share", "'/a/b'", "a:/b /c"],
)
def test_paths_of_one_machine_are_refused(tool, checkout, text):
    run = changed(command=f"python train.py {text}")
    with pytest.raises(ValueError, match=r"results.json: command holds .*known on one machine only"):
        tool.keep(run_folder(checkout, run), None, checkout)
    assert list(checkout.glob("recipes/*/results/*")) == []


@pytest.mark.parametrize("text", ["$SPIKEBRAIN_DATA/digits", "a/b.yaml", "./a", "../x", "https://arxiv.org/abs/1", "and/or", "1 / 2"])
def test_portable_text_is_kept(tool, checkout, text):
    tool.keep(run_folder(checkout, changed(command=f"python train.py {text}")), None, checkout)


def test_names_of_this_machine_are_refused_wherever_they_stand(tool, checkout, monkeypatch):
    monkeypatch.setattr(tool.socket, "gethostname", lambda: "nightowl7")
    with pytest.raises(ValueError, match=r"results.json: hardware.notes\[1\] holds the name of this machine"):
        tool.keep(run_folder(checkout, changed(hardware={"notes": ["a", "trained on nightowl7"]})), None, checkout)
    monkeypatch.setattr(tool.getpass, "getuser", lambda: "ada")
    with pytest.raises(ValueError, match="a key of data holds the name of this user"):
        tool.keep(run_folder(checkout, changed(data={"home/ada/x": 1})), None, checkout)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metrics": None}, None),
        ({"model": "../x"}, "model is '../x'"),
        ({"protocol": "a b"}, "protocol is 'a b'"),
        ({"corpus": "Elsewhere"}, "corpus Elsewhere has no folder recipes/Elsewhere"),
    ],
)
def test_unusable_runs_are_refused(tool, checkout, change, message):
    run = changed(**change)
    if message is None:
        del run["metrics"]
        message = r"lacks the key metrics \(missing in all: metrics\)"
    with pytest.raises(ValueError, match=message):
        tool.keep(run_folder(checkout, run), None, checkout)


def test_missing_broken_and_misplaced_files_are_named(tool, checkout):
    with pytest.raises(ValueError, match="results.json: no such file"):
        tool.keep(checkout, None, checkout)
    kept = tool.keep(run_folder(checkout, RUN), None, checkout)
    kept.rename(kept.with_name("other-default-1.json"))
    with pytest.raises(ValueError, match="holds a run of LibriSpeech/iml_spikeformer_mini-default-1.json"):
        tool.render(checkout)
    kept.with_name("other-default-1.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        tool.render(checkout)
