"""The proof that a bundle gives what the trained network gave: a stored input, and the stored outputs, in float64.

    python -m spikebrain.publishing.proof BUNDLE          # in a process of its own: bit-equal, or status 1 and a message

Publishing ends with it. The input is sound that is made, no recording: a bundle then holds nobody's voice, and no audio that a corpus's
licence keeps. In float64 the spikes of a network do not depend on the order in which a processor adds, so that the proof holds on other
machines too, where outputs agree to ``TOLERANCE``; on the machine that made it they are the same bits. Where the folder is one for
SpeechBrain's interfaces too, they are asked about the same input, and must say what the loaded network says.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import safetensors.torch
import torch

import spikebrain
from spikebrain import lengths as frames
from spikebrain.data import tokens
from spikebrain.publishing import contents, interfaces
from spikebrain.publishing.contents import AGAIN, PROOF
from spikebrain.publishing.load import Model, load
from spikebrain.publishing.parts import BundleError

SECONDS, SHARE = 1.0, 0.8  # of the input's two utterances: the length of the first, and of it that of the second
STEPS = 5  # of a decoder
FRAMES, RATE = 50, 0.2  # of event input: how many, and spikes a channel and frame
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}  # of outputs, relative to the largest one of their kind or to 1
MOST, LONGEST = 4, 10  # utterances, and seconds, of an input that is run
SEED = 7


def make(model):
    """The proof of a ``model`` (Model): the bytes of a safetensors file with ``input.wavs``, ``input.lengths`` and ``output.<name>``."""
    wavs, lengths = made_input(model)
    found = {f"output.{name}": value.contiguous() for name, value in run(model, wavs, lengths).items()}
    return safetensors.torch.save({"input.wavs": wavs, "input.lengths": lengths, **found})


def made_input(model):
    """(wavs, lengths) that a ``model`` takes: two voices of gliding pitch over noise, the second one shorter, or spikes at random."""
    generator = torch.Generator().manual_seed(SEED)
    features = model.network["features"]
    shorter = 1.0 if getattr(getattr(features, "options", None), "published", False) else SHARE  # which takes one length only
    lengths = torch.tensor([1.0, shorter])
    if model.sample_rate is None:
        return torch.poisson(torch.full((2, FRAMES, features.channels), RATE), generator), lengths
    time = torch.arange(int(SECONDS * model.sample_rate)) / model.sample_rate
    pitch = torch.tensor([[110.0], [190.0]]) * (1 + 0.2 * torch.sin(2 * torch.pi * 3 * time))
    phase = 2 * torch.pi * (pitch / model.sample_rate).cumsum(-1)
    voice = sum(torch.sin(n * phase) / n for n in range(1, 11)) * torch.sin(2 * torch.pi * 4 * time).clamp(min=0)
    return 0.2 * voice + 0.01 * torch.randn(voice.shape, generator=generator), lengths


def run(model, wavs, lengths):
    """The outputs of a copy of ``model`` in float64; of a recogniser with a decoder also ``attention`` (B, STEPS, V), its logits.

    SpeechBrain's decoder, which has no spikes, makes masks in float32 and runs in that alone.
    """
    wide = Model(model.config, copy.deepcopy(model.network).double(), model.pieces)
    found = wide.outputs(wavs.double(), lengths)
    return {**found, "attention": _decoded(model.network, found)} if "seq_lin" in model.network else found


@torch.no_grad()
def _decoded(network, found):
    """What a decoder says after tokens that are made, hearing what the encoder ``found``."""
    made = (tokens.EOS + torch.arange(STEPS)) % found["ctc"].shape[-1]
    made[0] = tokens.BOS
    counts = frames.absolute(found["lengths"], found["encoded"])
    hidden, _ = network["Transformer"].decode(made.expand(len(counts), -1), found["encoded"].float(), counts)
    return network["seq_lin"](hidden)


def check(model, data, file, exact=False):
    """Runs a ``model`` on the stored input.

    Arguments
    ---------
    model : Model
    data : bytes or None
        What the file of the proof holds.
    file : Path
        That file, for messages.
    exact : bool
        Whether every bit must be the same, as on the machine that made the proof.

    Raises
    ------
    BundleError
        There is no proof, it is none that fits the model, or the outputs differ.
    """
    if data is None:
        raise BundleError(f"{file}: no such file: load the bundle without check, or make it anew")
    stored = contents.tensors(data, file)
    wavs, lengths = _checked_input(model, stored, file)
    try:
        found = {f"output.{name}": value for name, value in run(model, wavs, lengths).items()}
    except Exception as error:  # sizes that fit each other may still make no network
        raise BundleError(f"{file}: the network cannot be run ({type(error).__name__}: {error}): {AGAIN}") from error
    outputs = {name: value for name, value in stored.items() if name.startswith("output.")}
    if outputs.keys() != found.keys():
        raise BundleError(f"{file}: holds {sorted(outputs)}, the network gives {sorted(found)}: {AGAIN}")
    for name, value in found.items():
        _check_equal(outputs[name], value, f"{file}: {name}", exact)


def _checked_input(model, stored, file):
    wavs, lengths = stored.get("input.wavs"), stored.get("input.lengths")
    if wavs is None or lengths is None or wavs.dtype != torch.float32 or lengths.dtype != torch.float32:
        raise BundleError(f"{file}: needs input.wavs and input.lengths in float32: {AGAIN}")
    most = LONGEST * (model.sample_rate or model.network["features"].frames)
    dims = 3 if model.sample_rate is None else 2
    if wavs.dim() != dims or not (0 < wavs.shape[0] <= MOST and 0 < wavs.shape[1] <= most) or lengths.shape != wavs.shape[:1]:
        shapes = f"{tuple(wavs.shape)} and {tuple(lengths.shape)}"
        raise BundleError(f"{file}: its inputs are of shape {shapes}, expected up to {MOST} utterances of up to {LONGEST} s: {AGAIN}")
    return wavs, lengths


def _check_equal(stored, found, where, exact):
    if (stored.shape, stored.dtype) != (found.shape, found.dtype):
        shapes = f"{stored.dtype} of {tuple(stored.shape)}, the network gives {found.dtype} of {tuple(found.shape)}"
        raise BundleError(f"{where} is {shapes}: {AGAIN}")
    if torch.equal(stored, found):
        return
    away = float((stored - found).abs().max())
    limit = 0.0 if exact else allowed(stored)
    if not away <= limit:  # nor NaN
        raise BundleError(f"{where}: the network's are up to {away:.3g} away from those stored, at most {limit:.3g} are allowed: {AGAIN}")


def allowed(stored):
    """How far from a stored output another machine's may be."""
    return TOLERANCE.get(stored.dtype, 0.0) * max(1.0, float(stored.abs().max()))


def check_afresh(folder):
    """Loads the bundle in ``folder`` in a process of its own; BundleError where that does not find the stored outputs to the bit."""
    home = str(Path(spikebrain.__file__).resolve().parents[1])
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    # A sum over as many threads is the same sum.
    own = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-m", __name__, str(folder)], env=own, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise BundleError(f"the bundle does not give in a fresh process what the run gave, and is not written: {said[0]}")


def main(argv=None):
    """Proves the bundle that the command line names; returns the exit status."""
    (folder,) = sys.argv[1:] if argv is None else argv
    try:
        model = load(folder)
        data = contents.read_file(folder, model.config, PROOF, contents.JSON) if PROOF in model.config["files"] else None
        check(model, data, Path(folder) / PROOF, exact=True)
        if "speechbrain" in model.config:
            interfaces.check(Path(folder), model, *made_input(model))
    except BundleError as error:
        print(f"proof: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: gives the stored outputs, to the bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
