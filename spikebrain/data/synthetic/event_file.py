"""Writes recordings of spikes in the layout of the Heidelberg Spiking Data Sets: half-precision seconds, ragged rows."""

import numpy as np
import torch

from spikebrain.frontend.cochlea import Cochlea

COCHLEA = Cochlea()
RATE = 16000  # Hz of the speech that is converted


def spikes(wav):
    """Samples (S,) at RATE -> (times, units): float16 seconds and uint16, as the files hold them."""
    times, units = COCHLEA(torch.from_numpy(np.asarray(wav, np.float32)), RATE)
    return times.numpy().astype(np.float16), units.numpy().astype(np.uint16)


def write(path, rows, labels, speakers, keys, meta=None):
    """Writes one file; equal content gives equal bytes.

    Arguments
    ---------
    path : str or Path
    rows : iterable of (times, units)
        A pair a recording.
    labels, speakers : list of int
        An entry a recording.
    keys : sequence of str
        Names of the labels.
    meta : dict or None
        What ``extra/meta_info`` holds, name -> list, an entry a speaker (SHD only).

    Raises
    ------
    ImportError
        h5py is not installed, naming the extra.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("files of spikes need h5py: pip install spikebrain[spikes]") from error

    with h5py.File(path, "w") as file:
        times = _ragged(file, "spikes/times", len(labels), h5py.vlen_dtype(np.float16))
        units = _ragged(file, "spikes/units", len(labels), h5py.vlen_dtype(np.uint16))
        for row, pair in enumerate(rows):
            times[row], units[row] = pair
        _plain(file, "labels", np.array(labels, np.uint16))
        _plain(file, "extra/speaker", np.array(speakers, np.uint16))
        _plain(file, "extra/keys", np.array([key.encode() for key in keys]))
        for name, values in (meta or {}).items():
            _plain(file, f"extra/meta_info/{name}", np.array(values))


def _ragged(file, name, rows, kind):
    return file.create_dataset(name, (rows,), kind, track_times=False)


def _plain(file, name, values):
    file.create_dataset(name, data=values, track_times=False)
