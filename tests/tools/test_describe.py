"""``tools/describe.py``: exact published sizes, any recipe without data, and no file left behind."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(ROOT.glob("recipes/*/hparams/*.yaml"))
RECIPES = [path for path in RECIPES if path.parent.parent.name != "shared" and path.stem != "regression"]  # which is no network


def run(*arguments, folder):
    command = [sys.executable, str(ROOT / "tools" / "describe.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.fixture(scope="module")
def describe(load_tool):
    return load_tool("describe")


@pytest.mark.parametrize(
    "size, with_bias, without",
    [
        ("iml_spikeformer_aishell_12", 30_351_890, 30_345_746),
        ("iml_spikeformer_aishell_24", 46_132_754, 46_120_466),
        ("iml_spikeformer_aishell_36", 61_913_618, 61_895_186),
        ("iml_spikeformer_librispeech_18", 99_364_624, 99_346_192),
    ],
)
def test_published_sizes(describe, capsys, size, with_bias, without):
    for bias, total in ((True, with_bias), (False, without)):
        describe.main(["--size", size, f"--qk_bias={bias}"])
        parameters = json.loads(capsys.readouterr().out)["parameters"]
        assert parameters["total"] == parameters["trainable"] == sum(parameters["by_module"].values()) == total


@pytest.mark.parametrize(
    "size, changes, total",
    [
        ("spikescr_shd_1l_8_128", [], 261_632),
        ("spikescr_shd_1l_8_128", ["--gate=False"], 228_096),
        ("spikescr_shd_1l_8_128", ["--convolution=False"], 157_056),
        ("spikescr_1l_16_256", [], 1_709_824),
        ("spikescr_1l_16_256", ["--gate=False"], 1_577_216),
        ("spikescr_1l_16_256", ["--convolution=False"], 909_312),
        ("spikescr_2l_16_256", [], 3_302_400),
    ],
)
def test_published_sizes_of_spikescr(describe, capsys, size, changes, total):
    describe.main(["--size", size, *changes])
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    assert parameters["total"] == parameters["trainable"] == sum(parameters["by_module"].values()) == total


def test_an_unknown_change_is_one_line_that_names_the_nearest(describe):
    with pytest.raises(SystemExit, match="no option 'gates'; did you mean gate"):
        describe.main(["--size", "spikescr_1l_16_256", "--gates=False"])


def test_sizes_are_published_with_biases(describe, capsys):
    describe.main(["--size", "iml_spikeformer_aishell_12"])
    assert json.loads(capsys.readouterr().out)["qk_bias"] is True


@pytest.mark.parametrize("path", RECIPES, ids=[f"{path.parent.parent.name}-{path.stem}" for path in RECIPES])
def test_every_recipe_is_described_without_data(describe, capsys, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    describe.main([str(path), *(["--channels=768"] if "ssl_folder" in path.read_text() else [])])
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    assert parameters["total"] == sum(parameters["by_module"].values()) > 0
    asr = {"frontend", "Transformer"}
    wanted = {"LibriSpeech": asr, "AISHELL-1": asr, "VoxCeleb": {"embedding_model"}}.get(path.parent.parent.name, {"classifier"})
    assert wanted <= set(parameters["by_module"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, total", [("identification", 594_816 + 81 * 128), ("verification", 11_116_096)])
def test_the_recipes_of_speakers_have_the_published_count(describe, capsys, name, total):
    """With all biases, which the published tables count; identification's with its projection of 80 bands to 128 channels."""
    describe.main([str(ROOT / "recipes" / "VoxCeleb" / "hparams" / f"iml_spikeformer_{name}.yaml")])
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == total


@pytest.mark.parametrize("corpus, total", [("SHD", 261_632), ("SSC", 1_709_824), ("GSC", 1_709_824)])
def test_the_recipes_of_spikescr_have_the_published_count(describe, capsys, corpus, total):
    for name in ("spikescr", "spikescr_kdcl"):
        describe.main([str(ROOT / "recipes" / corpus / "hparams" / f"{name}.yaml")])
        assert json.loads(capsys.readouterr().out)["parameters"]["total"] == total


@pytest.mark.parametrize(
    "name, options, total, trainable",
    [
        ("pts_snn", [], 1_194_009, 1_194_008),  # five decays, of which that of the single-step layer is frozen
        ("pts_snn", ["--encoder_kwargs={block_norm: none}"], 1_192_473, 1_192_472),
        ("linear_head", [], 197_892, 197_892),
        ("vanilla_snn", [], 197_892, 197_892),
    ],
)
def test_the_recipes_of_iemocap_have_the_published_count(describe, capsys, name, options, total, trainable):
    describe.main([str(ROOT / "recipes" / "IEMOCAP" / "hparams" / f"{name}.yaml"), "--channels=768", *options])
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    assert (parameters["total"], parameters["trainable"]) == (total, trainable)


@pytest.mark.parametrize("name", ["iml_spikeformer", "transformer"])
def test_the_full_size_recipes_have_the_published_count(describe, capsys, name):
    path = ROOT / "recipes" / "LibriSpeech" / "hparams" / f"{name}.yaml"
    describe.main([str(path)])
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == 99_364_624


def test_overrides_change_what_is_built(describe, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        "data_folder: !PLACEHOLDER\n"
        "width: 3\n"
        "log: !new:speechbrain.utils.train_logger.FileTrainLogger\n"
        "    save_file: !ref <data_folder>/log.txt\n"
        "layer: !new:torch.nn.Linear\n"
        "    in_features: !ref <width>\n"
        "    out_features: 5\n"
        "modules:\n"
        "    layer: !ref <layer>\n"
        "    same: !ref <layer>\n"
    )
    assert describe.recipe(path, {})["parameters"] == {"total": 20, "trainable": 20, "by_module": {"layer": 20}}
    assert describe.recipe(path, {"width": 7})["parameters"]["total"] == 40
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.yaml"]


def test_a_module_that_cannot_be_built_without_memory_is_built_with_it(describe):
    import torch

    def build():
        weight = torch.ones(3)
        return torch.nn.Linear(int(weight.sum()), 2)

    assert describe._without_memory(build).weight.shape == (2, 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["no.yaml"], "no.yaml: no such file"),
        (["--size", "iml_spikeformer_aishell_13"], "; did you mean iml_spikeformer_aishell_"),
        ([ROOT / "recipes/GSC/hparams/spikescr.yaml", "--d_modle=3"], "has no such key; did you mean d_model?"),
        ([ROOT / "recipes/GSC/hparams/spikescr.yaml", "--chanels=3"], "has no such key"),
        ([ROOT / "recipes/IEMOCAP/hparams/pts_snn.yaml"], "ssl_folder has no value, and its model's channels are read: pass --ssl_folder"),
    ],
)
def test_bad_arguments_end_in_one_line(describe, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        describe.main([str(word) for word in arguments])
    assert message in ended.value.code and len(ended.value.code.splitlines()) == 1
    assert capsys.readouterr().out == ""


def test_the_command_line_is_fast_and_prints_json_alone(tmp_path):
    began = time.monotonic()
    ended = run(ROOT / "recipes" / "LibriSpeech" / "hparams" / "transformer.yaml", "--d_model=32", "--nhead=2", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["parameters"]["total"] > 0
    assert time.monotonic() - began < 60 and list(tmp_path.iterdir()) == []
