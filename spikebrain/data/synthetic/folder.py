"""A corpus folder that is whole or absent: made beside its place, renamed when complete, reused when it fits."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from spikebrain.data.manifest import DataError, write_atomic
from spikebrain.spelling import did_you_mean

logger = logging.getLogger(__name__)

STAMP = "synthetic.json"


def choose_utterances(given, default, corpus, what="utterances", splits=None):
    """The option ``utterances`` of a twin's ``make``: what is given, once it is checked, or the default; a new dict.

    Arguments
    ---------
    given : mapping or None
        Split -> number.
    default : mapping
        The same, where nothing is given.
    corpus, what : str
        The corpus, and what is counted, for messages.
    splits : collection of str or None
        The splits that the twin can have, where they are more than those of ``default``.

    Raises
    ------
    DataError
        No mapping, an unknown split, or a number that is no whole one of at least 1.
    """
    splits = splits or default
    if not isinstance(given, Mapping | None):
        example = f"{{{next(iter(splits))}: 10}}"
        raise DataError(f"utterances: {given!r} does not say how many {what} each split has: write for example {example}")
    for split, number in (given or {}).items():
        if split not in splits:
            choice = f"choose from {', '.join(splits)}{did_you_mean(split, splits)}"
            raise DataError(f"utterances: the synthetic {corpus} has no split {split!r}: {choice}")
        if not isinstance(number, int) or number < 1:
            raise DataError(f"utterances: split {split!r}: {number!r} {what}: ask for a whole number of at least 1, or leave the split out")
    return dict(default if given is None else given)


def make_folder(out, settings, fill):
    """Makes the folder ``out`` by ``fill(folder)``, or keeps the one that is there.

    Arguments
    ---------
    out : str or Path
    settings : dict
        What the content depends on, as plain values; it is kept in ``synthetic.json``.
    fill : callable
        Writes the content into an empty folder.

    Returns
    -------
    Path
        ``out``. It is reused when it was made with equal settings and no file is missing or of another size; a synthetic folder
        with other settings, or with files missing, is replaced.

    Raises
    ------
    DataError
        ``out`` holds something that was not made here, which is never deleted, or cannot be written.
    """
    out = Path(out)
    if _complete(out, settings):
        logger.info("%s: reusing the synthetic corpus that is there", out)
        return out
    if out.exists() and not (out / STAMP).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there and is no synthetic corpus ({STAMP} is missing): it is left alone, name another folder")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        _remove_abandoned(out)
        partial.mkdir(parents=True)
        fill(partial)
        write_atomic(partial / STAMP, json.dumps({**settings, "files": _sizes(partial)}, indent=0))
        _take_place(partial, out)
    except OSError as error:
        free = shutil.disk_usage(out.parent if out.parent.exists() else ".").free / 2**20
        raise DataError(f"{out}: cannot be made ({error}; {free:.0f} MiB are free): free space or name another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _complete(out, settings):
    try:
        notes = json.loads((out / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    files = notes.pop("files", None)
    return notes == json.loads(json.dumps(settings)) and files == _sizes(out)


def _sizes(folder):
    """Relative path -> bytes of every file but the stamp."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STAMP)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _remove_abandoned(out):
    for leftover in out.parent.glob(f".{out.name}.*.partial"):
        if not _alive(int(leftover.name.split(".")[-2])):
            shutil.rmtree(leftover)


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _take_place(partial, out):
    old = out.with_name(f".{out.name}.old.{os.getpid()}.partial")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
