"""How far a result is from its reference."""

from __future__ import annotations

from torch import Tensor


def relative_error(out: Tensor, expected: Tensor) -> float:
    """Return the Euclidean norm of the difference over that of the reference, in float64."""
    difference = (out.double() - expected.double()).square().sum()
    return float((difference / expected.double().square().sum()).sqrt())
