"""RMS normalisation. Each row is reduced alone, so its bits do not depend on how many rows there are."""

from __future__ import annotations

from math import sqrt
from typing import cast

import torch
from torch import Tensor

from dsv4agent.engine.ops.lists import floats


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, copies: bool = False) -> Tensor:
    """Return weight * x / sqrt(mean(x**2) + eps) over the rows of float32 `x` [s, d].

    With `copies`, all rows are copies of the first. Their common factor is then a Python float, computed by
    the same exactly rounded operations as the factors of a chunk.
    """
    norms = row_norms(x)
    width = x.shape[1]
    if copies:
        norm = floats(norms)[0]
        return (x * (1.0 / sqrt(norm * norm / width + eps))).mul_(weight)
    wide = norms.to(torch.float64)
    factor = (1.0 / torch.sqrt(wide * wide / width + eps)).to(torch.float32)
    return (x * factor.unsqueeze(1)).mul_(weight)


def head_norm(x: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x**2) + eps) over the last dimension of float32 `x` [s, h, d]."""
    norms = row_norms(x)
    # Square root and quotient are exactly rounded wherever an element stands.
    return x / (norms * norms).div_(x.shape[-1]).add_(eps).sqrt_().unsqueeze(-1)


def row_norms(x: Tensor) -> Tensor:
    """Return the Euclidean norms float32 [...] of the rows of `x` [..., d]."""
    norms = torch.linalg.vector_norm(x, dim=-1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("Tensor", norms)
