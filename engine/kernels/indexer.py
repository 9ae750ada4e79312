"""Indexer: scores I[t, g] = sum over heads of w[t, h] * max(0, q[t, h] . k[g]), and the best k of each query.

As on the official path, a dot product, a weighted term and the sum are rounded to bfloat16 each. A score is
therefore 16 bits, and what is held of it is a 16-bit key that sorts as the score does. Selection needs the
keys of a whole row, so queries are taken in blocks whose keys fit in `workspace` bytes (64 MB: 128 queries at
a million tokens, 262 144 entries; 512 KB for a decode step): no other memory grows with the context, and
float32 scores never leave the registers. Key traffic, 2 bytes written and 6 read, is 2 % of the time of the
products.

Entries are unpacked from their pages in registers, once for all queries of a block that belong to one
sequence. They are the left operand, heads the right one, so a sum over heads is a sum inside of threads.

Needs per entry 68 bytes, and per pair of query and entry 16 384 FLOP. Decode at 8K, 128K, 1M: 0.14, 2.2, 17.8
MB; 0.03, 0.5, 4.1 us at 4.3 TB/s, and as much again where many queries do not share a sequence. Prefill of
4096 tokens at 128K, 1M: 2.2, 17.6 TFLOP; 2.8, 22 ms at 0.79 PFLOP/s.

measured, H200, 2026-12-01, a step of one token at 8K: scores 13.4 us, queries 4.3 us.
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

from dsv4agent.engine.kernels import attention_tuning
from dsv4agent.engine.kernels.attention_tuning import IndexPlan
from dsv4agent.engine.kernels.fp4_rows import decode_e2m1, decode_pairs, hadamard, quantize_pairs
from dsv4agent.engine.kernels.kv_rows import (
    INDEX_DATA,
    INDEX_DIM,
    INDEX_SCALES,
    Places,
    RowBlocks,
    locate,
    to_bf16,
)
from dsv4agent.engine.kernels.launch import ceil_div, on_device
from dsv4agent.engine.kernels.numerics import INTERPRETED, PRODUCT, decode_e8m0
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous
from dsv4agent.engine.kernels.sums import sum_columns
from dsv4agent.engine.kernels.top_k import select_top_k
from dsv4agent.engine.ops.hadamard import hadamard_matrix
from dsv4agent.engine.ops.quantizers import fake_fp4_rows, round_bf16

RATIO = 4
"""Tokens of an entry; only layers of this ratio have an indexer."""
_HALF = tl.constexpr(INDEX_DIM // 2)
_ROW = tl.constexpr(INDEX_DATA + INDEX_SCALES)
_NORM = tl.constexpr(INDEX_DIM**-0.5)


@dataclass(frozen=True)
class IndexQueries:
    """What scores entries.

    Attributes:
        q: bfloat16 [t, heads, 128], FP4 values: 64 even, then 64 odd channels.
        weights: float32 [t, heads], bfloat16 values.
    """

    q: Tensor
    weights: Tensor


def finish_index_queries(raw_q: Tensor, raw_weights: Tensor, rotations: Tensor) -> IndexQueries:
    """Rotate, transform and quantise projected index queries, and scale the weights of their heads.

    Args:
        raw_q: bfloat16 or float32 [t, heads * 128], last dimension contiguous.
        raw_weights: bfloat16 or float32 [t, heads], last dimension contiguous.
        rotations: float32 [t, 32, 2].
    """
    tokens, heads = raw_weights.shape
    q = torch.empty(tokens, heads, INDEX_DIM, dtype=torch.bfloat16, device=raw_q.device)
    weights = torch.empty(tokens, heads, dtype=torch.float32, device=raw_q.device)
    if tokens:
        with on_device(raw_q):
            _finish_kernel[(tokens,)](
                raw_q,
                raw_q.stride(0),
                raw_weights,
                raw_weights.stride(0),
                rotations,
                q,
                weights,
                INDEX_DIM**-0.5 * heads**-0.5,
                heads,
                HEADS=max(16, triton.next_power_of_2(heads)),
                num_warps=attention_tuning.INDEX.query_warps,
                enable_fp_fusion=False,
                **overlapping(),
            )
    return IndexQueries(q, weights)


def select_entries(
    queries: IndexQueries,
    entries: RowBlocks,
    places: Places,
    k: int,
    columns: int,
    *,
    plan: IndexPlan | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the `k` entries with the largest scores of each query, ties to the lower entry.

    Args:
        queries: Of the step.
        entries: Index rows; entry g is visible at position p if g < (p + 1) // 4.
        places: Of the tokens.
        k: How many are kept.
        columns: At least the number of entries the step's last query sees; fixed in a captured graph.
        plan: Tile sizes; by default those in use.

    Returns:
        Entries int32 [t, k], ascending, then -1; and how many there are, int32 [t].
    """
    plan = plan or attention_tuning.INDEX
    tokens = queries.q.shape[0]
    ids = torch.empty(tokens, k, dtype=torch.int32, device=queries.q.device)
    counts = torch.empty(tokens, dtype=torch.int32, device=queries.q.device)
    width = ceil_div(max(columns, 1), plan.keys) * plan.keys
    shared = plan.queries if places.runs == 1 else 1
    block = min(tokens, max(shared, plan.workspace // (2 * width) // shared * shared))
    assert block * max(width, queries.q[0].numel()) < 1 << 31, "the kernel counts in 32 bits"
    keys = torch.empty(block, width, dtype=torch.int16, device=queries.q.device)
    for start in range(0, tokens, block):
        here = slice(start, min(start + block, tokens))
        _score(queries, entries, places, keys, here, k, shared, plan)
        select_top_k(keys[: here.stop - start], places.positions[here], RATIO, ids[here], counts[here])
    return ids, counts


def _score(
    queries: IndexQueries,
    entries: RowBlocks,
    places: Places,
    keys: Tensor,
    here: slice,
    k: int,
    shared: int,
    plan: IndexPlan,
) -> None:
    count, heads, width = here.stop - here.start, queries.q.shape[1], keys.shape[1]
    with on_device(keys):
        _score_kernel[(ceil_div(width, plan.keys * plan.tiles), ceil_div(count, shared))](
            queries.q[here],
            queries.weights[here],
            places.sequences[here],
            places.positions[here],
            entries.bytes,
            entries.table,
            entries.table.stride(0),
            keys,
            width,
            count,
            shared,
            k,
            heads,
            HEADS=max(16, triton.next_power_of_2(heads)),
            PAGE_ROWS=entries.rows,
            KEYS=plan.keys,
            TILES=plan.tiles,
            STAGES=plan.stages,
            num_warps=plan.warps,
            enable_fp_fusion=False,
            **overlapping(),
        )


@triton.jit
def _finish_kernel(
    raw_q, q_stride, raw_weights, w_stride, rotations, q, weights, scale, heads, HEADS: tl.constexpr
):
    wait_for_previous()
    token = tl.program_id(0)
    head = tl.arange(0, HEADS)
    inside = head < heads
    w = to_bf16(
        tl.load(raw_weights + token.to(tl.int64) * w_stride + head, mask=inside, other=0.0).to(tl.float32)
    )
    tl.store(weights + token * heads + head, to_bf16(w * scale), mask=inside)
    channel = tl.arange(0, 2 * _HALF)
    place = raw_q + token.to(tl.int64) * q_stride + head[:, None] * (2 * _HALF) + channel[None, :]
    x = to_bf16(tl.load(place, mask=inside[:, None], other=0.0).to(tl.float32))
    a, b = tl.split(tl.reshape(x, (HEADS, _HALF, 2)))
    pair = tl.arange(0, _HALF)
    turned = pair >= _HALF - 32
    rotation = rotations + token * 64 + 2 * (pair - (_HALF - 32))
    cosine = tl.load(rotation, mask=turned, other=1.0)[None, :]
    sine = tl.load(rotation + 1, mask=turned, other=0.0)[None, :]
    c, s = to_bf16(a * cosine - b * sine), to_bf16(a * sine + b * cosine)
    matrix = hadamard(_HALF).to(PRODUCT)
    u, v = tl.dot(c.to(PRODUCT), matrix), tl.dot(s.to(PRODUCT), matrix)
    low, high, codes = quantize_pairs(to_bf16((u + v) * _NORM), to_bf16((u - v) * _NORM), HEADS)
    factor = tl.reshape(tl.broadcast_to(decode_e8m0(codes)[:, :, None], (HEADS, 4, 16)), (HEADS, _HALF))
    out = q + (token.to(tl.int64) * heads + head[:, None]) * (2 * _HALF) + pair[None, :]
    tl.store(out, (decode_e2m1(low) * factor).to(tl.bfloat16), mask=inside[:, None])
    tl.store(out + _HALF, (decode_e2m1(high) * factor).to(tl.bfloat16), mask=inside[:, None])


@triton.jit
def _score_kernel(
    q,
    weights,
    sequences,
    positions,
    rows,
    table,
    table_stride,
    keys,
    width,
    count,
    shared,
    k,
    heads,
    HEADS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    TILES: tl.constexpr,
    STAGES: tl.constexpr,
):
    wait_for_previous()
    first = tl.program_id(1) * shared
    last = tl.minimum(first + shared, count)
    # Queries ascend in their sequence, so the last one sees most; and who sees no more than k keeps all.
    most = (tl.load(positions + last - 1) + 1) // 4
    if most > k:
        sequence = tl.load(sequences + first)
        head = tl.arange(0, HEADS)
        pair = tl.arange(0, _HALF)
        for tile in range(TILES):
            column = (tl.program_id(0) * TILES + tile) * KEYS
            if column < most:
                entry = column + tl.arange(0, KEYS)
                seen = entry < most
                start, row = locate(
                    table, table_stride, sequence, entry, PAGE_ROWS, PAGE_ROWS * _ROW, mask=seen
                )
                even, odd = _load_entries(rows, start, row, seen, PAGE_ROWS, KEYS)
                for i in tl.range(first, last, num_stages=STAGES):
                    here = (i * heads + head[:, None]) * (2 * _HALF) + pair[None, :]
                    inside = (head < heads)[:, None]
                    q_even = tl.load(q + here, mask=inside, other=0.0).to(PRODUCT)
                    q_odd = tl.load(q + here + _HALF, mask=inside, other=0.0).to(PRODUCT)
                    w = tl.load(weights + i * heads + head, mask=head < heads, other=0.0)
                    z = tl.dot(even, tl.trans(q_even))
                    z = tl.dot(odd, tl.trans(q_odd), z)
                    score = to_bf16(sum_columns(_weighted(z, w), HEADS))
                    tl.store(keys + i * width + entry, _sort_key(score))


@triton.jit
def _weighted(z, w):
    """Return bfloat16(max(0, bfloat16(z)) * w) as float32; `w` holds bfloat16 values."""
    if INTERPRETED:
        return to_bf16(tl.maximum(to_bf16(z), 0.0) * w[None, :])
    else:
        # Two at a time: the conversion clamps, and a product of bfloat16 is rounded once, as it must be.
        return tl.inline_asm_elementwise(
            "{ .reg .b32 t; cvt.rn.relu.bf16x2.f32 t, $3, $2; mul.rn.bf16x2 t, t, $4;"
            " shl.b32 $0, t, 16; and.b32 $1, t, 0xFFFF0000; }",
            "=r,=r,r,r,r",
            [z, tl.broadcast_to(w.to(tl.bfloat16)[None, :], z.shape)],
            dtype=tl.float32,
            is_pure=True,
            pack=2,
        )


@triton.jit
def _load_entries(rows, start, row, seen, PAGE_ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Return even and odd channels [KEYS, 64] of packed index rows."""
    data = (start + row * 64)[:, None] + tl.arange(0, 64)[None, :]
    packed = tl.load(rows + data, mask=seen[:, None], other=0)
    place = (start + PAGE_ROWS * 64 + row * 4)[:, None] + tl.arange(0, 4)[None, :]
    scale = tl.load(rows + place, mask=seen[:, None], other=0)
    even, odd = decode_pairs(packed, scale, KEYS)
    return even.to(PRODUCT), odd.to(PRODUCT)


@triton.jit
def _sort_key(score):
    """Return 16 bits that sort as unsigned numbers like bfloat16 values in float32; both zeros are one."""
    bits = (score.to(tl.int32, bitcast=True) >> 16) & 0xFFFF
    bits = tl.where(bits == 0x8000, 0, bits)
    return tl.where(bits >= 0x8000, ~bits, bits | 0x8000).to(tl.int16)


def finish_index_queries_reference(raw_q: Tensor, raw_weights: Tensor, rotations: Tensor) -> IndexQueries:
    """Return what `finish_index_queries` does."""
    tokens, heads = raw_weights.shape
    q = round_bf16(raw_q.to(torch.float32)).view(tokens, heads, INDEX_DIM)
    a, b = q[..., -64:].unflatten(-1, (32, 2)).unbind(-1)
    cosine, sine = rotations.unsqueeze(1).unbind(-1)
    turned = torch.stack((a * cosine - b * sine, a * sine + b * cosine), -1).flatten(-2)
    q = round_bf16(torch.cat((q[..., :-64], turned), -1))
    q = fake_fp4_rows(round_bf16(q @ hadamard_matrix(INDEX_DIM).to(q.device)))
    split = torch.cat((q[..., 0::2], q[..., 1::2]), -1).to(torch.bfloat16)
    scale = INDEX_DIM**-0.5 * heads**-0.5
    return IndexQueries(split, round_bf16(round_bf16(raw_weights.to(torch.float32)) * scale))


def scores_reference(queries: IndexQueries, rows: Tensor) -> Tensor:
    """Return scores float32 [t, n], bfloat16 values, of unpacked index rows float32 [n, 128]."""
    keys = torch.cat((rows[:, 0::2], rows[:, 1::2]), 1)
    z = torch.relu(round_bf16(queries.q.to(torch.float32) @ keys.t()))
    return round_bf16(round_bf16(z * queries.weights[:, :, None]).sum(1))
