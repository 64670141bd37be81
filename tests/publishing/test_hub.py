"""The hub: what a plan says is what goes up, what comes down is a bundle and nothing else; against a server here, never the network."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))

import fake_hub  # noqa: E402
import tiny_bundles  # noqa: E402

import spikebrain  # noqa: E402
from spikebrain import cli  # noqa: E402
from spikebrain.publishing import BundleError, contents, hub  # noqa: E402
from spikebrain.publishing.hub import HubError  # noqa: E402

REPO = "somebody/tiny-words"


@pytest.fixture
def server(monkeypatch):
    """A running hub; no token of this machine's is found, and files go over HTTP, not over the hub's store of chunks."""
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with fake_hub.Hub().running() as running:
        running.token = "hf_test"
        yield running


@pytest.fixture
def folder(tmp_path):
    """A bundle with a card, and beside it what is none of it."""
    made = tiny_bundles.write(tmp_path / "bundle", "words", files={"README.md": b"---\nlicense: apache-2.0\n---\n# Words\n"})
    (made / "notes.txt").write_text("not for others")
    (made / "checkpoints").mkdir()
    (made / "checkpoints" / "brain.ckpt").write_bytes(b"\x80\x04.")
    return made


def held(folder, names):
    """Name -> bytes of files."""
    return {name: (folder / name).read_bytes() for name in names}


def test_a_plan_lists_exactly_what_goes_up_and_asks_nobody(folder, server):
    found = hub.plan(folder, REPO)
    names = ["bundle.json", "README.md", "model.safetensors"]
    assert [name for name, _, _ in found.files] == names and found.left == ("checkpoints/brain.ckpt", "notes.txt")
    for name, size, digest in found.files:
        data = (folder / name).read_bytes()
        assert (size, digest) == (len(data), hashlib.sha256(data).hexdigest())
    said = str(found)
    assert all(name in said for name in names) and "stays here: checkpoints/brain.ckpt, notes.txt" in said and REPO in said
    assert server.asked == []


def test_a_push_sends_what_the_plan_says(folder, server):
    url = hub.push(folder, REPO, endpoint=server.url, token="hf_test")
    planned = [name for name, _, _ in hub.plan(folder, REPO).files]
    assert server.repos == {REPO: held(folder, planned)} and url == f"{server.url}/{REPO}/commit/{fake_hub.SHA}"
    assert server.private == {REPO: True} and server.stored, "the weights are large enough to be stored apart"
    assert [path for method, path in server.asked if path.endswith("/commit/main")] == [f"/api/models/{REPO}/commit/main"]


def test_the_command(folder, server, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    assert cli.main(["push", str(folder), REPO, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{hub.plan(folder, REPO)}\nnothing was sent\n" and server.asked == []
    assert cli.main(["push", str(folder), REPO, "--public"]) == 0
    assert f"{server.url}/{REPO}/commit/" in capsys.readouterr().out and server.private == {REPO: False}
    assert cli.main(["push", str(folder), "nobody"]) == 1
    assert capsys.readouterr().err == "spikebrain push: nobody: is no owner/name on the hub\n"


def test_a_public_push(folder, server):
    hub.push(folder, REPO, private=False, endpoint=server.url, token="hf_test")
    assert server.private == {REPO: False}


def test_there_and_back(folder, server, tmp_path, monkeypatch):
    hub.push(folder, REPO, endpoint=server.url, token="hf_test")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    download = hub.download
    monkeypatch.setattr(hub, "download", lambda repo: download(repo, endpoint=server.url))
    monkeypatch.chdir(tmp_path)
    here, there = spikebrain.load(folder), spikebrain.load(REPO)
    wav = 0.1 * torch.randn(1, tiny_bundles.RATE)
    assert torch.equal(here.outputs(wav)["votes"], there.outputs(wav)["votes"])
    place = tmp_path / "home" / "spikebrain" / f"somebody--tiny-words@{fake_hub.SHA}"
    assert contents.read_config(place) == contents.read_config(folder) and not any(path.is_symlink() for path in place.rglob("*"))


def test_nothing_but_a_bundles_files_comes_down(folder, server, tmp_path):
    hub.push(folder, REPO, endpoint=server.url, token="hf_test")
    pickled = b"\x80\x04."
    foreign = ("model.ckpt", "hyperparams.yaml", "custom.py", "sub/model.safetensors", "pytorch_model.bin")
    server.repos[REPO] |= {name: pickled for name in foreign}
    place = Path(hub.download(REPO, place=tmp_path / "kept", endpoint=server.url))
    names = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert names == {"bundle.json", "README.md", "model.safetensors"}
    assert not [path for _, path in server.asked if any(path.endswith(name) for name in foreign)]


def test_what_is_there_is_not_fetched_again(folder, server, tmp_path):
    hub.push(folder, REPO, endpoint=server.url, token="hf_test")
    first = hub.download(REPO, place=tmp_path, endpoint=server.url)
    server.asked.clear()
    assert hub.download(REPO, place=tmp_path, endpoint=server.url) == first
    assert not [path for method, path in server.asked if method == "GET" and "/resolve/" in path]


def test_a_changed_file_is_neither_pushed_nor_loaded(folder, server, tmp_path):
    hub.push(folder, REPO, endpoint=server.url, token="hf_test")
    changed = bytearray(server.repos[REPO]["model.safetensors"])
    changed[-1] ^= 1
    server.repos[REPO]["model.safetensors"] = bytes(changed)
    with pytest.raises(BundleError, match="model.safetensors: was changed"):
        spikebrain.load(hub.download(REPO, place=tmp_path, endpoint=server.url))
    (folder / "model.safetensors").write_bytes(changed)
    for call in (hub.plan, hub.push):
        server.asked.clear()
        with pytest.raises(BundleError, match="model.safetensors: was changed"):
            call(folder, REPO)
        assert server.asked == []


def test_a_folder_that_is_no_bundle_is_not_pushed(tmp_path, server):
    with pytest.raises(BundleError, match="bundle.json: no such file"):
        hub.push(tmp_path, REPO, endpoint=server.url)
    assert server.asked == []


@pytest.mark.parametrize("repo", ["words", "a/b/c", "../words", "a/..", "a/b c", "a/--b", "", "-a/b", "a/b\n"])
def test_names_that_are_none_are_refused_before_anybody_is_asked(folder, server, repo):
    asks = [lambda: hub.push(folder, repo, endpoint=server.url), lambda: hub.download(repo, endpoint=server.url)]
    for call in (lambda: hub.plan(folder, repo), *asks):
        with pytest.raises(HubError, match="is no owner/name on the hub"):
            call()
    assert server.asked == []


@pytest.mark.parametrize("revision", ["../main", "a b", "", "-x"])
def test_revisions_that_are_none_are_refused(server, revision):
    with pytest.raises(HubError, match="is no branch, tag or commit"):
        hub.download(REPO, revision, endpoint=server.url)
    assert server.asked == []


def test_what_the_hub_lacks_or_holds_too_much_of(folder, server, tmp_path):
    with pytest.raises(HubError, match=r"somebody/tiny-words: cannot be downloaded \(RepositoryNotFoundError: "):
        hub.download(REPO, place=tmp_path, endpoint=server.url)
    server.repos[REPO] = {"hyperparams.yaml": b"!apply:os.system [true]"}
    with pytest.raises(HubError, match="has no bundle.json: it is no bundle"):
        hub.download(REPO, place=tmp_path, endpoint=server.url)
    hub.push(folder, REPO, endpoint=server.url, token="hf_test")
    server.sizes["model.safetensors"] = 40 * 2**30
    with pytest.raises(HubError, match="has 42,949,[0-9,]* bytes, at most 17,179,869,184 are downloaded"):
        hub.download(REPO, place=tmp_path, endpoint=server.url)
    assert not [path for _, path in server.asked if "/resolve/" in path]


def test_a_hub_that_refuses_or_is_not_there_is_one_message(folder, server, tmp_path):
    with pytest.raises(HubError, match="cannot be pushed .*401.*check the name, the token") as error:
        hub.push(folder, REPO, endpoint=server.url, token="hf_other")
    assert "\n" not in str(error.value) and server.repos == {}
    with pytest.raises(HubError, match="cannot be downloaded .*check the name, the token .* and the network"):
        hub.download(REPO, place=tmp_path, endpoint="http://127.0.0.1:9")
