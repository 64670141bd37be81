"""A linear layer that reads spikes: it declares its product and keeps one byte an input element for its backward pass."""

import torch
from torch import nn

from spikebrain import operands
from spikebrain.kernels import multilevel


class _SpikeProduct(torch.autograd.Function):
    """value W^T + b, with the derivative by W from the code bytes instead of from a float copy of the input."""

    @staticmethod
    def forward(ctx, value, code, gain, weight, bias):
        """Real (B, L, O) of ``value`` (B, L, C) and ``weight`` (O, C); keeps the spikes' ``code`` and ``gain``, not their value."""
        ctx.save_for_backward(code, gain, weight)
        return nn.functional.linear(value, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        """Gradients of value, weight and bias, each only where it is asked for; spikes are decoded for the weight's."""
        code, gain, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        grad_value = torch.matmul(grad, weight) if wanted[0] else None
        grad_weight = rows.t() @ multilevel.decode(code, gain).to(grad.dtype).flatten(0, -2) if wanted[3] else None
        return grad_value, None, None, grad_weight, rows.sum(0) if wanted[4] else None


class SpikeLinear(nn.Linear):
    """``spikes.value @ weight.T + bias`` for declared spikes; parameters, initialisation and state as nn.Linear.

    At spike-driven inference the product is an accumulation of weight columns, one for every binary spike, times the
    value of a spike, which folds into the weight; the bias is added once, not once a micro-step (Eq. 9).
    """

    def forward(self, spikes):
        """Real output (B, L, out_features) of :class:`operands.Spikes` with in_features channels."""
        if operands.listening():
            operands.tell(self._product(spikes))
        value, weight, bias = spikes.value, self.weight, self.bias
        if torch.is_autocast_enabled(value.device.type):
            dtype = torch.get_autocast_dtype(value.device.type)
            value, weight, bias = value.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(value.device.type, enabled=False):
            if spikes.gain is None:
                return nn.functional.linear(value.to(weight.dtype), weight, bias)
            return _SpikeProduct.apply(value.to(weight.dtype), spikes.code, spikes.gain, weight, bias)

    def _product(self, spikes):
        macs = int(spikes.counts.sum()) * self.in_features * self.out_features
        fired = None if spikes.kind is operands.Kind.REAL else int(spikes.level.sum()) * self.out_features
        return operands.Product(self, "weight", spikes.kind, operands.Kind.REAL, macs, fired)
