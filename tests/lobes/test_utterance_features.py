"""Extractors of whole utterances: frames by formula, frozen whatever is done to them, and a fingerprint of all that they depend on."""

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tiny_models
import torch
from torch.nn.functional import layer_norm, pad

from spikebrain.lobes.utterance_features import Emotion2Vec, Fbank, HuggingFace

KINDS = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> folder of a tiny model of each kind, and of a wav2vec2 that normalises before its blocks."""
    pytest.importorskip("transformers", reason="needs the ssl extra")
    place = tmp_path_factory.mktemp("models")
    made = {kind: tiny_models.save(place / kind, tiny_models.build(kind)) for kind in KINDS}
    made["large"] = tiny_models.save(place / "large", tiny_models.build("wav2vec2", **tiny_models.LARGE))
    return made


@pytest.fixture(scope="module")
def built(folders):
    """Name -> extractor, built once."""
    return {"fbank": Fbank(), **{name: HuggingFace(folder) for name, folder in folders.items()}}


@pytest.fixture(params=["fbank", *KINDS, "large"])
def extractor(request, built):
    yield built[request.param]
    built[request.param].train()


def sound(samples=8000, seed=0):
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def changed(folder, place, name="config.json", **values):
    """A copy of a model's folder with other values in one of its JSON files."""
    shutil.copytree(folder, place)
    path = Path(place, name)
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return str(place)


def reference(folder, samples, layer=None):
    """What transformers itself gives for the normalised waveform."""
    from transformers import AutoModel

    with torch.no_grad():
        out = AutoModel.from_pretrained(folder).eval()(layer_norm(samples, samples.shape).unsqueeze(0), output_hidden_states=True)
    return (out.last_hidden_state if layer is None else out.hidden_states[layer])[0]


@pytest.mark.parametrize("samples", [400, 719, 720, 8000, 16000])
def test_frames_are_those_of_the_formula(extractor, samples):
    features = extractor(sound(samples))
    expected = 1 + samples // 160 if isinstance(extractor, Fbank) else 1 + (samples - 400) // 320
    assert features.shape == (expected, extractor.channels) and features.dtype == torch.float32 and features.isfinite().all()


def test_what_an_extractor_says_of_itself(built):
    said = {name: (e.channels, e.frames_per_second, e.shortest, e.sample_rate) for name, e in built.items()}
    assert said.pop("fbank") == (80, 100, 1, 16000)
    assert set(said.values()) == {(tiny_models.CHANNELS, 50, 400, 16000)}
    assert len({extractor.fingerprint for extractor in built.values()}) == len(built)


def test_training_mode_does_not_reach_it(extractor):
    x, before = sound(), extractor(sound())
    extractor.train()
    assert not any(part.training for part in extractor.modules()) and torch.equal(extractor(x), before)
    for part in extractor.modules():
        part.training = True  # as by .train() of a part that somebody holds
    assert torch.equal(extractor(x), before)
    torch.nn.ModuleDict({"extractor": extractor}).train()
    assert not any(part.training for part in extractor.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrapper_itself_is_not_as_frozen(built, kind):
    wrapper, x = built[kind].model, sound().unsqueeze(0)
    before = wrapper(x)
    wrapper.train()
    assert not torch.equal(wrapper(x), before)
    wrapper.eval()
    assert torch.equal(wrapper(x), before)


def generators():
    """The states of all that draws random numbers, as values that can be compared."""
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_nothing_is_learnt_and_no_number_is_drawn(extractor):
    before, x = generators(), sound().requires_grad_()
    assert not extractor(x).requires_grad and not any(weight.requires_grad for weight in extractor.parameters())
    assert generators() == before


def test_building_draws_no_number(folders):
    before = generators()
    HuggingFace(folders["wavlm"])
    assert generators() == before


def test_autocast_does_not_touch_features(extractor):
    with torch.autocast("cpu", torch.bfloat16):
        inside = extractor(sound())
    assert inside.dtype == torch.float32 and torch.equal(inside, extractor(sound()))


@pytest.mark.parametrize("samples", [0, 399])
def test_too_few_samples(built, samples):
    told = rf"{samples} samples \({samples / 16000:.4f} s\) gives no frame, which needs 400 samples \(0.0250 s\): leave it out"
    with pytest.raises(ValueError, match=told):
        built["hubert"](torch.zeros(samples))
    if not samples:
        with pytest.raises(ValueError, match="0 samples .* needs 1 samples"):
            built["fbank"](torch.zeros(0))


@pytest.mark.parametrize("wrong", [torch.zeros(2, 8000), torch.zeros(1, 8000), torch.zeros(8000, dtype=torch.int16)])
def test_one_utterance_of_float_samples(built, wrong):
    with pytest.raises(ValueError, match=r"pass the float samples \(S,\) of one utterance, since padding changes features"):
        built["wav2vec2"](wrong)


@pytest.mark.parametrize("name", [*KINDS, "large"])
@pytest.mark.parametrize("layer", [None, 0, 2, tiny_models.BLOCKS])
def test_features_are_those_of_the_model(folders, name, layer):
    features = HuggingFace(folders[name], layer)(sound())
    wanted = reference(folders[name], sound(), None if layer == tiny_models.BLOCKS else layer)
    torch.testing.assert_close(features, wanted, rtol=0, atol=1e-5)


def test_padding_would_change_features(built):
    x, wrapper = sound(), built["wav2vec2"].model
    padded = wrapper(pad(x, (0, 8000)).unsqueeze(0), torch.tensor([0.5]))[0]
    alone = built["wav2vec2"](x)
    assert not torch.allclose(padded[: len(alone)], alone, atol=0.01)


def test_the_waveform_is_normalised_only_where_the_model_asks_for_it(folders, tmp_path):
    plain = HuggingFace(changed(folders["wav2vec2"], tmp_path / "plain", "preprocessor_config.json", do_normalize=False))
    usual, x = HuggingFace(folders["wav2vec2"]), sound()
    assert plain.fingerprint != usual.fingerprint
    assert torch.allclose(usual(x), usual(2 * x), atol=1e-2) and torch.allclose(plain(layer_norm(x, x.shape)), usual(x), atol=1e-5)


def test_level_is_kept_by_filter_banks():
    quiet, loud = Fbank()(sound()), Fbank()(10 * sound())
    torch.testing.assert_close(loud, quiet + 20, rtol=0, atol=1e-3)


def test_filter_banks_of_other_options():
    usual = Fbank()
    assert Fbank().fingerprint == usual.fingerprint and torch.equal(Fbank()(sound()), usual(sound()))
    others = [Fbank(n_mels=40), Fbank(hop_length=20), Fbank(f_max=4000), Fbank(win_length=20), Fbank(sample_rate=8000)]
    assert len({usual.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert [other.frames_per_second for other in others] == [100, 50, 100, 100, 100]


def test_the_fingerprint_is_of_the_weights_and_not_of_the_files(folders, built, tmp_path):
    usual = built["wavlm"].fingerprint
    copied = changed(folders["wavlm"], tmp_path / "copy", transformers_version="0", _name_or_path="elsewhere", architectures=["X"])
    Path(copied, "README.md").write_text("read me")
    assert HuggingFace(copied).fingerprint == usual
    state = safetensors.torch.load_file(tiny_models.weights(copied))
    tiny_models.weights(copied).unlink()
    state.pop("masked_spec_embed")  # as in published checkpoints: transformers draws it, evaluation never reads it
    torch.save(state, Path(copied, "pytorch_model.bin"))
    again = HuggingFace(copied)
    assert again.fingerprint == usual and torch.equal(again(sound()), built["wavlm"](sound()))


def test_another_model_has_another_fingerprint(folders, built, tmp_path):
    seeded = tiny_models.save(tmp_path / "seeded", tiny_models.build("wavlm", seed=1))
    heads = changed(folders["wavlm"], tmp_path / "eps", layer_norm_eps=0.1)
    prints = {e.fingerprint for e in (built["wavlm"], HuggingFace(seeded), HuggingFace(heads), HuggingFace(folders["wavlm"], 1))}
    assert len(prints) == 4
    assert HuggingFace(folders["wavlm"], tiny_models.BLOCKS).fingerprint == built["wavlm"].fingerprint


def test_names_of_older_checkpoints(folders, built, tmp_path):
    # Published wav2vec2 weights call the two parts of a normalised weight so.
    older = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    copied = shutil.copytree(folders["wav2vec2"], tmp_path / "older")
    state = safetensors.torch.load_file(tiny_models.weights(copied))
    renamed = {name.replace(new, old): weight for name, weight in state.items() for new, old in older.items() if new in name}
    assert len(renamed) == 2
    state = {name: weight for name, weight in state.items() if not any(new in name for new in older)} | renamed
    safetensors.torch.save_file(state, tiny_models.weights(copied), {"format": "pt"})
    assert HuggingFace(str(copied)).fingerprint == built["wav2vec2"].fingerprint


def test_half_precision_weights_are_widened(tmp_path):
    folder = tiny_models.save(tmp_path / "half", tiny_models.build("hubert").half())
    features = HuggingFace(folder)(sound())
    assert features.dtype == torch.float32 and features.isfinite().all()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"facebook/wav2vec2 is no folder, and no model is downloaded here: fetch one .* hf download"):
        HuggingFace("facebook/wav2vec2")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"lacks config.json, preprocessor_config.json, weights .*emotion2vec, which Emotion2Vec reads"):
        HuggingFace(str(tmp_path))


def test_a_model_that_cannot_be_used(folders, tmp_path):
    def refused(place, match, **values):
        with pytest.raises(ValueError, match=match):
            HuggingFace(changed(folders["hubert"], tmp_path / place, **values))

    refused("whisper", "its model_type is 'whisper': use one of wav2vec2, hubert, wavlm, data2vec-audio", model_type="whisper")
    refused("adapter", "has an adapter, which changes its frame rate", add_adapter=True)
    Path(tmp_path / "adapter" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: is no JSON \(.*; 1 bytes\): fetch the model again"):
        HuggingFace(str(tmp_path / "adapter"))
    for layer in (-1, 4, "last"):
        with pytest.raises(ValueError, match=f"layer: {layer} is not there, the model has 3 blocks: choose 0 .* to 3, or null"):
            HuggingFace(folders["hubert"], layer)


def test_weights_that_do_not_fill_the_model(folders, tmp_path):
    deeper = changed(folders["hubert"], tmp_path / "deeper", num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"the weights lack 16 entries of the model, the first is encoder\.layers\.3\..* drawn at random"):
        HuggingFace(deeper)


def test_without_transformers(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"models of Hugging Face need transformers .*: pip install spikebrain\[ssl\]"):
        HuggingFace(folders["wav2vec2"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu(folders):
    extractor = HuggingFace(folders["wavlm"])
    here = extractor(sound())
    there = extractor.to("cuda")(sound())
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=0, atol=1e-3)


def test_without_funasr(monkeypatch):
    monkeypatch.setitem(sys.modules, "funasr", None)
    with pytest.raises(ImportError, match="emotion2vec needs funasr .*: pip install funasr; or use features that were extracted elsewhere"):
        Emotion2Vec("nowhere")


@pytest.fixture(scope="module")
def emotion2vec(tmp_path_factory):
    """The folder of a tiny emotion2vec with random weights."""
    pytest.importorskip("funasr", reason="needs funasr, which no extra installs")
    return tiny_models.save_emotion2vec(tmp_path_factory.mktemp("emotion2vec"))


def test_emotion2vec_through_funasr(emotion2vec):
    random.seed(3), torch.manual_seed(4), np.random.seed(5)
    before = generators(), torch.get_num_threads()
    extractor = Emotion2Vec(emotion2vec)
    x, features = sound(16000), extractor(sound(16000))
    assert (generators(), torch.get_num_threads()) == before
    assert features.shape == (49, 24) and (extractor.channels, extractor.frames_per_second) == (24, 50)
    with torch.no_grad():
        whole = extractor.model.extract_features(layer_norm(x, x.shape).unsqueeze(0), remove_extra_tokens=False)["x"][0]
    assert len(whole) == 59 and torch.equal(features, whole[10:])
    extractor.train()
    extractor.model.train()
    assert torch.equal(extractor(x), features) and not features.requires_grad
    assert Emotion2Vec(emotion2vec).fingerprint == extractor.fingerprint
    assert [len(extractor(sound(n))) for n in (400, 719, 720)] == [1, 1, 2]


def test_emotion2vec_with_weights_missing(emotion2vec, tmp_path):
    tiny_models.save_emotion2vec(tmp_path, without="blocks.1.attn")
    with pytest.raises(ValueError, match=r"4 weights are not in the checkpoint and were drawn at random, the first is blocks\.1\.attn"):
        Emotion2Vec(str(tmp_path))
    (tmp_path / "model.pt").unlink()
    with pytest.raises(ValueError, match="funasr cannot load .* from hub 'ms'"):
        Emotion2Vec(str(tmp_path))
