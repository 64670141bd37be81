"""``tools/bench.py lif``: no time before equality with the definition and with the peers, what is measured, bars that can fail."""

import sys

import pytest
import torch

from spikebrain.kernels import lif as op
from spikebrain.kernels import native

pytest.importorskip("spikingjelly", reason="the peers are not installed: pip install spikebrain[peers]")
pytest.importorskip("snntorch", reason="the peers are not installed: pip install spikebrain[peers]")
QUICK = ["lif", "--quick", "--threads", "1"]


@pytest.fixture(scope="module")
def lif(benches):
    """``tools/benches/lif.py``."""
    return benches("lif")


@pytest.fixture(scope="module")
def peers(benches):
    """``tools/benches/peers.py``."""
    return benches("peers")


@pytest.fixture(scope="module")
def written(quick_run):
    return quick_run("lif")


@pytest.fixture
def not_timed(bench, measure, monkeypatch, capsys, tmp_path):
    """Runs the bench and asserts that it stops before a time, with a message that holds ``words``."""

    def run(*words):
        monkeypatch.setattr(measure, "take_turns", lambda *_: pytest.fail("a variant was timed"))
        assert bench.main([*QUICK, "--out", tmp_path / "run.json"]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and list(tmp_path.iterdir()) == []
        assert [word for word in ("no times: ", *words) if word not in printed.err] == []

    return run


def rows(written, section="layer"):
    return {row["variant"]: row for row in written["sections"][section]}


def test_every_op_was_compared_with_the_definition_on_the_timed_shape(lif, written):
    found = [(tuple(row["shape"]), row["op"], row["implementation"]) for row in written["sections"]["equality"]]
    names = {name: list(lif.implementations()[1:]) for name in lif.OPS}
    assert found == [(lif.QUICK, name, implementation) for name in lif.OPS for implementation in names[name]]
    assert {tuple(row["shape"]) for row in written["sections"]["layer"]} == {lif.QUICK}
    assert all(row["flipped, float64"] == 0 and row["largest error, float64"] <= 1e-9 for row in written["sections"]["equality"])


def test_peers_fire_as_we_do_and_are_measured_beside_us(lif, written):
    compared = written["sections"]["equality of peers"]
    assert [row["peer"] for row in compared] == [lif.JELLY, lif.SNNTORCH]
    assert all(row["flipped"] == 0 < row["spikes"] and row["error of gradients"] <= 1e-5 for row in compared)
    assert list(rows(written)) == [lif.OURS, "op alone", lif.FLOOR, lif.LINEAR, lif.JELLY, lif.SNNTORCH]
    assert {row["peer"] for row in written["sections"]["peers"]} == {"spikingjelly", "snntorch"}


def test_a_row_has_times_alone_and_after_a_linear(written):
    for row in written["sections"]["layer"]:
        for column in ("ms after a linear", "ratio to spikebrain", "ms alone", "alone to after"):
            assert 0 < row[column]["low"] <= row[column]["median"] <= row[column]["high"]


def test_we_keep_one_tensor_and_peers_keep_more(lif, written):
    saved = {name: row["saved_mib"] for name, row in rows(written).items()}
    batch, length, channels = lif.QUICK
    small = 4 * channels + 8 * batch  # decays and counts
    assert saved[lif.OURS] * 2**20 == pytest.approx(4 * batch * length * channels + small, rel=1e-3)
    assert saved[lif.OURS] < saved[lif.JELLY] < saved[lif.SNNTORCH] and saved[lif.FLOOR] is None


def test_tiny_times_are_not_judged(written):
    assert [row["verdict"] for row in written["verdicts"]] == ["not judged"] * 2
    assert [row["bar"] for row in written["verdicts"]] == [">= 6", ">= 10"]


def _wrong_spikes(monkeypatch, module):
    right = module.forward
    raised = lambda given: [one._replace(threshold=1.2) if isinstance(one, op.FireOptions) else one for one in given]  # noqa: E731
    monkeypatch.setattr(module, "forward", lambda *given: right(*raised(given)))


def _wrong_gradient(monkeypatch, module):
    right = module.backward

    def backward(*given):
        dx, *others = right(*given)
        return dx * 1.001, *others

    monkeypatch.setattr(module, "backward", backward)


@pytest.mark.parametrize("name", ["eager", "cpu"])
@pytest.mark.parametrize("fault, message", [(_wrong_spikes, "spikes differ"), (_wrong_gradient, "beyond 1e-09: {'grad x'")])
def test_no_time_before_the_implementations_agree(monkeypatch, not_timed, name, fault, message):
    if name == "cpu" and native.why_not():
        pytest.skip(f"compiled kernel: {native.why_not()}")
    fault(monkeypatch, getattr(op, name))
    not_timed(f"{name} is not the definition on (2, 20, 32), as timed, in float64", message)


@pytest.mark.parametrize("constant, message", [("TAU", "spikes flipped"), ("ALPHA", "0 spikes flipped, gradients apart by")])
def test_no_time_before_the_peers_agree(monkeypatch, not_timed, peers, constant, message):
    monkeypatch.setattr(peers, constant, 1.5)
    not_timed("spikingjelly is not ours on (2, 20, 32)", message)


def _train(lif, flips=(), wrong=()):
    """A call that gives spikes and gradients of 0 but where told otherwise, frames first."""
    spikes, grad = torch.zeros(100, 2, 60), torch.zeros(100, 2, 60)
    for at in flips:
        spikes[at] = 1
    for at in wrong:
        grad[at] = 1
    return lambda: (spikes, grad)


def test_a_flipped_spike_is_counted_and_excuses_the_gradients_of_its_train_alone(lif, measure):
    def ours():
        return torch.zeros(2, 100, 60), torch.zeros(2, 100, 60)

    assert lif.compare_peer("x", ours, _train(lif, flips=[(7, 1, 3)], wrong=[(5, 1, 3)]))["flipped"] == 1
    with pytest.raises(measure.Disagreement, match="x is not ours.*1 spikes flipped, gradients apart by 1"):
        lif.compare_peer("x", ours, _train(lif, flips=[(7, 1, 3)], wrong=[(5, 1, 4)]))
    with pytest.raises(measure.Disagreement, match="2 spikes flipped"):
        lif.compare_peer("x", ours, _train(lif, flips=[(7, 1, 3), (8, 1, 3)]))


def test_each_bar_can_fail(lif):
    def verdicts(**times):
        named = {lif.OURS: 1.0, lif.JELLY: times["jelly"], lif.COMPILED: times["compiled"], lif.SNNTORCH: times["snntorch"]}
        made = [{"shape": [2, 3, 4], "variant": name, f"ratio to {lif.OURS}": {"median": time}} for name, time in named.items()]
        return [row["verdict"] for row in lif._verdicts(made, True)]

    assert verdicts(jelly=6.0, compiled=6.0, snntorch=10.0) == ["PASS", "not judged", "PASS"]
    assert verdicts(jelly=5.9, compiled=7.0, snntorch=9.9) == ["FAIL", "not judged", "FAIL"]


def test_what_runs_on_a_gpu_runs_on_a_cpu(lif):
    found, verdicts = lif.on_device((lif.QUICK,), torch.device("cpu"), 2, judged=False)
    assert [row["variant"] for row in found] == [lif.OURS, lif.JELLY]
    assert all(row["share of copy bandwidth"] > 0 and row["copy GB/s"] > 0 and row["backend"] for row in found)
    assert [row["bar"] for row in verdicts] == [">= 1.2", ">= 0.6"]


def test_a_missing_peer_is_named_with_what_installs_it(bench, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    assert bench.main(QUICK) == 1
    assert "this bench needs snntorch" in (message := capsys.readouterr().err) and "pip install spikebrain[peers]" in message


def test_a_layer_that_cannot_be_compiled_is_left_out_with_the_reason(lif, peers, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **_: _raise)
    steps, (row,) = lif._peer_steps(lif._own_steps(lif.QUICK)[lif.OURS], True)
    assert list(steps) == [lif.JELLY, lif.SNNTORCH] and row["left out"] == "no C++ compiler" and row["seconds"] is None


def _raise(x):
    raise RuntimeError("no C++ compiler\nand more")


@pytest.mark.full
def test_the_compiled_peer_is_the_peer(lif):
    own = lif._own_steps(lif.QUICK)
    steps, (row,) = lif._peer_steps(own[lif.OURS], True)
    assert row["left out"] is None and row["seconds"] > 0
    assert lif.compare_peer(lif.COMPILED, own[lif.OURS], steps[lif.COMPILED])["flipped"] == 0
