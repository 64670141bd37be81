"""Soft saturation: odd, bounded, of a slope of a tenth, blind to a feature's gain; and its three norms."""

import pytest
import torch

from spikebrain.blocks.soft_saturation import GlobalNorm, SoftSaturation

COUNTS = (10, 4, 7)
LENGTHS = torch.tensor(COUNTS) / 10


def features(seed=0):
    return 3 * torch.randn(3, 10, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def saturation(**options):
    return SoftSaturation(16, **options).double()


@pytest.mark.parametrize("norm", ["layer", "global", "none"])
def test_is_odd_and_stays_inside_1(norm):
    module, x = saturation(norm=norm), features()
    out = module(x)
    assert torch.allclose(module(-x), -out, atol=1e-12) and out.abs().max() < 1
    outlier = x.clone()
    outlier[0, 0, 0] = 1e4
    assert module(outlier)[0, 0, 0].abs() <= 1 and module(outlier)[0, 0, 0] > 0.3


def test_is_the_equation_with_the_scale_inside():
    """tanh(0.1 LN(x)), not 0.1 tanh(LN(x)), which would never leave 0.1."""
    x = features()
    x[0, 0, 0] = 50.0
    expected = torch.tanh(0.1 * (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt())
    assert torch.allclose(saturation()(x), expected, atol=1e-12) and expected.max() > 0.3


def test_the_slope_at_0_is_a_tenth_of_the_norms():
    module, x = saturation(), 1e-3 + torch.zeros(1, 1, 16, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(module, x).view(16, 16)
    own = torch.autograd.functional.jacobian(module.norm, x).view(16, 16)
    assert torch.allclose(jacobian, 0.1 * own, atol=1e-12) and own.abs().max() > 1


def test_gain_and_offset_of_a_frame_do_not_matter_to_the_layer_norm_alone():
    x = features()
    assert torch.allclose(saturation()(100 * x + 7), saturation()(x), atol=1e-6)
    for norm in ("global", "none"):
        assert not torch.allclose(saturation(norm=norm)(100 * x + 7), saturation(norm=norm)(x), atol=0.1)


def test_global_statistics_are_those_of_the_training_set():
    module, x = saturation(norm="global"), features() * torch.linspace(0.1, 5, 16).double() + 3
    module.norm.set_statistics(x.mean((0, 1)), x.std((0, 1)))
    assert torch.allclose(module(x), torch.tanh(0.1 * (x - x.mean((0, 1))) / x.std((0, 1))), atol=1e-12)
    assert set(module.state_dict()) == {f"norm.{name}" for name in ("weight", "bias", "mean", "std")}, "a checkpoint carries them"
    louder = module(2 * x)
    assert not torch.allclose(louder, module(x), atol=1e-2), "what is loud stays loud"


def test_sizes_of_the_norms():
    size = lambda norm: sum(p.numel() for p in SoftSaturation(768, norm=norm).parameters())  # noqa: E731
    assert [size(norm) for norm in ("layer", "global", "none")] == [1536, 1536, 0]


@pytest.mark.parametrize("norm", ["layer", "global", "none"])
def test_padding_comes_out_as_0_and_leaves_no_nan_in_gradients(norm):
    module, x = saturation(norm=norm), features()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)  # a bias is what padding would come out as
    x[1, 4:], x[2, 7:] = float("nan"), 1e9
    x.requires_grad_()
    out = module(x, LENGTHS)
    out.sum().backward()
    assert not out[1, 4:].any() and not out[2, 7:].any() and x.grad.isfinite().all() and not x.grad[1, 4:].any()
    for row, n in enumerate(COUNTS):
        assert torch.equal(module(x[row : row + 1, :n])[0], out[row, :n])
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_half_precision_goes_in_and_comes_out():
    module, x = SoftSaturation(16), features().bfloat16()
    out = module(x)
    assert out.dtype == torch.bfloat16 and torch.allclose(out.float(), module(x.float()), atol=2e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x.float()).dtype == torch.float32


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: SoftSaturation(4, norm="batch"), "input_norm is 'batch': choose one of layer, global, none"),
        (lambda: GlobalNorm(4).set_statistics(torch.zeros(3), torch.ones(4)), r"mean is \(3,\), the norm has \(4,\)"),
        (lambda: GlobalNorm(3).set_statistics(torch.zeros(3), torch.tensor([1.0, 2, 0])), "std is 0 in channel 2, not more than 0: a cha"),
    ],
)
def test_wrong_arguments_say_what_to_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()
