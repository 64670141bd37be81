"""Compares two implementations of an op: outputs, gradients, final states, and the number of spikes that differ.

Used by the tests and by the benchmarks, which print no time before this has passed.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Difference:
    """What differs between two runs of one op.

    errors : largest absolute difference of each real tensor, in units of the definition's largest magnitude where that exceeds 1
    flipped, spikes : differing and all elements of the integer tensors
    """

    errors: dict[str, float]
    flipped: int
    spikes: int

    @property
    def flipped_share(self):
        """Share of spikes that differ, 0 where there are none."""
        return self.flipped / max(self.spikes, 1)


def compare(expected, found):
    """The :class:`Difference` of two dicts of tensors with the same keys; integer tensors count as spikes.

    Raises
    ------
    ValueError
        When a key is missing or a shape differs.
    """
    if expected.keys() != found.keys():
        raise ValueError(f"outputs differ in name: {sorted(expected)} against {sorted(found)}")
    errors, flipped, spikes = {}, 0, 0
    for key, a in expected.items():
        b = found[key]
        if a.shape != b.shape:
            raise ValueError(f"{key}: shape {tuple(a.shape)} against {tuple(b.shape)}")
        if a.is_floating_point():
            scale = a.abs().max().clamp(min=1.0) if a.numel() else 1.0
            errors[key] = float((a - b).abs().max() / scale) if a.numel() else 0.0
        else:
            flipped, spikes = flipped + int((a != b).sum()), spikes + a.numel()
    return Difference(errors, flipped, spikes)


def agree(expected, found):
    """Compares and raises AssertionError beyond law 4: 1e-9 and no flipped spike in float64, 1e-4 of the spikes in float32.

    In float32, gradients are compared only where no spike flipped: one that did moves them by a whole level. Returns the
    :class:`Difference`.
    """
    difference = compare(expected, found)
    wide = all(t.dtype == torch.float64 for t in expected.values() if t.is_floating_point())
    if difference.flipped_share > (0 if wide else 1e-4):
        raise AssertionError(f"{difference.flipped} of {difference.spikes} spikes differ")
    limit = 1e-9 if wide else 1e-5
    wrong = {key: error for key, error in difference.errors.items() if not error <= limit}
    if wrong and (wide or difference.flipped == 0):
        raise AssertionError(f"implementations differ beyond {limit}: {wrong}")
    return difference
