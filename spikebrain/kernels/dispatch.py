"""Which implementation of an op runs: asked for by name, else chosen from the tensor's device and dtype."""

import functools
import importlib
import os

import torch

from spikebrain.kernels import native

NAMES = ("reference", "eager", "cpu", "triton")
_DTYPES = (torch.float32, torch.float64)


def choose(x, implementation=None, source=None, triton=False):
    """Name of the implementation to run on ``x``.

    Arguments
    ---------
    x : Tensor
        An input of the op.
    implementation : str, optional
        "reference" (the definition), "eager" (torch operations, any device), "cpu" (compiled C) or "triton" (GPUs; elsewhere
        in Triton's interpreter, to check it); None chooses the fastest that exists here.
    source : Path, optional
        C source of the op, None where there is no compiled implementation.
    triton : bool
        Whether the op has a Triton implementation.

    Raises
    ------
    ValueError
        For an unknown name.
    RuntimeError
        When "cpu" or "triton" is asked for and cannot run, with the reason.
    """
    if implementation is None:
        return _fastest(x, source, triton)
    if implementation not in NAMES:
        raise ValueError(f"implementation is {implementation!r}: choose one of {', '.join(NAMES)}")
    if implementation == "cpu" and not _compiled_runs(x, source):
        reason = native.why_not() or f"it takes float32 and float64 on the CPU, x is {x.dtype} on {x.device}"
        raise RuntimeError(f"the compiled kernel cannot run: {reason}")
    if implementation == "triton" and (reason := _no_triton_for(x, triton)):
        raise RuntimeError(f"the Triton kernel cannot run: {reason}")
    return implementation


def _fastest(x, source, triton):
    if x.device.type == "cuda" and _no_triton_for(x, triton) is None:
        return "triton"
    return "cpu" if _compiled_runs(x, source) else "eager"


def _compiled_runs(x, source):
    if source is None or x.device.type != "cpu" or x.dtype not in _DTYPES:
        return False
    return native.load(source) is not None


def _no_triton_for(x, triton):
    if not triton:
        return "this op has none, choose eager"
    return no_triton(x.device) if x.dtype in _DTYPES else f"it takes float32 and float64, x is {x.dtype}"


def no_triton(device):
    """One sentence that says why Triton kernels cannot run on a torch.device, or None where they can."""
    if reason := _no_import():
        return reason
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return f"x is on {device}, where Triton has its interpreter only: set TRITON_INTERPRET=1 before the first kernel runs"
    return _no_compilation(device)


@functools.cache
def _no_import():
    try:
        importlib.import_module("triton")
    except (ImportError, OSError) as error:
        return f"triton does not import ({error}): pip install --force-reinstall triton"
    return None


@functools.cache
def _no_compilation(device):
    if native.compiler() is None:
        return "no C compiler found, with which Triton builds what starts a kernel (install gcc or clang, or set CC)"
    capability = torch.cuda.get_device_capability(device)
    return f"{device} has compute capability {capability}, Triton needs (7, 0)" if capability < (7, 0) else None
