"""``tools/bench.py``: no time before equality, what a run writes, counts and memory; seconds are asserted nowhere."""

import json
import re
import time
from pathlib import Path

import pytest
import torch

from spikebrain.kernels import multilevel, native
from spikebrain.lobes import published_asr

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["multilevel", "--quick", "--threads", "1"]


@pytest.fixture(scope="module")
def firing(benches):
    """``tools/benches/multilevel.py``."""
    return benches("multilevel")


@pytest.fixture(scope="module")
def written(quick_run):
    return quick_run("multilevel")


@pytest.fixture
def folder(bench, tmp_path, monkeypatch):
    """An empty folder in place of benchmarks/."""
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    return tmp_path


def rows(written, section):
    return {row["variant"]: row for row in written["sections"][section]}


def test_a_run_says_where_and_how_it_was_made(written):
    about = set(written) - {"sections", "verdicts"}
    assert about == {"bench", "plan", "rounds", "date", "command", "commit", "versions", "hardware", "compiled", "load"}
    assert (written["bench"], written["plan"]) == ("multilevel", "quick")
    assert set(written["hardware"]) == {"cpu", "cores", "threads", "device"} and written["hardware"]["threads"] == 1
    assert written["command"].startswith("python tools/bench.py multilevel --quick --threads 1 --out ")
    assert str(ROOT) not in json.dumps(written) and len(written["load"]) == 2


def test_every_timed_shape_was_compared_with_the_definition(firing, written):
    compared = {(tuple(row["shape"]), row["implementation"]) for row in written["sections"]["equality"]}
    timed = {tuple(row["shape"]) for row in written["sections"]["op"]}
    timed |= {(size.batch, size.frames, width) for size in [firing.TINY] for width in (size.d_model, size.d_ffn)}
    timed |= {(2, 19, 32), (2, 19, 64)}  # of 80 frames the front end leaves 19
    assert {shape for shape, _ in compared} == timed
    assert {name for _, name in compared} == set(firing.implementations()[1:])
    assert all(row["flipped, float64"] == 0 and row["largest error, float64"] <= 1e-9 for row in written["sections"]["equality"])


def test_the_op_is_timed_beside_a_product_by_every_implementation(written):
    variants = list(rows(written, "op"))
    assert variants == ["reference", "eager", *([] if native.why_not() else ["cpu"]), "linear to 32"]
    for row in written["sections"]["op"]:
        assert set(row["ms"]) == set(row["ratio to reference"]) == {"median", "low", "high"}
        assert 0 < row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]


def test_memory_is_constant_in_levels_and_grows_with_micro_steps(written):
    saved = {name: row["saved_mib"] for name, row in rows(written, "levels").items()}
    assert saved["imls T=4"] == saved["imls T=6"] == saved["imls T=8"] > 0
    assert saved["lif_multistep T=4"] < saved["lif_multistep T=6"] < saved["lif_multistep T=8"]
    assert saved["lif_multistep T=6"] >= 2.5 * saved["imls T=6"]


def test_the_spiking_encoder_keeps_less_than_its_twin(written):
    twin, spiking, *without_dropout = written["sections"]["encoder"]
    assert [(row["variant"], row["dropout"]) for row in (twin, spiking)] == [("transformer", 0.1), ("iml_spikeformer", 0.1)]
    assert spiking["saved_mib"] < twin["saved_mib"] and min(spiking["peak_mib"], twin["peak_mib"]) > 50
    assert [row["variant"] for row in without_dropout] == ["transformer", "iml_spikeformer"]
    assert without_dropout[1]["saved_mib"] < without_dropout[0]["saved_mib"] < twin["saved_mib"]


def test_the_breakdown_sums_up_and_only_the_spiking_encoder_has_neurons(firing, written):
    parts = written["sections"]["breakdown"]
    for row in parts:
        assert sum(row[f"{kind} %"] for kind in [*firing.KINDS, "rest"]) == pytest.approx(100, abs=0.5)
        assert row["matmul %"] > 0 and row["norm %"] > 0 and row["attention softmax %"] > 0 and row["operations"] > 100
        assert (row["dropout"] > 0) <= (row["dropout %"] > 0) and (row["neuron %"] > 0) == (row["variant"] == "iml_spikeformer")


def test_tiny_times_are_not_judged_and_memory_is(written):
    for row in written["verdicts"]:
        assert row["verdict"] == ("PASS" if "saved memory" in row["what"] else "not judged")
    assert len(written["verdicts"]) == 12


def test_the_whole_model_is_measured_beside_what_was_published(written):
    whole = {(row["firing"], row["T"]): row for row in written["sections"]["whole model"]}
    assert list(whole) == [("IMLS", 4), ("iterative", 4), ("IMLS", 6), ("iterative", 6)]
    saved = {key: row["saved_mib"] for key, row in whole.items()}
    assert saved["IMLS", 4] == saved["IMLS", 6] < saved["iterative", 4] < saved["iterative", 6]
    shares = {row["T"]: row for row in written["sections"]["iterative firing to IMLS"]}
    for levels, row in shares.items():
        assert row["saved memory"] == pytest.approx(saved["iterative", levels] / saved["IMLS", levels], rel=1e-3)
        assert 0 < row["time"]["low"] <= row["time"]["median"] and (row["paper, time"], row["paper, memory"]) == (2.24, 3.31)


def test_figure_5_is_of_the_published_model(firing):
    plan, shapes = firing.PLANS["figure5"], {}
    with torch.device("meta"):
        ours, published = firing.whole_model(plan.whole, qk_bias=True), published_asr("iml_spikeformer_aishell_12", qk_bias=True)
    for name, model in (("ours", ours), ("published", published)):
        shapes[name] = {key: tuple(value.shape) for key, value in model.named_parameters()}
    assert shapes["ours"] == shapes["published"] and sum(p.numel() for p in ours.parameters()) == 30_351_890
    assert plan.whole.firing() == [(2, 70, 256), (2, 70, 2048)] and (plan.op, plan.levels, plan.encoders) == ((), None, ())


def test_a_step_of_the_whole_model_reaches_every_part_of_it(firing):
    step = firing.whole_step(firing.TINY_WHOLE, "imls", 4)
    step()
    silent = [name for name, parameter in step.module.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert silent == []


def test_a_bench_has_its_own_scales(bench, capsys):
    for words in (["lif", "--figure5"], ["multilevel", "--figure5", "--quick"]):
        with pytest.raises(SystemExit):
            bench.main(words)
    assert "unrecognized arguments: --figure5" in capsys.readouterr().err


def _wrong_level(monkeypatch, module):
    right = module.forward
    monkeypatch.setattr(module, "forward", lambda x, top, gain, counts, options: right(x, top, gain, counts, options._replace(levels=5)))


def _wrong_gradient(monkeypatch, module):
    right = module.backward

    def backward(*arguments):
        dx, through = right(*arguments)
        return dx * 1.001, through

    monkeypatch.setattr(module, "backward", backward)


@pytest.mark.parametrize("name", ["eager", "cpu"])
@pytest.mark.parametrize("fault, message", [(_wrong_level, "spikes differ"), (_wrong_gradient, "beyond 1e-09: {'grad'")])
def test_no_time_before_the_implementations_agree(bench, measure, monkeypatch, capsys, tmp_path, name, fault, message):
    if name == "cpu" and native.why_not():
        pytest.skip(f"compiled kernel: {native.why_not()}")
    fault(monkeypatch, getattr(multilevel, name))
    monkeypatch.setattr(measure, "take_turns", lambda *_: pytest.fail("a variant was timed"))
    assert bench.main([*QUICK, "--out", tmp_path / "run.json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and list(tmp_path.iterdir()) == []
    assert f"no times: {name} is not the definition on (2, 20, 32) in float64" in printed.err and message in printed.err


def test_variants_take_turns_after_a_warm_up(measure):
    calls = []
    seconds = measure.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert "".join(calls) == "ab" * 5 and {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_what_comes_before_a_variant_is_called_with_it_and_not_timed(measure):
    calls = []
    before = {"b": lambda: (calls.append("B"), time.sleep(0.05))}
    seconds = measure.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, before)
    assert "".join(calls) == "aBb" * 4 and min(seconds["b"]) < 0.05


def test_a_ratio_is_that_of_one_round(measure):
    seconds = {"a": [1.0, 10.0, 100.0, 1.0, 1.0], "b": [2.0, 20.0, 200.0, 2.0, 9.0]}
    assert measure.ratio(seconds, "b", "a") == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert measure.spread([3.0]) == {"median": 3.0, "low": 3.0, "high": 3.0}


def test_saved_bytes_by_hand(measure):
    """A linear layer keeps its input and its weight, an exponential its result; the weight is a parameter, the rest float32."""
    layer, x = torch.nn.Linear(4, 3), torch.randn(5, 4)
    assert measure.saved_bytes(measure.Step(layer, lambda: layer(x).exp())) == 4 * (5 * 4 + 5 * 3)
    assert measure.saved_bytes(measure.Step(layer, lambda: layer(x) + layer(x[:2]).sum())) == 4 * 5 * 4


def test_a_large_parent_does_not_show_in_the_size_of_its_child(firing, measure):
    ballast = torch.ones(2**28)  # 1 GiB, which ru_maxrss would hand on
    found = firing.resident_of(firing.Task(firing.TINY))
    assert measure.peak_resident() >= ballast.nbytes
    assert 0 <= found["step_mib"] < 16 and found["peak_mib"] < measure.peak_resident() / measure.MIB - 256


def test_a_process_that_measures_and_fails_is_named(bench, firing):
    with pytest.raises(bench.BenchError, match="neuron='lstm'.*ended with 1.*choose one of imls"):
        firing.resident_of(firing.Task(firing.TINY, neuron="lstm"))


def test_the_breakdown_follows_a_gradient_to_what_it_is_the_derivative_of(firing, measure):
    module = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout(0.5))
    x = torch.randn(64, 64, requires_grad=True)
    found = firing.breakdown(measure.Step(module, lambda: module(x)))
    assert found["dropout %"] > 0 and found["matmul %"] == found["norm %"] == found["neuron %"] == 0
    squared = firing.breakdown(measure.Step(module, lambda: x * x))
    assert squared["dropout %"] == 0 and squared["rest %"] == 100


def test_names_in_profiles_are_taken_back(measure):
    module = torch.nn.Linear(2, 2)
    with measure.named([(module, "forward", "mine"), (torch.nn.functional, "linear", lambda x, *_: f"linear {len(x)}")]):
        spent, _ = measure.profiled(lambda: module(torch.ones(3, 2)), {"outer": "^mine$", "inner": "^linear 3$"}, 1)
        assert spent["outer"] > 0 and spent["inner"] > 0
    assert "forward" not in vars(module) and torch.nn.functional.linear is torch._C._nn.linear


GROWING = {"imls": (1.0, 1.0, 1.04), "lif_multistep": (4.0, 6.0, 8.0)}


@pytest.mark.parametrize(
    "time, memory, failed",
    [
        (GROWING, GROWING, []),
        (GROWING | {"imls": (1.0, 1.1, 1.2)}, GROWING, ["IMLS: time"]),
        (GROWING, GROWING | {"imls": (1.0, 1.0, 1.06)}, ["IMLS: saved memory"]),
        (GROWING | {"lif_multistep": (4.0, 6.0, 6.0)}, GROWING, ["iterative firing: time"]),
        (GROWING, GROWING | {"lif_multistep": (2.0, 2.4, 2.9)}, ["iterative firing to IMLS"]),
    ],
)
def test_each_bar_can_fail(firing, time, memory, failed):
    times, saved = (
        {f"{neuron} T={t}": v for neuron, values in table.items() for t, v in zip((4, 6, 8), values)} for table in (time, memory)
    )
    verdicts = firing._levels_verdicts(times, saved, judged=True)
    assert len(verdicts) == 5 and {row["verdict"] for row in verdicts} <= {"PASS", "FAIL"}
    found = [row["what"] for row in verdicts if row["verdict"] == "FAIL"]
    assert [what.startswith(name) for what, name in zip(found, failed)] == [True] * len(failed) and len(found) == len(failed)


def _one_row(verdict):
    numbers = {"shape": [2, 3], "spikes": 1234, "ms": {"median": 2.5, "low": 2.0, "high": 3.0}, "gone": None}
    return lambda plan: ({"numbers": [numbers]}, [{"what": "a", "value": 1.0, "bar": "<= 1", "verdict": verdict}])


@pytest.mark.parametrize("verdict, status", [("PASS", 0), ("not judged", 0), ("FAIL", 1)])
def test_a_run_is_kept_with_its_table_and_a_missed_bar_is_the_exit_status(bench, folder, monkeypatch, capsys, verdict, status):
    monkeypatch.setattr(bench.BENCHES["multilevel"], "bench", _one_row(verdict))
    assert bench.main(["multilevel"]) == status
    (kept,) = folder.glob("*.json")
    assert re.fullmatch(r"multilevel-[a-z0-9-]+-\d+-threads\.json", kept.name)
    text = (folder / "README.md").read_text()
    assert text.endswith(capsys.readouterr().out.rstrip("\n") + "\n") and text.startswith(bench.HEAD)
    assert f"| a | 1 | <= 1 | {verdict} |\n" in text and "| 2 x 3 | 1,234 | 2.5 (2 .. 3) | - |\n" in text
    assert bench.main(["table", "--check"]) == 0


def test_a_quick_run_keeps_no_file(bench, folder, monkeypatch):
    monkeypatch.setattr(bench.BENCHES["multilevel"], "bench", _one_row("PASS"))
    assert bench.main(["multilevel", "--quick"]) == 0 and list(folder.iterdir()) == []


def test_a_table_that_is_out_of_date_or_of_something_else_is_named(bench, folder, capsys):
    assert bench.main(["table", "--check"]) == 1
    assert bench.main(["table"]) == 0 and "No run is kept yet" in (folder / "README.md").read_text()
    (folder / "README.md").write_text("typed by hand\n")
    assert bench.main(["table", "--check"]) == 1
    (folder / "odd.json").write_text('{"bench": "multilevel"}')
    assert bench.main(["table"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "odd.json: is no run of bench.py" in errors[2] and "run `python tools/bench.py table`" in errors[1]


def test_the_table_in_the_repository_is_made_from_its_files(bench):
    assert bench.main(["table", "--check"]) == 0


def test_threads_are_set_for_the_run_alone(bench, monkeypatch, tmp_path):
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(bench.BENCHES["multilevel"], "bench", lambda plan: (seen.append(torch.get_num_threads()), ({}, []))[1])
    assert bench.main(["multilevel", "--threads", str(before + 1), "--out", tmp_path / "x.json"]) == 0
    assert seen == [before + 1] and torch.get_num_threads() == before
    with pytest.raises(SystemExit):
        bench.main(["multilevel", "--threads", "0"])
