"""What a layer does with the new rows of a step, in one launch: its window row, and its compressors.

The kernels of `kv_rows` and `compressor` do not wait for one another, and at a decode step each of them is a
launch and nothing else: together they are one instead of three (ratio 4) or two (ratio 128). Their sums are
explicit trees, so the bits are those of separate launches, which larger steps keep.

Needs what they need: up to 0.6 MB per token that completes a group of 128, else some 20 KB. Latency alone.

measured, H200, 2026-12-01: one token 3.0 us.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import attention_tuning
from dsv4agent.engine.kernels.compressor import RawRows, compress, compress_token
from dsv4agent.engine.kernels.kv_rows import (
    HEAD_DIM,
    INDEX_DIM,
    WINDOW,
    Places,
    RowBlocks,
    write_row,
    write_rows,
)
from dsv4agent.engine.kernels.launch import on_device
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous

_HEAD_DIM = tl.constexpr(HEAD_DIM)
_INDEX_DIM = tl.constexpr(INDEX_DIM)


@dataclass(frozen=True)
class Compression:
    """The arguments of `compress` that belong to one compressor."""

    raw: Tensor
    ape: Tensor
    weight: Tensor
    state: RawRows
    entries: RowBlocks


def take_in(
    x: Tensor,
    weight: Tensor,
    rotations: Tensor,
    ring: RowBlocks,
    compressions: Sequence[Compression],
    group_rotations: Tensor,
    places: Places,
    *,
    eps: float,
) -> None:
    """Do as `write_rows` and, for each compressor, as `compress`.

    Args:
        x: As for `write_rows`, as are `weight`, `rotations` and `ring`.
        weight: Of the row's norm.
        rotations: Of the tokens.
        ring: Window rings.
        compressions: None, or that of attention rows and, after it, of index rows.
        group_rotations: float32 [t, 32, 2]: of the first position of each token's group.
        places: Of the tokens.
        eps: Of the norms.
    """
    rows = [c.state.rows.shape[1] for c in compressions]
    joined = all(places.longest + c.state.slots - 1 <= n for c, n in zip(compressions, rows, strict=True))
    if not compressions or not joined:
        write_rows(x, weight, rotations, places, ring, eps=eps)
        for c in compressions:
            compress(c.raw, c.ape, c.weight, group_rotations, places, c.state, c.entries, eps=eps)
        return
    assert places.longest + WINDOW - 1 <= ring.rows, "a step would overwrite rows its own queries see"
    main, index = compressions[0], compressions[-1]
    plan = attention_tuning.POOL
    with on_device(x):
        _take_in_kernel[(x.shape[0], 1 + len(compressions))](
            x,
            x.stride(0),
            weight,
            rotations,
            ring.bytes,
            ring.bytes.view(torch.bfloat16),
            ring.table,
            ring.table.stride(0),
            group_rotations,
            *_arguments(main),
            *_arguments(index),
            places.sequences,
            places.positions,
            places.before,
            places.after,
            eps,
            RING_ROWS=ring.rows,
            RATIO=main.state.ratio,
            SERIES=2 if main.state.overlap else 1,
            STATE_ROWS=rows[0],
            INDEX_STATE_ROWS=rows[-1],
            PAGE_ROWS=main.entries.rows,
            TILE=plan.slots,
            INDEXED=len(compressions) == 2,
            num_warps=plan.warps,
            enable_fp_fusion=False,
            **overlapping(),
        )


def _arguments(c: Compression) -> tuple[Tensor | int, ...]:
    return (
        c.raw,
        c.raw.stride(0),
        c.ape,
        c.weight,
        c.state.rows,
        c.entries.bytes,
        c.entries.bytes.view(torch.bfloat16),
        c.entries.table,
        c.entries.table.stride(0),
    )


@triton.jit
def _take_in_kernel(
    x,
    stride,
    weight,
    rotations,
    ring,
    ring_tails,
    ring_table,
    ring_stride,
    group_rotations,
    raw,
    raw_stride,
    ape,
    norm,
    state,
    codes,
    tails,
    table,
    table_stride,
    index_raw,
    index_raw_stride,
    index_ape,
    index_norm,
    index_state,
    index_codes,
    index_tails,
    index_table,
    index_table_stride,
    sequences,
    positions,
    before,
    after,
    eps,
    RING_ROWS: tl.constexpr,
    RATIO: tl.constexpr,
    SERIES: tl.constexpr,
    STATE_ROWS: tl.constexpr,
    INDEX_STATE_ROWS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    TILE: tl.constexpr,
    INDEXED: tl.constexpr,
):
    wait_for_previous()
    token, role = tl.program_id(0), tl.program_id(1)
    if role == 0:
        write_row(
            token, x, stride, weight, rotations, sequences, positions, ring, ring_tails, ring_table,
            ring_stride, eps, RING_ROWS,
        )  # fmt: skip
    elif role == 1:
        compress_token(
            token, raw, raw_stride, ape, norm, group_rotations, sequences, positions, before, after, state,
            codes, tails, table, table_stride, eps, RATIO, SERIES, _HEAD_DIM, STATE_ROWS, PAGE_ROWS, TILE,
            False, True, True,
        )  # fmt: skip
    elif INDEXED:
        compress_token(
            token, index_raw, index_raw_stride, index_ape, index_norm, group_rotations, sequences, positions,
            before, after, index_state, index_codes, index_tails, index_table, index_table_stride, eps, RATIO,
            SERIES, _INDEX_DIM, INDEX_STATE_ROWS, PAGE_ROWS, TILE, True, True, True,
        )  # fmt: skip
