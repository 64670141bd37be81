"""Separable gated convolution: its two layers written out, the gate, and how far the depthwise kernel sees."""

import pytest
import torch
import torch.nn.functional as F

from spikebrain import operands
from spikebrain.blocks.frame_convolution import convolve
from spikebrain.blocks.gated_convolution import DepthwiseConv, SeparableGatedConvolution
from spikebrain.blocks.masked_norm import FrameConstantDropout, MaskedBatchNorm, NormedNeuron
from spikebrain.neurons import LIF

WIDTH = 8


def spikes_of(code, counts=None):
    """A declared train of a stream of integers (B, L, C)."""
    counts = torch.full((code.shape[0],), code.shape[1]) if counts is None else counts
    code = code * (torch.arange(code.shape[1]) < counts.unsqueeze(1)).unsqueeze(-1)
    value = code.double().requires_grad_()
    return operands.Spikes(value, code.to(torch.uint8), torch.ones(code.shape[-1], dtype=torch.float64), 2, counts)


def stream(frames=40, seed=0):
    return torch.randint(0, 3, (3, frames, WIDTH), generator=torch.Generator().manual_seed(seed))


def built(kernel_size=5, gate=True, dropout=0.0):
    """A block in evaluation whose norms fit its activity, so that every layer of neurons fires."""
    torch.manual_seed(0)
    normed = lambda channels, drop: NormedNeuron(channels, LIF(channels), dropout if drop else 0.0)  # noqa: E731
    block = SeparableGatedConvolution(WIDTH, kernel_size, LIF, normed, FrameConstantDropout(dropout), gate).double()
    for module in block.modules():
        if isinstance(module, MaskedBatchNorm):
            module.momentum = 1.0
            torch.nn.init.constant_(module.bias, 0.5)
    for seed in (1, 2, 3, 4):
        block(spikes_of(stream(seed=seed)), torch.full((3,), 40))
    return block.eval()


@pytest.mark.parametrize("gate", [True, False])
def test_block_is_the_printed_equations(gate):
    """Written out with torch's own layers on the block's weights (Eq. 9 and 10; first half content, second half gate)."""
    block, counts = built(gate=gate), torch.tensor([40, 17, 33])
    x = spikes_of(stream(), counts)
    valid = (torch.arange(40) < counts.unsqueeze(1)).unsqueeze(-1)
    norm = lambda y, n: F.batch_norm(y.mT, n.running_mean, n.running_var, n.weight, n.bias).mT * valid  # noqa: E731
    fire = lambda y, n: n.neuron(norm(y, n.norm), counts / 40)[0]  # noqa: E731
    hidden = fire(x.value @ block.pointwise.weight.T + block.pointwise.bias, block.pointwise_neuron)
    hidden = fire(F.conv1d(hidden.mT, block.depthwise.weight, padding=2, groups=WIDTH).mT, block.depthwise_neuron)
    hidden = hidden @ block.mix.weight.T + block.mix.bias
    if gate:
        path = fire(hidden[..., WIDTH:], block.gate_input)
        opened = fire(path @ block.gate_linear.weight.T + block.gate_linear.bias, block.gate)
        expected = block.output_neuron(norm(hidden[..., :WIDTH], block.content_norm) * opened, counts / 40)[0]
        assert 0 < opened.mean() < 1
    else:
        expected = fire(hidden, block.output_neuron)
    out = block(x, counts)
    assert torch.equal(out.value, expected) and expected.any() and out.levels == 1


def test_a_gate_that_never_opens_lets_no_spike_out():
    block, x, counts = built(), spikes_of(stream()), torch.full((3,), 40)
    assert block(x, counts).value.any()
    with torch.no_grad():
        block.gate.norm.bias.fill_(-100.0)
        block.content_norm.bias.fill_(1000.0)  # the content alone would fire at every frame
    assert not block(x, counts).value.any()
    with torch.no_grad():
        block.gate.norm.bias.fill_(1e4)
    assert block(x, counts).value.all()


def test_a_closed_gate_stops_the_gradient_of_the_content():
    block, x = built(), spikes_of(stream())
    with torch.no_grad():
        block.gate.norm.bias.fill_(-100.0)
    block(x, torch.full((3,), 40)).value.sum().backward()
    assert block.content_norm.weight.grad.abs().max() == 0 and block.gate.norm.bias.grad.abs().max() > 0


def impulse(frames, at):
    code = torch.zeros(1, frames, WIDTH, dtype=torch.long)
    code[0, at] = 1
    return spikes_of(code)


def test_the_depthwise_kernel_sees_31_frames_and_shifts_with_its_input():
    torch.manual_seed(0)
    conv = DepthwiseConv(WIDTH, 31).double()
    out = conv(impulse(80, 40))[0]
    heard = out.abs().amax(-1).nonzero().flatten()
    assert (heard.min(), heard.max(), len(heard)) == (25, 55, 31)
    assert torch.allclose(out[25:56], conv.weight[:, 0].T.flip(0), atol=1e-15)
    x = stream(80)
    moved = torch.cat([x[:, -7:], x[:, :-7]], 1)
    a, b = conv(spikes_of(x)), conv(spikes_of(moved))
    assert torch.allclose(b[:, 22:-15], a[:, 15:-22], atol=1e-12), "away from the borders"
    assert not torch.allclose(b[:, :22], a.roll(7, 1)[:, :22], atol=1e-3), "at the border the padding is seen"


def test_channels_stay_apart_in_the_depthwise_convolution():
    torch.manual_seed(0)
    conv, x = DepthwiseConv(WIDTH, 5).double(), spikes_of(stream())
    (grad,) = torch.autograd.grad(conv(x)[..., 3].sum(), x.value)
    assert grad[..., 3].any() and not grad[..., [c for c in range(WIDTH) if c != 3]].any()


def test_padding_changes_nothing_and_fires_nowhere():
    for gate in (True, False):
        block, counts = built(gate=gate), torch.tensor([40, 13, 26])
        out = block(spikes_of(stream(), counts), counts).value
        for row, n in enumerate(counts.tolist()):
            alone = block(spikes_of(stream()[row : row + 1, :n]), torch.tensor([n])).value
            assert torch.equal(out[row, :n], alone[0]) and not out[row, n:].any()


def test_every_parameter_learns_and_dropout_silences_whole_neurons():
    block = built(dropout=0.5).train()
    out = block(spikes_of(stream()), torch.full((3,), 40))
    out.value.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())
    # A bias in front of a norm moves its mean alone.
    silent = {name for name, p in block.named_parameters() if p.grad.abs().max() < 1e-10}
    assert silent == {"pointwise.bias", "mix.bias", "gate_linear.bias"}
    assert out.gain.unique().tolist() == [0.0, 2.0] and (out.value.sum(1) == 0)[out.gain[:, 0] == 0].all()


def test_products_are_declared():
    block, counts, events = built(), torch.tensor([40, 13, 26]), []
    with operands.listen(events.append):
        block(spikes_of(stream(), counts), counts)
    products = {p.part if p.module is block else p.module: p for p in events if isinstance(p, operands.Product)}
    fired = {e.module: int(e.counts.sum()) for e in events if isinstance(e, operands.Firing)}
    depthwise, gate = products[block.depthwise], products["gate"]
    assert (depthwise.macs, depthwise.accumulates) == (79 * WIDTH * 5, 5 * fired[block.pointwise_neuron.neuron])
    assert (gate.left, gate.right, gate.macs) == (operands.Kind.REAL, operands.Kind.BINARY, 79 * WIDTH)
    assert gate.accumulates == fired[block.gate.neuron] and len(products) == 5
    assert products[block.mix].accumulates == 2 * WIDTH * fired[block.depthwise_neuron.neuron]


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize(
    "shape, out, kernel, groups", [((3, 11, 6), 4, 3, 1), ((2, 1, 5), 5, 31, 5), ((1, 9, 1), 1, 3, 1), ((2, 40, 8), 8, 31, 8)]
)
def test_convolution_over_frames_is_torchs_with_axes_turned(shape, out, kernel, groups, strided):
    torch.manual_seed(0)
    x, channels = torch.randn(shape, dtype=torch.float64), shape[-1]
    x = (x.mT.contiguous().mT if strided else x).requires_grad_()
    weight = torch.randn(out, channels // groups, kernel, dtype=torch.float64, requires_grad=True)
    bias, results = torch.randn(out, dtype=torch.float64, requires_grad=True), []
    for y in (convolve(x, weight, bias, groups), F.conv1d(x.mT, weight, bias, padding=kernel // 2, groups=groups).mT):
        results.append([y, *torch.autograd.grad((y**3).sum(), (x, weight, bias))])
    assert results[0][0].shape == (*shape[:2], out)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(*results, strict=True))


def test_under_autocast_products_are_half_precision_and_membranes_are_not():
    block, counts = built().float(), torch.full((3,), 40)
    x = spikes_of(stream())
    x = x._replace(value=x.value.detach().float(), gain=x.gain.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert block.depthwise(x).dtype == torch.bfloat16
        half = block(x, counts)
    whole = block(x, counts)
    differ = (half.code != whole.code).float().mean().item()
    assert whole.code.any() and 0 < differ < 0.05


def test_an_even_kernel_has_no_middle():
    with pytest.raises(ValueError, match="kernel_size is 30: choose an odd number of frames"):
        DepthwiseConv(4, 30)
