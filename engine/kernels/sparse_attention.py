"""Attention to a window, and to selected (ratio 4) or all visible (ratio 128) compressed entries.

Keys are values: one row of 512 channels for all heads. A query's rows stand in tiles of 64: the 128 positions
of its window in two, then entries in ascending order. Every tile is a sum of its own: scores, their largest
m, exponentials against m, their sum l, and the product of their bfloat16 roundings with the rows,
unnormalised and in float32, as the official kernel computes a block of 64. Tiles are then folded one after
the other,

    (M, L, A) <- (M', L e^(M - M') + l e^(m - M'), A e^(M - M') + a e^(m - M')),   M' = max(M, m),

from (sink, 1, 0): the sink is one more term of the denominator. Few queries: a program per tile, and one that
folds; many queries: a program per query goes through its tiles. Both call the same functions in the same
order, and the plan knows nothing but a key's place, so the bits of a query depend neither on the form nor on
the batch.

Rows are unpacked to bfloat16 between cache and matrix unit. 64 heads of one query fill a matrix unit, so
queries that share rows would not share products; they do share the second-level cache.

Needs 4 * heads * 512 FLOP and 584 bytes per row and query. Flash decode, one token: window 75 KB; ratio 4
with 640 rows 374 KB, 84 MFLOP: below 0.1 us, latency; ratio 128 at 1M: 8 320 rows, 4.9 MB, 1.1 us at 4.3
TB/s, plus 17 MB of partial sums that stay in the cache. Prefill of 4096 tokens: ratio 4 0.34 TFLOP, 0.44 ms
at 0.79 PFLOP/s (Pro 1.24 TFLOP, 1.6 ms); ratio 128 at 128K 0.62 TFLOP, 0.78 ms; at 1M 4.5 TFLOP, 5.7 ms (Pro
twice these).

Workspace of the split form: 128 KB per tile and token (Pro 256 KB), 17 MB for one token at 1M, 270 MB for 16.

measured, H200, 2026-12-01, one token at 8K: tiles 10.4 us, their sum 2.6 us. Known from the compiled code: in
the whole form both warpgroups compute the same scores, a third more products than counted above, because
keeping them apart costs more registers than there are.
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

from dsv4agent.engine.kernels.attention_tiles import (
    LOG2E,
    PIECE,
    fold,
    fold_sums,
    load_queries,
    load_tile,
    store_piece,
    visible_entries,
    weigh,
)
from dsv4agent.engine.kernels.attention_tuning import AttentionPlan, attention_plan
from dsv4agent.engine.kernels.kv_rows import (
    DATA,
    HEAD_DIM,
    ROPE_DIM,
    SCALES,
    WINDOW,
    Places,
    RowBlocks,
    unpack_rows,
)
from dsv4agent.engine.kernels.launch import ceil_div, on_device
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous
from dsv4agent.engine.ops.quantizers import round_bf16

_DIM = tl.constexpr(HEAD_DIM)
_WINDOW = tl.constexpr(WINDOW)


@dataclass(frozen=True)
class Entries:
    """Compressed entries of a layer.

    Attributes:
        rows: Pages.
        ratio: Entry g is visible at position p if g < (p + 1) // ratio.
        ids: int32 [t, k], the entries each query attends to, ascending; None for all that are visible.
        counts: int32 [t], how many of `ids` count.
        most: At least what any query of the step attends to; fixed in a captured graph.
    """

    rows: RowBlocks
    ratio: int
    most: int
    ids: Tensor | None = None
    counts: Tensor | None = None


def attend(
    q: Tensor,
    sink: Tensor,
    rotations: Tensor,
    places: Places,
    ring: RowBlocks,
    entries: Entries | None,
    *,
    plan: AttentionPlan | None = None,
) -> Tensor:
    """Return the heads' outputs, rotated back to the query's position.

    Args:
        q: bfloat16 [t, heads, 512], contiguous, as `finish_queries` gives them.
        sink: float32 [heads].
        rotations: float32 [t, 32, 2], of the queries.
        places: Of the tokens; their own rows are in the ring.
        ring: Window rings.
        entries: Compressed entries; None in a sliding layer.
        plan: Tile sizes; by default those of the model with so many heads.

    Returns:
        bfloat16 [t, heads, 512].
    """
    tokens, heads, _ = q.shape
    out = torch.empty_like(q)
    if not tokens:
        return out
    plan = plan or attention_plan(heads)
    tiles = WINDOW // plan.keys + (ceil_div(entries.most, plan.keys) if entries else 0)
    pages = entries.rows if entries else ring
    chosen = entries is not None and entries.ids is not None
    ids = entries.ids if entries is not None and entries.ids is not None else places.positions
    counts = entries.counts if entries is not None and entries.counts is not None else places.positions
    split = tokens <= plan.split_tokens
    blocks = ceil_div(heads, plan.heads)
    parts = torch.empty((tokens, tiles, heads, HEAD_DIM) if split else (0,), device=q.device)
    sums = torch.empty((tokens, tiles, heads, 2) if split else (0,), device=q.device)
    with on_device(q):
        _attend_kernel[(tokens, blocks, tiles) if split else (tokens, blocks)](
            q,
            sink,
            rotations,
            places.sequences,
            places.positions,
            ring.bytes,
            ring.bytes.view(torch.bfloat16),
            ring.table,
            ring.table.stride(0),
            pages.bytes,
            pages.bytes.view(torch.bfloat16),
            pages.table,
            pages.table.stride(0),
            ids,
            ids.stride(0),
            counts,
            parts,
            sums,
            out,
            heads,
            RATIO=entries.ratio if entries else 0,
            CHOSEN=chosen,
            SPLIT=split,
            RING_ROWS=ring.rows,
            PAGE_ROWS=pages.rows,
            HEADS=plan.heads,
            KEYS=plan.keys,
            STAGES=plan.stages,
            num_warps=plan.split_warps if split else plan.warps,
            enable_fp_fusion=False,
            **overlapping(),
        )
        if split:
            _fold_kernel[(tokens, ceil_div(heads, plan.merge_heads))](
                sink,
                rotations,
                places.positions,
                counts,
                parts,
                sums,
                out,
                heads,
                tiles,
                RATIO=entries.ratio if entries else 0,
                CHOSEN=chosen,
                HEADS=plan.merge_heads,
                KEYS=plan.keys,
                STAGES=plan.merge_stages,
                num_warps=plan.merge_warps,
                enable_fp_fusion=False,
                **overlapping(),
            )
    return out


@triton.jit
def _attend_kernel(
    q,
    sink,
    rotations,
    sequences,
    positions,
    ring,
    ring_tails,
    ring_table,
    ring_stride,
    pages,
    page_tails,
    page_table,
    page_stride,
    ids,
    ids_stride,
    counts,
    parts,
    sums,
    out,
    heads,
    RATIO: tl.constexpr,
    CHOSEN: tl.constexpr,
    SPLIT: tl.constexpr,
    RING_ROWS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    STAGES: tl.constexpr,
):
    wait_for_previous()
    windows: tl.constexpr = _WINDOW // KEYS
    token = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    inside = head < heads
    sequence, position = tl.load(sequences + token), tl.load(positions + token)
    visible = visible_entries(counts, token, position, RATIO, CHOSEN)
    tiles = windows + (visible + KEYS - 1) // KEYS
    ids += token.to(tl.int64) * ids_stride
    ring_start = tl.load(ring_table + sequence * ring_stride).to(tl.int64) * (RING_ROWS * (DATA + SCALES))
    rows = token.to(tl.int64) * heads + head
    q += rows[:, None] * _DIM + tl.arange(0, PIECE)[None, :]
    if SPLIT:
        tile = tl.program_id(2)
        if tile < tiles:
            k0, k1, k2, k3, seen = load_tile(
                tile, sequence, position, visible, ring, ring_tails, ring_start,
                pages, page_tails, page_table, page_stride, ids, CHOSEN, RING_ROWS, PAGE_ROWS, KEYS,
            )  # fmt: skip
            q0, q1, q2, q3 = load_queries(q, inside)
            top, total, p = weigh(q0, q1, q2, q3, k0, k1, k2, k3, seen)
            place = (token * tl.num_programs(2) + tile).to(tl.int64) * heads + head
            tl.store(sums + place * 2, top, mask=inside)
            tl.store(sums + place * 2 + 1, total, mask=inside)
            here = parts + place[:, None] * _DIM + tl.arange(0, PIECE)[None, :]
            tl.store(here, tl.dot(p, k0), mask=inside[:, None])
            tl.store(here + PIECE, tl.dot(p, k1), mask=inside[:, None])
            tl.store(here + 2 * PIECE, tl.dot(p, k2), mask=inside[:, None])
            tl.store(here + 3 * PIECE, tl.dot(p, k3), mask=inside[:, None])
    else:
        q0, q1, q2, q3 = load_queries(q, inside)
        high = tl.load(sink + head, mask=inside, other=0.0) * LOG2E
        sum_ = tl.full((HEADS,), 1.0, tl.float32)
        a0 = tl.zeros((HEADS, PIECE), tl.float32)
        a1 = tl.zeros((HEADS, PIECE), tl.float32)
        a2 = tl.zeros((HEADS, PIECE), tl.float32)
        a3 = tl.zeros((HEADS, PIECE), tl.float32)
        for tile in tl.range(0, tiles, num_stages=STAGES):
            k0, k1, k2, k3, seen = load_tile(
                tile, sequence, position, visible, ring, ring_tails, ring_start,
                pages, page_tails, page_table, page_stride, ids, CHOSEN, RING_ROWS, PAGE_ROWS, KEYS,
            )  # fmt: skip
            top, total, p = weigh(q0, q1, q2, q3, k0, k1, k2, k3, seen)
            high, sum_, old, new = fold_sums(high, sum_, top, total)
            a0 = fold(a0, old, tl.dot(p, k0), new)
            a1 = fold(a1, old, tl.dot(p, k1), new)
            a2 = fold(a2, old, tl.dot(p, k2), new)
            a3 = fold(a3, old, tl.dot(p, k3), new)
        here = out + rows[:, None] * _DIM + tl.arange(0, PIECE)[None, :]
        rotation = rotations + token * 64
        store_piece(here, a0, sum_, rotation, inside, False)
        store_piece(here + PIECE, a1, sum_, rotation, inside, False)
        store_piece(here + 2 * PIECE, a2, sum_, rotation, inside, False)
        store_piece(here + 3 * PIECE, a3, sum_, rotation, inside, True)


@triton.jit
def _fold_kernel(
    sink,
    rotations,
    positions,
    counts,
    parts,
    sums,
    out,
    heads,
    room,
    RATIO: tl.constexpr,
    CHOSEN: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    STAGES: tl.constexpr,
):
    wait_for_previous()
    token = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    inside = head < heads
    visible = visible_entries(counts, token, tl.load(positions + token), RATIO, CHOSEN)
    tiles = _WINDOW // KEYS + (visible + KEYS - 1) // KEYS
    high = tl.load(sink + head, mask=inside, other=0.0) * LOG2E
    sum_ = tl.full((HEADS,), 1.0, tl.float32)
    a0 = tl.zeros((HEADS, PIECE), tl.float32)
    a1 = tl.zeros((HEADS, PIECE), tl.float32)
    a2 = tl.zeros((HEADS, PIECE), tl.float32)
    a3 = tl.zeros((HEADS, PIECE), tl.float32)
    first = (token * room).to(tl.int64) * heads + head
    sums += first * 2
    parts += first[:, None] * _DIM + tl.arange(0, PIECE)[None, :]
    for tile in tl.range(0, tiles, num_stages=STAGES):
        top = tl.load(sums + tile * heads * 2, mask=inside, other=0.0)
        total = tl.load(sums + tile * heads * 2 + 1, mask=inside, other=0.0)
        here = parts + tile * heads * _DIM
        high, sum_, old, new = fold_sums(high, sum_, top, total)
        a0 = fold(a0, old, tl.load(here, mask=inside[:, None], other=0.0), new)
        a1 = fold(a1, old, tl.load(here + PIECE, mask=inside[:, None], other=0.0), new)
        a2 = fold(a2, old, tl.load(here + 2 * PIECE, mask=inside[:, None], other=0.0), new)
        a3 = fold(a3, old, tl.load(here + 3 * PIECE, mask=inside[:, None], other=0.0), new)
    here = out + (token.to(tl.int64) * heads + head)[:, None] * _DIM + tl.arange(0, PIECE)[None, :]
    rotation = rotations + token * 64
    store_piece(here, a0, sum_, rotation, inside, False)
    store_piece(here + PIECE, a1, sum_, rotation, inside, False)
    store_piece(here + 2 * PIECE, a2, sum_, rotation, inside, False)
    store_piece(here + 3 * PIECE, a3, sum_, rotation, inside, True)


def attend_reference(
    q: Tensor, sink: Tensor, rotations: Tensor, places: Places, ring: RowBlocks, entries: Entries | None
) -> Tensor:
    """Return what `attend` does, float32, without rounding of weights and output."""
    out = torch.empty(q.shape, device=q.device)
    for i, (sequence, position) in enumerate(zip(places.sequences, places.positions, strict=True)):
        slots = (
            torch.arange(max(0, int(position) - WINDOW + 1), int(position) + 1, device=q.device) % ring.rows
        )
        rows = [unpack_rows(ring.take(int(sequence), slots))]
        if entries is not None and entries.ids is not None and entries.counts is not None:
            ids = entries.ids[i, : int(entries.counts[i])].to(torch.int64)
            rows.append(unpack_rows(entries.rows.take(int(sequence), ids)))
        elif entries is not None:
            count = (int(position) + 1) // entries.ratio
            rows.append(unpack_rows(entries.rows.gather(int(sequence), 0, count)))
        keys = torch.cat(rows)
        z = q[i].to(torch.float32) @ keys.t() * HEAD_DIM**-0.5
        p = torch.softmax(torch.cat((sink[:, None], z), dim=1), dim=1)[:, 1:]
        out[i] = p @ keys
    tail = round_bf16(out[..., HEAD_DIM - ROPE_DIM :]).unflatten(-1, (-1, 2))
    cosine, sine = rotations.unsqueeze(1).unbind(-1)
    a, b = tail.unbind(-1)
    out[..., HEAD_DIM - ROPE_DIM :] = torch.stack((a * cosine + b * sine, b * cosine - a * sine), -1).flatten(
        -2
    )
    return out
