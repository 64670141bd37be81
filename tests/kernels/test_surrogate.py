"""Surrogate derivatives: each against the function that it is the derivative of, and the numbers of the specification."""

import math

import pytest
import torch

from spikebrain.kernels import surrogate

# The smooth step of each name, where the table's formula is its derivative.
STEPS = {
    "arctan": lambda x, a: torch.atan(math.pi / 2 * a * x) / math.pi,
    "sigmoid": lambda x, a: torch.sigmoid(a * x),
    "fast_sigmoid": lambda x, a: x / (1 + a * x.abs()),
    "triangle": lambda x, a: torch.where(x < 0, 0.5 * (1 + a * x).clamp(min=0) ** 2, 1 - 0.5 * (1 - a * x).clamp(min=0) ** 2),
    "rectangle": lambda x, a: (a * x + 0.5).clamp(0, 1),
    "straight_through": lambda x, a: x,
}
AREAS = {"fast_sigmoid": lambda a, reach: 2 * reach / (1 + a * reach), "straight_through": lambda a, reach: 2 * reach}


def test_arctan_has_the_slopes_of_spikescr():
    """alpha 5: 2.5 at the threshold; 2.5 / (1 + (0.25 pi)^2) = 1.54622 at 0.1; 2.5 / (1 + (2.5 pi)^2) = 0.0398819 at 1."""
    x = torch.tensor([0.0, 0.1, -0.1, 1.0, -1.0], dtype=torch.float64)
    expected = torch.tensor([2.5, 1.54622, 1.54622, 0.0398819, 0.0398819], dtype=torch.float64)
    assert torch.allclose(surrogate.derivative("arctan", x, 5.0), expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.7, 5.0])
@pytest.mark.parametrize("name", surrogate.NAMES)
def test_is_the_derivative_of_its_step(name, alpha):
    x = torch.linspace(-1.97, 2.03, 401, dtype=torch.float64).requires_grad_()  # no point lies on a kink
    (slope,) = torch.autograd.grad(STEPS[name](x, alpha).sum(), x)
    assert torch.allclose(surrogate.derivative(name, x.detach(), alpha), slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", surrogate.NAMES)
def test_area(name):
    """1, but for the two that the table names; the tails beyond the reach are those of the arctangent."""
    alpha, reach = 3.0, 40.0
    x = torch.linspace(-reach, reach, 800_001, dtype=torch.float64)
    area = torch.trapezoid(surrogate.derivative(name, x, alpha), x).item()
    assert area == pytest.approx(AREAS.get(name, lambda a, r: 1.0)(alpha, reach), abs=6e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", surrogate.NAMES)
def test_is_even_highest_at_the_threshold_and_keeps_shape_and_dtype(name, dtype):
    x = torch.tensor([[0.0, 0.05, 0.4, 7.0]], dtype=dtype)
    slope = surrogate.derivative(name, x, 2.0)
    assert slope.shape == x.shape and slope.dtype == dtype
    assert torch.allclose(slope, surrogate.derivative(name, -x, 2.0), atol=1e-6 if dtype != torch.bfloat16 else 1e-2)
    assert (slope.diff() <= 0).all() and (slope >= 0).all()


def test_the_corner_of_the_rectangle_belongs_to_it():
    x = torch.tensor([-0.25, 0.25, 0.2500001], dtype=torch.float64)
    assert surrogate.derivative("rectangle", x, 2.0).tolist() == [2.0, 2.0, 0.0]


def test_an_unknown_name_lists_the_table():
    with pytest.raises(ValueError, match="surrogate is 'atan': choose one of arctan, sigmoid, fast_sigmoid, triangle, rectangle, straight"):
        surrogate.derivative("atan", torch.zeros(1), 1.0)
    assert surrogate.check("triangle") == "triangle"
