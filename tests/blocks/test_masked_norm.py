"""Batch normalisation without padding against torch's own on the valid frames, alone and with neurons behind it; dropout over frames."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from spikebrain.blocks.masked_norm import FrameConstantDropout, MaskedBatchNorm, NormedNeuron
from spikebrain.kernels import native
from spikebrain.neurons import LIF, PLIF

COUNTS = torch.tensor([9, 4, 7])
VALID = torch.arange(9) < COUNTS.unsqueeze(1)


def pair(channels=6, **options):
    """Our norm and torch's with the same weights, float64."""
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(channels, **options).double(), nn.BatchNorm1d(channels, **options).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return ours, theirs


def batch(seed=0, channels=6):
    torch.manual_seed(seed)
    return 3 * torch.randn(3, 9, channels, dtype=torch.float64) + torch.arange(channels)


@pytest.mark.parametrize("options", [{}, {"eps": 0.1, "momentum": 0.4}])
def test_training_is_torch_on_the_rows_of_the_utterances(options):
    ours, theirs = pair(**options)
    for seed in (1, 2):
        x = batch(seed)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, rows = ours(a, COUNTS / 9), theirs(b[VALID])
        assert torch.allclose(y[VALID], rows, atol=1e-12) and y[~VALID].abs().max() == 0
        weights = torch.randn_like(y)
        (y * weights).sum().backward()
        (rows * weights[VALID]).sum().backward()
        assert torch.allclose(a.grad, b.grad, atol=1e-11) and a.grad[~VALID].abs().max() == 0
    for name, parameter in theirs.named_parameters():
        assert torch.allclose(getattr(ours, name).grad, parameter.grad, atol=1e-10), name
    assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-12)
    assert torch.allclose(ours.running_var, theirs.running_var, atol=1e-12), "the unbiased variance is what is averaged"


def test_evaluation_is_torch_and_leaves_no_trace():
    ours, theirs = pair()
    ours(batch(1), COUNTS / 9)
    theirs(batch(1)[VALID])
    before = {name: value.clone() for name, value in ours.eval().state_dict().items()}
    x = batch(2).requires_grad_()
    y, expected = ours(x, COUNTS / 9), theirs.eval()(batch(2)[VALID])
    assert torch.allclose(y[VALID], expected, atol=1e-12) and y[~VALID].abs().max() == 0
    y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, atol=1e-10) and torch.allclose(ours.bias.grad, theirs.bias.grad, atol=1e-10)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    scale, shift = ours.affine()
    assert torch.allclose((x * scale + shift)[VALID], y[VALID], atol=1e-12)


def test_weights_come_from_torch_and_go_back():
    """The names are torch's, but for the counter of batches, which rank 0 would overwrite."""
    ours, theirs = pair()
    assert {*theirs.state_dict()} == {*ours.state_dict(), "num_batches_tracked"}
    ours.load_state_dict({k: v + 1 for k, v in theirs.state_dict().items() if k != "num_batches_tracked"})
    assert torch.equal(ours.running_var, theirs.running_var + 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_padding_never_matters(training, fused):
    """Not its amount and not what it holds, for outputs, gradients and running averages."""
    torch.manual_seed(0)
    module, found = NormedNeuron(6, LIF(6)).double().train(training), []
    for extra, filler in ((0, 0.0), (0, 1e6), (5, -1e6)):
        twin, x = copy.deepcopy(module), batch(3)
        x = torch.cat([x.masked_fill(~VALID.unsqueeze(-1), filler), torch.full((3, extra, 6), filler, dtype=torch.float64)], 1)
        x.requires_grad_()
        y = twin.fire(x, COUNTS).value if fused else twin.norm.normalise(x, COUNTS)
        (y[:, :9] * batch(4)).sum().backward()
        assert y[:, 9:].abs().sum() == y[:, :9][~VALID].abs().sum() == x.grad[:, 9:].abs().sum() == 0
        found.append([y[:, :9], x.grad[:, :9], twin.norm.weight.grad, twin.norm.bias.grad, *twin.norm.buffers()])
    for other in found[1:]:
        # Sums over more zeros may round otherwise in the last bit.
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(found[0], other, strict=True))
    assert found[0][0].any() and found[0][1].any()


def test_without_lengths_padding_would_matter():
    ours, _ = pair()
    assert not torch.allclose(ours(batch())[0], ours(batch(), COUNTS / 9)[0])


def test_one_frame_alone_is_no_division_by_zero():
    ours = MaskedBatchNorm(3)
    y = ours(torch.rand(1, 4, 3), torch.tensor([0.25]))
    assert torch.isfinite(y).all() and torch.isfinite(ours.running_var).all()


def test_conversion_to_synchronised_norms_leaves_it_alone():
    """It would drop the masking, and torch's SyncBatchNorm does not run on a CPU at all."""
    net = nn.Sequential(NormedNeuron(6, LIF(6)), MaskedBatchNorm(6), nn.BatchNorm1d(6))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net[:2].modules())
    kept = [m for m in net.modules() if isinstance(m, MaskedBatchNorm)]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert [m for m in converted.modules() if isinstance(m, MaskedBatchNorm)] == kept and isinstance(converted[2], nn.SyncBatchNorm)


@pytest.mark.parametrize("make", [lambda m: m.norm.normalise, lambda m: lambda x, c: m.fire(x, c).value], ids=["norm", "norm+lif"])
def test_recomputation_counts_a_batch_once(make):
    torch.manual_seed(0)
    plain, results = NormedNeuron(6, LIF(6), dropout=0.3).double(), []
    for recompute in (False, True):
        module, x = copy.deepcopy(plain), batch(1).requires_grad_()
        torch.manual_seed(5)
        function = make(module)
        y = checkpoint(function, x, COUNTS, use_reentrant=False) if recompute else function(x, COUNTS)
        (y * batch(2)).sum().backward()
        results.append([y, x.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)) and results[0][1].any()
    assert not torch.equal(results[0][-2], plain.norm.running_mean), "the first pass counts"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [LIF, lambda c, **k: PLIF(c, decay_per="channel", **k)], ids=["lif", "plif"])
@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_norm_and_neuron_at_once_are_the_two_one_after_the_other(training, make, decay_input, reset):
    torch.manual_seed(0)
    neuron = make(6, decay_input=decay_input, reset=reset)
    joined, found = NormedNeuron(6, neuron).double().train(training), []
    shifts = {"weight": torch.randn(6), "bias": 1.0, "running_mean": 2.0, "running_var": 7.0}
    with torch.no_grad():
        for name, shift in shifts.items():
            getattr(joined.norm, name).add_(shift)
    for fused in (True, False):
        module, x = copy.deepcopy(joined), batch(1).requires_grad_()
        spikes = module.fire(x, COUNTS) if fused else module.neuron.fire(module.norm.normalise(x, COUNTS), COUNTS)
        (spikes.value * batch(2)).sum().backward()
        found.append([spikes.value, spikes.code.double(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    assert found[0][0].any() and len(found[0]) == (8 if isinstance(neuron, PLIF) else 7)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("training", [True, False])
def test_one_of_weight_and_bias_may_be_frozen(frozen, training):
    """Tuning biases alone, or gains alone: the other one still learns."""
    torch.manual_seed(0)
    module = NormedNeuron(6, LIF(6)).double().train(training)
    both, one = copy.deepcopy(module), copy.deepcopy(module)
    getattr(one.norm, frozen).requires_grad_(False)
    for twin in (both, one):
        (twin.fire(batch(1), COUNTS).value * batch(2)).sum().backward()
    learned = {"weight": "bias", "bias": "weight"}[frozen]
    assert getattr(one.norm, frozen).grad is None
    assert torch.equal(getattr(one.norm, learned).grad, getattr(both.norm, learned).grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_statistics_in_float32(dtype):
    torch.manual_seed(0)
    norm, x = MaskedBatchNorm(4), (torch.randn(3, 300, 4) + 100).to(dtype)
    twin = copy.deepcopy(norm)
    y = norm(x)
    assert y.dtype == dtype and torch.equal(y, twin(x.float()).to(dtype))
    assert torch.equal(norm.running_var, twin.running_var) and norm.running_var.dtype == torch.float32
    assert (norm.eval()(x).dtype, norm(x.float()).dtype) == (dtype, torch.float32)


def test_under_autocast_the_first_spikes_are_those_of_float32():
    """Only products round: neurons that see the same numbers fire the same spikes."""
    torch.manual_seed(0)
    module, x = NormedNeuron(6, LIF(6)), batch(1).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        spikes = module.fire(x, COUNTS)
    spikes.value.float().square().sum().backward()
    assert spikes.value.dtype == x.grad.dtype == torch.bfloat16 and module.norm.weight.grad.dtype == torch.float32
    assert torch.equal(spikes.code, copy.deepcopy(module).fire(x.detach().float(), COUNTS).code) and spikes.code.any()


@pytest.mark.skipif(native.why_not() is not None, reason=f"compiled kernel: {native.why_not()}")
def test_without_a_compiler_it_trains_alike(monkeypatch):
    torch.manual_seed(0)
    module, found = NormedNeuron(6, LIF(6)).double(), []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(native, "load", lambda source: None)
        twin, x = copy.deepcopy(module), batch(1).requires_grad_()
        (twin.fire(x, COUNTS).value * batch(2)).sum().backward()
        found.append([x.grad, twin.norm.weight.grad, twin.norm.bias.grad, *twin.norm.buffers()])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_compiles_without_a_graph_break_and_agrees_with_eager(training, fused):
    torch.manual_seed(0)
    module, found = NormedNeuron(6, PLIF(6)).double().train(training), []
    for compiled in (False, True):
        twin, x = copy.deepcopy(module), batch(1).requires_grad_()
        run = (lambda v, m=twin: m.fire(v, COUNTS).value) if fused else (lambda v, m=twin: m.norm.normalise(v, COUNTS))
        y = (torch.compile(run, backend="aot_eager", fullgraph=True) if compiled else run)(x)
        (y * batch(2)).sum().backward()
        found.append([y, x.grad, twin.norm.weight.grad, twin.norm.bias.grad, *twin.norm.buffers()])
    assert found[0][0].any() and all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))


def test_the_normalised_input_is_not_kept():
    """What is kept for the way back: the input of both, and numbers of channels; one after the other they keep two inputs."""
    module, x, kept = NormedNeuron(64, LIF(64)), torch.randn(4, 50, 64, requires_grad=True), []
    counts = torch.full((4,), 50)
    for function in (lambda: module.fire(x, counts), lambda: module.neuron.fire(module.norm.normalise(x, counts), counts)):
        seen = {}

        def pack(tensor, seen=seen):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            function()
        kept.append(sum(seen.values()) / x.untyped_storage().nbytes())
    assert 1 < kept[0] < 1.15 and 2 < kept[1] < 2.15


def test_dropout_draws_one_mask_for_all_frames_of_an_utterance():
    torch.manual_seed(0)
    module = NormedNeuron(400, LIF(400), dropout=0.25)
    value = module.fire(torch.randn(8, 30, 400) + 0.5, torch.full((8,), 30)).value
    mask = module.dropout.gain(torch.empty(8, 30, 400))
    assert value.unique().tolist() == mask.unique().tolist() == pytest.approx([0, 1 / 0.75]) and mask.shape == (8, 1, 400)
    assert not torch.equal(mask[0], mask[1]), "each utterance has a mask of its own"
    silent = value.sum(1) == 0
    assert 0.2 < silent.float().mean() < 0.4, "a neuron that is left out is left out of every frame"
    plain = copy.deepcopy(module)
    plain.dropout.p = 0.0
    torch.manual_seed(1)
    x = torch.randn(8, 30, 400)
    torch.manual_seed(2)
    dropped = module.fire(x, torch.full((8,), 30))
    torch.manual_seed(2)
    gain, all_of_them = module.dropout.gain(x), plain.fire(x, torch.full((8,), 30))
    assert torch.equal(dropped.value, all_of_them.value * gain) and torch.equal(dropped.gain, gain)


def test_dropout_keeps_the_expectation_and_is_off_in_evaluation():
    torch.manual_seed(0)
    dropout = FrameConstantDropout(0.1)
    masks = torch.cat([dropout.gain(torch.empty(100, 3, 1000, dtype=torch.float64)) for _ in range(10)])
    assert masks.dtype == torch.float64 and masks.mean().item() == pytest.approx(1.0, abs=2e-3)
    assert (masks == 0).double().mean().item() == pytest.approx(0.1, abs=2e-3)
    assert dropout.eval().gain(torch.empty(2, 3, 4)) is None and FrameConstantDropout(0.0).gain(torch.empty(2, 3, 4)) is None
    assert dropout.train().gain(torch.empty(2, 3, 4, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: MaskedBatchNorm(4)(torch.zeros(1, 2, 6)), "x has 6 channels, the norm 4: set channels=6"),
        (lambda: NormedNeuron(4, LIF(6)).fire(torch.zeros(1, 2, 6), torch.tensor([2])), "x has 6 channels, the norm 4"),
        (lambda: NormedNeuron(4, LIF(6)).fire(torch.zeros(1, 2, 4), torch.tensor([2])), "x has 4 channels, the neuron 6"),
        (lambda: FrameConstantDropout(1.0), "dropout is 1.0: choose a share from 0 to below 1"),
        (lambda: MaskedBatchNorm(4)(torch.zeros(2, 2, 4), torch.tensor([1.0])), "batch of 2"),
    ],
)
def test_wrong_arguments_say_what_to_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()
