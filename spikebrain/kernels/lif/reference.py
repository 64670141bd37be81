"""The definition of leaky integrate-and-fire neurons, in plain torch operations that autograd differentiates.

    h_t = decay v_{t-1} + (x_t scale + shift)
    s_t = 1 where h_t >= threshold, else 0
    v_t = h_t (1 - s_t)            hard reset, to 0
    v_t = h_t - threshold s_t      soft reset, by subtraction
    y_t = s_t gain

SpikeSCR Eq. 1-3, with the input's weight left to ``scale``: 1 as in the published code, 1 - decay as printed.
The derivative of s by h is a surrogate; with ``detach`` the s inside the reset has none.
"""

import torch

from spikebrain import lengths as frames
from spikebrain.kernels import surrogate


def fire(x, affine, decay, start, gain, counts, options):
    """See :func:`spikebrain.kernels.lif.fire`."""
    charge = x if affine is None else x * affine.scale + affine.shift
    v, spikes = x.new_zeros(len(x), x.shape[2]) if start is None else start, []
    for current, valid in zip(charge.unbind(1), frames.valid(counts, x).t().unsqueeze(-1), strict=True):
        h = decay * v + current
        s = surrogate.step(h - options.threshold, options.surrogate, options.alpha)
        reset = s.detach() if options.detach else s
        v = torch.where(valid, h - options.threshold * reset if options.soft else h * (1 - reset), v)
        spikes.append(s * valid)
    s = torch.stack(spikes, 1)
    return s if gain is None else s * gain.unsqueeze(1), s.detach().to(torch.uint8), v
