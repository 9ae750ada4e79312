"""Random weights and rows in the kernels' layouts, for trials and benchmarks: made on the device, in seconds.

Weights are scaled so that a product of rows of order one is of order one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dsv4agent.engine.kernels.experts import ExpertShape
from dsv4agent.engine.kernels.kv_rows import INDEX_DATA, INDEX_SCALES, ROW_DATA, RowBlocks
from dsv4agent.engine.kernels.linear import PackedLinear, pack_linear


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Return normally distributed bfloat16."""
    return torch.randn(*shape, generator=generator, device=generator.device).to(torch.bfloat16)


def random_linear(generator: torch.Generator, n: int, k: int, kind: str, groups: int = 1) -> PackedLinear:
    """Return weights [n, k] of a kind: "bf16", "fp8", or "grouped", FP8 for bfloat16 rows."""
    if kind == "bf16":
        return pack_linear(normal(generator, n, k) / k**0.5)
    codes = (16 * normal(generator, n, k)).to(torch.float8_e4m3fn)
    # Codes are of size 16, scales about 2 ** -10 where there are 4096 inner columns.
    middle = 127 - 4 - round(math.log2(k) / 2)
    scale = random_bytes(generator, middle - 1, middle + 2, -(-n // 128), -(-k // 128))
    return pack_linear(codes, scale, groups=groups, paired=kind == "grouped")


def random_experts(generator: torch.Generator, count: int, shape: ExpertShape) -> list[Tensor]:
    """Return packed experts: any byte is a code."""
    everything = random_bytes(generator, 0, 256, count, shape.size)
    codes, low, spread = shape.record - 512, 118, 5
    parts = ((0, shape.in_bases, shape.out_offset), (shape.out_offset, shape.out_bases, shape.size))
    for start, bases, end in parts:
        scales = everything[:, start:bases].view(count, -1, shape.record)[..., codes:]
        if shape.packed_scales:
            low_half, high_half = random_bytes(generator, 0, spread, 2, *scales.shape)
            scales.copy_(low_half | (high_half << 4))
            everything[:, bases:end] = low
        else:
            scales.copy_(random_bytes(generator, low, low + spread, *scales.shape))
    return list(everything.unbind(0))


def random_bytes(generator: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Return uint8 from `low` to `high` - 1."""
    return torch.randint(low, high, shape, dtype=torch.uint8, generator=generator, device=generator.device)


def fill_rows(blocks: RowBlocks, generator: torch.Generator) -> None:
    """Write attention rows of order one everywhere."""
    rows = blocks.rows
    _fill(blocks.bytes, generator)
    data = blocks.bytes[:, : rows * ROW_DATA].view(-1, rows, ROW_DATA)
    # Codes up to 1.875, and no NaN.
    data[..., :448] &= 0xBF
    tail = torch.randn(data.shape[0], rows, 64, generator=generator, device=generator.device)
    data[..., 448:] = tail.to(torch.bfloat16).view(torch.uint8)
    scales = blocks.bytes[:, rows * ROW_DATA :]
    scales %= 3
    scales += 126


def fill_index_rows(blocks: RowBlocks, generator: torch.Generator) -> None:
    """Write index rows everywhere."""
    assert blocks.bytes.shape[1] == blocks.rows * (INDEX_DATA + INDEX_SCALES)
    _fill(blocks.bytes, generator)
    scales = blocks.bytes[:, blocks.rows * INDEX_DATA :]
    scales %= 4
    scales += 124


def _fill(out: Tensor, generator: torch.Generator) -> None:
    flat = out.view(-1)
    for start in range(0, flat.numel(), 1 << 28):
        part = flat[start : start + (1 << 28)]
        part.copy_(random_bytes(generator, 0, 256, part.numel()))
