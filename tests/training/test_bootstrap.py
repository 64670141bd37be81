"""The paired bootstrap over speakers, against what can be worked out by hand."""

import json

import pytest
import torch

from spikebrain.data.manifest import DataError
from spikebrain.training import bootstrap, metrics, predictions
from spikebrain.training.predictions import Prediction


def run(answers, fold="1"):
    """A run of 'speaker label predicted' words; ids count up."""
    return [Prediction(fold, f"u{number}", *answer.split()) for number, answer in enumerate(answers)]


# Speaker a: one utterance; speaker b: three.
FIRST = run(["a sad sad", "b sad sad", "b happy sad", "b happy sad"])  # a 1 of 1, b 1 of 3
SECOND = run(["a sad happy", "b sad sad", "b happy happy", "b happy sad"])  # a 0 of 1, b 2 of 3


def test_counts_are_by_speaker_and_class():
    counts = bootstrap.count({"first": [FIRST], "second": [SECOND, FIRST]})
    assert (counts.models, counts.speakers, counts.runs.tolist()) == (("first", "second"), ("a", "b"), [1, 2])
    assert counts.tested.tolist() == [[0, 1], [2, 1]]  # happy, sad
    assert counts.right.tolist() == [[[0, 1], [0, 1]], [[0, 1], [1, 2]]]


def test_every_draw_is_what_it_is_by_hand():
    """Draws of two speakers of two: a twice, each once, b twice."""
    counts = bootstrap.count({"first": [FIRST], "second": [SECOND]})
    found = bootstrap.scores(counts, torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(found["WA"], 100 * torch.tensor([[1, 2 / 4, 1 / 3], [0, 2 / 4, 2 / 3]], dtype=torch.float64))
    # a has no happy utterance: only the recall of sad counts where a is drawn twice.
    recalls = [[1, (0 + 2 / 2) / 2, (0 + 1) / 2], [0, (1 / 2 + 1 / 2) / 2, (1 / 2 + 1) / 2]]
    torch.testing.assert_close(found["UA"], 100 * torch.tensor(recalls, dtype=torch.float64))


def test_the_interval_is_that_of_the_three_draws():
    """A quarter of draws has a twice, a quarter b twice: 2.5 % at either end lie within these."""
    found = bootstrap.compare(bootstrap.count({"first": [FIRST], "second": [SECOND]}), draws=2000)
    assert (found["speakers"], found["utterances"], found["models"]["first"]["runs"]) == (2, 4, 1)
    assert found["models"]["first"]["WA"] == pytest.approx({"value": 50, "low": 100 / 3, "high": 100})
    assert found["models"]["second"]["WA"] == pytest.approx({"value": 50, "low": 0, "high": 200 / 3})
    (difference,) = found["differences"]
    assert (difference["first"], difference["second"]) == ("first", "second")
    assert difference["WA"] == pytest.approx({"value": 0, "low": -100 / 3, "high": 100})


def test_draws_are_those_of_a_fair_urn():
    drawn = bootstrap.resample(2, 20000, 0)
    assert drawn.sum(1).eq(2).all()
    shares = [(drawn[:, 0] == number).double().mean().item() for number in (0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)  # five standard deviations
    assert torch.equal(drawn, bootstrap.resample(2, 20000, 0)) and not torch.equal(drawn, bootstrap.resample(2, 20000, 1))


def drawn_models(seed, speakers=25, each=4):
    """Two made models, one run each: speakers differ in how easy they are, the better model is right 10 points more often on every one."""
    generator, models = torch.Generator().manual_seed(seed), {}
    ease = 0.3 + 0.5 * torch.rand(speakers, generator=generator)
    for name, share in (("better", ease + 0.1), ("worse", ease)):
        right = (torch.rand(speakers, each, generator=generator) < share[:, None]).tolist()
        told = [(s, n, "sad" if n % 2 else "happy") for s in range(speakers) for n in range(each)]
        models[name] = [[Prediction("1", f"{s}-{n}", f"s{s}", label, label if right[s][n] else "none") for s, n, label in told]]
    return models


def test_the_interval_covers_the_truth_as_often_as_it_says():
    found = [bootstrap.compare(bootstrap.count(drawn_models(seed)), draws=400, seed=seed)["differences"][0]["WA"] for seed in range(150)]
    covered = sum(own["low"] <= 10 <= own["high"] for own in found) / len(found)
    assert 0.88 < covered < 0.99  # 95 % +- 1.8 % of 150, a little less of 25 speakers
    assert sum(own["value"] for own in found) / len(found) == pytest.approx(10, abs=1)
    assert all(own["low"] < own["value"] < own["high"] for own in found)


def test_speakers_are_drawn_and_not_utterances():
    """Where speakers are right or wrong as a whole, 40 utterances of 4 of them are worth 4."""
    spoken = [(f"s{s}", s % 2 == 0) for s in range(4) for _ in range(10)]
    right = run([f"{speaker} sad {'sad' if good else 'happy'}" for speaker, good in spoken])
    found = bootstrap.compare(bootstrap.count({"a": [right], "b": [right]}))["models"]["a"]["WA"]
    assert found == {"value": 50, "low": 0, "high": 100}  # draws of one kind only: 1 in 16 each


def test_a_model_differs_from_itself_by_nothing_at_all():
    models = drawn_models(3)
    better, worse = models["better"][0], models["worse"][0]
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    # Not by rounding either: in another order, and as often again.
    for other in ([better, worse, worse], [worse, better, worse], 2 * [better, worse, worse]):
        (difference,) = bootstrap.compare(bootstrap.count({"a": [better, worse, worse], "b": other}))["differences"]
        assert difference["WA"] == nothing and difference["UA"] == nothing


def test_runs_of_a_model_are_averaged():
    models = drawn_models(4)
    alone = [bootstrap.compare(bootstrap.count({"a": [own], "b": [own]}))["models"]["a"] for (own,) in models.values()]
    both = bootstrap.compare(bootstrap.count({"a": [models["better"][0], models["worse"][0]], "b": models["worse"]}))["models"]["a"]
    assert both["runs"] == 2
    for metric in bootstrap.METRICS:
        assert both[metric]["value"] == pytest.approx(sum(own[metric]["value"] for own in alone) / 2)


def test_values_are_those_of_the_confusion_matrix():
    (own,) = drawn_models(5)["worse"]
    labels = ("happy", "none", "sad")
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    for p in own:
        confusion[labels.index(p.label), labels.index(p.predicted)] += 1
    found = bootstrap.compare(bootstrap.count({"a": [own], "b": [own]}))["models"]["a"]
    assert {name: found[name]["value"] for name in ("WA", "UA")} == pytest.approx({n: metrics.report(confusion)[n] for n in ("WA", "UA")})


def test_every_other_model_is_compared_with_the_first():
    models = drawn_models(6) | {"third": drawn_models(6)["better"]}
    found = bootstrap.compare(bootstrap.count(models))
    assert [(own["first"], own["second"]) for own in found["differences"]] == [("better", "worse"), ("better", "third")]
    assert found["differences"][1]["WA"] == {"value": 0, "low": 0, "high": 0} and found == bootstrap.compare(bootstrap.count(models))
    assert found != bootstrap.compare(bootstrap.count(models), seed=1)


def test_without_a_speaker_it_is_as_if_he_had_not_been_there():
    models = drawn_models(7)
    left = {name: [[p for p in own if p.speaker not in ("s3", "s11")] for own in runs] for name, runs in models.items()}
    assert bootstrap.compare(bootstrap.count(models).without(["s3", "s11"])) == bootstrap.compare(bootstrap.count(left))


def test_a_speaker_who_is_not_there_cannot_be_left_out():
    counts = bootstrap.count({"first": [FIRST], "second": [SECOND]})
    with pytest.raises(DataError, match="SM5: is no speaker that is tested; there are a, b"):
        counts.without(["SM5"])
    with pytest.raises(DataError, match="1 of 2 speakers are left: a draw of speakers needs 2 or more"):
        counts.without(["a"])
    with pytest.raises(DataError, match="draws: 0: give 1 or more"):
        bootstrap.compare(counts, draws=0)


@pytest.mark.parametrize(
    "other, said",
    [
        (SECOND[:-1], "a run of first with 4 utterances and one of second with 3 did not test the same: 1 are .* the first is u3"),
        ([*SECOND[:-1], SECOND[-1]._replace(id="u9")], "4 utterances and one of second with 4 did not test the same: 2 are .* is u3"),
        ([SECOND[0]._replace(speaker="b"), *SECOND[1:]], "did not test the same: 1 are in one only or have another speaker"),
        ([SECOND[0]._replace(label="happy"), *SECOND[1:]], "did not test the same: 1 are in one only or have another speaker or label"),
        ([*SECOND, SECOND[2]], r"a run of second tested u2 more than once \(5 predictions of 4 utterances\)"),
        ([], "a run of second has no predictions"),
    ],
)
def test_runs_that_did_not_test_the_same_are_refused(other, said):
    with pytest.raises(DataError, match=said):
        bootstrap.count({"first": [FIRST], "second": [other]})


@pytest.fixture
def kept(tmp_path):
    """Writes the folder of a run as a recipe leaves it."""

    def write(name, answers, model, cut="random", partition=0, digest="d0", **more):
        folder = tmp_path / name
        predictions.write(folder, answers)
        report = {"model": model, "corpus": "URDU", "cut": {"protocol": cut, "partition": partition}, **more}
        (folder / "results.json").write_text(json.dumps({"folds": [{"fold": "1", "digest": digest}], **report}))
        return folder

    return write


def test_runs_are_read_by_model(kept):
    folders = [kept("1", FIRST, "a"), kept("2", SECOND, "b"), kept("3", SECOND, "a")]
    assert bootstrap.read(folders) == {"a": [FIRST, SECOND], "b": [SECOND]} and list(bootstrap.read(folders[1:])) == ["b", "a"]


def test_runs_that_are_no_match_are_refused(kept, tmp_path):
    first = kept("1", FIRST, "a")
    for other, said in [
        (first / ".." / "1", "is named twice: name each run once"),
        (tmp_path / "none", "none/results.json: there is no such file: name the output_folder of a run that has ended"),
        (kept("2", SECOND, "b", cut="speaker"), "2 protocols, URDU, random and URDU, speaker: name runs of one corpus"),
        (kept("3", SECOND, "a", cut="speaker"), "2 protocols"),
        (kept("4", SECOND, "b", corpus="EMODB"), "2 protocols, EMODB, random and URDU, random"),
        (kept("5", SECOND, "b", partition=1, digest="d1"), r"a on partitions \[0\] and b on partitions \[1\] were not tested on the same"),
        (kept("6", SECOND, "b", digest="d2"), "were not tested on the same folds"),
    ]:
        with pytest.raises(DataError, match=said):
            bootstrap.read([first, other])
    (kept("7", SECOND, "b") / "results.json").write_text('{"task": "asr"}')
    with pytest.raises(DataError, match="task asr is not tested over folds: name runs of emotion recipes"):
        bootstrap.read([first, tmp_path / "7"])


def test_partitions_and_seeds_may_be_several(kept):
    folders = [kept(f"{model}{n}", FIRST, model, partition=n, digest=f"d{n}") for model in "ab" for n in (0, 1)]
    folders.append(kept("a0 again", SECOND, "a"))
    assert {name: len(own) for name, own in bootstrap.read(folders).items()} == {"a": 3, "b": 2}
