"""What others offer for the same networks: LIF layers of SpikingJelly and snnTorch, and SpikeSCR built from SpikingJelly's layers.

Peers keep their own layout, frames first: (L, B, C). Both packages are optional: ``pip install spikebrain[peers]``.
"""

import contextlib
import importlib
import os
import tempfile
import time
from importlib import metadata

import torch
from torch import nn

from benches.measure import BenchError

TAU, ALPHA = 2.0, 5.0  # a decay of 1 - 1/2 a frame, and the surrogate's sharpness: SpikeSCR Table 6


def module(name):
    """A module of a peer; a BenchError says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BenchError(f"this bench needs {name.partition('.')[0]} ({error}): pip install spikebrain[peers]") from error


def jelly(name):
    """A module of SpikingJelly's ``activation_based``."""
    return module(f"spikingjelly.activation_based.{name}")


def versions():
    """Version of every peer: rows."""
    return [{"peer": name, "version": metadata.version(name)} for name in ("spikingjelly", "snntorch") if module(name)]


# One layer of neurons. Each maker returns (module, fire): fire(x) gives the spikes (L, B, C) of x (L, B, C).


def jelly_neuron():
    """SpikingJelly's multi-step LIF with SpikeSCR's constants."""
    return jelly("neuron").LIFNode(
        tau=TAU, decay_input=False, v_threshold=1.0, v_reset=0.0, surrogate_function=jelly("surrogate").ATan(alpha=ALPHA),
        detach_reset=True, step_mode="m",
    )  # fmt: skip


def jelly_layer():
    """SpikingJelly's layer, reset before every call as its users do."""
    neuron, reset = jelly_neuron(), jelly("functional").reset_net

    def fire(x):
        reset(neuron)
        return neuron(x)

    return neuron, fire


def compiled_jelly_layer(x):
    """The same under ``torch.compile``, compiled for ``x``, and the seconds that compiling took, without what earlier runs left.

    The compiler unrolls the loop over frames, and what it takes grows with their number.
    """
    neuron, reset = jelly_neuron(), jelly("functional").reset_net
    compiled = torch.compile(neuron, dynamic=False)

    def fire(x):
        reset(neuron)
        return compiled(x)

    with _empty_cache():
        began = time.perf_counter()
        fire(x.detach().requires_grad_()).sum().backward()
        return neuron, fire, time.perf_counter() - began


@contextlib.contextmanager
def _empty_cache():
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            os.environ.update({} if before is None else {name: before})


def snntorch_layer():
    """snnTorch's Leaky in its loop over frames. It fires above the threshold, ours and SpikingJelly's at it."""
    neuron = module("snntorch").Leaky(beta=1 - 1 / TAU, reset_mechanism="zero", spike_grad=module("snntorch.surrogate").atan(alpha=ALPHA))

    def fire(x):
        membrane, spikes = torch.zeros_like(x[0]), []
        for frame in x:
            spike, membrane = neuron(frame, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return neuron, fire


# SpikeSCR, its equations in the order of the paper, with SpikingJelly's layers in multi-step mode.


def _normed(channels, dropout=None):
    layer = jelly("layer")
    parts = [layer.BatchNorm1d(channels, step_mode="m"), jelly_neuron()]
    return nn.Sequential(*parts, *([] if dropout is None else [layer.Dropout(dropout, step_mode="m")]))


def _linear(inputs, outputs, bias=True):
    return jelly("layer").Linear(inputs, outputs, bias=bias, step_mode="m")


def _convolution(inputs, outputs, kernel, **options):
    return jelly("layer").Conv1d(inputs, outputs, kernel, padding=kernel // 2, step_mode="s", **options)


def _over_frames(convolution, x):
    """A convolution whose axis is time: (L, B, C) is turned to (B, C, L) and back."""
    return convolution(x.permute(1, 2, 0)).permute(2, 0, 1)


class PeerAttention(nn.Module):
    """SSA, Eq. 5-8: queries, keys and values, rotated spikes and neurons behind them, products in the published order."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.heads = config.nhead
        for name in "qkv":
            setattr(self, name, _linear(d, d))
            setattr(self, f"{name}_neuron", _normed(d))
        self.q_rotary, self.k_rotary, self.attention_neuron = jelly_neuron(), jelly_neuron(), jelly_neuron()
        self.dropout = jelly("layer").Dropout(config.dropout, step_mode="m")
        self.out, self.out_neuron = _linear(d, d), _normed(d, config.dropout)
        self.turns = {}

    def forward(self, x):
        """Spikes (L, B, C) of the stream ``x``."""
        q, k, v = (getattr(self, f"{name}_neuron")(getattr(self, name)(x)) for name in "qkv")
        q, k = self.q_rotary(self._rotated(q)), self.k_rotary(self._rotated(k))
        q, k, v = (train.unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3) for train in (q, k, v))
        y = (q @ k.transpose(-2, -1)) @ v * q.shape[-1] ** -0.5
        y = self.dropout(self.attention_neuron(y.permute(2, 0, 1, 3).flatten(2)))
        return self.out_neuron(self.out(y))

    def _rotated(self, x):
        cosine, sine = self._turn(x)
        even, odd = x.unflatten(-1, (self.heads, -1, 2)).unbind(-1)
        return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(2)

    def _turn(self, x):
        """Cosines and sines (L, 1, 1, D / 2), worked out once for a number of frames."""
        key = (len(x), x.dtype)
        if key not in self.turns:
            width = x.shape[-1] // self.heads
            speeds = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.outer(torch.arange(len(x), dtype=torch.float64), speeds)[:, None, None]
            self.turns[key] = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return self.turns[key]


class PeerMLP(nn.Module):
    """Two linear layers without bias, each with a norm and neurons."""

    def __init__(self, config):
        super().__init__()
        self.up, self.up_neuron = _linear(config.d_model, config.hidden, bias=False), _normed(config.hidden, config.dropout)
        self.down, self.down_neuron = _linear(config.hidden, config.d_model, bias=False), _normed(config.d_model, config.dropout)

    def forward(self, x):
        """Spikes (L, B, C) of the stream ``x``."""
        return self.down_neuron(self.down(self.up_neuron(self.up(x))))


class PeerConvolution(nn.Module):
    """SGC, Eq. 9 and 10. Convolutions over one frame are linear layers: that spares the peer turning its axes."""

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.pointwise, self.pointwise_neuron = _linear(d, d), _normed(d, config.dropout)
        self.depthwise, self.depthwise_neuron = _convolution(d, d, config.kernel_size, groups=d, bias=False), _normed(d, config.dropout)
        self.mix, self.mix_norm = _linear(d, 2 * d), jelly("layer").BatchNorm1d(2 * d, step_mode="m")
        self.gate_input, self.gate_linear, self.gate = jelly_neuron(), _linear(d, d), _normed(d)
        self.output_neuron, self.dropout = jelly_neuron(), jelly("layer").Dropout(config.dropout, step_mode="m")

    def forward(self, x):
        """Spikes (L, B, C) of the stream ``x``."""
        hidden = self.pointwise_neuron(self.pointwise(x))
        hidden = self.depthwise_neuron(_over_frames(self.depthwise, hidden))
        content, path = self.mix_norm(self.mix(hidden)).chunk(2, -1)
        gate = self.gate(self.gate_linear(self.gate_input(path)))
        return self.dropout(self.output_neuron(content * gate))


class PeerBlock(nn.Module):
    """SGLE: attention, MLP, convolution, MLP, each added to the stream."""

    def __init__(self, config):
        super().__init__()
        self.attention, self.mlp_1 = PeerAttention(config), PeerMLP(config)
        self.convolution, self.mlp_2 = PeerConvolution(config), PeerMLP(config)

    def forward(self, x):
        """The stream (L, B, C) with four branches added."""
        for branch in (self.attention, self.mlp_1, self.convolution, self.mlp_2):
            x = x + branch(x)
        return x


class PeerSpikeSCR(nn.Module):
    """SpikeSCR with its output layer, for utterances of one length.

    Arguments
    ---------
    config : SpikeSCRConfig
        Sizes and dropout; switches other than the published ones are not known here.
    input_size, classes : int
    """

    def __init__(self, config, input_size, classes):
        super().__init__()
        self.conv, self.neuron = _convolution(input_size, config.d_model, 3), _normed(config.d_model, config.dropout)
        self.layers = nn.Sequential(*(PeerBlock(config) for _ in range(config.num_layers)))
        self.head = _linear(config.d_model, classes, bias=False)

    def forward(self, x):
        """Logits (L, B, K) of features (L, B, N)."""
        jelly("functional").reset_net(self)
        return self.head(self.layers(self.neuron(_over_frames(self.conv, x))))


def pairs(peer, ours):
    """Every parameter and running statistic of a :class:`PeerSpikeSCR` with that of a SpikingClassifier which it equals.

    Yields (peer's tensor, ours, rows of ours, rows of the peer's): slices, for where one holds several layers of the other.
    """
    encoder = ours.encoder.model
    yield from _same(peer.conv, encoder.embedding.conv)
    yield from _same(peer.neuron[0], encoder.embedding.neuron.norm)
    yield from _same(peer.head, ours.head)
    for theirs, mine in zip(peer.layers, encoder.layers, strict=True):
        yield from _attention_pairs(theirs.attention, mine.attention)
        yield from _convolution_pairs(theirs.convolution, mine.convolution)
        for mlp in ("mlp_1", "mlp_2"):
            yield from _named_pairs(getattr(theirs, mlp), getattr(mine, mlp), ("up", "down"))


def _attention_pairs(theirs, mine):
    d = mine.qkv.in_features
    for i, name in enumerate("qkv"):
        rows = slice(i * d, (i + 1) * d)
        yield from _same(getattr(theirs, name), mine.qkv, rows)
        yield from _same(getattr(theirs, f"{name}_neuron")[0], mine.qkv_neuron.norm, rows)
    yield from _named_pairs(theirs, mine, ("out",))


def _convolution_pairs(theirs, mine):
    d = mine.pointwise.in_features
    yield from _named_pairs(theirs, mine, ("pointwise", "depthwise"))
    yield from _same(theirs.mix, mine.mix)
    for rows, norm in ((slice(d), mine.content_norm), (slice(d, None), mine.gate_input.norm)):
        yield from ((a, b, slice(None), rows) for a, b, _, _ in _same(theirs.mix_norm, norm))
    yield from _same(theirs.gate_linear, mine.gate_linear)
    yield from _same(theirs.gate[0], mine.gate.norm)


def _named_pairs(theirs, mine, names):
    for name in names:
        yield from _same(getattr(theirs, name), getattr(mine, name))
        yield from _same(getattr(theirs, f"{name}_neuron")[0], getattr(mine, f"{name}_neuron").norm)


def _same(theirs, mine, rows=slice(None)):
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = ((getattr(theirs, name, None), getattr(mine, name, None)) for name in names)
    yield from ((a, b, rows, slice(None)) for a, b in tensors if a is not None)
