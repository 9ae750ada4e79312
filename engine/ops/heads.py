"""What becomes of queries and key-value rows between two products: norm, rotation, scale.

Rotations are complex64 [s or 1, 1, r/2], e^(i * angle) of the channel pairs (d-r+2i, d-r+2i+1); one row may
stand for all.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsv4agent.engine.ops.compiled import (
    Floats,
    floats_of,
    kernel,
    reduction,
    round_row,
    sum_of_squares,
    to_bf16,
)
from dsv4agent.engine.ops.norms import rms_norm
from dsv4agent.engine.ops.quantizers import round_bf16
from dsv4agent.engine.ops.rotary import rotate_

Rotations = NDArray[np.complex64]


def finish_queries(
    wide: Tensor, heads: int, dim: int, rotations: Tensor, *, eps: float, scale: float, official: bool
) -> Tensor:
    """Return queries normalised per head without a weight, rotated and scaled.

    Args:
        wide: float32 [s, n]; its first `heads * dim` columns are the heads.
        heads: Their number.
        dim: Their width.
        rotations: Of the rows.
        eps: Of the norm.
        scale: Factor at the end.
        official: Round every step to bfloat16, as the official code does.

    Returns:
        float32 [s, heads, dim].
    """
    rows = wide.shape[0]
    if wide.device.type == "cpu":
        q = torch.empty(rows, heads, dim)
        _finish_queries(floats_of(wide), rotations.numpy(), eps, scale, official, floats_of(q))
        return q
    q = wide[:, : heads * dim].reshape(rows, heads, dim)
    if official:
        q = round_bf16(q)
        mean = round_bf16(round_bf16(q * q).mean(-1, keepdim=True))
        q = round_bf16(q * round_bf16(torch.rsqrt(round_bf16(mean + eps))))
        return round_bf16(rotate_(q, rotations)).mul_(scale)
    q = q * torch.rsqrt((q * q).mean(-1, keepdim=True) + eps)
    return rotate_(q, rotations).mul_(scale)


def finish_rows(
    x: Tensor, weight: Tensor, rotations: Tensor, *, start: int, eps: float, official: bool
) -> Tensor:
    """Return columns `start ...` of `x` normalised with `weight` [d] and rotated, float32 [s, d]."""
    rows = rms_norm(x, weight, eps, start=start, official=official)
    return rotate_heads_(rows.unsqueeze(1), rotations, official=official).squeeze(1)


def rotate_heads_(x: Tensor, rotations: Tensor, *, official: bool, back: bool = False) -> Tensor:
    """Rotate the last channels of contiguous `x` float32 [s, h, d] in place and return it.

    With `back`, by the opposite angles. Official: everything is rounded to bfloat16, before and after.
    """
    if x.device.type == "cpu":
        _rotate(floats_of(x), rotations.numpy(), -1.0 if back else 1.0, official)
        return x
    if official:
        x.copy_(round_bf16(x))
    rotate_(x, rotations.conj_physical() if back else rotations)
    return x.copy_(round_bf16(x)) if official else x


@kernel
def _finish_queries(
    wide: Floats, rotations: Rotations, eps: float, scale: float, official: bool, q: Floats
) -> None:
    rows, heads, dim = q.shape
    factor = np.float32(scale)
    square = np.empty(dim, np.float32)
    for i in range(rows):
        rotation = rotations[min(i, rotations.shape[0] - 1), 0]
        for h in range(heads):
            head = q[i, h]
            head[:] = wide[i, h * dim : (h + 1) * dim]
            if official:
                round_row(head)
                for d in range(dim):
                    square[d] = to_bf16(head[d] * head[d])
                mean = to_bf16(to_bf16(np.float32(_sum(square) / dim)) + np.float32(eps))
                norm = to_bf16(np.float32(1.0 / math.sqrt(mean)))
            else:
                norm = np.float32(1.0 / math.sqrt(sum_of_squares(head) / dim + eps))
            for d in range(dim):
                head[d] *= norm
            if official:
                round_row(head)
            _rotate_head(head, rotation, np.float32(1.0))
            if official:
                round_row(head)
            for d in range(dim):
                head[d] *= factor


@kernel
def _rotate(x: Floats, rotations: Rotations, sign: float, official: bool) -> None:
    rows, heads, _ = x.shape
    for i in range(rows):
        rotation = rotations[min(i, rotations.shape[0] - 1), 0]
        for h in range(heads):
            if official:
                round_row(x[i, h])
            _rotate_head(x[i, h], rotation, np.float32(sign))
            if official:
                round_row(x[i, h])


@reduction
def _sum(row: Floats) -> np.float32:
    total = np.float32(0.0)
    for d in range(row.shape[0]):
        total += row[d]
    return total


@kernel
def _rotate_head(x: Floats, rotation: Rotations, sign: np.float32) -> None:
    first = x.shape[0] - 2 * rotation.shape[0]
    for p in range(rotation.shape[0]):
        cosine, sine = rotation[p].real, sign * rotation[p].imag
        a, b = x[first + 2 * p], x[first + 2 * p + 1]
        x[first + 2 * p] = a * cosine - b * sine
        x[first + 2 * p + 1] = a * sine + b * cosine
