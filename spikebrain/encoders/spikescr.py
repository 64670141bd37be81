"""SpikeSCR: attention with rotated spikes and gated convolution, for speech commands.

    SEM:    X = Drop(LIF(BN(Conv3(x))))
    block:  X <- X + SSA(X) ;  X <- X + MLP(X) ;  X <- X + SGC(X) ;  X <- X + MLP(X)
    SSA:    Q, K, V = LIF(BN(X W + b)) ;  Q', K' = LIF(RoPE(Q)), LIF(RoPE(K))                 Eq. 5-7
            Y = Drop(LIF(Q' K'^T V' / sqrt(d_k))) ;  out = Drop(LIF(BN(Y W + b)))              Eq. 8
    MLP:    Drop(LIF(BN(Drop(LIF(BN(X W_1))) W_2)))

Every branch ends in neurons, so the stream X is an integer, at most 1 + 4 per block. There is no softmax. Source: "Efficient
Speech Command Recognition Leveraging Spiking Neural Network and Curriculum Learning-based Knowledge Distillation", arXiv
2412.12858v1; the two MLPs a block, kernel sizes and biases are those of the published code, without which the published
numbers of parameters cannot be had.

What differs from the published code: frames past an utterance's end fire nowhere and enter no statistic
(``paper_padding=True`` lets them), and rotated spikes are integrated over frames. The code reshapes them where it would have
to permute, so that a neuron integrates over other utterances of the batch (``reference_quirk=True`` does so too).
"""

from dataclasses import dataclass

import torch
from torch import nn

from spikebrain import lengths as frames
from spikebrain import operands
from spikebrain.attention import rope
from spikebrain.attention.spike_attention import merge_heads, split_heads
from spikebrain.blocks.frame_convolution import convolve
from spikebrain.blocks.gated_convolution import SeparableGatedConvolution
from spikebrain.blocks.masked_norm import FrameConstantDropout, NormedNeuron
from spikebrain.blocks.spike_linear import SpikeLinear
from spikebrain.neurons import LIF, PLIF
from spikebrain.neurons.neuron_switches import NeuronSwitches
from spikebrain.neurons.switches import one_of


@dataclass(frozen=True)
class SpikeSCRConfig(NeuronSwitches):
    """Every switch of the encoder; the defaults are those of the published model for SHD, 1L-8-128.

    Arguments
    ---------
    num_layers, d_model, nhead : int
        n, d and m of a size's name nL-m-d.
    mlp_ratio : float
        Width of an MLP's hidden layer in units of d_model: 1 for SHD, 4 for SSC and GSC.
    d_ffn : int, optional
        The same width in channels, as SpeechBrain's encoders take it; it goes before ``mlp_ratio``.
    kernel_size : int
        Frames of the depthwise convolution.
    dropout : float
        Share of neurons that are silenced for a whole utterance.
    positions : str
        "rope" (rotated spikes and neurons behind them), "none" (w/o RoPE: without both), or the other rows of Table 2: "sin"
        (sines added to the input of queries, keys and values, which then are real products) and "sin_lif" (with neurons behind).
    gate, convolution : bool
        False leaves out the gated unit (w/o SGU), or the separable convolution and the MLP behind it (w/o sep. conv).
    attention_order : str
        "scores", Q (K^T) first, as published; "state", K^T V first: the same integers with L / d_k times fewer operations.
    neuron : str
        "lif", or "plif" with learned decays.
    decay, threshold, reset, detach_reset, decay_input, surrogate, alpha
        As for :class:`spikebrain.neurons.LIF`.
    input_kind : str
        What the input is, for counting energy: "real" features, or "level" counts of events (SHD, SSC).
    paper_padding : bool
        Padded frames fire and count as they do in the published code; only attention leaves them out.
    reference_quirk : bool
        Integrates rotated spikes over the scrambled axis of the published code. Utterances then depend on each other.
    causal : bool
        For SpeechBrain's sake; True is refused, since attention and convolutions look at the whole utterance.
    """

    model, beside = "SpikeSCR", ("input_size",)
    num_layers: int = 1
    d_model: int = 128
    nhead: int = 8
    mlp_ratio: float = 1.0
    d_ffn: int | None = None
    kernel_size: int = 31
    dropout: float = 0.1
    positions: str = one_of("rope", "none", "sin", "sin_lif")
    gate: bool = True
    convolution: bool = True
    attention_order: str = one_of("scores", "state")
    neuron: str = one_of("lif", "plif")
    input_kind: str = one_of("real", "level")
    paper_padding: bool = False
    reference_quirk: bool = False
    causal: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.d_model % self.nhead:
            raise ValueError(f"d_model {self.d_model} is not a multiple of nhead {self.nhead}: choose a width that the heads share evenly")
        if 1 + 4 * self.num_layers > 127:
            raise ValueError(f"num_layers is {self.num_layers}: the stream counts to 1 + 4 num_layers, which has to stay below 128")
        if self.causal:
            raise ValueError("causal is True, but SpikeSCR looks at the whole utterance: set causal: False")

    @property
    def hidden(self):
        """Width of an MLP's hidden layer."""
        return self.d_ffn or round(self.mlp_ratio * self.d_model)

    def make_neuron(self, channels):
        """A layer of ``channels`` neurons."""
        return {"lif": LIF, "plif": PLIF}[self.neuron](channels, **self.neuron_options())

    def make_normed(self, channels, dropout):
        """A layer of neurons behind a batch normalisation, with the dropout or without."""
        return NormedNeuron(channels, self.make_neuron(channels), self.dropout if dropout else 0.0)


class SpikeEmbedding(nn.Module):
    """SEM, Eq. 4: a convolution over three frames, and neurons."""

    FOLDS = (("conv", ("neuron",)),)

    def __init__(self, input_size, config):
        super().__init__()
        self.input_kind, self.padded = operands.Kind(config.input_kind), config.paper_padding
        self.conv = nn.Conv1d(input_size, config.d_model, 3, padding=1)
        self.neuron = config.make_normed(config.d_model, True)

    def forward(self, x, counts, valid):
        """Spikes of features ``x`` (B, L, N); ``valid`` (B,) are the frames that x has, ``counts`` those that fire."""
        return self.neuron.fire(self.convolve(frames.zero_past(x, valid), valid), counts)

    def convolve(self, x, valid):
        """Currents (B, L, d_model) of ``x`` (B, L, N), 0 past ``valid`` (B,) frames."""
        if operands.listening():
            operands.tell(self._product(x, valid))
        return convolve(x, self.conv.weight, self.conv.bias)

    def _product(self, x, counts):
        macs = int(counts.sum()) * self.conv.weight.numel()
        events = None
        if self.input_kind is operands.Kind.LEVEL:
            events = int(x.sum()) * 3 * self.conv.out_channels
        return operands.Product(self, "weight", self.input_kind, operands.Kind.REAL, macs, events)


class RotarySpikingAttention(nn.Module):
    """SSA, Eq. 5-8, without its residual."""

    FOLDS = (("qkv", ("qkv_neuron",)), ("out", ("out_neuron",)))

    def __init__(self, config):
        super().__init__()
        d = config.d_model
        self.nhead, self.positions, self.order, self.quirk = config.nhead, config.positions, config.attention_order, config.reference_quirk
        self.qkv, self.qkv_neuron = SpikeLinear(d, 3 * d), config.make_normed(3 * d, False)
        self.rotary_neuron = config.make_neuron(2 * d) if self.positions == "rope" else None
        self.position_neuron = config.make_neuron(d) if self.positions == "sin_lif" else None
        self.attention_neuron, self.dropout = config.make_neuron(d), FrameConstantDropout(config.dropout)
        self.out, self.out_neuron = SpikeLinear(d, d), config.make_normed(d, True)

    def forward(self, x, counts, valid):
        """Spikes of the declared stream ``x``; keys past ``valid`` (B,) frames are not attended to."""
        q, k, v = self.project(x, counts, valid)
        y = self.mix(q, k, v) * (x.value.shape[-1] // self.nhead) ** -0.5
        return self.out_neuron.fire(self.out(self.attention_neuron.fire(y, counts, self.dropout.gain(y))), counts)

    def mix(self, q, k, v):
        """Integers (B, L, D) of three trains of spikes."""
        if operands.listening():
            self._tell(q, k, v)
        heads = [split_heads(train.value, self.nhead) for train in (q, k, v)]
        return merge_heads(spike_products(*heads, self.order))

    def project(self, x, counts, valid):
        """Spikes of queries, keys and values, positions told."""
        if self.positions in ("sin", "sin_lif"):
            x = self._with_sines(x, counts)
        d = self.out.in_features
        qk, v = self.qkv_neuron.fire(self.qkv(x), counts).split([2 * d, d])
        if self.rotary_neuron is not None:
            qk = self._fire_rotated(rope.rotate(qk.value, 2 * self.nhead), counts)
        q, k = qk.split([d, d])
        if valid is not counts:
            k = k._replace(value=frames.zero_past(k.value, valid), code=frames.zero_past(k.code, valid))
        return q, k, v

    def _fire_rotated(self, rotated, counts):
        if not self.quirk:
            return self.rotary_neuron.fire(rotated, counts)
        batch, length, width = rotated.shape
        scrambled = torch.stack(rotated.chunk(2, -1)).unflatten(-1, (self.nhead, -1)).transpose(2, 3)  # 2, B, H, L, D
        scrambled = scrambled.reshape(2, length, batch, -1).permute(2, 1, 0, 3).flatten(2)
        fired = self.rotary_neuron.fire(scrambled, torch.full_like(counts, length))

        def back(t):
            """The scrambled axes put back, (B, L, 2 D)."""
            t = t.unflatten(-1, (2, -1)).permute(2, 1, 0, 3).reshape(2, batch, self.nhead, length, -1)
            return t.transpose(2, 3).flatten(3).permute(1, 2, 0, 3).flatten(2)

        return fired._replace(value=back(fired.value), code=back(fired.code), counts=counts)

    def _with_sines(self, x, counts):
        value = x.value + rope.sinusoids(x.value.shape[1], x.value.shape[-1], x.value.device, x.value.dtype)
        if self.position_neuron is not None:
            return self.position_neuron.fire(value, counts)
        return operands.Spikes.real(frames.zero_past(value, counts), counts)

    def _tell(self, q, k, v):
        """Each query spike meets every key of its utterance, each value spike every query."""
        counts, width = q.counts, q.value.shape[-1]
        per_frame = width // self.nhead if self.order == "state" else None
        macs = int((counts * (per_frame or counts)).sum()) * width

        def met(train):
            """Additions of a train's spikes with what each of them meets."""
            return int((train.level.flatten(1).sum(1, dtype=torch.long) * (per_frame or counts)).sum())

        if self.order == "state":
            operands.tell(operands.Product(self, "state", k.kind, v.kind, macs, met(v)))
            operands.tell(operands.Product(self, "read", q.kind, operands.Kind.LEVEL, macs, met(q)))
        else:
            operands.tell(operands.Product(self, "scores", q.kind, k.kind, macs, met(q)))
            operands.tell(operands.Product(self, "values", operands.Kind.LEVEL, v.kind, macs, met(v)))


def spike_products(q, k, v, order="scores"):
    """Q K^T V (B, H, L, D) of spikes (B, H, L, D): integers, the same in both orders while they stay below 2^24 (float32)."""
    if order == "state":
        return torch.matmul(q, torch.matmul(k.transpose(-2, -1), v))
    return torch.matmul(torch.matmul(q, k.transpose(-2, -1)), v)


class SpikeSCRMLP(nn.Module):
    """Two linear layers without bias, each with a norm and neurons behind it."""

    FOLDS = (("up", ("up_neuron",)), ("down", ("down_neuron",)))

    def __init__(self, config):
        super().__init__()
        self.up, self.up_neuron = SpikeLinear(config.d_model, config.hidden, bias=False), config.make_normed(config.hidden, True)
        self.down, self.down_neuron = SpikeLinear(config.hidden, config.d_model, bias=False), config.make_normed(config.d_model, True)

    def forward(self, x, counts):
        """Spikes of the declared stream ``x``."""
        return self.down_neuron.fire(self.down(self.up_neuron.fire(self.up(x), counts)), counts)


class SpikeSCRBlock(nn.Module):
    """SGLE: attention, MLP, separable gated convolution, MLP, each added to an integer stream."""

    def __init__(self, config):
        super().__init__()
        self.attention, self.mlp_1 = RotarySpikingAttention(config), SpikeSCRMLP(config)
        self.convolution = self.mlp_2 = None
        if config.convolution:
            dropout = FrameConstantDropout(config.dropout)
            self.convolution = SeparableGatedConvolution(
                config.d_model, config.kernel_size, config.make_neuron, config.make_normed, dropout, config.gate
            )
            self.mlp_2 = SpikeSCRMLP(config)

    def forward(self, x, counts, valid):
        """The stream of declared spikes, with this block's four branches added."""
        x = x.plus(self.attention(x, counts, valid))
        x = x.plus(self.mlp_1(x, counts))
        if self.convolution is None:
            return x
        x = x.plus(self.convolution(x, counts))
        return x.plus(self.mlp_2(x, counts))


class SpikeSCR(nn.Module):
    """The encoder. Keyword arguments beside ``input_size`` are the fields of :class:`SpikeSCRConfig`.

    Arguments
    ---------
    input_size : int, optional
        Channels of the features; d_model where it is None.

    Example
    -------
    >>> encoder = SpikeSCR(input_size=40, d_model=32, nhead=2)
    >>> out, _ = encoder(torch.rand(3, 10, 40), lengths=torch.tensor([1.0, 0.5, 0.7]))
    >>> out.shape
    torch.Size([3, 10, 32])
    """

    position = "none"  # of the host's own: the encoder has rotary ones inside

    def __init__(self, input_size=None, **switches):
        super().__init__()
        self.config = config = SpikeSCRConfig.of(**switches)
        self.input_size = input_size or config.d_model
        self.embedding = SpikeEmbedding(self.input_size, config)
        self.layers = nn.ModuleList(SpikeSCRBlock(config) for _ in range(config.num_layers))
        self.reset_parameters()

    def reset_parameters(self):
        """Xavier-uniform for every weight, queries, keys and values each by itself; biases as torch has them (published code)."""
        joined = {module.qkv.weight for module in self.modules() if isinstance(module, RotarySpikingAttention)}
        for parameter in self.parameters():
            if parameter.dim() > 1:
                for part in parameter.data.chunk(3) if parameter in joined else (parameter.data,):
                    nn.init.xavier_uniform_(part)

    def forward(self, x, lengths=None, state=None):
        """Encodes a padded batch.

        Arguments
        ---------
        x : Tensor (B, L, N)
            Features, or counts of events.
        lengths : Tensor (B,), optional
            Relative lengths.
        state : None
            There is none: attention looks at the whole utterance.

        Returns
        -------
        (out, None) : out (B, L, d_model), integers 0..1 + 4 num_layers in evaluation; 0 past an utterance's end

        Raises
        ------
        ValueError
            When x has another number of channels.
        """
        if x.shape[-1] != self.input_size:
            raise ValueError(f"x has {x.shape[-1]} channels, encoder expects {self.input_size}: set input_size: {x.shape[-1]}")
        counts = valid = frames.absolute(lengths, x)
        if self.config.paper_padding:
            counts = torch.full_like(valid, x.shape[1])
        stream = self.embedding(x, counts, valid)
        for layer in self.layers:
            stream = layer(stream, counts, valid)
        return stream.value, None


def shd_1l_8_128(input_size=140, **changes):
    """The 0.25 M model of Table 1 for SHD (M is 2^20)."""
    return SpikeSCR(input_size, **{"num_layers": 1, "d_model": 128, "nhead": 8, "mlp_ratio": 1, **changes})


def commands_1l_16_256(input_size=140, **changes):
    """The 1.63 M model of Table 1 for SSC and GSC."""
    return SpikeSCR(input_size, **{"num_layers": 1, "d_model": 256, "nhead": 16, "mlp_ratio": 4, **changes})


def commands_2l_16_256(input_size=140, **changes):
    """The 3.15 M model of Table 1 for SSC and GSC."""
    return commands_1l_16_256(input_size, **{"num_layers": 2, **changes})
