"""Activations made of exponentials and exactly rounded operations only.

A library's sigmoid or softplus computes the last elements of an array by another routine than the rest, so
that bits depend on an element's place; `exp` and `log1p` do not, and add, multiply, divide and square root
are exactly rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def swiglu_(gate: Tensor, up: Tensor, limit: float) -> Tensor:
    """Return silu(min(gate, limit)) * clip(up, -limit, limit), overwriting `gate` and `up`; float32."""
    gate.clamp_(max=limit)
    up.clamp_(-limit, limit)
    divisor = gate.neg().exp_().add_(1.0)
    return gate.div_(divisor).mul_(up)


def sqrt_softplus(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sqrt(ln(1 + e^z)), stable for large |z|."""
    return np.sqrt(np.maximum(logits, 0.0) + np.log1p(np.exp(-np.abs(logits))))
