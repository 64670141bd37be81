"""Bundles on the Hugging Face hub: pushed, after a look at exactly what would go up, and downloaded, nothing but what a bundle is made of.

    print(hub.plan("bundle", "owner/name"))       # every file with its size and hash; no network
    hub.push("bundle", "owner/name")
    folder = hub.download("owner/name")           # what spikebrain.load("owner/name") calls

All talk with the hub goes through ``huggingface_hub``, which finds its own token.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from spikebrain.publishing import contents
from spikebrain.publishing.contents import CONFIG, PROOF, TOKENS, WEIGHTS
from spikebrain.publishing.parts import BundleError

# What spikebrain.load reads; of a repository on the hub nothing else is downloaded, so no pickle and no code.
FILES = (CONFIG, WEIGHTS, TOKENS, PROOF, "results.json", "energy.json", "README.md")
MOST = 2**34  # bytes of a download: 2^31 parameters of float32, and as much again
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_REVISION = re.compile(r"[\w][\w./-]{0,99}")


class HubError(BundleError):
    """The hub does not have, take or give something; one message."""


@dataclass(frozen=True)
class Plan:
    """What a push would send.

    repo : owner/name
    files : (name, bytes, SHA-256) of each file that goes up
    left : names of what lies in the folder, and stays there
    """

    repo: str
    files: tuple
    left: tuple

    def __str__(self):
        rows = [f"{size:>12,}  {digest[:16]}  {name}" for name, size, digest in self.files]
        total = sum(size for _, size, _ in self.files)
        stays = f"\nstays here: {', '.join(self.left)}" if self.left else ""
        return "\n".join([f"to {self.repo}, {len(rows)} files, {total:,} bytes:", *rows]) + stays


def plan(folder, repo):
    """What :func:`push` would send: a :class:`Plan`. Nothing is sent, and no network is needed.

    Raises
    ------
    BundleError
        The folder is no bundle, or a file is not as ``bundle.json`` says.
    HubError
        ``repo`` is no owner/name.
    """
    _check_id(repo)
    folder = Path(folder)
    config = contents.read_config(folder)
    listed = {**config["files"], **config.get("speechbrain", {})}
    for name, said in config["files"].items():
        contents.check_file(folder, said, name)
    contents.check_host(folder, config)
    own = (folder / CONFIG).read_bytes()
    files = [(CONFIG, len(own), hashlib.sha256(own).hexdigest())]
    files += [(name, said["bytes"], said["sha256"]) for name, said in sorted(listed.items())]
    sent = {name for name, _, _ in files}
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return Plan(repo, tuple(files), tuple(sorted(name for name in there if name not in sent)))


def push(folder, repo, private=True, endpoint=None, token=None):
    """Sends a bundle, in one commit, after loading it: the URL of the commit.

    Arguments
    ---------
    folder : str or Path
    repo : str
        ``owner/name``; made where there is none.
    private : bool
        Of a repository that is made.
    endpoint : str, optional
        URL of the hub; by default huggingface_hub's.
    token : str, optional
        By default the one that ``hf auth login`` or ``HF_TOKEN`` gave.

    Raises
    ------
    BundleError
        The bundle does not load: nothing is sent.
    HubError
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    from spikebrain.publishing.load import load

    made = plan(folder, repo)
    load(folder)
    api = HfApi(endpoint=endpoint, token=token)
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(Path(folder) / name)) for name, _, _ in made.files]
    with _said(f"{repo}: cannot be pushed"):
        api.create_repo(repo, private=private, exist_ok=True)
        return api.create_commit(repo, operations, commit_message=f"Bundle of {len(operations)} files").commit_url


def download(repo, revision=None, place=None, endpoint=None, token=None):
    """A bundle on the hub as a folder of real files: its path, a str. What is there already is not fetched again.

    Arguments
    ---------
    repo : str
        ``owner/name``.
    revision : str, optional
        A branch, a tag or a commit; by default ``main``.
    place : str or Path, optional
        Where bundles are kept; by default ``spikebrain`` beside huggingface_hub's own cache.
    endpoint, token
        As for :func:`push`.

    Raises
    ------
    HubError
        There is no such repository or bundle, it is too large, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, constants

    _check_id(repo)
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise HubError(f"{repo}: {revision!r} is no branch, tag or commit")
    api = HfApi(endpoint=endpoint, token=token)
    with _said(f"{repo}: cannot be downloaded"):
        info = api.model_info(repo, revision=revision, files_metadata=True)
        _check_files(repo, {one.rfilename: one.size or 0 for one in info.siblings if one.rfilename in FILES})
        home = Path(place) if place is not None else Path(constants.HF_HOME, "spikebrain")
        folder = home / f"{repo.replace('/', '--')}@{info.sha}"
        return api.snapshot_download(repo, revision=info.sha, allow_patterns=list(FILES), local_dir=folder)


class _said:
    """Turns what huggingface_hub, or the network below it, raises into one HubError."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None or isinstance(error, BundleError) or not isinstance(error, Exception):
            return False
        reason = " ".join(str(error).split())[:300]
        raise HubError(f"{self.what} ({kind.__name__}: {reason}): check the name, the token (hf auth login) and the network") from error


def _check_id(repo):
    if not _ID.fullmatch(str(repo)) or ".." in str(repo) or "--" in str(repo):
        raise HubError(f"{repo}: is no owner/name on the hub")


def _check_files(repo, sizes):
    if CONFIG not in sizes:
        raise HubError(f"{repo}: has no {CONFIG}: it is no bundle of spikebrain, and nothing else of it is downloaded")
    total = sum(sizes.values())
    if total > MOST:
        raise HubError(f"{repo}: has {total:,} bytes, at most {MOST:,} are downloaded: fetch it by hand where you trust it")
