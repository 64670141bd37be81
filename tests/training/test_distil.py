"""Distillation along a curriculum: who teaches whom, what a teacher may not do, and what the stages are compared with."""

import copy
import functools
import json
import sys
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_gsc  # noqa: E402

from spikebrain.data.corpora import gsc  # noqa: E402
from spikebrain.frontend.augmentation import EventDrop, SpecAugment  # noqa: E402
from spikebrain.learning.kdcl import distillation_loss  # noqa: E402
from spikebrain.lobes import SpikingClassifier  # noqa: E402
from spikebrain.lobes.features import EventFrames, FrameRateMel  # noqa: E402
from spikebrain.training import classify, distil, hooks, keys, run  # noqa: E402
from spikebrain.training.checkpoints import CheckpointError  # noqa: E402
from spikebrain.training.distil import Stage, Trained  # noqa: E402
from spikebrain.training.schedules import CosineByEpoch  # noqa: E402

WORDS = ["bed", "go", "zero"]
RUN = {"device": "cpu", "noprogressbar": True}


def classifier(**sizes):
    sizes = {"num_layers": 1, "d_model": 16, "nhead": 2, **sizes}
    return functools.partial(SpikingClassifier, encoder="spikescr", encoder_kwargs=sizes)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return fake_gsc.make_tree(tmp_path_factory.mktemp("distil") / "speech_commands")


@pytest.fixture
def hparams(corpus, tmp_path):
    """What a recipe gives, small."""
    folder = tmp_path / "run"
    schedule = functools.partial(CosineByEpoch, lr=0.01, half_period=4)

    def make(**changes):
        return {
            **distil.OPTIONAL, "seed": 5, "data_folder": str(corpus), "output_folder": str(folder), "save_folder": str(folder / "save"),
            "train_splits": ["train"], "dev_splits": ["valid"], "test_splits": ["test"], "frames": [100, 50, 20], "batch_size": 4,
            "features": functools.partial(FrameRateMel, n_mels=20), "number_of_epochs": 2, "kd_epochs": 2, "classifier": classifier(),
            "opt_class": functools.partial(torch.optim.AdamW, lr=0.01), "schedule": schedule, "kd_schedule": schedule, **changes,
        }  # fmt: skip

    return make


@pytest.fixture
def prepared(corpus, tmp_path):
    return gsc.prepare(str(corpus), str(tmp_path / "manifests"), classes=WORDS)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures of a stage take four times as long as its training here; the recipe's tests draw them."""
    monkeypatch.setattr(hooks, "draw", lambda *those: None)


@pytest.fixture
def train(hparams, prepared):
    return lambda **changes: distil.train(hparams(**changes), RUN, prepared)


def history(folder):
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def moved(state):
    """``state`` with running statistics as after some training, and weights that are nobody's first ones."""
    torch.manual_seed(7)
    return {name: value + 0.1 * torch.rand_like(value) if value.is_floating_point() else value for name, value in state.items()}


@pytest.fixture
def student(hparams, prepared):
    """(brain of a taught stage, its parent): 20 frames after 100."""

    def make(**changes):
        values = hparams(**changes)
        recordings = classify.make_recordings(values, prepared)
        parent = Trained("direct-100", 100, moved(classifier()(input_size=20, classes=3).state_dict()), 1)
        return distil.begin(values, RUN, recordings, Stage("kdcl", 20, 2, "direct-100", True), parent), parent

    return make


def batches(brain):
    return [batch.to("cpu") for batch in make_dataloader(brain.data.train, **brain.data.train_loader)]


def test_a_student_starts_as_its_teacher_buffers_and_all(student):
    brain, parent = student()
    own, teacher = brain.parts["classifier"], brain.teacher["classifier"]
    for state in (own.state_dict(), teacher.state_dict()):
        assert state.keys() == parent.state.keys() and all(torch.equal(state[name], parent.state[name]) for name in state)
    assert any("running_var" in name for name in parent.state)
    x = torch.rand(3, 40, 20)
    with torch.no_grad():
        assert torch.equal(own.eval()(x), teacher(x)) and teacher(x).abs().sum() > 0


def test_learning_leaves_the_teacher_as_it_was(student):
    brain, parent = student()
    before = copy.deepcopy(brain.teacher["classifier"].state_dict())
    brain.fit(brain.hparams.epoch_counter, brain.data.train, brain.data.valid, {**brain.data.train_loader}, {**brain.data.eval_loader})
    teacher, own = brain.teacher["classifier"], brain.parts["classifier"].state_dict()
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    changed = [name for name in own if not torch.equal(own[name], before[name])]
    assert any("running_mean" in name for name in changed) and any("weight" in name for name in changed)
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in brain.modules.parameters()}


def test_teacher_and_student_of_as_many_frames_agree(student, hparams, prepared):
    brain, _ = student()
    brain.teacher["features"] = brain.parts["features"]
    brain.modules.eval()
    for batch in batches(brain):
        with torch.no_grad():
            own, opinion = brain.compute_forward(batch, sb.Stage.TRAIN)
        assert distillation_loss(own, opinion) == 0


def test_both_hear_the_same_utterances_at_their_own_resolution(student):
    brain, _ = student()
    for _ in range(2):
        for batch in batches(brain):
            with torch.no_grad():
                own, opinion = brain.compute_forward(batch, sb.Stage.TRAIN)
            seconds = batch.sig.lengths * batch.sig.data.shape[1] / 16000
            assert own.shape == opinion.shape == (len(batch.id), 3)
            # Votes sum to frames: 1 + n // hop.
            assert own.sum(1).tolist() == pytest.approx((1 + (seconds * 20).floor()).tolist(), rel=1e-5)
            assert opinion.sum(1).tolist() == pytest.approx((1 + (seconds * 100).floor()).tolist(), rel=1e-5)


@pytest.mark.parametrize("share", [False, True])
def test_a_teacher_hears_clean_features_unless_it_shares_the_masks(student, share, monkeypatch):
    brain, _ = student(augment=SpecAugment(6, 0.5, -3.0), share_aug=share)
    heard = []
    monkeypatch.setattr(brain, "vote", lambda net, x, lengths: heard.append(x) or torch.rand(len(x), 3))
    torch.manual_seed(0)
    for batch in batches(brain):
        brain.compute_forward(batch, sb.Stage.TRAIN)
    teachers, students = heard[0::2], heard[1::2]
    assert any((x == -3).any() for x in students)
    assert any((x == -3).any() for x in teachers) == share
    assert all(x.shape[1] > 4 * y.shape[1] for x, y in zip(teachers, students))
    if share:
        assert all(torch.equal((x == -3).all(1), (y == -3).all(1)) for x, y in zip(teachers, students))


def test_a_curriculum_learns_from_the_best_of_the_stage_before(train, tmp_path, prepared):
    report = train(arms=["kdcl"], number_of_epochs=4)
    assert report["arms"] == {"kdcl": [row["name"] for row in report["stages"]]} == {"kdcl": ["direct-100", "kdcl-50", "kdcl-20"]}
    assert [row["starts_from"] for row in report["stages"]] == [None, "direct-100", "kdcl-50"]
    assert [row["teacher"] and row["teacher"]["frames"] for row in report["stages"]] == [None, 100, 50]
    for before, row in zip(report["stages"], report["stages"][1:]):
        rows = history(tmp_path / "run" / before["name"])
        best = min(rows, key=lambda r: (r["valid_error"], r["valid_loss"], r["epoch"]))["epoch"]
        assert row["teacher"]["epoch"] == before["best_epoch"] == best
    assert report["frames"] == 20 and report["metrics"]["test"]["accuracy"] == report["stages"][-1]["accuracy"]["test"]
    for row in report["stages"]:
        own = json.loads((tmp_path / "run" / row["name"] / "results.json").read_text())
        assert own["stage"] == row and own["metrics"]["valid"]["accuracy"] == row["accuracy"]["valid"] and own["firing_rate"]
    assert row["mJ"] == report["energy"]["full"]["mJ"] > 0
    assert (tmp_path / "run" / "stages.txt").read_text() == distil.table(
        distil.plan_of(_hparams_of(report)), report["stages"], ["valid", "test"]
    )


def _hparams_of(report):
    return {"frames": [100, 50, 20], "number_of_epochs": 4, "kd_epochs": 2, "arms": list(report["arms"])}


def test_every_arm_has_its_chain_and_what_is_shared_is_trained_once(hparams):
    plan = distil.plan_of(hparams(arms=list(distil.ARMS), number_of_epochs=10, kd_epochs=20))
    assert plan.arms == {
        "kdcl": ["direct-100", "kdcl-50", "kdcl-20"],
        "direct": ["direct-100", "direct-50", "direct-20"],
        "direct_long": ["direct-100", "direct_long-50", "direct_long-20"],
        "oneshot": ["direct-100", "kdcl-50", "oneshot-20"],
        "init": ["direct-100", "init-50", "init-20"],
    }
    chain = {name: (stage.parent, stage.taught, stage.epochs) for name, stage in plan.stages.items()}
    long = distil.equal_epochs([100, 50, 20], 10, 20)
    assert chain == {
        "direct-100": (None, False, 10), "kdcl-50": ("direct-100", True, 20), "kdcl-20": ("kdcl-50", True, 20),
        "direct-50": (None, False, 10), "direct-20": (None, False, 10), "oneshot-20": ("direct-100", True, 20),
        "direct_long-50": (None, False, long[0]), "direct_long-20": (None, False, long[1]),
        "init-50": ("direct-100", False, 20), "init-20": ("init-50", False, 20),
    }  # fmt: skip
    assert all(list(chain).index(stage.parent) < list(chain).index(name) for name, stage in plan.stages.items() if stage.parent)


def test_the_table_has_a_line_for_each_number_of_frames_and_then_every_stage(hparams):
    plan = distil.plan_of(hparams(arms=["kdcl", "oneshot"]))
    rows = [
        {
            "name": name, "frames": stage.frames, "epochs": 2, "best_epoch": 1, "seconds": 3.4, "starts_from": stage.parent,
            "teacher": {"name": stage.parent} if stage.taught else None, "accuracy": {"valid": 90.0 + i, "test": 80.0 + i},
        }
        for i, (name, stage) in enumerate(plan.stages.items())
    ]  # fmt: skip
    valid, test, stages = distil.table(plan, rows, ["valid", "test"]).split("\n\n")
    assert [line.split() for line in valid.splitlines()] == [
        ["valid", "%", "kdcl", "oneshot"],
        ["100", "frames", "90.00", "90.00"],
        ["50", "frames", "91.00", "91.00"],
        ["20", "frames", "92.00", "93.00"],
    ]
    assert test.splitlines()[3].split() == ["20", "frames", "82.00", "83.00"]
    assert stages.splitlines()[4].split() == ["oneshot-20", "direct-100", "direct-100", "2", "1", "3", "93.00", "83.00"]


def test_without_the_weight_of_the_teacher_the_curriculum_is_the_control(train, tmp_path):
    """Both go through the same random numbers, so what they differ by is the teacher's loss and nothing else."""
    train(arms=["kdcl", "init"], kd_weight=0.0, frames=[100, 20])
    control = history(tmp_path / "run" / "init-20")
    assert history(tmp_path / "run" / "kdcl-20") == control
    with_weight = tmp_path / "weighted"
    train(arms=["kdcl"], frames=[100, 20], output_folder=str(with_weight))
    taught = history(with_weight / "kdcl-20")
    assert taught[0]["train_loss"] > control[0]["train_loss"] and taught[-1]["valid_loss"] != control[-1]["valid_loss"]


def test_a_run_that_has_ended_may_be_the_first_teacher(train, hparams, prepared, tmp_path):
    first, folder = hparams(frames=100), tmp_path / "first"
    classify.train({**first, "output_folder": str(folder), "save_folder": str(folder / "save")}, RUN, prepared)
    given = train(arms=["kdcl"], teacher_folder=str(folder), frames=[100, 20])
    assert [row["name"] for row in given["stages"]] == ["kdcl-20"] and given["stages"][0]["teacher"]["frames"] == 100
    rows = history(tmp_path / "run" / "kdcl-20")
    again = tmp_path / "again"
    train(arms=["kdcl"], frames=[100, 20], output_folder=str(again), save_folder=str(again / "save"))
    assert history(again / "kdcl-20") == rows, "the same first stage, trained in the same run"
    with pytest.raises(CheckpointError, match=r"was trained with 100 frames, the curriculum begins with 50: set frames: \[100, \.\.\.\]"):
        train(arms=["kdcl"], teacher_folder=str(folder), frames=[50, 20])
    with pytest.raises(CheckpointError, match="nowhere holds 0 checkpoints in save"):
        train(arms=["kdcl"], teacher_folder=str(tmp_path / "nowhere"))


def test_recordings_of_spikes_are_binned_for_student_and_teacher(hparams, tmp_path):
    pytest.importorskip("h5py", reason="pip install spikebrain[spikes]")
    import fake_events

    from spikebrain.data.corpora import shd

    folder = fake_events.make_shd(tmp_path / "SHD")
    spikes = shd.prepare(str(folder), str(tmp_path / "spikes"))
    values = hparams(
        data_folder=str(folder), frames=[100, 40], batch_size=40, augment=EventDrop(), features=EventFrames, kd_epochs=1, number_of_epochs=1
    )  # fmt: skip
    report = distil.train(values, RUN, spikes)
    assert len(report["labels"]) == 20 and [row["frames"] for row in report["stages"]] == [100, 40]
    recordings = classify.make_recordings(values, spikes)
    parent = Trained("direct-100", 100, classifier()(input_size=140, classes=20).state_dict(), 1)
    brain = distil.begin(values, RUN, recordings, Stage("oneshot", 40, 1, "direct-100", True), parent)
    for batch in batches(brain):
        with torch.no_grad():
            own, opinion = brain.compute_forward(batch, sb.Stage.TRAIN)
        seconds = torch.tensor([brain.data.train.data[name]["duration"] for name in batch.id])
        assert torch.allclose(own.sum(1), (40 * seconds).ceil(), atol=1.1) and torch.allclose(
            opinion.sum(1), (100 * seconds).ceil(), atol=1.1
        )


def test_a_stage_does_not_go_on_under_another_teacher(train):
    train(arms=["kdcl"], frames=[100, 20], number_of_epochs=1)
    with pytest.raises(
        CheckpointError, match="was trained with teacher [0-9a-f]{16}, this run has teacher [0-9a-f]{16}: .*remove the folder"
    ):
        train(arms=["kdcl"], frames=[100, 20], number_of_epochs=4)


@pytest.mark.parametrize(
    "theirs, message",
    [
        ({"classes": 35}, "the teacher direct-100 has classes 35, its student 3: .*same classes"),
        ({"d_model": 24}, "the teacher direct-100 has width 24, its student 16"),
        ({"num_layers": 2}, r"the teacher direct-100 has \(\d+.*\) as encoder.model.layers.1.*, its student nothing"),
        ({"input_size": 140}, r"has \(16, 140, 3\) as encoder.model.embedding.conv.weight, its student \(16, 20, 3\)"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_with_both_numbers(theirs, message):
    sizes = {"classes": 3, "input_size": 20, **{k: v for k, v in theirs.items() if k in ("classes", "input_size")}}
    others = {k: v for k, v in theirs.items() if k not in sizes}
    parent = Trained("direct-100", 100, classifier(**others)(**sizes).state_dict(), 1)
    own = classifier()(input_size=20, classes=3)
    before = copy.deepcopy(own.state_dict())
    with pytest.raises(CheckpointError, match=message):
        distil.start_from(own, parent)
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_a_teacher_of_other_words_is_refused(hparams, prepared):
    values = hparams()
    parent = Trained("direct-100", 100, classifier()(input_size=20, classes=3).state_dict(), 1, labels="0123456789abcdef")
    with pytest.raises(CheckpointError, match="another order of them .digest 0123456789abcdef, its student [0-9a-f]{16}"):
        distil.begin(values, RUN, classify.make_recordings(values, prepared), Stage("kdcl", 20, 2, "direct-100", True), parent)


def test_equal_computation_by_hand():
    # 10 epochs of 3 x 100, then 20 of 3 x 40 + 100, then 20 of 3 x 20 + 40, in frames; 3 x 40 and 3 x 20 an epoch from scratch.
    assert distil.equal_epochs([100, 40, 20], 10, 20) == [round(7400 / 120), round(9400 / 60)]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frames": [100, 40, 40]}, "frames: .* stage 2 has 40 frames after 40"),
        ({"frames": [100]}, r"frames: \[100\] is a single stage"),
        ({"frames": 100}, r"frames: \[100\] is a single stage"),
        ({"arms": ["kdlc"]}, "arms: there is no 'kdlc'; there are kdcl, .*; did you mean kdcl"),
        ({"arms": "kdcl"}, "arms: 'kdcl' is no list"),
        ({"arms": []}, r"arms: \[\] is no list of arms"),
        ({"kd_epochs": 0}, "kd_epochs: 0 trains nothing"),
        ({"temperature": -1.0}, "temperature: -1.0 is not more than 0"),
        ({"train_splits": []}, "train_splits: is empty"),
    ],
)
def test_what_cannot_be_distilled_is_said_first(hparams, changes, message):
    with pytest.raises(keys.RecipeError, match=message):
        distil.check(hparams(**changes))


def test_every_key_that_is_read_is_declared_and_the_reverse():
    from test_classify import read_keys

    found = set(read_keys(distil))
    assert found <= distil.KEYS | run.KEYS
    assert distil.KEYS - classify.KEYS - set(distil.LOSS) <= found
