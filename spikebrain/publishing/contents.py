"""What lies in a bundle, as files: names, sizes, hashes, and how each is read without believing it.

A bundle is a folder of plain data: ``bundle.json``, which says what the network is made of (:mod:`spikebrain.publishing.parts`) and the
size and hash of every other file, and seals itself; ``model.safetensors``; and what :mod:`spikebrain.publishing.bundle` names.
"""

import hashlib
import json
import os
import re
import stat
from pathlib import Path

import safetensors.torch
import torch

from spikebrain.publishing import parts
from spikebrain.publishing.parts import BundleError, check, flag, one_of, optional, real, text, whole

CONFIG, WEIGHTS, PROOF, TOKENS = "bundle.json", "model.safetensors", "proof.safetensors", "tokens.json"
YAML, HOST_WEIGHTS, TOKENIZER = HOST = ("hyperparams.yaml", "network.ckpt", "tokenizer.ckpt")  # what SpeechBrain's interfaces read
FORMAT = 1
# format -> what has other names in it than in the next one: "bundle.json/<key>/<key>" or "model.safetensors/<beginning of a name>", old to
# new. The names of FORMAT are today's, so that its table stays empty.
KEYS = {1: {}}
HEADER, JSON, FILES, FILE = 2**24, 2**25, 64, 2**35  # most bytes of a header and of a JSON file, most files, most bytes of one
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes an element
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}){0,3}")
_PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # a pickle begins so, or the archive of torch.save
AGAIN = "fetch the bundle again"


def _object(value):
    return None if type(value) is dict else "an object"


def words(value):
    """As what :func:`spikebrain.publishing.parts.whole` gives, for a list of texts."""
    return None if type(value) is list and 0 < len(value) <= parts.VOCABULARY and all(type(v) is str for v in value) else "a list of texts"


# What bundle.json holds: key -> (check, whether it must be there).
_CONFIG = {
    "format": (whole(0, 10**6), True),
    "task": (one_of(*parts.NETWORKS), True),
    "model": (text(200), True),
    "corpus": (text(200), True),
    "network": (_object, True),
    "sample_rate": (optional(one_of(*parts.RATES)), True),
    "labels": (words, False),
    "decoding": (_object, True),
    "licence": (text(200), True),
    "data": (text(10_000), True),
    "parameters": (whole(0, parts.PARAMETERS), True),
    "versions": (_object, True),
    "command": (optional(text(10_000)), True),
    "commit": (optional(text(200)), True),
    "files": (_object, True),
    "speechbrain": (_object, False),
    "seal": (text(64), True),
}
# task -> what "decoding" holds: key -> check.
DECODING = {
    "asr": {
        "num_decoder_layers": whole(0, parts.LAYERS),
        "test_beam_size": whole(1, 1024),
        "ctc_weight_decode": real(0, 1),
        "temperature": real(1e-3, 1e3),
        "max_decode_ratio": real(0, 100),
        "error_rate": one_of("WER", "CER"),
    },
    "classify": {"paper_padding": flag, "seconds": optional(real(0.01, 3600)), "pad": flag},
    "identify": {},
    "verify": {
        "threshold": optional(real(-1, 1)),
        "threshold_of": optional(text(200)),
        # How the trials of the card were scored; what is verified has the mean of training taken from it, where there is one.
        "subtract_mean": one_of("none", "train", "test"),
        "score_norm": one_of("none", "z", "s", "as"),
    },
}


def read_config(folder):
    """``bundle.json`` of a folder, as a dict under today's names: checked by itself, but for what only the network can say.

    Raises
    ------
    BundleError
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        yaml = (file.parent / "hyperparams.yaml").exists()
        there = "; hyperparams.yaml is there, but YAML can name any code and is not loaded" if yaml else ""
        raise BundleError(f"{file}: no such file{there}: name a folder that tools/publish.py made")
    data = _bytes(file.parent, CONFIG, JSON)
    config = parse(data, file)
    check(config, _object, file)
    number = config.get("format")
    check(number, whole(0, 10**6), f"{file}: format")
    if number not in KEYS:
        known = ", ".join(map(str, KEYS))
        raise BundleError(f"{file}: is of format {number}, this version reads {known}: update spikebrain")
    if data != seal(config):
        raise BundleError(f"{file}: was changed after it was made, its seal is not that of its {len(data)} bytes: {AGAIN}")
    config = renamed(config, number)
    _check_config(config, file)
    return config


def _check_config(config, file):
    for name in config:
        if name not in _CONFIG:
            raise BundleError(f"{file}: has an unknown key {name[: parts.WORD]!r}: {AGAIN}")
    for name, (expected, needed) in _CONFIG.items():
        if needed and name not in config:
            raise BundleError(f"{file}: lacks {name}: {AGAIN}")
        if name in config:
            check(config[name], expected, f"{file}: {name}")
    known = DECODING[config["task"]]
    if config["decoding"].keys() != known.keys():
        raise BundleError(f"{file}: decoding: has {sorted(config['decoding'])}, {config['task']} needs {sorted(known)}: {AGAIN}")
    for name, expected in known.items():
        check(config["decoding"][name], expected, f"{file}: decoding/{name}")
    parts.check_network(config["task"], config["network"], f"{file}: network")
    _check_files(config, file)


def _check_files(config, file):
    files = config["files"]
    for key, known in (("files", None), ("speechbrain", HOST)):
        _check_listed(config.get(key, {}), known, f"{file}: {key}")
    for name in (WEIGHTS, TOKENS) if config["task"] == "asr" else (WEIGHTS,):
        if name not in files:
            raise BundleError(f"{file}: files: lacks {name}, which a bundle for {config['task']} has: {AGAIN}")


def _check_listed(files, known, where):
    """Checks what ``bundle.json`` lists of files, whose names are among ``known``, or any inside of the folder for None."""
    if len(files) > FILES:
        raise BundleError(f"{where}: names {len(files)}, at most {FILES} are read: {AGAIN}")
    for name, node in files.items():
        inside = _NAME.fullmatch(name) and ".." not in name and name != CONFIG and (name in known if known else name not in HOST)
        if not inside:
            raise BundleError(f"{where}: {name[:200]!r} is no name of a file inside of the folder: {AGAIN}")
        if type(node) is not dict or node.keys() != {"bytes", "sha256"}:
            raise BundleError(f"{where}: {name}: needs bytes and sha256: {AGAIN}")
        check(node["bytes"], whole(0, FILE), f"{where}: {name}: bytes")
        check(node["sha256"], text(64), f"{where}: {name}: sha256")


def seal(config):
    """``bundle.json`` as bytes; its key ``seal`` is the hash of the rest, so that no byte of it can change unseen."""
    body = {key: value for key, value in config.items() if key != "seal"}
    digest = hashlib.sha256(_dumped(body)).hexdigest()
    return _dumped({**body, "seal": digest})


def _dumped(config):
    try:
        return (json.dumps(config, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (ValueError, RecursionError):  # an infinite number, half of a character, a tree too deep: none of ours holds these
        return b""


def parse(data, file):
    """The JSON of ``data`` (bytes); BundleError for what is none, for a name that is given twice, and for NaN."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise BundleError(f"{file}: is no JSON that this version reads ({reason}; {len(data)} bytes): {AGAIN}") from error


def _once(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)


def _refuse(word):
    raise ValueError(f"{word} is no number of JSON")


def renamed(content, number, file=CONFIG):
    """What a bundle of format ``number`` holds in ``file``, under today's names: the dict of ``bundle.json``, or of tensors.

    Raises
    ------
    BundleError
        An old and a new name are both there.
    """
    for step in range(number, FORMAT):
        for old, new in KEYS[step].items():
            if old.partition("/")[0] != file:
                continue
            old, new = old.partition("/")[2], new.partition("/")[2]
            content = _moved(content, old.split("/"), new.split("/")) if file == CONFIG else _begun(content, old, new)
    return content


def _moved(tree, old, new):
    """A ``tree`` of dicts with what lies at the path ``old`` at the path ``new``."""
    node = tree
    for key in old:
        if type(node) is not dict or key not in node:
            return tree
        node = node[key]
    return _set(_set(tree, old, None), new, node)


def _set(tree, path, value):
    """A copy of ``tree`` with ``value`` at ``path``; without it for None."""
    first, rest = path[0], path[1:]
    if rest:
        return {**tree, first: _set(tree.get(first, {}), rest, value)}
    if value is None:
        return {key: one for key, one in tree.items() if key != first}
    if first in tree:
        raise BundleError(f"{CONFIG}: has {first} under its old and its new name: {AGAIN}")
    return {**tree, first: value}


def _begun(tensors, old, new):
    moved = {new + name[len(old) :] if name.startswith(old) else name: value for name, value in tensors.items()}
    if len(moved) < len(tensors):
        raise BundleError(f"{WEIGHTS}: has names that begin with {old} and {new}, old and new: {AGAIN}")
    return moved


def _regular(folder, name, most):
    """The path of the regular file ``name`` inside of ``folder``, links followed, of at most ``most`` bytes."""
    file = folder / name
    if not file.exists():
        raise BundleError(f"{file}: no such file: {AGAIN}")
    home, there = os.path.realpath(folder), os.path.realpath(file)
    if os.path.commonpath([home, there]) != home:
        raise BundleError(f"{file}: is a symbolic link that leaves the folder: put the file itself there")
    found = os.stat(there)
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{file}: is no regular file: {AGAIN}")
    if found.st_size > most:
        raise BundleError(f"{file}: has {found.st_size:,} bytes, at most {most:,} are read: {AGAIN}")
    return there


def _bytes(folder, name, most):
    with open(_regular(folder, name, most), "rb") as file:
        return file.read(most)


def read_file(folder, config, name, most):
    """The bytes of a file that ``bundle.json`` names, at most ``most`` of them, checked against its size and hash.

    Raises
    ------
    BundleError
    """
    said = config["files"][name]["bytes"]
    if said > most:
        raise BundleError(f"{Path(folder) / name}: is said to have {said:,} bytes, at most {most:,} are read: {AGAIN}")
    data = _bytes(Path(folder), name, said)
    _compare(Path(folder) / name, config["files"][name], len(data), hashlib.sha256(data))
    return data


def check_file(folder, said, name):
    """As :func:`read_file`, for a file that is not used: it is read piece by piece, and nothing of it is kept.

    Arguments
    ---------
    folder : str or Path
    said : dict
        ``bytes`` and ``sha256``, as ``bundle.json`` has them.
    name : str

    Raises
    ------
    BundleError
    """
    digest, size = hashlib.sha256(), 0
    with open(_regular(Path(folder), name, said["bytes"]), "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
            size += len(piece)
    _compare(Path(folder) / name, said, size, digest)


def check_host(folder, config):
    """As :func:`check_file`, for what SpeechBrain's interfaces read of a bundle, where ``bundle.json`` lists it."""
    for name, said in config.get("speechbrain", {}).items():
        file = Path(folder) / name
        if not file.exists():
            what = f"{CONFIG} lists it for SpeechBrain's interfaces, without which spikebrain.load does"
            raise BundleError(f"{file}: no such file: {what}: get all files of the repository, or publish the run again")
        check_file(folder, said, name)


def _compare(file, said, size, digest):
    if size != said["bytes"]:
        raise BundleError(f"{file}: has {size:,} bytes, {CONFIG} says {said['bytes']:,}: it is cut short: {AGAIN}")
    found = digest.hexdigest()
    if found != said["sha256"]:
        raise BundleError(f"{file}: was changed: its hash is {found[:16]}..., {CONFIG} says {said['sha256'][:16]}...: {AGAIN}")


def tensors(data, file):
    """The tensors in the bytes of a safetensors file, after its header was bounded and compared with its size.

    Raises
    ------
    BundleError
    """
    _check_header(data, file)
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # a library that reads foreign bytes: whatever it says, they are none that we load
        raise BundleError(f"{file}: cannot be read ({type(error).__name__}: {str(error)[:200]}): {AGAIN}") from error


def _check_header(data, file):
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(HEADER, len(data) - 8):
        if data.startswith(_PICKLED):
            raise BundleError(f"{file}: is a pickle, which can run code when it is read: only safetensors are loaded")
        whole_file = f"at most {HEADER:,}, and no more than its {len(data):,} bytes hold, are read"
        raise BundleError(f"{file}: says that its header has {size:,} bytes, {whole_file}: {AGAIN}")
    header = parse(data[8 : 8 + size], f"{file}, its header")
    check(header, _object, f"{file}: its header")
    spans = sorted(_span(name, node, file) for name, node in header.items() if name != "__metadata__")
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise BundleError(f"{file}: {name[:200]!r} begins at byte {start:,}, the one before ends at {end:,}: {AGAIN}")
        end = stop
    if end != len(data) - 8 - size:
        raise BundleError(f"{file}: its header tells of {end:,} bytes of tensors, {len(data) - 8 - size:,} are there: {AGAIN}")


def _span(name, node, file):
    """(first byte, byte after the last, name) of a tensor, from its entry in a header."""
    shape, span = (node.get(key) if type(node) is dict else None for key in ("shape", "data_offsets"))
    if not (_numbers(shape, 8) and _numbers(span, 2) and len(span) == 2 and node.get("dtype") in list(DTYPES)):
        raise BundleError(f"{file}: its header says of {name[:200]!r} what is no tensor that we load: {AGAIN}")
    needed = elements(shape) * DTYPES[node["dtype"]]
    if span[1] - span[0] != needed:
        raise BundleError(f"{file}: {name[:200]!r} has {span[1] - span[0]:,} bytes, its shape {shape} needs {needed:,}: {AGAIN}")
    return span[0], span[1], name


def _numbers(values, most):
    return type(values) is list and len(values) <= most and all(type(v) is int and 0 <= v <= FILE for v in values)


def elements(shape):
    """How many elements a tensor of a shape has, of however many digits."""
    number = 1
    for size in shape:
        number *= size
    return number


def check_state(state, expected, file):
    """Checks tensors by name: those of ``expected`` (name -> (shape, dtype)) and no others, all of them finite.

    Raises
    ------
    BundleError
        Names ``file`` and the first fault.
    """
    for names, said in ((expected.keys() - state.keys(), "lacks"), (state.keys() - expected.keys(), "has")):
        if names:
            whose = "which the network needs" if said == "lacks" else "of which the network has nothing"
            raise BundleError(f"{file}: {said} {len(names)} tensors, the first is {min(names)[:200]!r}, {whose}: {AGAIN}")
    for name, (shape, dtype) in expected.items():
        found = tuple(state[name].shape), state[name].dtype
        if found != (shape, dtype):
            raise BundleError(f"{file}: {name} is {found[1]} of shape {found[0]}, the network needs {dtype} of {shape}: {AGAIN}")
        wrong = int((~torch.isfinite(state[name])).sum())
        if wrong:
            raise BundleError(f"{file}: {name} holds {wrong} NaN or infinite values of {state[name].numel()}: {AGAIN}")
