"""Rounding of weights to their storage formats, batched over many matrices, for quantisation-aware training.

The values equal what the exported checkpoint stores: the scale of a block is the smallest power of two that
brings its largest magnitude into the format's range (V4 report, number formats).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.train_mini.official_names import Storage
from examples.train_mini.tensors import split_axis

FP8_BLOCK = 128
FP8_MAX = 448.0
FP8_SMALLEST = 1e-4
FP4_BLOCK = 32
FP4_MAX = 6.0
FP4_SMALLEST = 6.0 * 2.0**-126


def rounded(weights: Tensor, storage: Storage) -> Tensor:
    """Return fp32 `weights` `[..., out, in]` as their storage format represents them, still fp32."""
    match storage:
        case Storage.FP4:
            return round_fp4(weights)
        case Storage.FP8:
            return round_fp8(weights)
        case Storage.BF16:
            return weights.bfloat16().float()
        case _:
            return weights


def power_of_two_above(x: Tensor) -> Tensor:
    """Return the smallest power of two not below each positive normal fp32 number, exactly."""
    exponent = (x.contiguous().view(torch.int32) + 0x7FFFFF) >> 23
    return (exponent << 23).view(torch.float32)


def round_fp4(weights: Tensor) -> Tensor:
    """Round to E2M1 with one scale per row and 32 input columns."""
    blocks = split_axis(weights.float(), -1, (-1, FP4_BLOCK))
    largest = blocks.abs().amax(-1, keepdim=True).clamp(min=FP4_SMALLEST)
    scale = power_of_two_above(largest * (1.0 / FP4_MAX))
    scaled = (blocks / scale).clamp(-FP4_MAX, FP4_MAX)
    magnitude = scaled.abs()
    # The spacing of representable magnitudes is 0.5 below 2, 1 below 4, 2 up to 6; ties go to the even code.
    spacing = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))
    return ((scaled / spacing).round() * spacing * scale).flatten(-2)


def round_fp8(weights: Tensor) -> Tensor:
    """Round to E4M3 with one scale per 128x128 block; blocks at the edges are smaller."""
    rows, columns = weights.shape[-2:]
    padded = F.pad(weights.float(), (0, -columns % FP8_BLOCK, 0, -rows % FP8_BLOCK))
    blocks = split_axis(split_axis(padded, -1, (-1, FP8_BLOCK)), -3, (-1, FP8_BLOCK))
    largest = blocks.abs().amax((-3, -1), keepdim=True).clamp(min=FP8_SMALLEST)
    scale = power_of_two_above(largest * (1.0 / FP8_MAX))
    # Past 448 the cast would give NaN; the rounded reciprocal can leave a value a hair above.
    scaled = (blocks / scale).clamp(-FP8_MAX, FP8_MAX)
    values = scaled.to(torch.float8_e4m3fn).float() * scale
    return values.flatten(-4, -3).flatten(-2, -1)[..., :rows, :columns]
