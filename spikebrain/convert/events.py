"""Products of spikes as hardware without multipliers would do them: for every event, one row of weights is added.

Everything here takes declared :class:`spikebrain.operands.Spikes` and returns (result, number of additions). A neuron that fired s
spikes in a frame is a burst: an event in each of the first s micro-steps. Events past an utterance's end do not exist.
"""

import torch

from spikebrain import lengths as frames

CHUNK = 1 << 14  # events whose rows are gathered at once


def bursts(spikes):
    """The events of each micro-step: an iterator over ``levels`` Tensors (n, 3), int64, of (utterance, frame, channel)."""
    level = spikes.level
    for step in range(1, int(spikes.levels) + 1):
        yield (level >= step).nonzero()


def project(spikes, weight, bias=None):
    """``weight`` (O, C) of every event's channel, added at its frame: (B, L, O). The bias is added once, not once a micro-step."""
    batch, length, _ = spikes.level.shape
    out, rows, added = _zeros(spikes, weight, batch * length, len(weight)), weight.t().contiguous(), 0
    for events in bursts(spikes):
        for b, t, c in _columns(events):
            out.index_add_(0, b * length + t, _worth(rows[c], spikes, b, c))
            added += len(c) * rows.shape[1]
    out = out.view(batch, length, -1)
    return (out if bias is None else out + bias), added


def convolve(spikes, weight, bias=None):
    """A convolution over frames with as much padding as keeps the length; ``weight`` (O, C, K), or (C, 1, K) channel by channel.

    A tap that would fall before the first frame or behind the last is added where nobody reads it, as a dense convolution multiplies
    there too.
    """
    batch, length, channels = spikes.level.shape
    kernel, single = weight.shape[-1], weight.shape[1] == 1 and channels > 1
    reach = length + kernel - 1
    out, added = _zeros(spikes, weight, batch * reach, len(weight)), 0
    for events in bursts(spikes):
        for b, t, c in _columns(events):
            for tap in range(kernel):  # frame t reaches frame t + kernel // 2 - tap
                at = b * reach + t + kernel - 1 - tap
                if single:
                    out.index_put_((at, c), _worth(weight[c, 0, tap].unsqueeze(1), spikes, b, c).squeeze(1), accumulate=True)
                else:
                    out.index_add_(0, at, _worth(weight[:, :, tap].t()[c], spikes, b, c))
            added += len(c) * kernel * (1 if single else len(weight))
    edge = kernel // 2
    out = out.view(batch, reach, -1)[:, edge : edge + length]
    return (out if bias is None else out + bias), added


def attend(weights, spikes, heads):
    """sum_j weights[i, j] values[j]: every event adds its frame's column of ``weights`` (B, H, L, L) to its channel: (B, L, C)."""
    batch, length, channels = spikes.level.shape
    counts, columns = spikes.counts, weights.permute(0, 1, 3, 2)  # (B, H, key, query)
    out, added = _zeros(spikes, weights, batch * channels, length), 0
    for events in bursts(spikes):
        for b, t, c in _columns(events):
            out.index_add_(0, b * channels + c, _worth(columns[b, c // (channels // heads), t], spikes, b, c))
            added += int(counts[b].sum())  # queries past the utterance's end are nobody's
    return out.view(batch, channels, length).transpose(1, 2), added


def score(known, spikes, heads=None):
    """sum_c known[i, c] spikes[j, c]: every event adds its channel's column of ``known`` at its frame: (B, H, L, L).

    Arguments
    ---------
    known : Tensor (B, H, L, D)
        Complete, for all queries.
    spikes : Spikes (B, L, H * D), of each head its own channels; or (B, L, D), heard by all ``heads``
    heads : int or None
        None where each head has its own.
    """
    batch, length, channels = spikes.level.shape
    counts, number = spikes.counts, known.shape[1]
    out, added = _zeros(spikes, known, batch * number * length, length), 0
    for events in bursts(spikes):
        for b, t, c in _columns(events):
            for head, inside, chosen in _heads(c, channels // number, heads):
                at = (b[chosen] * number + head) * length + t[chosen]
                columns = known[b[chosen], head, :, inside]
                out.index_add_(0, at, _worth(columns, spikes, b[chosen], c[chosen]))
                added += int(counts[b[chosen]].sum())
    return out.view(batch, number, length, length).transpose(-2, -1), added


def meet(keys, values, heads):
    """sum_t keys[t, d] values[t, e], of two trains (B, L, H * D): (B, H, D, D). An addition for every two events of one frame and head."""
    batch, length, channels = keys.level.shape
    width = channels // heads
    out, added = _zeros(values, values.value, batch, heads, width, width), 0
    for left in bursts(keys):
        k = _dense(left, keys).view(batch, length, heads, width)
        for right in bursts(values):
            v = _dense(right, values).view(batch, length, heads, width)
            out += torch.einsum("blhd,blhe->bhde", k, v)
            added += int(((k != 0).sum(-1) * (v != 0).sum(-1)).sum())
    return out, added


def gather(keys, values, heads):
    """The same, where every event of ``values`` adds its frame's whole row of keys: an addition for each channel of a head."""
    batch, length, channels = values.level.shape
    width, added = channels // heads, 0
    rows = keys.value.view(batch, length, heads, width)
    out = _zeros(values, rows, batch * channels, width)
    for events in bursts(values):
        for b, t, c in _columns(events):
            out.index_add_(0, b * channels + c, _worth(rows[b, t, c // width], values, b, c))
            added += len(c) * width
    return out.view(batch, heads, width, width).transpose(-2, -1), added


def read(queries, state):
    """sum_d queries[t, d] state[d]: every event adds its channel's row of ``state`` (B, H, D, E): (B, L, H * E)."""
    batch, length, channels = queries.level.shape
    heads, width = state.shape[1], state.shape[-1]
    out, added = _zeros(queries, state, batch * length * heads, width), 0
    for events in bursts(queries):
        for b, t, c in _columns(events):
            head, inside = c // (channels // heads), c % (channels // heads)
            out.index_add_(0, (b * length + t) * heads + head, _worth(state[b, head, inside], queries, b, c))
            added += len(c) * width
    return out.view(batch, length, -1), added


def passed(content, gate):
    """The real ``content`` (B, L, C) where the binary ``gate`` fires, 0 elsewhere; one addition (to 0) for every event."""
    out, added = torch.zeros_like(content), 0
    for events in bursts(gate):
        at = events.unbind(1)
        out[at] += content[at]
        added += len(events)
    return out, added


def _columns(events):
    """Chunks of events, each as its utterances, frames and channels."""
    return (chunk.unbind(1) for chunk in events.split(CHUNK))


def _worth(rows, spikes, b, c):
    """``rows`` (n, ...) times what a spike of its channel is worth, which folds into the weights: 1, or a constant of the channel.

    In float32 at least, as what they are added to.
    """
    rows, gain = rows.to(torch.promote_types(rows.dtype, torch.float32)), spikes.gain
    if gain is None or bool((gain == 1).all()):
        return rows
    gain = gain[c] if gain.dim() == 1 else gain[b, 0, c]
    return rows * gain.unsqueeze(1).to(rows.dtype)


def _dense(events, spikes):
    """The binary train (B, L, C) of some events, times the value of a spike."""
    train = torch.zeros_like(spikes.value)
    at = events.unbind(1)
    train[at] = 1.0
    return train if spikes.gain is None else train * spikes.gain.to(train.dtype)


def _heads(c, width, shared):
    """(head, channel within it, which events) of channels ``c`` (n,)."""
    if shared is not None:
        every = torch.ones_like(c, dtype=torch.bool)
        return [(head, c, every) for head in range(shared)]
    return [(int(head), c[c // width == head] % width, c // width == head) for head in (c // width).unique()]


def _zeros(spikes, like, *shape):
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.zeros(shape, dtype=dtype, device=spikes.level.device)


def trimmed(spikes):
    """The same train without codes past an utterance's end."""
    return spikes._replace(code=frames.zero_past(spikes.code, spikes.counts))
