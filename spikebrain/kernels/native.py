"""C sources compiled on first use, where a compiler is.

A kernel that eager torch can only run as ten passes over memory is one loop in C. The
source travels with the package; the shared object is built once per machine (about a
second), cached under ``$SPIKEBRAIN_CACHE`` or ``~/.cache/spikebrain``, and linked
against the OpenMP runtime that torch itself has loaded, so that both share one pool of
threads instead of two that fight for the cores. Without a compiler :func:`load` returns
None and the caller uses its eager implementation, which gives the same numbers.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

_SUFFIX = {torch.float32: "float", torch.float64: "double"}
# No -ffast-math: a division or a floor that rounds differently flips spikes.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fPIC", "-shared", "-std=c11"]


def _cache_folder():
    base = os.environ.get("SPIKEBRAIN_CACHE") or Path.home() / ".cache" / "spikebrain"
    return Path(base) / "kernels"


def _openmp_flags():
    """Flags that link torch's own OpenMP runtime, or none at all (single thread) where it is not found."""
    runtime = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return ["-fopenmp", str(runtime[0]), f"-Wl,-rpath,{runtime[0].parent}"] if runtime else []


def _processor():
    """What -march=native depends on, so that a cache on a shared disk is not used by another processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def compiler():
    """Path of the C compiler (``$CC``, cc, gcc or clang), or None."""
    return next((found for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and (found := shutil.which(name))), None)


def _build(source, target, command):
    """Compiles into a temporary file and renames it: two processes that build at once cannot see half a library."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
    os.close(handle)
    try:
        subprocess.run([*command, str(source), "-o", temporary, *_openmp_flags(), "-lm"], check=True, capture_output=True, text=True)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


@functools.cache
def why_not():
    """One sentence that says why compiled kernels are unavailable here, or None when they can be built."""
    if os.environ.get("SPIKEBRAIN_NATIVE", "1") == "0":
        return "switched off by SPIKEBRAIN_NATIVE=0"
    if compiler() is None:
        return "no C compiler found (install gcc or clang, or set CC)"
    return None


@functools.cache
def load(source):
    """The library built from ``source`` (a path), or None where it cannot be built; never raises for a missing compiler."""
    source = Path(source)
    if why_not():
        return None
    command = [compiler(), *FLAGS]
    key = "\n".join([source.read_text(), *command, *_openmp_flags(), _processor(), torch.__version__])
    target = _cache_folder() / f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    try:
        if not target.exists():
            _build(source, target, command)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or error
        import warnings

        warnings.warn(f"{source.name} could not be compiled, the slower eager kernel is used: {detail}", stacklevel=2)
        return None


def keep_freed_memory():
    """Asks the C library to keep what is freed, for the whole process, instead of handing it back to the system; True where it will.

    A training step frees and allocates the same activations again and again. glibc hands blocks of some MB back at once, and
    the system clears and maps every page anew, which can take longer than what is computed in them. Elsewhere than with glibc
    nothing happens. ``SPIKEBRAIN_KEEP_MEMORY=0`` leaves all as it is.
    """
    if os.environ.get("SPIKEBRAIN_KEEP_MEMORY", "1") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    most, trim, mmap = ctypes.c_int(2**30), -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    library = ctypes.CDLL(None)
    return bool(library.mallopt(mmap, most)) and bool(library.mallopt(trim, most))


def dense(*tensors):
    """The tensors as C reads them, one element behind the other; None stays None."""
    return [t if t is None else t.contiguous() for t in tensors]


def call(source, name, dtype, *arguments):
    """Calls the function ``name`` of ``source`` for ``dtype``; tensors pass as pointers, None as NULL, numbers by their Python type.

    Raises ValueError for a tensor that is not contiguous: C would read what lies beside it.
    """
    converted = []
    for a in arguments:
        if isinstance(a, torch.Tensor):
            if not a.is_contiguous():
                raise ValueError(f"{name} got a tensor of shape {tuple(a.shape)} and strides {a.stride()}: pass contiguous tensors to C")
            converted.append(ctypes.c_void_p(a.data_ptr()))
        elif isinstance(a, float):
            converted.append(ctypes.c_double(a))
        else:
            converted.append(None if a is None else ctypes.c_int64(a))
    getattr(load(source), f"{name}_{_SUFFIX[dtype]}")(*converted)
