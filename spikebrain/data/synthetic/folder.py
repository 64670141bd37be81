"""A corpus folder that is whole or absent: made beside its place, renamed when complete, reused when it fits."""

import json
import logging
import os
import shutil
from pathlib import Path

from spikebrain.data.manifest import DataError, write_atomic

logger = logging.getLogger(__name__)

STAMP = "synthetic.json"


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
