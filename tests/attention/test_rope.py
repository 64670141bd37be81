"""Rotary positions: property 9 of the specification, and the rotation written out pair by pair."""

import math

import pytest
import torch

from spikebrain.attention import rope


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1))


def random(frames=23, heads=3, width=8, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(2, frames, heads * width, dtype=dtype)


def test_neighbouring_channels_are_turned_by_their_frames_angle():
    """Pair j of a head of D channels turns by m 10000^(-2j / D) at frame m: written out with sines and cosines."""
    x, frames, width = random(), 23, 8
    found = heads_of(rope.rotate(x, 3), 3)
    for m in (0, 1, 7, frames - 1):
        for j in range(width // 2):
            angle = m * 10000 ** (-2 * j / width)
            even, odd = (heads_of(x, 3)[:, m, :, 2 * j + i] for i in (0, 1))
            assert torch.allclose(found[:, m, :, 2 * j], even * math.cos(angle) - odd * math.sin(angle), atol=1e-12)
            assert torch.allclose(found[:, m, :, 2 * j + 1], even * math.sin(angle) + odd * math.cos(angle), atol=1e-12)


def test_lengths_of_vectors_stay_and_frame_0_is_as_it_was():
    x = random()
    turned = rope.rotate(x, 3)
    assert torch.allclose(heads_of(turned, 3).norm(dim=-1), heads_of(x, 3).norm(dim=-1), atol=1e-12)
    assert torch.equal(turned[:, 0], x[:, 0]) and not torch.allclose(turned[:, 1], x[:, 1])


def test_products_know_the_distance_of_frames_only():
    """The same query and key at every frame: the map of their products is constant along its diagonals, and not beside them."""
    torch.manual_seed(0)
    q, k = (torch.randn(1, 1, 8, dtype=torch.float64).expand(1, 30, 8) for _ in range(2))
    scores = (rope.rotate(q, 1) @ rope.rotate(k, 1).mT)[0]
    for distance in range(-29, 30):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-12)
    assert scores[0].std() > 0.1 and not torch.allclose(scores, scores.T, atol=0.1)


def test_heads_are_turned_alike_and_stay_apart():
    x = random()
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        assert torch.equal(rope.rotate(x, 3)[..., part], rope.rotate(x[..., part], 1))


def test_rotated_spikes_lie_within_the_root_of_2():
    spikes = (torch.rand(2, 300, 32, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    turned = rope.rotate(spikes, 2)
    assert 1.3 < turned.abs().max() <= math.sqrt(2) + 1e-12


def test_the_gradient_turns_back():
    x = random().requires_grad_()
    weights = torch.randn(2, 23, 24, dtype=torch.float64)
    (grad,) = torch.autograd.grad((rope.rotate(x, 3) * weights).sum(), x)
    assert torch.allclose(rope.rotate(grad, 3), weights, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_angles_of_late_frames_are_exact(dtype):
    """An angle of 4000 radians in float32 would be off by 2e-4."""
    x = torch.ones(1, 4000, 4, dtype=dtype)
    turned = rope.rotate(x, 1)
    assert (turned.double() - rope.rotate(x.double(), 1)).abs().max() < 2 * torch.finfo(dtype).eps


def test_angles_and_their_base():
    angles = rope.angles(3, 4, base=100.0, dtype=torch.float64)
    assert torch.allclose(angles, torch.tensor([[0, 0], [1, 0.1], [2, 0.2]], dtype=torch.float64))
    assert rope.angles(2, 6).shape == (2, 3) and rope.angles(2, 6).dtype == torch.float32


def test_sinusoids_are_those_of_the_transformer():
    table = rope.sinusoids(50, 6, dtype=torch.float64)
    for position, channel in ((0, 0), (0, 1), (7, 2), (49, 5)):
        angle = position / 10000 ** (channel // 2 * 2 / 6)
        assert table[position, channel].item() == pytest.approx(math.cos(angle) if channel % 2 else math.sin(angle), abs=1e-12)


@pytest.mark.parametrize("turn", [lambda: rope.angles(4, 7), lambda: rope.rotate(torch.zeros(1, 4, 21), 3)], ids=["angles", "rotate"])
def test_an_odd_head_has_no_pairs(turn):
    with pytest.raises(ValueError, match="a head has 7 channels: rotary positions turn pairs of channels, choose an even d_model / nhead"):
        turn()
