"""One record an utterance, and the CSV manifests that SpeechBrain reads.

A manifest names audio relative to the data folder, as ``$data_root/<path>``, so that it
can be moved with the corpus or beside it. SpeechBrain's own recipes read the same file
with ``replacements={"data_root": data_folder}``.
"""

import csv
import io
import math
import os
import tempfile
from dataclasses import dataclass, replace

ROOT = "$data_root/"

# CSV column -> field of Utterance; the order is the order in the file.
SPEECH_COLUMNS = {"ID": "id", "duration": "duration", "wav": "wav", "spk_id": "speaker", "wrd": "text"}
CLASS_COLUMNS = {"ID": "id", "duration": "duration", "wav": "wav", "start": "start", "spk_id": "speaker", "label": "label"}


class DataError(ValueError):
    """Something is wrong with the data; the message names the file or key, the numbers and the repair."""


@dataclass(frozen=True)
class Utterance:
    """One recording and what is known of it.

    id : unique in its manifest
    wav : path relative to the data folder, with forward slashes
    duration : seconds
    speaker, text, label : empty where a corpus has none
    start : its first sample, where the recording holds more than the utterance
    events : how many spikes it has, where it is one of spikes
    session, sentence : which recording session it is from, and which of the corpus's sentences it says; empty where a corpus has none
    """

    id: str
    wav: str
    duration: float
    speaker: str = ""
    text: str = ""
    label: str = ""
    start: int = 0
    events: int = 0
    session: str = ""
    sentence: str = ""


def write_atomic(path, content):
    """Writes ``content`` (str or bytes) so that ``path`` is either the old file or the whole new one, never a part.

    Raises
    ------
    DataError
        When it cannot be written (a full disk, a folder without permission), naming the file.
    """
    path = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(path))
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        os.makedirs(folder, exist_ok=True)
        _write_then_rename(path, folder, data)
    except OSError as error:
        raise DataError(
            f"{path}: cannot write {len(data)} bytes ({error.strerror or error}): free space or set another folder, then run again"
        ) from error


def _write_then_rename(path, folder, data):
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix="." + os.path.basename(path) + ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask():
    # mkstemp makes files that only their owner can read; a manifest is shared like any other file.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_csv(utterances, columns=None):
    """The manifest of ``utterances`` as text; ``columns`` maps CSV columns to fields (default: SPEECH_COLUMNS)."""
    columns = columns or SPEECH_COLUMNS
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for utterance in utterances:
        writer.writerow([_cell(utterance, field) for field in columns.values()])
    return buffer.getvalue()


def _cell(utterance, field):
    value = getattr(utterance, field)
    if field == "wav":
        return ROOT + value
    return repr(float(value)) if field == "duration" else value


def write(path, utterances, columns=None):
    """Validates ``utterances`` and writes their manifest atomically."""
    validate(utterances, os.path.basename(os.fspath(path)), columns)
    write_atomic(path, to_csv(utterances, columns))


def read(path, columns=None):
    """Reads a manifest written by :func:`write` into a list of Utterance.

    Raises
    ------
    DataError
        When the file or a column is missing, a duration is no number, or the content does not validate.
    """
    columns = columns or SPEECH_COLUMNS
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such manifest: prepare the corpus first")
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        missing = [c for c in columns if c not in (rows.fieldnames or [])]
        if missing:
            raise DataError(f"{path}: has columns {rows.fieldnames}, lacks {missing}: delete it and prepare the corpus again")
        utterances = [_parse(row, columns, f"{path}:{rows.line_num}") for row in rows]
    validate(utterances, path, columns)
    return utterances


def _parse(row, columns, where):
    fields = {field: row[column] or "" for column, field in columns.items()}
    _convert(fields, "duration", float, "seconds", where)
    _convert(fields, "start", int, "a sample's number", where)
    _convert(fields, "events", int, "a number of spikes", where)
    fields["wav"] = fields["wav"].removeprefix(ROOT).lstrip("/")
    return Utterance(**fields)


def _convert(fields, field, kind, expected, where):
    if field not in fields:
        return
    try:
        fields[field] = kind(fields[field])
    except ValueError as error:
        raise DataError(f"{where}: {field} is {fields[field]!r}, expected {expected}: prepare the corpus again") from error


def rooted(utterance, data_folder):
    """``utterance`` with its audio path joined to ``data_folder``."""
    return replace(utterance, wav=os.path.join(data_folder, utterance.wav))


def validate(utterances, name, columns=None):
    """Refuses a manifest that training would stumble over later.

    Arguments
    ---------
    utterances : list of Utterance
    name : str
        What the message calls it.
    columns : dict or None
        Columns of the manifest; a transcript and a label are required where there is a column for them.

    Raises
    ------
    DataError
        No utterance at all, a duplicate id, a duration that is not a positive number, a start before the recording,
        an empty transcript or label: the message gives the first offender and the number of offenders.
    """
    columns = (columns or SPEECH_COLUMNS).values()
    if not utterances:
        raise DataError(f"{name}: holds 0 utterances: check the data folder and the split")
    _refuse(name, _duplicates(utterances), "appears more than once as an id: ids must be unique, remove or rename the copies")
    badly = [f"{u.id} (duration {u.duration} s)" for u in utterances if not (math.isfinite(u.duration) and u.duration > 0)]
    _refuse(name, badly, "is not longer than 0 s: remove it or restore its audio")
    early = [f"{u.id} (start {u.start})" for u in utterances if u.start < 0]
    _refuse(name, early, "begins before its recording: prepare the corpus again")
    if "label" in columns:
        _refuse(name, [u.id for u in utterances if not u.label], "has no label: name its class or remove it")
    if "text" in columns:
        _refuse(name, [u.id for u in utterances if not u.text.strip()], "has an empty transcript: write its words or remove it")


def _duplicates(utterances):
    seen, twice = set(), {}
    for utterance in utterances:
        if utterance.id in seen:
            twice[utterance.id] = None
        seen.add(utterance.id)
    return list(twice)


def _refuse(name, offenders, what):
    if offenders:
        more = f" ({len(offenders)} such utterances)" if len(offenders) > 1 else ""
        raise DataError(f"{name}: {offenders[0]} {what}{more}")
