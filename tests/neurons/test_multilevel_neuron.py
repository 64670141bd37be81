"""Multi-level neurons: the properties of the specification, one test each, and what a user may get wrong."""

import warnings

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from spikebrain.neurons import FiringOptions, IterativeLIF, MultiLevelSpike


def counts_of(spikes, levels):
    """Spike counts of an output scaled by 1/T, and that they are whole numbers."""
    level = spikes.double() * levels
    assert (level - level.round()).abs().max() < 1e-5
    return level.round()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("levels", [4, 6, 8])
def test_every_channel_with_a_positive_maximum_reaches_exactly_T(levels, dtype):
    torch.manual_seed(0)
    x = torch.randn(4, 200, 256).to(dtype)
    spikes, _ = MultiLevelSpike(256, levels)(x)
    assert spikes.dtype == dtype
    level = (spikes.float() * levels).round().flatten(0, 1)
    assert torch.equal(level.amax(0), torch.full((256,), float(levels)))
    assert torch.equal(level.argmax(0), x.float().flatten(0, 1).argmax(0)) or dtype != torch.float64


def test_scale_invariance_of_imls_and_not_of_mls():
    torch.manual_seed(0)
    x = torch.randn(3, 100, 64)
    imls, mls = MultiLevelSpike(64), MultiLevelSpike(64, mode="mls")
    assert torch.equal(imls(x)[0], imls(x * 2**7)[0])
    changed = counts_of(imls(x)[0], 6) - counts_of(imls(x * 3.1415)[0], 6)
    assert (changed != 0).double().mean() < 1e-3 and changed.abs().max() <= 1
    assert (mls(x)[0] != mls(x * 3.1415)[0]).double().mean() > 0.1
    literal = lambda v: (v * v.flatten(0, 1).amax(0) / 6).clamp(0, 6).floor()  # noqa: E731  the threshold as printed
    assert (literal(x) != literal(x * 3.1415)).double().mean() > 0.1


def test_negative_and_zero_channels_stay_silent_with_finite_gradients():
    x = torch.stack([-torch.rand(40) - 0.1, torch.zeros(40), torch.full((40,), 1e-6), torch.randn(40)], -1).unsqueeze(0).requires_grad_()
    spikes, _ = MultiLevelSpike(4)(x)
    spikes.sum().backward()
    assert spikes[..., :3].abs().max() == 0 and spikes[..., 3].max() == 1
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("filler", [0.0, 1e6, -1e6])
def test_padding_changes_neither_spikes_nor_statistic_and_emits_none(filler):
    torch.manual_seed(0)
    x = torch.randn(3, 12, 8)
    lengths = torch.tensor([1.0, 0.5, 0.75])
    padded = torch.cat([x, torch.full((3, 6, 8), filler)], 1)
    padded[1, 6:] = filler
    plain, more = MultiLevelSpike(8), MultiLevelSpike(8)
    a, _ = plain(x, lengths)
    b, _ = more(padded, lengths * 12 / 18)
    assert torch.equal(a[0], b[0, :12]) and torch.equal(a[1, :6], b[1, :6]) and torch.equal(a[2, :9], b[2, :9])
    assert torch.equal(plain.running_max, more.running_max)
    assert b[:, 12:].abs().max() == 0 and b[1, 6:].abs().max() == 0
    ignoring, _ = MultiLevelSpike(8)(padded)
    if filler > 0:
        assert not torch.equal(ignoring[0, :12], a[0]), "the padding would be seen without lengths"


def test_gradient_is_that_of_the_clip():
    torch.manual_seed(0)
    x = (3 * torch.randn(1, 500, 6, dtype=torch.float64)).requires_grad_()
    neuron = MultiLevelSpike(6, 6, options=FiringOptions(grad_through_scale=False))
    neuron(x)[0].sum().backward()
    top = x.detach().flatten(0, 1).amax(0)
    expected = ((x >= 0) & (x <= top)) / top
    assert torch.allclose(x.grad, expected, atol=1e-12)

    fixed = torch.linspace(-2, 9, 111, dtype=torch.float64).view(1, -1, 1).requires_grad_()
    MultiLevelSpike(1, 6, "mls", FiringOptions(output_scale="none"))(fixed)[0].sum().backward()
    assert torch.equal(fixed.grad.flatten(), ((fixed >= 0) & (fixed <= 6)).double().flatten())


def test_gradient_through_the_scale_makes_it_invariant():
    """A function of x / max(x) has no derivative along x: the literal gradient has one, the followed scale nearly none."""
    torch.manual_seed(0)
    x = torch.randn(4, 300, 16, dtype=torch.float64)

    def along(options):
        v = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(MultiLevelSpike(16, 6, options=options)(v)[0].square().sum(), v)
        return ((grad * v).flatten(0, 1).sum(0) / (grad * v).flatten(0, 1).abs().sum(0)).abs().mean()

    assert along(FiringOptions(grad_through_scale=False)) > 0.99
    assert along(FiringOptions()) < 0.05


def test_running_statistic_follows_its_recurrence_and_only_in_training():
    neuron = MultiLevelSpike(3, options=FiringOptions(momentum=0.25))
    first, second = torch.rand(2, 5, 3) + 1, torch.rand(2, 5, 3) + 2
    neuron(first)
    assert torch.equal(neuron.running_max, first.flatten(0, 1).amax(0)), "the first batch is copied"
    neuron(second)
    expected = 0.75 * first.flatten(0, 1).amax(0) + 0.25 * second.flatten(0, 1).amax(0)
    assert torch.allclose(neuron.running_max, expected)
    neuron.eval()
    before = neuron.running_max.clone()
    spikes, _ = neuron(5 * first)
    assert torch.equal(neuron.running_max, before)
    assert torch.equal(counts_of(spikes, 6), (5 * first / before * 6).clamp(0, 6).floor().double())
    twin = MultiLevelSpike(3)
    twin.load_state_dict(neuron.state_dict())
    assert torch.equal(twin.eval()(first)[0], neuron(first)[0])


def test_activation_checkpointing_counts_a_batch_once():
    x = torch.rand(2, 5, 3, requires_grad=True)
    for reentrant in (False, True):
        plain, recomputed = MultiLevelSpike(3), MultiLevelSpike(3)
        for factor in (1.0, 3.0):
            plain(factor * x)[0].sum().backward()
            checkpoint(lambda v, n=recomputed: n(v)[0], factor * x, use_reentrant=reentrant).sum().backward()
        assert torch.equal(plain.running_max, recomputed.running_max), reentrant


def test_evaluation_before_training_uses_the_utterance_itself_and_says_so_once():
    torch.manual_seed(0)
    neuron = MultiLevelSpike(8).eval()
    x, lengths = torch.randn(2, 10, 8), torch.tensor([1.0, 0.6])
    with pytest.warns(UserWarning, match="has seen no training batch"):
        together, _ = neuron(x, lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone, _ = neuron(x[1:, :6])
    assert torch.equal(together[1, :6], alone[0])
    assert neuron.running_max.abs().max() == 0


@pytest.mark.parametrize("output_scale, values", [("1/T", {0, 0.25, 0.5, 0.75, 1}), ("none", {0, 1, 2, 3, 4})])
def test_output_range(output_scale, values):
    torch.manual_seed(0)
    spikes, _ = MultiLevelSpike(16, 4, options=FiringOptions(output_scale=output_scale))(torch.randn(2, 400, 16))
    assert set(spikes.unique().tolist()) == values


def test_channel_scale_gives_the_input_back_to_a_level():
    torch.manual_seed(0)
    x = 3 * torch.rand(2, 400, 16)
    spikes, _ = MultiLevelSpike(16, 64, options=FiringOptions(output_scale="channel"))(x)
    assert (x - spikes).max() < 3 / 64 + 1e-5 and (x - spikes).min() >= -1e-6


def test_paper_literal_preset_and_quantile():
    options = FiringOptions.paper_literal(eps=0.5)
    assert (options.output_scale, options.grad_through_scale, options.eps) == ("none", False, 0.5)
    x = torch.rand(1, 1000, 4)
    x[0, 0] = 1000.0
    robust, _ = MultiLevelSpike(4, options=FiringOptions(statistic=0.99))(x)
    plain, _ = MultiLevelSpike(4)(x)
    assert (plain > 0).double().mean() < 0.01 < 0.5 < (robust > 0).double().mean()


def test_floor_fires_more_than_proportionally_with_T():
    """The mean count grows faster than T: 0.244, 0.465, 0.691 for T = 4, 6, 8 on Gaussian input (specification 1.5)."""
    torch.manual_seed(0)
    x = torch.randn(20, 1000, 8)
    mean = {t: float(counts_of(MultiLevelSpike(8, t)(x)[0], t).mean()) for t in (4, 6, 8)}
    assert 6 / 4 < mean[6] / mean[4] and 8 / 6 < mean[8] / mean[6]


def test_fewer_channels_die_with_imls_than_with_mls():
    torch.manual_seed(0)
    x = torch.randn(4, 200, 256) * torch.logspace(-3, 1, 256)
    silent = {mode: float((MultiLevelSpike(256, mode=mode)(x)[0].flatten(0, 1).mean(0) < 1e-3).double().mean()) for mode in ("imls", "mls")}
    assert silent["imls"] < 0.3 < silent["mls"]


def test_wrong_arguments_say_what_to_do():
    with pytest.raises(ValueError, match="x has 140 channels, the neuron 80: set channels=140"):
        MultiLevelSpike(80)(torch.zeros(1, 2, 140))
    with pytest.raises(ValueError, match="levels is 200"):
        MultiLevelSpike(8, levels=200)
    with pytest.raises(ValueError, match="imls"):
        MultiLevelSpike(8, mode="lif")
    with pytest.raises(ValueError, match="rounding is 'ceil': choose one of floor, round"):
        FiringOptions(rounding="ceil")
    with pytest.raises(ValueError, match="relative"):
        MultiLevelSpike(8)(torch.zeros(2, 4, 8), torch.tensor([4.0, 2.0]))
    with pytest.raises(ValueError, match="batch of 2"):
        MultiLevelSpike(8)(torch.zeros(2, 4, 8), torch.tensor([1.0]))


def test_iterative_neuron_follows_its_equations():
    """decay 0.5, threshold 1, input 0.8 a step: membranes 0.8, 1.2 (spike, 0.2 left), 0.9, 1.25 (spike), 0.925, 1.2625."""
    x = torch.full((6, 1, 1), 0.8)
    spikes, _ = IterativeLIF(1, levels=6)(x)
    assert spikes.flatten().tolist() == [0, 1, 0, 1, 0, 1]


def test_iterative_neuron_with_all_input_at_once_and_no_leak_is_the_multilevel_one():
    torch.manual_seed(0)
    x = 4 * torch.randn(2, 30, 8, dtype=torch.float64)
    steps = torch.cat([x, torch.zeros(5 * 2, 30, 8, dtype=torch.float64)])
    train, _ = IterativeLIF(8, levels=6, decay=1.0)(steps)
    level, _ = MultiLevelSpike(8, 6, "mls", FiringOptions(output_scale="none"))(x)
    assert torch.equal(train.unflatten(0, (6, 2)).sum(0), level) and level.max() == 6
