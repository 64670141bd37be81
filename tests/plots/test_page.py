"""The page of a run: what it says, that nothing in it is read as HTML that is not, and that spikes come through."""

import base64
import json
import zlib
from html.parser import HTMLParser

import pytest
import torch

from spikebrain.plots import page
from spikebrain.plots.page.figures import count, millijoules, times
from spikebrain.plots.page.trains import packed

PRICES = {"name": "table", "mac_pJ": 4.6, "ac_pJ": 0.9, "bits": 32, "number": "float", "node_nm": 45, "source": "a paper"}
HOSTILE = '</script><img src="x">&'


def line(name, operation="ac", energy=2e-5):
    return {"line": name, "operation": operation, "count": 1500.0, "mJ": energy}


def finding(layer, adds, part="weight"):
    kinds = {"left": "binary" if adds else "real", "right": "real", "macs": 9, "accumulates": 3 if adds else None}
    return {"layer": layer, "part": part, "sort": "product", **kinds, "accumulate_only": adds, "why": "because"}


def report(**changes):
    scope = {"mJ": 2e-5, "twin_mJ": 1e-4, "lines": [line("net.a.weight")], "twin_lines": []}
    work = {"line": "net.a", "kind": "neurons", "operations": {"exp": 3}, "mJ": None, "unpriced": ["exp"]}
    scope |= {"further": [work], "further_mJ": 0.0}
    how = {"utterances": 2, "encoder_frames": 10.0, "prices": PRICES, "not_counted": ["memory"], "further": ["neurons: all"]}
    findings = [finding("net.layers.0.a", True), finding("net.layers.1.a", True), finding("net.b", False)]
    proof = {"equal": True, "spikes": {"a": 3}, "differ": {"a": 0}, "differ_float32": {"a": 1}, "flipped_float32": 0.05, "seconds": 0.1}
    return {
        **{"task": "asr", "corpus": "Speech", "model": "snn", "protocol": "p", "seed": 1},
        **{"commit": None, "command": "python", "fold": None},
        "split": "test",
        "simulated": "net",
        "utterances": {"looked_at": 2, "of": 2},
        "metrics": {"WER": 3.0},
        "results": {"WER": 3.0},
        "parameters": {"total": 1234},
        "energy": {"encoder_blocks": scope, "encoder+frontend": scope, "full": scope, "counting": how},
        "firing_rate": {"net.a": {"mean": 0.2, "levels": 4}},
        "utterance": {"id": HOSTILE, "seconds": 0.5},
        "audit": {"network": "Net", "accumulate_only": False, "findings": findings},
        "audit_converted": {"network": "Net", "accumulate_only": True, "findings": findings[:1]},
        "proof": {**proof, "additions": {"a.weight": [3, 3]}, "macs": {}},
        **changes,
    }


def utterance(**trains):
    return {"features": torch.randn(20, 6), "trains": trains}


class Reader(HTMLParser):
    """Tags, words and attributes of a page; tags must close."""

    OPEN = {"meta", "link", "input", "br", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.OPEN:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_names_are_never_read_as_html():
    text = page.page(report(model=HOSTILE), utterance(**{f"net.{HOSTILE}": torch.zeros(5, 3, dtype=torch.uint8)}))
    read = Reader(text)
    assert "img" not in [tag for tag, _ in read.tags]
    assert any(HOSTILE in word for word in read.words)


def test_what_was_found_is_said():
    words = "".join(Reader(page.page(report(), utterance(**{"net.a": torch.ones(5, 3, dtype=torch.uint8)}))).words)
    assert "3.00 %" in words and "as when it was trained" in words and "20 nJ" in words and "5.00x as much" in words
    assert "1 of 3 products multiply real numbers" in words and "net.layers.*.a" in words
    assert "in float32 1 spikes differ (5 %)" in words and "3 exp (no price)" in words and "memory" in words


def test_weights_that_give_another_number_are_noticed():
    assert "2.50 % when it was trained" in page.page(report(results={"WER": 2.5}), utterance())
    thinned = page.page(report(results={"WER": 2.5}, utterances={"looked_at": 1, "of": 2}), utterance())
    assert "when it was trained" not in thinned and "1 of 2 utterances" in thinned


def test_a_network_without_neurons_has_a_page():
    plain = report(firing_rate={})
    del plain["proof"], plain["audit_converted"]
    read = Reader(page.page(plain, utterance()))
    ids = {attrs.get("id") for _, attrs in read.tags}
    assert "features" in ids and not {"train", "layer"} & ids and "Run on events" not in "".join(read.words)


def test_a_proof_that_failed_is_red():
    broken = report()
    broken["proof"] = broken["proof"] | {"equal": False, "differ": {"a": 2}}
    text = page.page(broken, utterance())
    assert '<span class="no">The run on events differs from the trained network</span>' in text and "OTHER spikes" in text


def test_several_runs_are_compared():
    text = page.page(report(), utterance(), [report(), report(seed=2, metrics={"WER": 4.0})])
    assert text.count("<circle") == 2 and "snn on Speech (p, seed 2)" in text
    assert "<circle" not in page.page(report(), utterance(), [report()])


def test_spikes_come_through():
    train = torch.randint(0, 5, (7, 2500), dtype=torch.uint8)
    data = json.loads(packed(report(), utterance(**{"net.a": train})))
    (layer,) = data["layers"]
    drawn = torch.frombuffer(bytearray(zlib.decompress(base64.b64decode(layer["bytes"]))), dtype=torch.uint8)
    assert (layer["frames"], layer["neurons"], layer["every"], layer["levels"]) == (7, 2500, 3, 4)
    assert torch.equal(drawn.view(7, layer["shown"]), train[:, ::3])
    features = zlib.decompress(base64.b64decode(data["features"]["bytes"]))
    assert len(features) == 20 * 6 and min(features) == 0 and max(features) == 255


@pytest.mark.parametrize(
    "text, said",
    [
        (millijoules(1.5), "1.5 mJ"),
        (millijoules(0.05), "50 µJ"),
        (millijoules(2e-5), "20 nJ"),
        (millijoules(5e-8), "50 pJ"),
        (millijoules(0.0), "0 mJ"),
        (millijoules(None), "–"),
        (times(6.0, 3.0), "2.00x"),
        (times(None, 3.0), "–"),
        (count(1500), "1.5 k"),
        (count(2.5e9), "2.5 G"),
        (count(3), "3"),
    ],
)
def test_numbers_are_written_with_their_units(text, said):
    assert text == said
