"""Bytes of bundles changed at random: all are refused by hash; with hashes made to fit, none crashes, runs code or says other things."""

import contextlib
import json
import random
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from spikebrain.publishing import BundleError, contents, load, proof

MEMORY = 500 * 2**20  # more than this is never allocated over all mutants
RUN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class"}
WATCHED = RUN | {"os.remove", "os.rename", "shutil.rmtree"}
_heard, _listening = [], []


def _hear(event, given):
    if not _listening:
        return
    if event in WATCHED or (event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+")):
        _heard.append((event, given))


@pytest.fixture(scope="module", autouse=True)
def hook():
    """Python's own record of what is run, unpickled, written and removed; such a hook cannot be taken away, and is silent elsewhere."""
    sys.addaudithook(_hear)


@contextlib.contextmanager
def watched():
    """What happens inside runs no program, reads no pickle, writes no file, and stays inside of MEMORY."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _heard.clear()
    _listening.append(True)
    try:
        yield
    finally:
        _listening.clear()
    assert _heard == []
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < MEMORY


def mutated(data, rng):
    """Other bytes than ``data``: up to four of them changed, one put in or taken out, the end cut off, or two stretches swapped."""
    kind = rng.choice(("flip", "flip", "flip", "flip", "insert", "delete", "cut", "swap"))
    out = bytearray(data)
    place = _place(len(out), rng)
    if kind == "insert":
        out.insert(place, rng.randrange(256))
    elif kind == "delete":
        del out[place]
    elif kind == "cut":
        del out[place:]
    elif kind == "swap":
        other, size = _place(len(out), rng), rng.randint(1, 16)
        out[place : place + size], out[other : other + size] = out[other : other + size], out[place : place + size]
    if kind == "flip" or out == data:
        for _ in range(rng.randint(1, 4)):
            out[_place(len(out), rng)] ^= rng.randint(1, 255)
    return bytes(out) if out != data else mutated(data, rng)


def _place(size, rng):
    """A place in a file, often near its beginning, where a header lies."""
    return rng.randrange(min(size, rng.choice((16, 2000, size))))


def mutants(folder, number, seed):
    """(name of a file, its changed bytes) of every file in turn."""
    rng = random.Random(seed)
    names = sorted(path.name for path in folder.iterdir())
    whole = {name: (folder / name).read_bytes() for name in names}
    for turn in range(number):
        name = names[turn % len(names)]
        yield name, mutated(whole[name], rng)


@pytest.fixture
def place(bundle_of, tmp_path):
    """(name of RUNS) -> (bundle, a copy that the mutants go through, at each call another)."""

    def copied(name):
        folder = bundle_of(name)
        load(folder, check=True)  # what is compiled at first use is compiled
        return folder, Path(shutil.copytree(folder, tempfile.mkdtemp(dir=tmp_path), dirs_exist_ok=True))

    return copied


def by_hash(place, name, number):
    """Loads ``number`` mutants of the bundle ``name``, all of which are refused; returns how many."""
    folder, copy = place(name)
    done = 0
    with watched_mutants(folder, copy, number, seed=1) as those:
        for file in those:
            with pytest.raises(BundleError):
                load(copy)
            done += 1
            assert file
    assert load(copy).task  # put back, it is whole
    return done


@contextlib.contextmanager
def watched_mutants(folder, copy, number, seed, fit=lambda copy: None):
    """Goes through mutants: the copy holds each in turn, and ``fit`` may make its hashes fit; outside of that all is watched."""

    def each():
        for name, data in mutants(folder, number, seed):
            (copy / name).write_bytes(data)
            fit(copy)
            with watched():
                yield name
            for path in folder.iterdir():
                (copy / path.name).write_bytes(path.read_bytes())

    yield each()


def refit(copy, reseal):
    """Makes size and hash of every file, and the seal, fit what is there; where bundle.json is no JSON any more it stays as it is."""
    try:
        config = contents.parse((copy / "bundle.json").read_bytes(), "bundle.json")
        if config.get("files"):
            reseal(copy)
        else:
            (copy / "bundle.json").write_bytes(contents.seal(config))
    except (BundleError, OSError, ValueError, TypeError, AttributeError, json.JSONDecodeError):
        return


def with_hashes(place, name, number, reseal):
    """Loads ``number`` mutants whose hashes fit; those that are not refused say what the network says. Returns (all, not refused)."""
    folder, copy = place(name)
    stored = safetensors.torch.load_file(folder / "proof.safetensors")
    done, taken = 0, 0
    with watched_mutants(folder, copy, number, 2, lambda copy: refit(copy, reseal)) as those:
        for file in those:
            done += 1
            with contextlib.suppress(BundleError):
                model = load(copy, check=True)
                taken += 1
                check_same(model, stored, file)
    return done, taken


def check_same(model, stored, file):
    """What the mutant of a file says, for the input that the whole bundle stores."""
    found = proof.run(model, stored["input.wavs"], stored["input.lengths"])
    for key, value in found.items():
        true = stored[f"output.{key}"]
        assert value.shape == true.shape and float((value - true).abs().max()) <= 2 * proof.allowed(true), file


def test_every_mutant_is_refused_by_hash(place):
    assert by_hash(place, "keywords", 200) == 200


def test_mutants_whose_hashes_fit(place, reseal):
    done, taken = with_hashes(place, "keywords", 60, reseal)
    assert done == 60 and 0 < taken < done  # a changed card or a changed result is another text, and the network the same


@pytest.mark.full
@pytest.mark.parametrize("name", ["attention", "ctc", "keywords", "identify", "verify"])
def test_many_mutants(name, place, reseal):
    assert by_hash(place, name, 2000) == 2000
    done, taken = with_hashes(place, name, 2000, reseal)
    assert done == 2000 and 0 < taken < done


def test_a_mutant_that_says_other_things_would_be_found(place, reseal):
    folder, copy = place("keywords")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state["classifier.head.weight"][0] += 0.01
    safetensors.torch.save_file(state, copy / "model.safetensors")
    reseal(copy)
    stored = safetensors.torch.load_file(folder / "proof.safetensors")
    with pytest.raises(AssertionError):
        check_same(load(copy), stored, "model.safetensors")


def test_what_is_run_or_written_would_be_heard(tmp_path):
    with pytest.raises(AssertionError), watched():
        (tmp_path / "file").write_text("written")
    with pytest.raises(AssertionError), watched():
        torch.load(_saved(tmp_path), weights_only=False)


def _saved(folder):
    torch.save(torch.zeros(1), folder / "pickle")
    return folder / "pickle"
