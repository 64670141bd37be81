"""``tools/bench.py spikescr``: the peer is the same network before any time, where time goes, bars that can fail."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spikebrain.neurons import LIF

pytest.importorskip("spikingjelly", reason="the peers are not installed: pip install spikebrain[peers]")
QUICK = ["spikescr", "--quick", "--threads", "1"]


@pytest.fixture(scope="module")
def spikescr(benches):
    """``tools/benches/spikescr.py``."""
    return benches("spikescr")


@pytest.fixture(scope="module")
def peers(benches):
    """``tools/benches/peers.py``."""
    return benches("peers")


@pytest.fixture(scope="module")
def written(quick_run):
    return quick_run("spikescr")


def rows(written, section):
    return {row["variant"]: row for row in written["sections"][section]}


def test_the_peer_was_the_same_network_in_both_modes(written):
    training, evaluation = written["sections"]["equality"]
    assert (training["mode"], evaluation["mode"]) == ("training", "evaluation")
    for row in (training, evaluation):
        assert row["spikes apart"] == 0 < row["spikes"] and row["error of logits"] <= 1e-9
    assert max(training["error of gradients"], training["error of statistics"]) <= 1e-9


def test_the_published_size_has_its_published_parameters(spikescr):
    peer = spikescr.ONE.peer(spikescr.ONE.network())
    assert sum(p.numel() for p in peer.parameters()) == 1_709_824


def test_steps_are_timed_with_and_without_neurons(spikescr, written):
    names = [spikescr.OURS, spikescr.OURS_BARE, spikescr.PEER, spikescr.PEER_BARE]
    assert list(rows(written, "step")) == list(rows(written, "breakdown")) == names
    for row in written["sections"]["step"]:
        assert 0 < row["ms"]["low"] <= row["ms"]["high"] and 0 < row["ratio to spikebrain"]["median"]


def test_we_keep_less_than_the_peer(spikescr, written):
    saved = {name: row["saved_mib"] for name, row in rows(written, "step").items()}
    assert 0 < saved[spikescr.OURS] < saved[spikescr.PEER] and saved[spikescr.PEER_BARE] < saved[spikescr.PEER]


def test_the_breakdown_sums_up_and_only_networks_with_neurons_have_them(spikescr, written):
    for name, row in rows(written, "breakdown").items():
        assert sum(row[f"{kind} %"] for kind in [*spikescr.KINDS, "rest"]) == pytest.approx(100, abs=0.5)
        total = rows(written, "step")[name]["ms"]["median"]
        assert sum(row[f"{kind} ms"] for kind in [*spikescr.KINDS, "rest"]) == pytest.approx(total, rel=0.01)
        assert row["matmul %"] > 0 and row["norm %"] > 0 and (row["neuron %"] > 0) == (name in (spikescr.OURS, spikescr.PEER))


def test_tiny_times_are_not_judged(written):
    assert [row["verdict"] for row in written["verdicts"]] == ["not judged"] * 4


def test_neurons_of_both_kinds_are_taken_out(spikescr, peers):
    ours = spikescr.TINY.network()
    peer = spikescr.without_neurons(spikescr.TINY.peer(ours))
    ours = spikescr.without_neurons(ours)
    left = [m for net in (ours, peer) for m in net.modules() if isinstance(m, LIF | peers.jelly("neuron").LIFNode)]
    assert left == [] and sum(isinstance(m, spikescr.Through) for m in ours.modules()) == 14
    x, _ = spikescr.TINY.data()
    assert spikescr.logits_of(ours, x).isfinite().all()


def _unrotated(peers):
    return peers.PeerAttention, "_rotated", lambda self, x: x


def _other_decay(peers):
    return peers, "TAU", 4.0


def _other_surrogate(peers):
    return peers, "ALPHA", 4.0


def _no_gate(peers):
    def forward(self, x):
        hidden = self.pointwise_neuron(self.pointwise(x))
        content, _ = self.mix_norm(self.mix(self.depthwise_neuron(peers._over_frames(self.depthwise, hidden)))).chunk(2, -1)
        return self.dropout(self.output_neuron(content))

    return peers.PeerConvolution, "forward", forward


@pytest.mark.parametrize(
    "fault, message",
    [
        (_unrotated, "spikes apart"),
        (_other_decay, "spikes apart"),
        (_other_surrogate, "'spikes apart': 0,"),
        (_no_gate, "neurons that took part"),
    ],
)
def test_no_time_before_the_peer_is_the_same_network(bench, measure, peers, monkeypatch, capsys, fault, message):
    monkeypatch.setattr(*fault(peers))
    monkeypatch.setattr(measure, "take_turns", lambda *_: pytest.fail("a variant was timed"))
    assert bench.main(QUICK) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "no times: the peer is another network" in printed.err and message in printed.err


def test_a_silent_network_proves_nothing(spikescr, measure):
    with pytest.raises(measure.Disagreement, match=r"\([1-9]\d* of 14 layers silent\)"):
        spikescr.require_equality(replace(spikescr.TINY, frames=2))


def test_work_inside_an_op_of_ours_has_its_kind(spikescr, measure):
    """A norm alone is norm, neurons alone are neuron, and the op that does both is both."""
    task = spikescr.TINY
    embedding = task.network().train().encoder.model.embedding
    x, counts = torch.randn(8, 20, 32, requires_grad=True), torch.full((8,), 20)
    neuron, normed = embedding.neuron.neuron, embedding.neuron

    def kinds(module, forward):
        found = spikescr.breakdown(measure.Step(module, forward), 1.0, 2)
        return {kind for kind in spikescr.KINDS if found[f"{kind} %"] > 0}

    assert kinds(normed.norm, lambda: normed.norm.normalise(x, counts)) == {"norm"}
    assert kinds(nn.ModuleList([neuron]), lambda: neuron.fire(x, counts).value) == {"neuron"}
    assert kinds(normed, lambda: normed.fire(x, counts).value) == {"norm", "neuron"}


def test_each_bar_can_fail(spikescr):
    def verdicts(peer, bare, percent, beyond):
        ratios = ((spikescr.OURS, 1.0), (spikescr.PEER, peer), (spikescr.OURS_BARE, bare))
        steps = [{"variant": name, "ratio to spikebrain": {"median": n}, "ms": {"median": 100 * n}} for name, n in ratios]
        both = ((spikescr.OURS, percent, 6.0 + beyond), (spikescr.OURS_BARE, 0.0, 6.0))
        parts = [{"variant": name, "neuron %": share, "norm ms": 0.0, "neuron ms": ms} for name, share, ms in both]
        return [row["verdict"] for row in spikescr._verdicts("x", steps, parts, True)]

    assert verdicts(1.3, 0.96, 5.0, 5.0) == ["PASS"] * 4
    assert verdicts(1.29, 0.96, 5.0, 5.0) == ["FAIL", "PASS", "PASS", "PASS"]
    assert verdicts(1.3, 0.95, 5.0, 5.0) == ["PASS", "FAIL", "PASS", "PASS"]
    assert verdicts(1.3, 0.96, 5.0, 5.1) == ["PASS", "PASS", "FAIL", "PASS"]
    assert verdicts(1.3, 0.96, 5.1, 5.0) == ["PASS", "PASS", "PASS", "FAIL"]
