"""``tools/table.py``: rows become runs, runs that ended are left alone, and what came out stands beside the paper's numbers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "table.py"
SHARED, URDU = ROOT / "recipes" / "shared" / "tables", ROOT / "recipes" / "URDU"


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("table")


# A recipe whose network is a sum: it reads words as real recipes do, and says what it was told as they do.
RECIPE = """
import json, sys
from pathlib import Path
from ruamel.yaml import YAML

yaml, *words = sys.argv[1:]
overrides = "\\n".join(word[2:].replace("=", ": ", 1) for word in words if "=" in word)
told = {**YAML(typ="safe").load(Path(yaml)), **YAML(typ="safe").load(overrides)}
print("hello from", told["model"])
if told.get("broken"):
    sys.exit("the sum is broken")
from spikebrain.training.results import command, known_folders
right = told["start"] + told["seed"] + sum(told["encoder_kwargs"].values())
run = {"corpus": "Toy", "model": told["model"], "protocol": told["protocol"], "seed": told["seed"]}
run["metrics"] = {"valid": {"WA": 1.0}, "test": {"WA": float(right), "UA": 50.0}}
run["command"] = command([str(Path(__file__).resolve()), *sys.argv[1:]], known_folders(__file__))
Path(told["output_folder"], "results.json").write_text(json.dumps(run))
"""
NET = "protocol: official\nstart: 10\nencoder_kwargs: {}\n"
TABLE = """
title: Sums
source: Nobody, 2026
yaml: hparams/net.yaml
model: "{yaml}_{row}"
overrides: {encoder_kwargs: {width: 5}}
rows:
  plain: {paper: {WA: 18.25}, note: half as wide}
  more: {overrides: {encoder_kwargs: {heads: 20}}}
  lost: {overrides: {broken: true}, paper: {UA: 7}}
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A checkout with one recipe, of its own, and a table."""
    root = tmp_path_factory.mktemp("toy")
    (root / "recipes" / "Toy" / "hparams").mkdir(parents=True)
    (root / "recipes" / "Toy" / "train.py").write_text(RECIPE)
    (root / "recipes" / "Toy" / "hparams" / "net.yaml").write_text(NET)
    (root / "table.yaml").write_text(TABLE)
    return root


def words(toy, *more):
    return [str(toy / "table.yaml"), f"--recipe={toy / 'recipes' / 'Toy'}", f"--output_folder={toy / 'out'}", *more]


def call(toy, *more):
    """The tool in a process of its own, from a folder that has nothing to do with it."""
    started = [sys.executable, str(TOOL), *words(toy, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(started, capture_output=True, text=True, cwd=toy.parent, env=environment)


@pytest.fixture(scope="module")
def first(toy):
    """A table with two seeds of a row, and one of which nothing comes."""
    return call(toy, "--seeds", "1", "2", "--rows", "plain", "lost", "--start=10", "--device", "cpu", "--noprogressbar")


def table_of(text):
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_rows_are_run_and_stand_beside_the_papers_numbers(first, toy):
    """10 to begin with, a width of 5, and the seed: 16 and 17."""
    assert table_of(first.stdout) == {
        "plain": {"row": "plain", "n": "2", "WA": "16.50 ± 0.71", "WA, paper": "18.25 \\*", "UA": "50.00 ± 0.00", "UA, paper": "-"},
        "lost": {"row": "lost", "n": "0", "WA": "-", "WA, paper": "-", "UA": "-", "UA, paper": "7.00"},
    }
    assert first.stdout.startswith("Sums: Toy, protocol official, test, in percent, mean ± standard deviation over n seeds.")
    assert first.stdout.rstrip().endswith("Paper: Nobody, 2026\n\n\\* plain: half as wide")
    run = json.loads((toy / "out" / "plain" / "official" / "2" / "results.json").read_text())
    assert run["model"] == "net_plain" and "recipes/Toy/hparams/net.yaml" in run["command"] and "--noprogressbar" in run["command"]
    assert '--encoder_kwargs={"width":5}' in run["command"] and "--device=cpu" in run["command"]


def test_a_run_that_fails_is_said_and_the_others_go_on(first, toy):
    log = toy / "out" / "lost" / "official" / "1" / "output.txt"
    assert first.returncode == 1
    assert f"lost, official, seed 1: failed with status 1, {log} says why: the sum is broken" in first.stderr
    assert "lost, official, seed 2: failed" in first.stderr and log.read_text().startswith("hello from net_lost\n")


def test_what_has_ended_is_not_run_again(first, tool, toy, monkeypatch, capsys):
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: pytest.fail("was run again"))
    # Neither the order of options nor what changes no result counts.
    asked = words(toy, "--rows", "plain", "--seeds", "2", "1", "2", "--device=cpu", "--jobs=2", "--cache_folder=x", "--start=10")
    assert tool.main(asked) == 0
    told = capsys.readouterr()
    assert table_of(told.out)["plain"]["WA"] == "16.50 ± 0.71" and told.err.count("has ended before") == 2


def test_a_row_that_was_asked_otherwise_is_refused(first, tool, toy, monkeypatch, capsys):
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: pytest.fail("was run"))
    asked = words(toy, "--rows", "plain", "--seeds", "3", "2", "--device=cpu", "--noprogressbar")
    assert tool.main([*asked, "--start=11"]) == 1
    told = capsys.readouterr().err
    assert "official/2: holds a run that was asked otherwise, in --start=10, --start=11: remove it, or name another --output_folder" in told
    # So is what has begun and not ended.
    assert tool.main([*words(toy, "--rows", "lost", "--seeds", "1", "--device=cpu"), "--start=11"]) == 1
    assert "lost/official/1: holds a run that was asked otherwise" in capsys.readouterr().err


def test_results_of_another_name_are_refused(first, tool, toy, tmp_path):
    folder = tmp_path / "plain" / "official" / "2"
    shutil.copytree(toy / "out" / "plain" / "official" / "2", folder)
    run = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**run, "seed": 4}))
    recipe = toy / "recipes" / "Toy" / "train.py"
    rows = tool.choose(tool.read(toy / "table.yaml"), recipe, ["plain"], None, {"device": "cpu", "start": "10"})
    with pytest.raises(tool.TableError, match="asked otherwise, in seed 4, not 2: remove it"):
        tool.plan(rows, recipe, [2], tmp_path)


def options(tool, toy, row, **given):
    (found,) = tool.choose(tool.read(toy / "table.yaml"), toy / "recipes" / "Toy" / "train.py", [row], None, given)
    return found.options


def test_mappings_are_merged(tool, toy):
    assert options(tool, toy, "more") == {"encoder_kwargs": '{"width":5,"heads":20}'}
    # The command line lies over the table's overrides, and under the row's.
    assert options(tool, toy, "more", encoder_kwargs="{width: 6, depth: 2}") == {"encoder_kwargs": '{"width":6,"depth":2,"heads":20}'}
    assert options(tool, toy, "plain", encoder_kwargs="{width: 6}", lr="1e-3") == {"encoder_kwargs": '{"width":6}', "lr": "1e-3"}


@pytest.mark.parametrize("row, given", [("more", {"encoder_kwargs": "{heads: 4}"}), ("lost", {"broken": "False"})])
def test_what_makes_a_row_cannot_be_taken_back(tool, toy, row, given):
    with pytest.raises(tool.TableError, match=f"is what the row {row} sets: leave it out, or leave the row out with --rows"):
        options(tool, toy, row, **given)


@pytest.mark.parametrize("value", ["1", "none", "null", "a b", "[x", "yes: no", 1, 0.5, True, None, [1, "a"], {"a": {"b": None}}])
def test_a_value_comes_through_a_command_line(tool, value):
    """As recipes read it: SpeechBrain makes YAML of all words together."""
    from speechbrain.utils.run_opts import RunOptions

    _, _, overrides = RunOptions.from_command_line_args(["net.yaml", f"--x={tool._text(value)}", "--seed=1"])
    assert tool.keys.parse_overrides(overrides) == {"x": value, "seed": 1}


def test_runs_are_filed_under_the_protocol_that_they_have(tool, toy):
    recipe = toy / "recipes" / "Toy" / "train.py"
    (recipe.parent / "hparams" / "cut.yaml").write_text("fold_protocol: random\nprotocol: !ref <fold_protocol>\nnet: !new:none.Net\n")
    (recipe.parent / "hparams" / "bare.yaml").write_text("start: 1\n")
    for yaml, given, protocol in [
        ("cut", {}, "random"), ("cut", {"fold_protocol": "speaker"}, "speaker"), ("cut", {"protocol": "speaker+1"}, "speaker+1"),
        ("bare", {}, "default"),
    ]:  # fmt: skip
        (row,) = tool.choose(tool.read(toy / "table.yaml"), recipe, ["plain"], f"hparams/{yaml}.yaml", given)
        (run,) = tool.plan([row], recipe, [7], toy / "elsewhere")
        assert (run.folder, row.model) == (toy / "elsewhere" / "plain" / protocol / "7", f"{yaml}_plain")


def test_any_metric_of_any_split_is_shown(tool):
    rows = [tool.Row("spiking", "net.yaml", "spiking", {}, {"WER": 3.0}), tool.Row("other", "net.yaml", "other", {}, {})]
    found = {"corpus": "C", "protocol": "p", "metrics": {"test-clean": {"WER": 2.0, "CER": 1.0}, "test-other": {"WER": 9.0}}}
    done = [(tool.Run(rows[0], "p", 1, Path("x"), [], ""), found)]
    assert table_of(tool.show({}, rows, done, "test-clean")) == {
        "spiking": {"row": "spiking", "n": "1", "WER": "2.00", "WER, paper": "3.00", "CER": "1.00"},
        "other": {"row": "other", "n": "0", "WER": "-", "WER, paper": "-", "CER": "-"},
    }
    assert table_of(tool.show({}, rows, done, "test-other"))["spiking"]["WER"] == "9.00"
    with pytest.raises(tool.TableError, match="no run has test-cleen; did you mean test-clean[?]; there are test-clean, test-other"):
        tool.show({}, rows, done, "test-cleen")
    assert "no run has ended" in tool.show({}, rows, [], "test")


@pytest.mark.parametrize(
    "more, said",
    [
        (["--rows", "plane"], "--rows: there is no plane; did you mean plain?; there are plain, more, lost"),
        (["--recipe=URDO"], "--recipe: there is no URDO; did you mean URDU?; there are "),
        (["--yaml=hparams/mat.yaml"], "hparams/mat.yaml: no such file, here or beside train.py; there are: "),
        (["--seed=1"], "--seed: is the table's to set: use --seeds"),
        (["--model=x"], "--model: is the table's to set: rows are filed under their names"),
        (["--lr=1", "--lr=2"], "--lr: is given twice"),
        (["--device", "cpu", "gpu"], "gpu: belongs to no option: write --NAME=gpu"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(tool, toy, capsys, more, said):
    assert tool.main([*words(toy, "--seeds", "9"), *more]) == 1
    assert said in capsys.readouterr().err and not list((toy / "out").glob("*/*/9"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("rows: {}", "has no rows: write rows: "),
        ("row: {a: {}}", "nothing reads the key row; did you mean rows?"),
        ("rows: {a: {override: {}}}", "rows: a: nothing reads the key override; did you mean overrides?"),
        ("rows: {a: 3}", "rows: a: is a int, expected keys among yaml, overrides, paper"),
        ("rows: {a b: {}}", "rows: 'a b': use letters, digits"),
        ("rows: {a: {}}", "rows: a: names no yaml, and neither does the table: pass --yaml="),
        ("rows: [", "is no plain YAML"),
        (None, "no such file; tables beside it: none"),
    ],
)
def test_a_table_that_is_none_is_refused(tool, toy, tmp_path, capsys, text, said):
    if text is not None:
        (tmp_path / "table.yaml").write_text(text)
    arguments = [str(tmp_path / "table.yaml"), *words(toy)[1:], "--seeds=1"]
    assert tool.main(arguments) == 1 and said in capsys.readouterr().err


def test_yaml_that_no_row_would_take_is_refused(tool, toy, tmp_path, capsys):
    (tmp_path / "table.yaml").write_text("rows: {a: {yaml: hparams/net.yaml}, b: {yaml: hparams/net.yaml}}")
    assert tool.main([str(tmp_path / "table.yaml"), *words(toy)[1:], "--seeds=1", "--yaml=hparams/mat.yaml"]) == 1
    assert "--yaml: hparams/mat.yaml would be nobody's: every row of the table names its own" in capsys.readouterr().err


def test_what_a_recipe_cannot_do_without_is_asked_for_before_anything_runs(tool, tmp_path, capsys):
    arguments = [str(URDU / "tables" / "comparison.yaml"), "--recipe=URDU", f"--output_folder={tmp_path / 'out'}", "--seeds=1"]
    assert tool.main(arguments) == 1
    assert "pts_snn_mini.yaml: data_folder has no value: pass --data_folder=..." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# The tables of this repository.


def built(row, tasks):
    """What a row's YAML and options describe."""
    from spikebrain.data.corpora import urdu
    from spikebrain.training import keys, run

    overrides = keys.parse_overrides("\n".join(f"{name}: {text}" for name, text in row.options.items()) + "\ndata_folder: x")
    return run.load(row.yaml, overrides, urdu, run._chosen(tasks, row.yaml, overrides))


@pytest.fixture(scope="module")
def tasks():
    from spikebrain.training import emotion, emotion_regression

    return emotion, emotion_regression


def encoders(tool, tasks, table, yaml="hparams/pts_snn_mini.yaml"):
    """Model -> configuration of its encoder, of a table on the recipe for URDU."""
    rows = tool.choose(tool.read(table), URDU / "train.py", None, yaml, {})
    networks = {row.model: built(row, tasks)["classifier"](input_size=80, classes=4) for row in rows}
    return {name: network.encoder.model.config for name, network in networks.items()}


def test_ablations_leave_out_what_they_say(tool, tasks):
    found = encoders(tool, tasks, SHARED / "pts_snn_ablations.yaml")
    assert {name.removeprefix("pts_snn_mini_"): (own.num_prompts, own.attention) for name, own in found.items()} == {
        "full": (4, True), "no_prompts": (0, True), "no_attention": (4, False), "only_shift": (0, False),
    }  # fmt: skip
    assert {own.d_model for own in found.values()} == {128}


def test_sweeps_change_one_number_and_nothing_else(tool, tasks):
    plain = encoders(tool, tasks, SHARED / "pts_snn_ablations.yaml")["pts_snn_mini_full"]
    prompts, scales = encoders(tool, tasks, SHARED / "pts_snn_prompts.yaml"), encoders(tool, tasks, SHARED / "pts_snn_bias.yaml")
    assert [own.num_prompts for own in prompts.values()] == [1, 2, 3, 4, 5, 6]
    assert [own.bias_scale for own in scales.values()] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert prompts["pts_snn_mini_prompts_4"] == plain == scales["pts_snn_mini_bias_0.5"]


def test_rows_of_the_comparison_are_what_their_names_say(tool, tasks):
    rows = tool.choose(tool.read(URDU / "tables" / "comparison.yaml"), URDU / "train.py", None, None, {})
    hparams = {row.name: built(row, tasks) for row in rows}
    assert all(row.model == row.name for row in rows)  # what they are kept as
    assert len({(row.yaml, *sorted(row.options.items())) for row in rows}) == len(rows)
    assert {"pts_snn_mini", "vanilla_snn_mini", "linear_head_mini", "regression"} <= set(hparams)
    for part in ("no_prompts", "no_attention", "only_shift"):
        assert hparams[f"pts_snn_mini_{part}"]["encoder"] == f"pts_snn_{part}"
    for name in (name for name in hparams if name.endswith(("_layer", "_none", "_global"))):
        norm = name.rpartition("_")[2]
        assert hparams[name]["input_norm"] == norm == hparams[name].get("encoder_kwargs", {"input_norm": norm})["input_norm"]


@pytest.mark.parametrize("name", ["pts_snn_ablations", "pts_snn_prompts", "pts_snn_bias"])
@pytest.mark.parametrize("corpus", ["IEMOCAP", "CASIA", "EMODB", "EMOVO", "URDU"])
def test_shared_tables_are_of_every_emotion_recipe(tool, corpus, name):
    recipe, table = tool.find_recipe(corpus), tool.read(SHARED / f"{name}.yaml")
    for yaml in (None, "hparams/pts_snn_mini.yaml"):
        rows = tool.choose(table, recipe, None, yaml, {})
        assert all(row.model.startswith("pts_snn_mini_" if yaml else "pts_snn_") for row in rows) and len(rows) > 3


@pytest.mark.full
def test_rows_of_a_real_recipe_differ_in_what_is_left_out(tmp_path):
    arguments = ["--recipe=URDU", "--seeds=1", "--rows", "pts_snn_mini", "pts_snn_mini_no_prompts", f"--output_folder={tmp_path / 'out'}"]
    small = ["--fold=[1]", "--number_of_epochs=1", "--d_model=16", "--synthetic_options={utterances: {all: 3}}", "--data_folder=synthetic"]
    places = [f"--synthetic_folder={tmp_path / 'twin'}", f"--cache_folder={tmp_path / 'features'}", "--device=cpu"]
    command = [sys.executable, str(TOOL), str(URDU / "tables" / "comparison.yaml"), *arguments, *small, *places]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: row["n"] for name, row in table_of(done.stdout).items()} == {"pts_snn_mini": "1", "pts_snn_mini_no_prompts": "1"}
    runs = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/random/1/results.json"))]
    assert [run["model"] for run in runs] == ["pts_snn_mini", "pts_snn_mini_no_prompts"]
    # 4 prompts of 16 channels, and a bias with a bottleneck of 1.
    assert runs[0]["parameters"]["total"] - runs[1]["parameters"]["total"] == 4 * 16 + 16 + 1 + 16 + 16
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout and again.stderr.count("has ended before") == 2
