"""Multi-level spikes: T steps of an integrate-and-fire neuron in one integer (IML-Spikeformer, sections IV-A and IV-B).

An IF neuron with soft reset that receives all of its input at once fires one spike a step until its membrane is below
threshold: ``floor(clip(x / threshold, 0, T))`` spikes in T steps, always as a burst (Eq. 7; the case form printed above
that line is off by one and is not used). MLS keeps the threshold fixed. IMLS divides each channel by its own maximum
over the batch, so that the maximum fires exactly T (Eq. 10), and keeps a running average of it for evaluation (Eq. 11).

The paper writes that the threshold becomes ``lambda * theta`` with ``lambda = T / Lambda``. Taken literally, larger
inputs would be amplified quadratically. We scale the input by lambda, which is the only reading that normalises:
``u = (x / Lambda) * T / theta``; the effective threshold is ``theta * Lambda / T``.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.kernels import multilevel
from spikebrain.neurons.switches import Switches, one_of


@dataclass(frozen=True)
class FiringOptions(Switches):
    """How a multi-level neuron scales, rounds and learns; the defaults are ours where the paper is silent.

    Arguments
    ---------
    threshold : float
        theta. With IMLS, 1 lets the channel's maximum fire exactly T spikes.
    rounding : str
        "floor" (paper) or "round", an initial membrane of half a threshold.
    output_scale : str
        Value of one spike: "1/T" (into the next weights it folds exactly), "none" (1, as in the paper) or "channel"
        (Lambda / T, which gives the input back, quantised, and with it loses scale invariance).
    grad_through_scale : bool
        Whether the gradient follows Lambda to the element that is the maximum. Eq. 8 has no such path; with it fewer
        channels die and gradients stay bounded.
    momentum : float
        alpha of Eq. 11 (the paper names no value; batch norm's 0.1). The first batch is copied.
    eps : float
        Smallest Lambda: silent channels neither explode nor fire.
    statistic : float
        1.0 is the maximum; 0.999 the 99.9 % quantile, which one loud frame cannot move (no gradient through it).
    sync : str
        Between processes: "batch" shares Lambda before it is used, so that n processes equal one on the joined batch;
        "running" shares only the running average; "none" neither.
    running_in_training : bool
        Use the running average in training too.
    """

    model = "MultiLevelSpike"
    threshold: float = 1.0
    rounding: str = one_of("floor", "round")
    output_scale: str = one_of("1/T", "none", "channel")
    grad_through_scale: bool = True
    momentum: float = 0.1
    eps: float = 1e-2
    statistic: float = 1.0
    sync: str = one_of("batch", "running", "none")
    running_in_training: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.statistic <= 1:
            raise ValueError(f"statistic is {self.statistic}: give 1 for the maximum or a quantile in (0, 1)")
        if self.threshold <= 0 or self.eps <= 0:
            raise ValueError(f"threshold {self.threshold} and eps {self.eps} must be positive")

    @classmethod
    def paper_literal(cls, **changes):
        """The options that follow Eq. 7-11 to the letter: spikes worth 1, Lambda a constant for the gradient."""
        return cls(**{"output_scale": "none", "grad_through_scale": False, **changes})


class MultiLevelSpike(nn.Module):
    """A layer of multi-level neurons.

    Arguments
    ---------
    channels : int
        C, the number of neurons.
    levels : int
        T, 1..127: the most spikes that a neuron fires, and the micro-steps that it needs at spike-driven inference.
    mode : str
        "imls": threshold from the input, channel by channel. "mls": the fixed ``threshold``.
    options : FiringOptions, optional

    Attributes
    ----------
    running_max : Tensor (C,)
        Running average of Lambda (IMLS only); 0 means that no batch has been seen. A buffer, not a parameter.

    Example
    -------
    >>> neuron = MultiLevelSpike(channels=2, levels=4)
    >>> spikes, _ = neuron(torch.tensor([[[4.0, -1.0], [1.9, 3.0]]]))
    >>> (spikes * 4).tolist()
    [[[4.0, 0.0], [1.0, 4.0]]]
    """

    def __init__(self, channels, levels=6, mode="imls", options=None):
        super().__init__()
        if not 1 <= levels <= 127:
            raise ValueError(f"levels is {levels}: a level is stored in seven bits, choose 1..127")
        if mode not in ("imls", "mls"):
            raise ValueError(f"mode is {mode!r}: choose imls (threshold from the input) or mls (fixed threshold)")
        self.channels, self.levels, self.mode = channels, levels, mode
        self.options = options or FiringOptions()
        self._seen = self._warned = False
        if mode == "imls":
            self.register_buffer("running_max", torch.zeros(channels))

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"{self.channels}, levels={self.levels}, mode={self.mode!r}"

    def forward(self, x, lengths=None, state=None):
        """Spikes of ``x``.

        Arguments
        ---------
        x : Tensor (B, L, C)
            Presynaptic input.
        lengths : Tensor (B,), optional
            Relative lengths. Padding is left out of Lambda and emits no spike.
        state : None
            The neuron has none: a frame's T micro-steps begin and end within the frame.

        Returns
        -------
        (spikes, None) : spikes (B, L, C) in x's dtype, level times the value of one spike.

        Raises
        ------
        ValueError
            When x has another number of channels.
        """
        return self.fire(x, frames.absolute(lengths, x)).value, None

    def fire(self, x, counts):
        """The same as declared :class:`operands.Spikes`, from frame counts (B,) int64, for products that keep bytes."""
        if x.shape[-1] != self.channels:
            raise ValueError(f"x has {x.shape[-1]} channels, the neuron {self.channels}: set channels={x.shape[-1]}")
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            spikes = self._fire_wide(wide, counts)
        spikes = spikes._replace(value=spikes.value.to(x.dtype))
        if operands.listening():
            operands.tell(firing_event(self, spikes))
        return spikes

    def _fire_wide(self, x, counts):
        if self.mode == "mls":
            return self._spikes(x, counts, torch.full_like(x[0, 0], self.options.threshold), ratio=1.0)
        if self.training:
            batch_max, row = self._batch_statistic(x, counts)
            self._update(batch_max)
            if not self.options.running_in_training:
                return self._spikes(x, counts, self._top(batch_max), row=row)
        if not self._has_seen():
            return self._fire_unseen(x, counts)
        return self._spikes(x, counts, self._top(self.running_max.to(x.dtype)))

    def _has_seen(self):
        """Whether a training batch was seen; asked of the buffer until it says yes, not at every forward."""
        if not self._seen and not torch.compiler.is_compiling():
            self._seen = bool((self.running_max > 0).any())
        return self._seen

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        loaded = self._buffers.get("running_max")
        self._seen = loaded is not None and not loaded.is_meta and bool((loaded > 0).any())

    def _top(self, maximum):
        return maximum.clamp(min=self.options.eps) * self.options.threshold

    def _spikes(self, x, counts, top, row=None, ratio=None):
        o = self.options
        if row is None or not o.grad_through_scale or o.output_scale == "channel":
            row = torch.full((self.channels,), -1, dtype=torch.long, device=x.device)
        gain = {"1/T": torch.full_like(top, 1 / self.levels), "none": torch.ones_like(top)}.get(o.output_scale)
        gain = top.detach() / self.levels if gain is None else gain
        numbers = multilevel.FireOptions(
            self.levels, float(self.levels) if ratio is None else ratio, 0.5 if o.rounding == "round" else 0.0, o.threshold
        )
        value, code = multilevel.fire(x, top, gain, counts, row, numbers)
        return operands.Spikes(value, code, gain, self.levels, counts)

    def _batch_statistic(self, x, counts):
        """Lambda of this batch (Eq. 10) and the rows that its gradient goes to, -1 where it is a constant."""
        if self.options.statistic < 1:
            quantile = torch.quantile(x.detach()[frames.valid(counts, x)], self.options.statistic, dim=0)
            own, row = quantile, torch.full((self.channels,), -1, dtype=torch.long, device=x.device)
        else:
            own, row = multilevel.channel_max(x, counts)
        shared = _max_over_processes(own) if self.options.sync == "batch" else own
        followed = (own == shared) & (shared > self.options.eps)
        return shared, torch.where(followed, row, -1)

    def _update(self, batch_max):
        """Eq. 11; not while a checkpointed segment is recomputed inside the backward pass, which has seen this batch before."""
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return
        with torch.no_grad():
            new = _max_over_processes(batch_max) if self.options.sync == "running" else batch_max
            new = new.clamp(min=self.options.eps).to(self.running_max.dtype)
            mixed = torch.lerp(self.running_max, new, self.options.momentum)
            self.running_max.copy_(torch.where(self.running_max == 0, new, mixed))
        self._seen = True

    def _fire_unseen(self, x, counts):
        """Evaluation before any training batch: every utterance is scaled by its own maximum."""
        if not self._warned:
            self._warned = True
            warnings.warn("a multi-level neuron has seen no training batch: each utterance is scaled by its own maximum", stacklevel=3)
        parts = []
        for one, count in zip(x.split(1), counts.split(1), strict=True):
            top, _ = multilevel.channel_max(one, count)
            parts.append(self._spikes(one, count, self._top(top)))
        value, code = torch.cat([p.value for p in parts]), torch.cat([p.code for p in parts])
        return operands.Spikes(value, code, parts[0].gain, self.levels, counts)


def firing_event(neuron, spikes):
    """The :class:`operands.Firing` of one batch of spikes."""
    level = spikes.level.flatten(0, -2)
    return operands.Firing(neuron, level.double().sum(0), int(spikes.counts.sum()), spikes.levels, (level == spikes.levels).double().sum(0))


def _max_over_processes(values):
    if not (torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return values
    shared = values.clone()
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return shared
