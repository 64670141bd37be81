"""Recordings of spikes: HDF5 files in the layout of the Heidelberg Spiking Data Sets, and frames made from them.

``spikes/times`` holds seconds (half precision in the released files) and ``spikes/units``
the cells 0..699 that fired, one ragged row a recording; ``labels`` a number a recording,
``extra/keys`` the names of these numbers, ``extra/speaker`` who speaks (B. Cramer, Y. Stradmann,
J. Schemmel, F. Zenke, IEEE TNNLS 2020). A recording is named ``shd_train.h5#17``: its file, and
its row counted from 0.
"""

import functools
import os
from dataclasses import dataclass

import numpy as np
import torch

from spikebrain.data import manifest
from spikebrain.data.manifest import DataError, Utterance
from spikebrain.data.preparation import File, Skipped

UNITS = 700
# A recording whose spikes are all at one time still lasts this long (s): what half precision tells apart at 1 s.
SHORTEST = 0.001
# No recorded word lasts this long (s): such times are in milliseconds.
LONGEST = 60.0
# Rows read at once: about 35 MB of a released file.
ROWS = 1024

COLUMNS = {**manifest.CLASS_COLUMNS, "events": "events"}
DATASETS = ("spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys")


def open_file(path):
    """The h5py.File at ``path``, open for reading, with every dataset of the layout.

    Raises
    ------
    ImportError
        h5py is not installed, naming the extra.
    DataError
        The file is missing, is no sound HDF5 file, or lacks a dataset.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("files of spikes need h5py: pip install spikebrain[spikes]") from error
    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        size = os.path.getsize(path)
        raise DataError(f"{path}: cannot be read as HDF5 ({error}; {size} bytes): unpack or fetch the file again") from error
    missing = [name for name in DATASETS if name not in file]
    if missing:
        there = []
        file.visit(there.append)
        file.close()
        raise DataError(f"{path}: has no dataset {missing[0]}; there is: {', '.join(there) or 'nothing'}: fetch the file again")
    return file


def bin_events(times, units, step_ms, channels=140, units_total=UNITS):
    """Counts of spikes in frames of ``step_ms`` and bands of neighbouring units, as SpikeSCR does it (arXiv 2412.12858).

    Time is counted from the first spike, in float64. A recording of t ms has max(1, ceil(t / step_ms)) frames; a
    spike at exactly its end belongs to the last one. Counts are not clipped, so their sum is the number of spikes at
    every step. (SpikeSCR's own code makes 0 frames of a single spike.)

    Arguments
    ---------
    times : array (E,)
        Seconds, of any float type, rising.
    units : array (E,)
        0..units_total - 1.
    step_ms : float
    channels : int
        Bands; divides units_total.
    units_total : int

    Returns
    -------
    Tensor (L, channels), float32.

    Raises
    ------
    DataError
        Spikes that :func:`faults` complains of.
    ValueError
        ``step_ms`` or ``channels`` do not fit.
    """
    if not step_ms > 0 or units_total % channels:
        raise ValueError(f"step_ms is {step_ms}, must be above 0; channels is {channels}, must divide {units_total}: set channels: 140")
    times, units = np.asarray(times), np.asarray(units)
    (problem,) = faults([times], [units], units_total)
    if problem:
        raise DataError(problem)
    since = 1000 * times.astype(np.float64)
    since -= since[0]
    frames = max(1, int(np.ceil(since[-1] / step_ms)))
    cell = np.minimum(np.floor(since / step_ms), frames - 1).astype(np.int64) * channels
    cell += units.astype(np.int64) // (units_total // channels)
    return torch.from_numpy(np.bincount(cell, minlength=frames * channels).astype(np.float32)).view(frames, channels)


class ReadEvents:
    """Name of a recording ("folder/shd_train.h5#17") -> frames, Tensor (L, channels), float32: see :func:`bin_events`.

    For pipelines: ``provides("sig")(takes("wav")(ReadEvents(step_ms=10)))``. It may be pickled and forked; every
    process opens its own files, once.

    Arguments
    ---------
    step_ms : float
    channels, units_total : int

    Raises
    ------
    DataError
        Naming the recording, when it is not there or cannot be used.
    """

    def __init__(self, step_ms, channels=140, units_total=UNITS):
        self.step_ms, self.channels, self.units_total = step_ms, channels, units_total
        self._files, self._process = {}, None

    def __getstate__(self):
        return {**self.__dict__, "_files": {}, "_process": None}

    def __call__(self, name):
        times, units = self.spikes(name)
        try:
            return bin_events(times, units, self.step_ms, self.channels, self.units_total)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    def spikes(self, name):
        """(times, units) of a recording, arrays (E,) as the file has them."""
        path, index = parse_name(name)
        file = self._file(path)
        rows = len(file["spikes/times"])
        if index >= rows:
            raise DataError(f"{name}: the file holds {rows} recordings, 0..{rows - 1}: prepare the corpus again")
        try:
            return file["spikes/times"][index], file["spikes/units"][index]
        except OSError as error:
            raise DataError(f"{name}: {_unreadable(error)}") from error

    def _file(self, path):
        if self._process != os.getpid():
            self._files, self._process = {}, os.getpid()  # a forked process must not use its parent's
        if path not in self._files:
            self._files[path] = open_file(path)
        return self._files[path]


def parse_name(name):
    """``"folder/shd_train.h5#17"`` -> ("folder/shd_train.h5", 17)."""
    path, sign, index = name.rpartition("#")
    if not sign or not index.isdigit():
        raise DataError(f"{name}: names no recording: expected FILE#ROW, such as shd_train.h5#17")
    return path, int(index)


def faults(times, units, units_total=UNITS):
    """What is wrong with recordings, all looked at together (about 10 ns a spike).

    Arguments
    ---------
    times, units : list of array (E,)
        A pair a recording.
    units_total : int

    Returns
    -------
    list of str or None
        None for a sound one. Others have no spike, another number of times than of units, a time that is not finite,
        negative, above ``LONGEST`` or before its predecessor, or a unit that is none of ``units_total``.
    """
    out = [_count_fault(len(t), len(u)) for t, u in zip(times, units)]
    sound = [i for i, problem in enumerate(out) if problem is None]
    if not sound:
        return out
    first = np.cumsum([0] + [len(times[i]) for i in sound])
    t, u = np.concatenate([times[i] for i in sound]), np.concatenate([units[i] for i in sound])
    t = t.astype(np.float32) if t.dtype == np.float16 else t  # halves are compared in software
    for wrong, tell in _checks(t, u, first, units_total):
        for recording, spike in _first_of_each(wrong, first):
            where = f"spike {spike - first[recording]} of {first[recording + 1] - first[recording]}"
            out[sound[recording]] = out[sound[recording]] or f"{where} {tell(spike)}"
    return out


def _count_fault(times, units):
    if times != units:
        return f"has {times} times but {units} units: fetch the file again"
    return None if times else "holds 0 spikes: fetch the file again"


def _checks(t, u, first, units_total):
    """Pairs: which spikes are wrong (E,), and a function of one of them that says what is."""
    again = "fetch the file again"
    yield ~((t >= 0) & (t < np.inf)), lambda at: f"is at {t[at]} s, times are finite and not below 0: {again}"
    yield t > LONGEST, lambda at: f"is at {t[at]} s, longer than any word ({LONGEST:g} s): write times in seconds"
    falls = np.zeros(len(t), bool)
    falls[1:] = t[1:] < t[:-1]
    falls[first[:-1]] = False
    yield falls, lambda at: f"is at {t[at]} s, the one before it at {t[at - 1]} s: sort times and units by time"
    yield (u < 0) | (u >= units_total), lambda at: f"is of unit {u[at]}, units are 0..{units_total - 1}: {again}"


def _first_of_each(wrong, first):
    """(recording, its first wrong spike) of every recording that has one."""
    spikes = wrong.nonzero()[0]
    recordings, where = np.unique(np.searchsorted(first, spikes, side="right") - 1, return_index=True)
    return zip(recordings.tolist(), spikes[where].tolist())


@dataclass(frozen=True)
class Recordings:
    """What a file holds, an entry a recording.

    labels : tuple of int
    keys : names of the labels
    speakers : tuple of str
    spikes : how many
    seconds : from the first to the last spike, at least SHORTEST
    problems : what is wrong with it, or None
    """

    labels: tuple
    keys: tuple
    speakers: tuple
    spikes: tuple
    seconds: tuple
    problems: tuple


def look(path, classes):
    """Reads a file once, from its first to its last spike, and checks it all.

    Measured on one core, where the disk was no limit: 0.4 to 1.3 s for 8,000 recordings of 8,000 spikes, which is 4 to 12 s for
    the 75,466 of SSC.

    Arguments
    ---------
    path : str
    classes : int
        How many names ``extra/keys`` must hold.

    Returns
    -------
    Recordings
        Remembered until the file changes.

    Raises
    ------
    DataError
        Where the file as a whole is of no use: see :func:`open_file`; datasets of different length, or other classes.
    """
    status = os.stat(path) if os.path.isfile(path) else None
    return _look(path, classes, status and (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _look(path, classes, changed):
    with open_file(path) as file:
        keys = _keys(path, file, classes)
        _same_length(path, file)
        labels = tuple(int(label) for label in file["labels"][:])
        speakers = tuple(_text(speaker) for speaker in file["extra/speaker"][:])
        spikes, seconds, problems = [], [], []
        for start in range(0, len(labels), ROWS):
            times, units, unread = _rows(file, start, min(start + ROWS, len(labels)))
            found = [problem or fault for problem, fault in zip(unread, faults(times, units))]
            problems += [fault or _label_fault(label, classes) for fault, label in zip(found, labels[start:])]
            spikes += map(len, times)
            seconds += [SHORTEST if fault else max(SHORTEST, float(t[-1]) - float(t[0])) for t, fault in zip(times, found)]
    return Recordings(labels, keys, speakers, tuple(spikes), tuple(seconds), tuple(problems))


def _keys(path, file, classes):
    keys = tuple(_text(key) for key in file["extra/keys"][:])
    if len(keys) != classes or len(set(keys)) != classes or "" in keys:
        names = len(set(keys) - {""})
        raise DataError(f"{path}: extra/keys holds {names} different names, there are {classes} classes: fetch the file again")
    return keys


def _same_length(path, file):
    lengths = {name: len(file[name]) for name in DATASETS[:-1]}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path}: its datasets are of different length ({told}): fetch the file again")


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _rows(file, start, end):
    """Times and units of the rows start..end-1, and for each what keeps it from being read, or None."""
    times, units = file["spikes/times"], file["spikes/units"]
    try:
        return list(times[start:end]), list(units[start:end]), [None] * (end - start)
    except OSError:
        rows = [_row(times, units, index) for index in range(start, end)]
        return [list(column) for column in zip(*rows)]


def _row(times, units, index):
    try:
        return times[index], units[index], None
    except OSError as error:
        return np.zeros(0), np.zeros(0), _unreadable(error)


def _unreadable(error):
    return f"cannot be read, the file is damaged ({error}): fetch the file again"


def _label_fault(label, classes):
    return None if 0 <= label < classes else f"has label {label}, there are {classes} classes, 0..{classes - 1}: fetch the file again"


def utterances(data_folder, name, classes, keep=None):
    """The recordings of a file as (list of Utterance, list of Skipped), in the file's order.

    Arguments
    ---------
    data_folder : str
    name : str
        The file, in that folder.
    classes : int
    keep : collection of str or None
        Speakers whose recordings are wanted; None for all.
    """
    found = look(os.path.join(data_folder, name), classes)
    good, bad = [], []
    for row, problem in enumerate(found.problems):
        if keep is not None and found.speakers[row] not in keep:
            continue
        identity, wav = f"{os.path.splitext(name)[0]}-{row:05d}", f"{name}#{row}"
        if problem:
            bad.append(Skipped(identity, wav, problem))
        else:
            label, speaker = found.keys[found.labels[row]], found.speakers[row]
            good.append(Utterance(identity, wav, found.seconds[row], speaker, label=label, events=found.spikes[row]))
    return good, bad


def duration(data_folder, utterance, whole):
    """The probe of a corpus whose ``find`` has looked at everything: (seconds, None)."""
    return utterance.duration, None


def file_there(data_folder, name):
    """Whether ``data_folder`` holds the file ``name``."""
    return os.path.isfile(os.path.join(data_folder, name))


def list_file(data_folder, name):
    """The file ``name`` of ``data_folder`` as a list of one File."""
    status = os.stat(os.path.join(data_folder, name))
    return [File(name, status.st_size, status.st_mtime_ns)]


def silent_classes(split, utterances, keys):
    """A list of one line where classes have no recording in ``split``, naming them, else an empty one.

    Arguments
    ---------
    split : str
    utterances : list of Utterance
    keys : sequence of str
        Every class.
    """
    there = {utterance.label for utterance in utterances}
    missing = [key for key in keys if key not in there]
    return [f"{split} has no recording of {len(missing)} of {len(keys)} classes: {', '.join(missing)}"] if missing else []
