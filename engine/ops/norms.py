"""RMS normalisation. Each row is reduced alone, so its bits do not depend on how many rows there are."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dsv4agent.engine.ops.compiled import Floats, floats_of, kernel, round_row, sum_of_squares
from dsv4agent.engine.ops.quantizers import round_bf16


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, start: int = 0, official: bool = False) -> Tensor:
    """Return weight * v / sqrt(mean(v**2) + eps) over the rows v of some columns of `x`.

    Args:
        x: float32 [s, n].
        weight: float32 [d]; columns `start ... start + d` are normalised.
        eps: Added to the mean.
        start: First column.
        official: Round to bfloat16 before and after.

    Returns:
        float32 [s, d].
    """
    width = weight.shape[0]
    if x.device.type == "cpu":
        out = torch.empty(x.shape[0], width)
        _rms_norm(floats_of(x), start, floats_of(weight), eps, official, floats_of(out))
        return out
    rows = x[:, start : start + width]
    if official:
        rows = round_bf16(rows)
    wide = row_norms(rows).to(torch.float64)
    factor = (1.0 / torch.sqrt(wide * wide / width + eps)).to(torch.float32)
    normal = (rows * factor.unsqueeze(1)).mul_(weight)
    return round_bf16(normal) if official else normal


def row_norms(x: Tensor) -> Tensor:
    """Return the Euclidean norms float32 [...] of the rows of `x` [..., d]."""
    norms = torch.linalg.vector_norm(x, dim=-1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("Tensor", norms)


@kernel
def _rms_norm(x: Floats, start: int, weight: Floats, eps: float, official: bool, out: Floats) -> None:
    width = weight.shape[0]
    for i in range(x.shape[0]):
        row = out[i]
        row[:] = x[i, start : start + width]
        if official:
            round_row(row)
        factor = np.float32(1.0 / math.sqrt(sum_of_squares(row) / width + eps))
        for d in range(width):
            row[d] = row[d] * factor * weight[d]
        if official:
            round_row(row)
