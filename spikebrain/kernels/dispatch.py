"""Which implementation of an op runs: asked for by name, else chosen from the tensor's device and dtype."""

import torch

from spikebrain.kernels import native

NAMES = ("reference", "eager", "cpu")


def choose(x, implementation=None, source=None):
    """Name of the implementation to run on ``x``.

    Arguments
    ---------
    x : Tensor
        An input of the op.
    implementation : str, optional
        "reference" (the definition), "eager" (torch operations, any device) or "cpu" (compiled C); None chooses the
        fastest that exists here.
    source : Path, optional
        C source of the op, None where there is no compiled implementation.

    Raises
    ------
    ValueError
        For an unknown name.
    RuntimeError
        When "cpu" is asked for and cannot run, with the reason.
    """
    if implementation is None:
        return "cpu" if _compiled_runs(x, source) else "eager"
    if implementation not in NAMES:
        raise ValueError(f"implementation is {implementation!r}: choose one of {', '.join(NAMES)}")
    if implementation == "cpu" and not _compiled_runs(x, source):
        reason = native.why_not() or f"it takes float32 and float64 on the CPU, x is {x.dtype} on {x.device}"
        raise RuntimeError(f"the compiled kernel cannot run: {reason}")
    return implementation


def _compiled_runs(x, source):
    if source is None or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    return native.load(source) is not None
