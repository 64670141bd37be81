"""The neuron that multi-level spikes replace: leaky integrate-and-fire, T micro-steps, backpropagation through them.

    v_t = decay * v_{t-1} + x_t ;  s_t = 1[v_t >= threshold] ;  v_t <- v_t - threshold * s_t      (IML-Spikeformer Eq. 1-3)

with the surrogate derivative 1[|v - threshold| <= 1/2] and a reset that carries no gradient: the ablation
"IMLS -> multi-timestep" of Table V. Its memory grows with T; that is the point of the comparison, so nothing is
recomputed here.
"""

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.neurons.multilevel import firing_event


class _Rectangle(torch.autograd.Function):
    """Heaviside step; derivative 1 within half a unit of the threshold."""

    @staticmethod
    def forward(ctx, distance):
        """1 where ``distance`` to the threshold, of any shape, is not below 0, else 0; keeps one bool an element."""
        ctx.save_for_backward(distance.abs() <= 0.5)
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx, grad):
        """The gradient where the membrane was within half a unit of the threshold, 0 elsewhere."""
        return grad * ctx.saved_tensors[0]


class IterativeLIF(nn.Module):
    """LIF neurons that fire over T micro-steps; the steps are folded into the batch axis, step by step.

    Arguments
    ---------
    channels : int
        C.
    levels : int
        T, the number of micro-steps.
    decay : float
        Of the membrane, per micro-step (tau = 2 gives 0.5).
    threshold : float
    """

    def __init__(self, channels, levels=6, decay=0.5, threshold=1.0):
        super().__init__()
        self.channels, self.levels, self.decay, self.threshold = channels, levels, decay, threshold

    def extra_repr(self):
        """What it was built with, for ``print``."""
        return f"{self.channels}, levels={self.levels}, decay={self.decay}, threshold={self.threshold}"

    def forward(self, x, lengths=None, state=None):
        """Binary spikes of ``x`` (T * B, L, C), micro-step major; returns (spikes, None). Raises ValueError for other shapes."""
        return self.fire(x, frames.absolute(lengths, x)).value, None

    def fire(self, x, counts):
        """The same as declared :class:`operands.Spikes`, from frame counts (T * B,)."""
        if x.shape[-1] != self.channels or x.shape[0] % self.levels:
            raise ValueError(
                f"x is {tuple(x.shape)}: {self.channels} channels and a batch that is a multiple of {self.levels} micro-steps are expected"
            )
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            value = self._integrate(wide.unflatten(0, (self.levels, -1))).flatten(0, 1)
        value = frames.zero_past(value, counts).to(x.dtype)
        spikes = operands.Spikes(value, value.detach().to(torch.uint8), torch.ones_like(value[0, 0]), 1, counts)
        if operands.listening():
            operands.tell(firing_event(self, spikes))
        return spikes

    def _integrate(self, x):
        membrane, spikes = torch.zeros_like(x[0]), []
        for step in x:
            membrane = self.decay * membrane + step
            spikes.append(_Rectangle.apply(membrane - self.threshold))
            membrane = membrane - self.threshold * spikes[-1].detach()
        return torch.stack(spikes)
