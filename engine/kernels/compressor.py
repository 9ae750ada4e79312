"""Compressor: raw rows of a step enter the state of their sequence, complete groups leave as packed entries.

The state keeps the last raw rows of a sequence, position p in row p modulo its rows; nothing marks a group as
open, closed or first, because a position says it all. An entry pools the raw rows of its group (ratio 128),
or of the group before and its own (ratio 4), in the order of positions, whether they come from the state or
from the step: so its bits do not depend on how a prompt was cut. A sequence is rewound by going back with its
position, as far as the state is wider than two groups.

Needs per token the raw row: 8 KB (ratio 4, attention), 2 KB (ratio 4, index), 4 KB (ratio 128), read once
and, in the last tokens of a step, written once; an entry reads 64, 16 or 512 KB. Decode: below 0.2 us at 4.3
TB/s, latency alone. 4096 tokens: 67 MB (twice with overlap), 16 MB and 17 MB: 16 us or, if the second reading
meets the cache, 8 us; 4 us; 4 us.

measured: not yet
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import attention_tuning, kv_rows
from dsv4agent.engine.kernels.fp4_rows import hadamard, pack_pairs
from dsv4agent.engine.kernels.kv_rows import (
    DATA,
    INDEX_DIM,
    SCALES,
    Places,
    RowBlocks,
    finish_and_pack,
    locate,
    norm_factor,
    to_bf16,
)
from dsv4agent.engine.kernels.launch import on_device
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous
from dsv4agent.engine.kernels.sums import sum_all, sum_rows
from dsv4agent.engine.ops.hadamard import hadamard_matrix
from dsv4agent.engine.ops.pooling import softmax_pool
from dsv4agent.engine.ops.quantizers import round_bf16


@dataclass(frozen=True)
class RawRows:
    """The last raw rows of every sequence, which is all the state a compressor has.

    Attributes:
        rows: float32 [sequences, n, width]; values, then gates.
        ratio: Tokens of a group.
    """

    rows: Tensor
    ratio: int

    @classmethod
    def zeros(
        cls, sequences: int, ratio: int, dim: int, device: torch.device, *, rewind: int = 64
    ) -> RawRows:
        """Allocate for entries of `dim` channels.

        Args:
            sequences: Their number.
            ratio: 4 (with overlap) or 128.
            dim: Channels of an entry.
            device: Where.
            rewind: Tokens that can be taken back.
        """
        series = 2 if ratio == 4 else 1
        return cls(torch.zeros(sequences, series * ratio + rewind, 2 * series * dim, device=device), ratio)

    @property
    def overlap(self) -> bool:
        """Whether an entry also pools the group before its own."""
        return self.ratio == 4

    @property
    def slots(self) -> int:
        """Rows an entry pools."""
        return 2 * self.ratio if self.overlap else self.ratio


def compress(
    raw: Tensor,
    ape: Tensor,
    weight: Tensor,
    rotations: Tensor,
    places: Places,
    state: RawRows,
    entries: RowBlocks,
    *,
    eps: float,
) -> None:
    """Take the raw rows of a step into the state, and write the entries that it completes.

    Args:
        raw: float32 [t, width], values and gates; last dimension contiguous.
        ape: float32 [ratio, width / 2], added to the gates.
        weight: Of the norm, float32 or bfloat16 [512], or [128] for index rows.
        rotations: float32 [t, 32, 2]: of the first position of each token's group.
        places: Of the tokens.
        state: Advanced in place.
        entries: Pages of attention rows or, if the width is that of an index row, of index rows.
        eps: Of the norm.
    """
    tokens = raw.shape[0]
    if not tokens:
        return
    rows, width = state.rows.shape[1:]
    assert raw.shape[1] == width
    index = weight.shape[0] == INDEX_DIM
    plan = attention_tuning.POOL
    # Where no new row can take the place of one that an entry of this step still reads, one launch does both.
    joined = places.longest + state.slots - 1 <= rows
    with on_device(raw):
        for pools, keeps in ((True, True),) if joined else ((True, False), (False, True)):
            _compress_kernel[(tokens,)](
                raw,
                raw.stride(0),
                ape,
                weight,
                rotations,
                places.sequences,
                places.positions,
                places.before,
                places.after,
                state.rows,
                entries.bytes,
                entries.bytes.view(torch.bfloat16),
                entries.table,
                entries.table.stride(0),
                eps,
                RATIO=state.ratio,
                SERIES=2 if state.overlap else 1,
                DIM=weight.shape[0],
                STATE_ROWS=rows,
                PAGE_ROWS=entries.rows,
                TILE=plan.slots,
                INDEX=index,
                POOLS=pools,
                KEEPS=keeps,
                num_warps=plan.warps,
                enable_fp_fusion=False,
                **overlapping(),
            )


@triton.jit
def _compress_kernel(
    raw,
    stride,
    ape,
    weight,
    rotations,
    sequences,
    positions,
    before,
    after,
    state,
    codes,
    tails,
    table,
    table_stride,
    eps,
    RATIO: tl.constexpr,
    SERIES: tl.constexpr,
    DIM: tl.constexpr,
    STATE_ROWS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    TILE: tl.constexpr,
    INDEX: tl.constexpr,
    POOLS: tl.constexpr,
    KEEPS: tl.constexpr,
):
    wait_for_previous()
    compress_token(
        tl.program_id(0), raw, stride, ape, weight, rotations, sequences, positions, before, after, state,
        codes, tails, table, table_stride, eps, RATIO, SERIES, DIM, STATE_ROWS, PAGE_ROWS, TILE, INDEX,
        POOLS, KEEPS,
    )  # fmt: skip


@triton.jit
def compress_token(
    token,
    raw,
    stride,
    ape,
    weight,
    rotations,
    sequences,
    positions,
    before,
    after,
    state,
    codes,
    tails,
    table,
    table_stride,
    eps,
    RATIO: tl.constexpr,
    SERIES: tl.constexpr,
    DIM: tl.constexpr,
    STATE_ROWS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    TILE: tl.constexpr,
    INDEX: tl.constexpr,
    POOLS: tl.constexpr,
    KEEPS: tl.constexpr,
):
    """Take in one token of a step: see `compress`."""
    width: tl.constexpr = 2 * SERIES * DIM
    sequence, position = tl.load(sequences + token), tl.load(positions + token)
    state += sequence.to(tl.int64) * STATE_ROWS * width
    row = raw + token.to(tl.int64) * stride
    if KEEPS:
        if tl.load(after + token) < STATE_ROWS:
            channel = tl.arange(0, width)
            tl.store(state + (position % STATE_ROWS) * width + channel, tl.load(row + channel))
    if POOLS:
        if (position + 1) % RATIO == 0:
            # Rows of this step reach back to here; those before come from the state.
            fresh = position - tl.load(before + token)
            start, slot = locate(
                table,
                table_stride,
                sequence,
                position // RATIO,
                PAGE_ROWS,
                PAGE_ROWS * (68 if INDEX else DATA + SCALES),
            )
            rotation = rotations + token * 64
            if INDEX:
                pair = tl.arange(0, DIM // 2)
                even, odd = 2 * pair, 2 * pair + 1
                a = _pool(
                    even, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, TILE
                )
                b = _pool(odd, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, TILE)
                a, b = _finish_index(a, b, pair, weight, rotation, eps, DIM)
                packed, scales = pack_pairs(a[None, :], b[None, :], 1)
                block = tl.arange(0, 4)
                tl.store(codes + start + slot * 64 + pair[None, :], packed)
                tl.store(codes + start + PAGE_ROWS * 64 + slot * 4 + block[None, :], scales)
            else:
                column = tl.arange(0, DIM)
                even = DIM - 64 + 2 * tl.arange(0, 32)
                odd = even + 1
                plain = _pool(
                    column, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, TILE
                )
                plain = tl.where(column < DIM - 64, plain, 0.0)
                a = _pool(
                    even, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, TILE
                )
                b = _pool(odd, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, TILE)
                plain = tl.reshape(plain, (8, 64))
                finish_and_pack(plain, a, b, weight, rotation, eps, codes, tails, start, slot, PAGE_ROWS)


@triton.jit
def _pool(
    column,
    row,
    stride,
    state,
    ape,
    position,
    fresh,
    RATIO: tl.constexpr,
    SERIES: tl.constexpr,
    DIM: tl.constexpr,
    STATE_ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Return bfloat16(sum over slots of softmax(gates) * values) of some columns, as float32."""
    slots: tl.constexpr = RATIO * SERIES
    tiles: tl.constexpr = slots // TILE
    # Every group but the first has one before it, so some gate is finite.
    top = tl.full(column.shape, float("-inf"), tl.float32)
    for tile in range(tiles):
        slot = tile * TILE + tl.arange(0, TILE)
        gates = _slots(
            column, slot, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, True
        )
        top = tl.maximum(top, tl.max(gates, axis=0))
    total = tl.zeros(column.shape, tl.float32)
    weights = tl.zeros(column.shape, tl.float32)
    for tile in range(tiles):
        slot = tile * TILE + tl.arange(0, TILE)
        gates = _slots(
            column, slot, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, True
        )
        values = _slots(
            column, slot, row, stride, state, ape, position, fresh, RATIO, SERIES, DIM, STATE_ROWS, False
        )
        weight = tl.exp(gates - top[None, :])
        total += sum_rows(weight * values, TILE)
        weights += sum_rows(weight, TILE)
    return to_bf16(tl.div_rn(total, weights))


@triton.jit
def _slots(
    column,
    slot,
    row,
    stride,
    state,
    ape,
    position,
    fresh,
    RATIO: tl.constexpr,
    SERIES: tl.constexpr,
    DIM: tl.constexpr,
    STATE_ROWS: tl.constexpr,
    GATES: tl.constexpr,
):
    """Return values or gates [slots, columns]; absent slots have value 0 and gate -inf."""
    back = RATIO * SERIES - 1 - slot
    where = position - back
    # The first of two series pools into the next group's entry, the second into its own.
    channel = column[None, :] + (tl.where(slot < RATIO, 0, DIM)[:, None] if SERIES == 2 else 0)
    offset = channel + (SERIES * DIM if GATES else 0)
    present, new = (where >= 0)[:, None], (where >= fresh)[:, None]
    kept = (where % STATE_ROWS)[:, None] * (2 * SERIES * DIM) + offset
    x = tl.load(state + kept, mask=present & ~new, other=0.0)
    x = tl.where(new, tl.load(row - back.to(tl.int64)[:, None] * stride + offset, mask=new, other=0.0), x)
    if GATES:
        x += tl.load(ape + (slot % RATIO)[:, None] * (SERIES * DIM) + channel)
        x = tl.where(present, x, float("-inf"))
    return x


@triton.jit
def _finish_index(a, b, pair, weight, rotation, eps, DIM: tl.constexpr):
    """Normalise and rotate channels (2 i, 2 i + 1) of an index row, and transform it."""
    factor = norm_factor(sum_all(a * a + b * b, DIM // 2), DIM, eps)
    a = to_bf16(a * factor * tl.load(weight + 2 * pair).to(tl.float32))
    b = to_bf16(b * factor * tl.load(weight + 2 * pair + 1).to(tl.float32))
    turned = pair >= DIM // 2 - 32
    place = rotation + 2 * (pair - (DIM // 2 - 32))
    cosine = tl.load(place, mask=turned, other=1.0)
    sine = tl.load(place + 1, mask=turned, other=0.0)
    c, s = to_bf16(a * cosine - b * sine), to_bf16(a * sine + b * cosine)
    matrix = hadamard(DIM // 2)
    u, v = sum_rows(c[:, None] * matrix, DIM // 2), sum_rows(s[:, None] * matrix, DIM // 2)
    scale: tl.constexpr = DIM**-0.5
    return to_bf16((u + v) * scale), to_bf16((u - v) * scale)


def compress_reference(
    raw: Tensor, ape: Tensor, weight: Tensor, rotations: Tensor, ratio: int, eps: float
) -> Tensor:
    """Return all packed entries of one sequence.

    Args:
        raw: float32 [t, width] of all its tokens.
        ape: float32 [ratio, width / 2].
        weight: float32 [dim].
        rotations: float32 [groups, 32, 2].
        ratio: Tokens of a group.
        eps: Of the norm.
    """
    dim, groups = weight.shape[0], raw.shape[0] // ratio
    values, gates = raw[: groups * ratio].view(groups, ratio, 2, -1).unbind(2)
    gates = gates + ape
    if ratio == 4:
        values = torch.cat((_one_later(values[..., :dim], 0.0), values[..., dim:]), dim=1)
        gates = torch.cat((_one_later(gates[..., :dim], float("-inf")), gates[..., dim:]), dim=1)
    pooled = round_bf16(softmax_pool(values, gates))
    factor = torch.rsqrt((pooled * pooled).mean(-1, keepdim=True) + eps)
    entries = round_bf16(pooled * factor * weight)
    a, b = entries[:, dim - 64 :].unflatten(-1, (32, 2)).unbind(-1)
    cosine, sine = rotations.unbind(-1)
    entries[:, dim - 64 :] = torch.stack((a * cosine - b * sine, a * sine + b * cosine), -1).flatten(-2)
    entries = round_bf16(entries)
    if dim != INDEX_DIM:
        return kv_rows.pack_rows(entries)
    return kv_rows.pack_index_rows(round_bf16(entries @ hadamard_matrix(dim).to(raw.device)))


def _one_later(x: Tensor, first: float) -> Tensor:
    return torch.cat((torch.full_like(x[:1], first), x[:-1]))
