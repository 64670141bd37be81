"""The op of batch normalisation over the valid frames of a padded batch, shared between processes.

``reference`` is the definition, ``eager`` runs anywhere, ``cpu`` is compiled. Sums are taken in float64. Several processes
share sum, square sum and count, so that n of them equal one on the joined batch.
"""

import torch

from spikebrain.kernels import dispatch
from spikebrain.kernels.batch_norm import cpu, eager, reference

_FAST = {"eager": eager, "cpu": cpu}


def fast(x, implementation=None):
    """The module that runs on ``x``; asked for only where no tracer looks."""
    return _FAST[dispatch.choose(x, implementation, cpu.SOURCE)]


class Moments:
    """What a batch says about its channels.

    Arguments
    ---------
    row : Tensor (2 C + 1,), float64
        What the kernels hand each other: the means, the biased variances, and the number of valid frames of all processes.
    """

    def __init__(self, row):
        self.row = row

    @property
    def mean(self):
        """Tensor (C,)."""
        return self.row[: len(self.row) // 2]

    @property
    def var(self):
        """Tensor (C,), biased."""
        return self.row[len(self.row) // 2 : -1]

    @property
    def frames(self):
        """Tensor (), number of valid frames, of all processes."""
        return self.row[-1]


def moments(x, counts, implementation=None):
    """The row of :class:`Moments` of ``x`` (B, L, C) over the valid frames of all processes; no gradient."""
    runs = fast(x, implementation)
    return runs.moments(_joined(runs.sums(x, x, counts)))


def _joined(total):
    """The sum over processes of a tensor, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total


def affine(found, weight, bias, eps, implementation=None):
    """(scale, shift) with which x * scale + shift is the normalised x: Tensors (C,) in the weight's dtype; no gradient."""
    return fast(weight, implementation).affine(found, weight, bias, eps)


def update_(mean, var, found, momentum):
    """Running averages ``mean`` and ``var`` (C,) take over the share ``momentum`` of a batch's mean and unbiased variance, in place."""
    runs = eager if torch.compiler.is_compiling() else fast(mean)
    runs.update_(mean, var, found.row, momentum)


def input_gradient_(grad, x, by, found, weight, eps, counts, implementation=None):
    """The derivative by x, from that by y and its sums, written over ``grad``.

    Arguments
    ---------
    grad : Tensor (B, L, C)
        Derivative by y, contiguous.
    x : Tensor (B, L, C)
    by : Tensor (2, C), float64
        Sums over this process's valid frames of grad and of grad * x; written over.
    found : Tensor (2 C + 1,)
        Row of :class:`Moments`.
    weight : Tensor (C,)
    eps : float
    counts : Tensor (B,), int64
    implementation : str, optional

    Returns
    -------
    (dx, by_weight, by_bias)
        dx is ``grad``; the others (C,) are of this process alone, as those of every parameter are.
    """
    runs = fast(x, implementation)
    by_weight, by_bias = runs.by_parameters_(by, found, weight, eps)
    by_a, by_b, shift = runs.by_input(_joined(by), found, weight, eps)
    return runs.mix_(grad, by_a, x, by_b, shift, counts), by_weight, by_bias


def _forward(x, weight, bias, counts, eps, implementation=None):
    found = moments(x, counts, implementation)
    return fast(x, implementation).scaled(x, *affine(found, weight, bias, eps, implementation), counts), found


def _backward(grad, x, weight, counts, found, eps, implementation=None):
    grad = grad.clone(memory_format=torch.contiguous_format)
    by = fast(x, implementation).sums(grad, x, counts)[:-1].view(2, -1)
    return input_gradient_(grad, x, by, found, weight, eps, counts, implementation)


class _Normalise(torch.autograd.Function):
    """The op in eager mode: the registered one below costs several times the kernel on small layers."""

    @staticmethod
    def forward(ctx, x, weight, bias, counts, eps, implementation):
        """(y, row of Moments); keeps the inputs and that row."""
        y, found = _forward(x, weight, bias, counts, eps, implementation)
        ctx.save_for_backward(x, weight, counts, found)
        ctx.eps, ctx.implementation = eps, implementation
        ctx.mark_non_differentiable(found)
        return y, found

    @staticmethod
    def backward(ctx, grad, _):
        """Derivatives by x, weight and bias."""
        x, weight, counts, found = ctx.saved_tensors
        return *_backward(grad, x, weight, counts, found, ctx.eps, ctx.implementation), None, None, None


# The same op for torch.compile, which cannot look into C: registered with what a tracer needs to know.


@torch.library.custom_op("spikebrain::batch_norm", mutates_args=())
def _normalise_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, counts: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return _forward(x, weight, bias, counts, eps)


@_normalise_op.register_fake
def _(x, weight, bias, counts, eps):
    return x.new_empty(x.shape), no_moments(weight)


def no_moments(weight):
    """An empty row of :class:`Moments` for channels as of ``weight`` (C,), for tracers."""
    return weight.new_empty(2 * len(weight) + 1, dtype=torch.float64)


@torch.library.custom_op("spikebrain::batch_norm_backward", mutates_args=())
def _gradient_op(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor, found: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    return _backward(grad, x, weight, counts, found, eps)


@_gradient_op.register_fake
def _(grad, x, weight, counts, found, eps):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _keep(ctx, inputs, output):
    x, weight, _, counts, ctx.eps = inputs
    ctx.save_for_backward(x, weight, counts, output[1])
    ctx.mark_non_differentiable(output[1])


def _back(ctx, grad, _):
    return *_gradient_op(grad, *ctx.saved_tensors, ctx.eps), None, None


_normalise_op.register_autograd(_back, setup_context=_keep)


def normalise(x, weight, bias, counts, eps, implementation=None):
    """Normalises a padded batch by its own moments; ``reference`` holds the equations.

    Arguments
    ---------
    x : Tensor (B, L, C), float32 or float64
    weight, bias : Tensors (C,)
    counts : Tensor (B,), int64
        Valid frames; frames past them count nowhere and come out as 0.
    eps : float
    implementation : str, optional
        See :func:`spikebrain.kernels.dispatch.choose`.

    Returns
    -------
    (y, Moments)
    """
    if implementation == "reference":
        y, mean, var = reference.normalise(x, weight, bias, counts, eps)
        return y, Moments(torch.cat([mean, var, counts.sum().view(1)]).double())
    if torch.compiler.is_compiling():
        y, found = _normalise_op(x, weight, bias, counts, eps)
    else:
        y, found = _Normalise.apply(x, weight, bias, counts, eps, implementation)
    return y, Moments(found)
