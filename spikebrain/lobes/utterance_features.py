"""Features of whole utterances, one at a time, behind one interface: filter banks, speech models of Hugging Face, emotion2vec.

    extractor: !new:spikebrain.lobes.utterance_features.HuggingFace
        folder: !ref <ssl_folder>

A frozen model's features of an utterance depend on the padding beside it: its waveform is normalised over all samples given, and
its convolutions see the zeros. So an extractor takes one utterance and no batch; :class:`spikebrain.data.feature_cache.FeatureCache`
keeps what it gives, and training reads that.
"""

import contextlib
import hashlib
import json
import os
import random

import numpy as np
import torch

from spikebrain.lobes.features import LogMel

# In config.json, but nothing that features depend on.
_NOTES = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
# What masked frames are replaced by in training: the one weight that published checkpoints lack, and that evaluation never reads.
_MASK = "masked_spec_embed"
# The decoder of emotion2vec's pre-training: not in the released weights, and not used for features.
_DECODER = ".decoder."
# What Hugging Face calls the models that SpeechBrain's wrappers load.
_KINDS = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")


class UtteranceFeatures(torch.nn.Module):
    """What every extractor is: a frozen map from the samples of one utterance to its frames.

    It stays in evaluation mode: ``train()`` is without effect on it, and each call puts its parts back, whoever has switched them.
    No parameter asks for a gradient, and generators of random numbers are left as they were. Results are float32, under autocast too.

    Arguments
    ---------
    channels : int
        C.
    hop : int
        Samples from one frame to the next.
    shortest : int
        Samples that one frame needs.
    sample_rate : int
        Hz.

    Attributes
    ----------
    sample_rate, channels, shortest : int
    frames_per_second : float
    fingerprint : str
        Hash of the weights and of all options that features depend on, as they were when it was built.
    """

    fingerprint = ""

    def __init__(self, channels, hop, shortest, sample_rate=16000):
        super().__init__()
        self.sample_rate, self.channels, self.shortest = sample_rate, channels, shortest
        self.frames_per_second = sample_rate / hop
        self.register_buffer("place", torch.empty(0), persistent=False)  # knows the device, also where there is no weight

    def train(self, mode=True):
        """Stays in evaluation mode, whatever ``mode`` says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, samples):
        """Features of one utterance.

        Arguments
        ---------
        samples : Tensor (S,)
            In [-1, 1], at ``sample_rate``.

        Returns
        -------
        Tensor (L, channels), float32, on the device of ``samples``.

        Raises
        ------
        ValueError
            A batch, numbers that are not float, or fewer samples than one frame needs.
        """
        self._check(samples)
        self.eval()
        # Some models draw a number for each block that they would drop in training: a run must not depend on what was cached.
        with torch.autocast(self.place.device.type, enabled=False), _undisturbed():
            return self.extract(samples.to(self.place.device, torch.float32)).to(samples.device, torch.float32)

    def extract(self, samples):
        """Frames (L, channels) of the samples (S,)."""
        """Samples (S,), checked and on the module's device -> (L, channels); what a subclass is made of."""
        raise NotImplementedError

    def _check(self, samples):
        if samples.dim() != 1 or not samples.is_floating_point():
            what = f"{samples.dtype} of shape {tuple(samples.shape)}"
            raise ValueError(f"samples are {what}: pass the float samples (S,) of one utterance, since padding changes features")
        if len(samples) < self.shortest:
            has, needs = (f"{n} samples ({n / self.sample_rate:.4f} s)" for n in (len(samples), self.shortest))
            raise ValueError(f"an utterance of {has} gives no frame, which needs {needs}: leave it out")


class Fbank(UtteranceFeatures):
    """Log-mel energies in dB: :class:`spikebrain.lobes.features.LogMel`. They need no model, and keep the level of a recording.

    Arguments
    ---------
    n_mels, sample_rate, n_fft, win_length, hop_length, f_min, f_max
        As for LogMel.
    """

    def __init__(self, n_mels=80, sample_rate=16000, n_fft=400, win_length=25, hop_length=10, f_min=0, f_max=None):
        options = {"n_fft": n_fft, "n_mels": n_mels, "win_length": win_length, "hop_length": hop_length, "f_min": f_min, "f_max": f_max}
        mel = LogMel(sample_rate=sample_rate, **options)
        super().__init__(n_mels, mel.hop, 1, sample_rate)
        self.mel = mel
        self.fingerprint = _fingerprint({"features": "fbank", "sample_rate": sample_rate, **options})
        self.eval()

    def extract(self, samples):
        """Frames (L, channels) of the samples (S,)."""
        return self.mel(samples.unsqueeze(0))[0][0]


class HuggingFace(UtteranceFeatures):
    """A frozen wav2vec2, HuBERT, WavLM or data2vec-audio model in a folder, through SpeechBrain's wrapper; 16 kHz, 50 frames a second.

    Arguments
    ---------
    folder : str
        As ``save_pretrained`` writes it, and as it is on the hub: config.json, preprocessor_config.json and the weights. Nothing
        is downloaded.
    layer : int, optional
        None: what the model returns. Else the hidden state n, 0 being the input of the first block. In models that normalise before
        each block (``do_stable_layer_norm``, most large ones) the states are those without the norm that ends the network; only
        the number of blocks, which is the same as None, has it.

    Notes
    -----
    Where the model's preprocessor asks for it, SpeechBrain normalises the waveform of the utterance with an epsilon of 1e-5 beside
    its variance, Hugging Face itself with 1e-7: very quiet recordings (below about -50 dB) differ between the two.

    Raises
    ------
    ValueError
        No folder, a file of it is missing, a kind of model that is none of the four, a layer that is not there, or weights that do
        not fill the model (which transformers would draw at random).
    ImportError
        transformers is not installed, naming the extra.
    """

    def __init__(self, folder, layer=None):
        config = _read_config(folder)
        with _undisturbed():
            model = _load_wrapper(folder, config["model_type"])
        hop, shortest = _receptive_field(model.model.config)
        super().__init__(model.model.config.hidden_size, hop, shortest)
        self.layer = _check_layer(layer, model.model.config.num_hidden_layers)
        model.output_all_hiddens = self.layer is not None
        self.model = model
        config = {key: value for key, value in config.items() if key not in _NOTES}
        options = {"features": "hugging face", "layer": self.layer, "normalize": model.normalize_wav, "config": config}
        weights = {name: weight for name, weight in model.state_dict().items() if not name.endswith(_MASK)}
        self.fingerprint = _fingerprint(options, weights)
        self.requires_grad_(False).eval()

    def extract(self, samples):
        """Frames (L, channels) of the samples (S,)."""
        out = self.model(samples.unsqueeze(0))
        return out[0] if self.layer is None else out[self.layer, 0]


class Emotion2Vec(UtteranceFeatures):
    """The last layer of a frozen emotion2vec, through funasr; 16 kHz, 50 frames a second.

    emotion2vec (Z. Ma et al., arXiv 2312.15185) normalises the waveform over the utterance and puts 10 tokens before the frames, which
    funasr takes away again when it is asked for frames. It is no model of transformers.

    Arguments
    ---------
    model : str
        A folder, or a name on the hub, which funasr downloads: "iic/emotion2vec_base" on "ms" (ModelScope),
        "emotion2vec/emotion2vec_base" on "hf" (Hugging Face).
    hub : str
        "ms" or "hf".

    Notes
    -----
    funasr seeds all generators and sets the number of threads when it builds a model; here both are as they were. It also goes on with
    random weights where a checkpoint lacks some: here the model is built twice, with two seeds, and the two must agree.

    Raises
    ------
    ImportError
        funasr is not installed, saying how to install it.
    ValueError
        funasr cannot load the model, or its weights are not all in the checkpoint.
    """

    def __init__(self, model="iic/emotion2vec_base", hub="ms"):
        with _undisturbed():
            built = _load_emotion2vec(model, hub, seed=0)
            other = _load_emotion2vec(model, hub, seed=1)
        _require_equal(model, built.model.state_dict(), other.model.state_dict())
        super().__init__(built.model.cfg["embed_dim"], 320, 400)
        self.runner, self.model = built, built.model
        weights = {name: weight for name, weight in built.model.state_dict().items() if _DECODER not in name}
        self.fingerprint = _fingerprint({"features": "emotion2vec", "config": str(built.model.cfg)}, weights)
        self.requires_grad_(False).eval()

    def extract(self, samples):
        """Frames (L, channels) of the samples (S,)."""
        place, wav = str(samples.device), samples.cpu().numpy()
        # Without a key funasr would draw one from Python's generator.
        (result,) = self.runner.generate(wav, granularity="frame", key="utterance", device=place)
        return torch.from_numpy(result["feats"])


def _fingerprint(options, weights=None):
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode("utf-8"))
    for name, weight in sorted((weights or {}).items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def _undisturbed():
    """Whatever is drawn or seeded inside, all generators go on outside as if it had not been, with as many threads."""
    python, array, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _read_config(folder):
    """config.json of a model's folder as a dict, once the folder is checked."""
    if not os.path.isdir(folder):
        fetch = f"hf download facebook/wav2vec2-base --local-dir {folder}"
        raise ValueError(f"folder: {folder} is no folder, and no model is downloaded here: fetch one first, for example with {fetch}")
    _require_files(folder)
    config = _read_json(os.path.join(folder, "config.json"))
    if config.get("model_type") not in _KINDS:
        raise ValueError(f"{folder}: its model_type is {config.get('model_type')!r}: use one of {', '.join(_KINDS)}")
    if config.get("add_adapter"):
        raise ValueError(f"{folder}: the model has an adapter, which changes its frame rate: use one with add_adapter: false")
    return config


def _require_files(folder):
    there = set(os.listdir(folder))
    missing = [name for name in ("config.json", "preprocessor_config.json") if name not in there]
    if not any(name.endswith((".safetensors", ".bin")) for name in there):
        missing.append("weights (*.safetensors or *.bin)")
    if missing:
        hint = "; this looks like emotion2vec, which Emotion2Vec reads" if "config.yaml" in there else ""
        raise ValueError(f"{folder}: lacks {', '.join(missing)}: fetch the whole model again{hint}")


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}; {os.path.getsize(path)} bytes): fetch the model again") from error


def _wrappers():
    """model_type -> SpeechBrain's wrapper of such models."""
    from speechbrain.integrations.huggingface import hubert, wav2vec2, wavlm

    return dict(zip(_KINDS, (wav2vec2.Wav2Vec2, hubert.HuBERT, wavlm.WavLM, wav2vec2.Wav2Vec2)))


def _load_wrapper(folder, kind):
    """SpeechBrain's wrapper of the model in ``folder``, frozen, in float32."""
    try:
        from transformers import AutoModel

        wrapper = _wrappers()[kind]
    except ImportError as error:
        raise ImportError(f"models of Hugging Face need transformers ({error}): pip install spikebrain[ssl]") from error
    missing = AutoModel.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"]
    absent = sorted(name for name in missing if not name.endswith(_MASK))
    if absent:
        raise ValueError(
            f"{folder}: the weights lack {len(absent)} entries of the model, the first is {absent[0]}, and they would be drawn at random: "
            f"fetch the weights that belong to its config.json ({kind}) again"
        )
    return wrapper(folder, save_path=folder, freeze=True).float()


def _receptive_field(config):
    """(samples from frame to frame, samples that one frame needs) of unpadded convolutions."""
    hop, shortest = 1, 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        hop, shortest = hop * stride, (shortest - 1) * stride + kernel
    return hop, shortest


def _check_layer(layer, blocks):
    """``layer``, with the last one as None."""
    if layer is not None and layer not in range(blocks + 1):
        raise ValueError(f"layer: {layer} is not there, the model has {blocks} blocks: choose 0 (before them) to {blocks}, or null")
    return None if layer == blocks else layer


def _load_emotion2vec(model, hub, seed):
    """funasr's runner of an emotion2vec, on the CPU."""
    try:
        from funasr import AutoModel
    except ImportError as error:
        raise ImportError(
            f"emotion2vec needs funasr ({error}): pip install funasr; or use features that were extracted elsewhere "
            "(spikebrain.data.emotion2vec_files)"
        ) from error
    quiet = {"disable_update": True, "disable_pbar": True, "log_level": "WARNING"}
    try:
        return AutoModel(model=model, hub=hub, device="cpu", ncpu=torch.get_num_threads(), seed=seed, **quiet)
    except (AssertionError, OSError, RuntimeError) as error:
        raise ValueError(
            f"model: funasr cannot load {model!r} from hub {hub!r} ({error}): give a folder with config.yaml and the weights, "
            "iic/emotion2vec_base with hub: ms, or emotion2vec/emotion2vec_base with hub: hf"
        ) from error


def _require_equal(model, state, other):
    drawn = sorted(name for name, weight in state.items() if _DECODER not in name and not torch.equal(weight, other[name]))
    if drawn:
        raise ValueError(
            f"{model}: {len(drawn)} weights are not in the checkpoint and were drawn at random, the first is {drawn[0]}: "
            "fetch the model again"
        )
