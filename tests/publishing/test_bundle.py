"""Runs become bundles: the network is the one that was evaluated, in every task; written whole or not at all, proved in a fresh process."""

import copy
import json

import pytest
import ruamel.yaml
import torch
from proved import check_here
from speechbrain import Stage
from speechbrain.dataio.dataloader import make_dataloader

import spikebrain
from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.publishing import BundleError, bundle, contents, load, parts, proof
from spikebrain.training import looking
from spikebrain.training.scoring import Curve

NAMES = ["attention", "ctc", "keywords", "events", "identify", "verify"]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("publish")


@pytest.fixture(scope="module")
def brain_of(run_of, results_of):
    """(name) -> the Brain of that run, with the weights that were evaluated, and a batch of what it reports."""
    made = {}

    def reopen(name):
        if name not in made:
            brain = looking.reopened(run_of(name), results_of(name), looking.TASKS)
            torch.nn.ModuleDict(brain.parts).eval()
            (batch, *_) = make_dataloader(list(brain.data.tests.values())[-1], **brain.data.eval_loader)
            made[name] = brain, batch
        return made[name]

    return reopen


@torch.no_grad()
def said_by(brain, task, batch):
    """What a Brain itself computes, under the names of ``Model.outputs``."""
    if task == "asr":
        x, lengths = brain.features(*batch.sig)
        said = brain.recognise(*brain.parts["frontend"](x, lengths))
        return {"ctc": said.ctc, "encoded": said.encoded, "lengths": said.lengths}
    found = brain.compute_forward(batch, Stage.TEST)
    return {"classify": {"votes": found}, "verify": {"embedding": found}}.get(task) or {"logits": brain.named(found)}


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_says_what_the_run_said(name, brain_of, model_of):
    brain, batch = brain_of(name)
    model = model_of(name)
    brain.hparams.epoch_counter.current = 99  # a run that has ended measures no statistics any more
    expected, found = said_by(brain, model.task, batch), model.outputs(*batch.sig)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not any(p.requires_grad for p in model.network.parameters()) and not model.network.training


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_gives_what_each_file_alone_gives(name, model_of):
    model = model_of(name)
    wavs, _ = proof.made_input(model)
    samples = torch.tensor([wavs.shape[1], wavs.shape[1] * 7 // 10])
    together = proof.run(model, frames.zero_past(wavs, samples), frames.relative(samples, wavs.shape[1]))
    padding = (~frames.valid(samples, wavs)).reshape(2, -1, *(1,) * (wavs.dim() - 2))
    louder = frames.zero_past(wavs, samples) + padding  # whatever lies in the padding
    also = proof.run(model, louder, frames.relative(samples, wavs.shape[1]))
    for row, number in enumerate(samples.tolist()):
        alone = proof.run(model, wavs[row : row + 1, :number], torch.ones(1))
        for key in alone.keys() - {"lengths"}:
            own, most = _own(key, together, row), 1e-5 if key == "attention" else 1e-9  # which is float32
            assert torch.allclose(alone[key][0], own, rtol=0, atol=most), key
            assert torch.allclose(own, _own(key, also, row), rtol=0, atol=most), key


def _own(key, outputs, row):
    """An utterance's own part of a batch of outputs: its frames, where there are some."""
    if key not in ("ctc", "encoded"):
        return outputs[key][row]
    return outputs[key][row, : int(frames.absolute(outputs["lengths"], outputs[key])[row])]


def test_the_proof_hears_every_weight_of_a_recogniser(model_of):
    model = model_of("attention")
    wavs, lengths = proof.made_input(model)
    stored = proof.run(model, wavs, lengths)
    assert stored["attention"].shape == (2, proof.STEPS, 40)
    for name in ("frontend.conv_1", "Transformer.decoder.layers.0.pos_ffn.ffn.0", "ctc_lin.w", "seq_lin.w"):
        changed = copy.deepcopy(model.network)
        with torch.no_grad():
            changed.get_submodule(name).weight *= 1.01
        found = proof.run(type(model)(model.config, changed, model.pieces), wavs, lengths)
        assert any(float((found[key] - stored[key]).abs().max()) > proof.allowed(stored[key]) for key in stored), name


def test_a_network_that_spikes_is_published(model_of):
    model, seen = model_of("attention"), []
    for module in model.network.modules():
        if type(module).__name__ == "MultiLevelSpike":
            seen.append(int((module.state_dict() and next(iter(module.state_dict().values()))).count_nonzero()))
    assert seen and any(seen)  # the largest value that a neuron saw in training, 0 for none: they were trained


def test_the_tool_publishes_in_a_fresh_process_and_overwrites_nothing(tool, run_of, tmp_path, capsys):
    assert tool.main([str(run_of("keywords")), str(tmp_path / "out"), "--licence=MIT", "--statement=Three tones."]) == 0
    assert "gives the run's outputs to the bit" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"README.md", "bundle.json", "model.safetensors", "proof.safetensors", "results.json"}
    config = json.loads((tmp_path / "out" / "bundle.json").read_text())
    assert (config["licence"], config["data"], config["labels"]) == ("MIT", "Three tones.", ["no", "one", "yes"])
    assert str(tmp_path.parent) not in "".join((tmp_path / "out" / name).read_text() for name in ("bundle.json", "README.md"))
    before = (tmp_path / "out" / "bundle.json").read_bytes()
    assert tool.main([str(run_of("keywords")), str(tmp_path / "out")]) == 1
    assert "out: is there: name another folder, or remove it" in capsys.readouterr().err
    assert (tmp_path / "out" / "bundle.json").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def broken(bundle_of):
    """What ``bundle.write`` takes of a bundle one of whose weights has another sign."""
    folder = bundle_of("keywords")
    config = json.loads((folder / "bundle.json").read_text())
    files = {name: (folder / name).read_bytes() for name in config["files"]}
    files["model.safetensors"] = files["model.safetensors"][:-1] + bytes([files["model.safetensors"][-1] ^ 0x80])
    return {key: value for key, value in config.items() if key not in ("format", "files", "seal")}, files


def test_a_bundle_that_gives_something_else_is_not_written(broken, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(proof, "check_afresh", check_here)
    with pytest.raises(BundleError, match="is not written"):
        bundle.write(tmp_path / "out", *broken)
    assert "output.votes: the network's are up to" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_bundle_that_a_fresh_process_finds_different_is_not_written(broken, tmp_path):
    with pytest.raises(BundleError, match=r"is not written: proof: .*output.votes: the network's are up to"):
        bundle.write(tmp_path / "out", *broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_every_task_in_a_fresh_process(name, bundle_of):
    proof.check_afresh(bundle_of(name))


def test_further_seeds_are_on_the_card(run_of, results_of, tmp_path, tool, capsys):
    for name, key in (("keywords", "metrics"), ("distilled", "stages")):
        results = results_of(name)
        (tmp_path / "2.json").write_text(json.dumps({**results, "seed": 2}))
        assert tool.main([str(run_of(name)), str(tmp_path / name), "--seeds", str(tmp_path / "2.json")]) == 0
        assert "| 2 seeds, mean ± standard deviation |" in (tmp_path / name / "README.md").read_text()
        other = {"metrics": {"test": {"loss": 1.0}}, "stages": results.get("stages", ())[:1]}[key]
        (tmp_path / "3.json").write_text(json.dumps({**results, "seed": 3, key: other}))
        assert tool.main([str(run_of(name)), str(tmp_path / "out"), "--seeds", str(tmp_path / "3.json")]) == 1
        said = {"stages": "3.json: stage: kdcl-20 is none that was trained", "metrics": "seeds: one is of the splits and metrics "}
        assert said[key] in capsys.readouterr().err
    words = [str(run_of("distilled")), str(tmp_path / "40"), "--stage=direct-40", "--seeds", str(tmp_path / "2.json")]
    assert tool.main(words) == 0 and "| 2 seeds, mean ± standard deviation |" in (tmp_path / "40" / "README.md").read_text()
    assert tool.main([str(run_of("keywords")), str(tmp_path / "out"), "--seeds", str(tmp_path / "4.json")]) == 1
    assert "4.json: no such file" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_stage_of_a_distillation(run_of, results_of, tmp_path, bundle_of):
    model = load(bundle_of("distilled"), check=True)
    assert (model.task, model.network["features"].frames) == ("classify", 20)
    stages = {row["name"]: row for row in results_of("distilled")["stages"]}
    assert {name: row["frames"] for name, row in stages.items()} == {"direct-40": 40, "kdcl-20": 20}
    kept = torch.load(next((run_of("distilled") / "kdcl-20" / "save").glob("CKPT*/model.ckpt")), weights_only=True)
    state = model.network["classifier"].state_dict()
    assert kept.keys() == state.keys() and all(torch.equal(kept[key], state[key]) for key in state)
    with pytest.raises(looking.LookingError, match="stage: kdcl-10 is none that was trained: choose one of direct-40, kdcl-20"):
        bundle.make(run_of("distilled"), tmp_path / "out", stage="kdcl-10")
    with pytest.raises(looking.LookingError, match="stage: kdcl-20, but a run of the task classify has none"):
        bundle.make(run_of("keywords"), tmp_path / "out", stage="kdcl-20")


def test_a_folder_that_is_no_run(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path), str(tmp_path / "out")]) == 1
    assert "results.json: no such file: name the output_folder of a run that has ended" in capsys.readouterr().err


def test_of_verification_the_threshold_is_where_errors_are_equal(model_of, brain_of):
    model = model_of("verify")
    decoding = model.decoding
    assert decoding["threshold_of"] == "vox1-o" and -1 <= decoding["threshold"] <= 1
    brain, _ = brain_of("verify")  # the recipe subtracts the mean of the trials; a bundle that of training
    assert model.centre.shape == (8,) and torch.equal(model.centre, brain.cohort[0].double().mean(0).float())
    scores = torch.tensor([-0.5, 0.1, 0.2, 0.3, 0.6, 0.8])
    same = torch.tensor([False, False, True, False, True, True])
    threshold = bundle._threshold(scores, Curve.of(scores, same))
    accepted = scores > threshold
    assert int((accepted & ~same).sum()) == int((~accepted & same).sum()) == 1


def test_pieces_say_what_sentencepiece_says(run_of, model_of):
    for name in ("attention", "ctc"):
        tokenizer, model = tokens.load(run_of(name) / "save" / "tokenizer.model"), model_of(name)
        assert len(model.pieces) == len(tokenizer) and model.text([]) == ""
        generator = torch.Generator().manual_seed(1)
        for size in range(300):
            ids = torch.randint(len(tokenizer), (size % 15,), generator=generator).tolist()
            assert model.text(ids) == tokenizer.decode_ids(ids)
        assert model.text([len(tokenizer)]) == ""  # an output beyond the vocabulary
    assert model_of("ctc").text(tokenizer.encode_as_ids("ONE TWO")) == "ONE TWO"


class Bytes:
    """A tokenizer whose last piece is a byte."""

    def __len__(self):
        return 4

    def is_control(self, number):
        return number in (tokens.BOS, tokens.EOS)

    def id_to_piece(self, number):
        return ["<unk>", "<s>", "</s>", "<0x41>"][number]

    def decode_ids(self, ids):
        return "".join([" ⁇ ", "", "", "A"][number] for number in ids)


def test_pieces_that_are_bytes_are_refused():
    with pytest.raises(BundleError, match=r"tokenizer: ids \[3\] are 'A', their pieces '<0x41>'"):
        bundle.pieces_of(Bytes())


@pytest.mark.parametrize(
    "yaml, said",
    [
        ("a: !new:os.system\n    input_size: 3", "a is built by os.system, which is no part that can be published"),
        ("a: !new:spikebrain.lobes.SpikingClassifier\n    encoder: !name:os.system", "a/encoder is os.system, which is no plain value"),
        ("a: !new:speechbrain.nnet.linear.Linear 5", "a has arguments without names: name them"),
        ("a: 5", "a is built by nothing"),
    ],
)
def test_what_no_bundle_can_say(yaml, said):
    tree = ruamel.yaml.YAML().load(yaml)
    with pytest.raises(BundleError, match=said):
        bundle._node(tree["a"], "a", {}, None)


def test_a_language_model_is_not_in_a_bundle(brain_of):
    brain, _ = brain_of("attention")
    changed = {"lm_folder": "somewhere", "lm_weight": 0.6}
    hparams = type(brain.hparams)(**{**vars(brain.hparams), **changed})
    with pytest.raises(BundleError, match="lm_folder: the run was decoded with a language model of weight 0.6"):
        bundle._asr_decoding(type("Brain", (), {"hparams": hparams}))


def test_a_diverged_run_is_refused(brain_of):
    brain, _ = brain_of("keywords")
    config = {"task": "classify", "network": {"classifier": None}, "sample_rate": None, "decoding": {}}
    weight = brain.parts["classifier"].head.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    try:
        with pytest.raises(BundleError, match="classifier.head.weight holds NaN or infinite values, as 1 tensors do: the run has diverged"):
            bundle._model(brain, config)
    finally:
        weight.data.copy_(kept)


def test_the_front_door(bundle_of):
    assert repr(spikebrain.load(bundle_of("keywords"))) == "Model(classify: spikescr_mini on GSC)"


def test_every_name_is_of_a_part_that_some_task_may_have():
    used = {name for network in parts.NETWORKS.values() for allowed in network.values() for name in allowed}
    assert used == set(parts.PARTS)
    paths = [path for part in parts.PARTS.values() for path in part.paths]
    assert len(set(paths)) == len(paths)
    assert contents.DECODING.keys() == parts.NETWORKS.keys()
