"""Bundles, loaded: nothing in them is executed, and nothing is allocated before its size is known and bounded.

    model = load("path/to/bundle")            # or load("owner/name"), from the hub
    model.outputs(wavs, lengths)              # what the network says of a padded batch, by task

Every file is read as :mod:`spikebrain.publishing.contents` does; what is used has the hash that ``bundle.json`` says.
"""

import re
from pathlib import Path

import torch

from spikebrain.publishing import contents, outputs, parts
from spikebrain.publishing.contents import AGAIN, CONFIG, PROOF, TOKENS, WEIGHTS
from spikebrain.publishing.parts import CENTRE, BundleError

__all__ = ["BundleError", "Model", "load"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


class Model:
    """A network with what it needs to be used, in evaluation mode; no parameter asks for a gradient.

    Arguments
    ---------
    config : dict
        What ``bundle.json`` says.
    network : nn.ModuleDict
        Its parts, called as a recipe calls them: ``features`` always; for asr ``normalize, frontend, Transformer, ctc_lin`` and, where
        there is a decoder, ``seq_lin``; for classify ``classifier``; for identify ``normalize, embedding_model, classifier``; for verify
        ``normalize, embedding_model``.
    pieces : tuple of str or None
        Of asr: what each token id stands for, "▁" being a space.
    centre : Tensor (E,) or None
        Of verify: what is taken from every embedding before the cosine.

    Attributes
    ----------
    config, network, pieces, centre
        As given.
    task : str
        "asr", "classify", "identify" or "verify".
    sample_rate : int or None
        Hz of the samples that :meth:`outputs` takes; None: it takes frames of events.
    labels : tuple of str or None
        Of classify and identify: the classes.
    decoding : dict
        ``config["decoding"]``: of asr ``num_decoder_layers, test_beam_size, ctc_weight_decode, temperature, max_decode_ratio,
        error_rate``, which :func:`spikebrain.training.asr.beam_search` reads; of classify ``paper_padding``, ``seconds`` and ``pad``, to
        what length clips were cut (None: not at all) and whether shorter ones were filled with silence; of verify ``threshold``, the
        cosine above which two utterances are of one speaker (None: not known), ``threshold_of``, the split where it gives equal
        error rates, and ``subtract_mean`` and ``score_norm``, how the trials of its card were scored; of identify nothing.
    """

    def __init__(self, config, network, pieces=None, centre=None):
        self.config, self.network = config, network.eval().requires_grad_(False)
        self.pieces = None if pieces is None else tuple(pieces)
        self.centre = centre
        self.task, self.decoding = config["task"], config.get("decoding", {})
        self.sample_rate = config["sample_rate"]
        self.labels = tuple(config["labels"]) if config.get("labels") else None

    def __repr__(self):
        return f"Model({self.config['task']}: {self.config['model']} on {self.config['corpus']})"

    @torch.no_grad()
    def outputs(self, wavs, lengths=None):
        """What the network says of a padded batch; an utterance gives the same alone and in any batch.

        Arguments
        ---------
        wavs : Tensor (B, S)
            Samples in [-1, 1], at ``sample_rate``, on the network's device; frames (B, L, C) for a network that hears events.
        lengths : Tensor (B,), optional
            Relative lengths.

        Returns
        -------
        dict of Tensor
            asr: ``ctc`` (B, L, V), log-probabilities, ``encoded`` (B, L, C), ``lengths`` (B,), relative, of both; classify: ``votes``
            (B, K), the sum over frames of the probabilities; identify: ``logits`` (B, S); verify: ``embedding`` (B, E).
        """
        return _OUTPUTS[self.task](self, wavs, lengths)

    def text(self, ids):
        """What token ids say, as SentencePiece says it; unused outputs of the layer, beyond the vocabulary, say nothing."""
        said = "".join(self.pieces[int(i)] for i in ids if int(i) < len(self.pieces))
        return said.lstrip("▁").replace("▁", " ")

    def transcribe(self, recordings, **options):
        """Texts of recordings: :func:`spikebrain.publishing.use.transcribe`."""
        from spikebrain.publishing import use

        return use.transcribe(self, recordings, **options)

    def classify(self, recordings, **options):
        """Classes of recordings: :func:`spikebrain.publishing.use.classify`."""
        from spikebrain.publishing import use

        return use.classify(self, recordings, **options)

    def listen(self, blocks, **options):
        """Classes of what is said in a stream: :func:`spikebrain.publishing.use.listen`."""
        from spikebrain.publishing import use

        return use.listen(self, blocks, **options)

    def verify(self, first, second=None, **options):
        """Whether pairs of recordings are of one speaker: :func:`spikebrain.publishing.use.verify`."""
        from spikebrain.publishing import use

        return use.verify(self, first, second, **options)


def _asr(model, wavs, lengths):
    hidden, lengths = outputs.encoded(model.network, wavs, lengths)
    return {"ctc": outputs.ctc(model.network, hidden), "encoded": hidden, "lengths": lengths}


def _classify(model, wavs, lengths):
    return {"votes": outputs.votes(model.network, wavs, lengths, model.decoding["paper_padding"])}


def _identify(model, wavs, lengths):
    return {"logits": model.network["classifier"](outputs.embedding(model.network, wavs, lengths)).squeeze(1)}


def _verify(model, wavs, lengths):
    return {"embedding": outputs.embedding(model.network, wavs, lengths).squeeze(1)}


_OUTPUTS = {"asr": _asr, "classify": _classify, "identify": _identify, "verify": _verify}


def load(path, check=False):
    """The model in a bundle.

    Arguments
    ---------
    path : str or Path
        A folder; where there is none of that name, ``owner/name`` on the hub, which :func:`spikebrain.publishing.hub.download` fetches
        into a folder of real files (a symbolic link that leaves the folder is refused).
    check : bool
        Whether the network must give the stored outputs on the stored input too (:mod:`spikebrain.publishing.proof`).

    Returns
    -------
    Model
        On the CPU.

    Raises
    ------
    BundleError
        For whatever is not as ``bundle.json`` says, not known, or too large: one message, and nothing else has happened.
    """
    folder = located(path)
    config = contents.read_config(folder)
    where = f"{folder / CONFIG}: network"
    shapes = parts.build(config["network"], where, shapes=True)
    parts.check_size(shapes, where)
    parts.check_wiring(config["task"], config["network"], shapes, where)
    _check_counts(config, shapes, folder / CONFIG)
    state = _read_state(folder, config, shapes)
    held = _read_others(folder, config)
    built, centre = parts.build(config["network"], where), state.pop(CENTRE, None)
    parts.fill(built, state)
    model = Model(config, built, _pieces(held, config, folder) if config["task"] == "asr" else None, centre)
    if check:
        from spikebrain.publishing import proof

        proof.check(model, held.get(PROOF), folder / PROOF)
    return model


def located(path):
    """The Path of a bundle's folder, fetched where it is on the hub; BundleError where there is none."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise BundleError(f"{path}: is a file, and a bundle is a folder with {CONFIG}: pickles, checkpoints and archives are not loaded")
    if not _HUB_ID.fullmatch(str(path)) or ".." in str(path):
        raise BundleError(f"{path}: there is no such folder, and it is no owner/name on the hub: check the path")
    from spikebrain.publishing import hub

    return Path(hub.download(str(path)))


def _check_counts(config, shapes, file):
    """Compares what ``bundle.json`` says of parameters, classes and the rate with the network."""
    found = sum(p.numel() for p in shapes.parameters())
    if config["parameters"] != found:
        raise BundleError(f"{file}: parameters: {config['parameters']:,}, but its network has {found:,}: {AGAIN}")
    network = {name: parts.with_defaults(node) for name, node in config["network"].items()}
    rate = network["features"].get("sample_rate")
    if config["sample_rate"] != rate:
        raise BundleError(f"{file}: sample_rate: {config['sample_rate']}, but its front end hears {rate}: {AGAIN}")
    if config["task"] not in ("classify", "identify"):
        return
    classes = next(network["classifier"][key] for key in ("classes", "out_features", "out_neurons") if key in network["classifier"])
    if len(config.get("labels", ())) != classes:
        raise BundleError(f"{file}: labels: {len(config.get('labels', ()))}, but its network has {classes} classes: {AGAIN}")


def _read_state(folder, config, shapes):
    """The weights of a bundle: name -> Tensor, all that the network needs and nothing else."""
    file, expected = folder / WEIGHTS, parts.expected_state(shapes, config["network"])
    centre = {CENTRE: ((parts.embedding_size(shapes),), torch.float32)} if config["task"] == "verify" else {}
    needed = sum(contents.elements(shape) * dtype.itemsize for shape, dtype in (expected | centre).values())
    data = contents.read_file(folder, config, WEIGHTS, 8 + contents.HEADER + needed)
    state = contents.renamed(contents.tensors(data, file), config["format"], WEIGHTS)
    contents.check_state(state, expected | {name: one for name, one in centre.items() if name in state}, file)
    return state


def _read_others(folder, config):
    """The bytes of the other files that are used; those that are not are looked at only."""
    for name, said in config["files"].items():
        if name not in (WEIGHTS, TOKENS, PROOF):
            contents.check_file(folder, said, name)
    return {name: contents.read_file(folder, config, name, contents.JSON) for name in (TOKENS, PROOF) if name in config["files"]}


def _pieces(held, config, folder):
    """What the token ids of a recogniser stand for."""
    file = folder / TOKENS
    said = contents.parse(held[TOKENS], file)
    most = config["network"]["ctc_lin"]["arguments"]["n_neurons"]
    if type(said) is not dict or said.keys() != {"pieces"} or contents.words(said["pieces"]):
        raise BundleError(f"{file}: needs pieces, a list of texts: {AGAIN}")
    if len(said["pieces"]) > most:
        raise BundleError(f"{file}: has {len(said['pieces'])} pieces, the network {most} outputs: {AGAIN}")
    return tuple(said["pieces"])
