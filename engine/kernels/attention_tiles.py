"""One tile of attention: its rows from cache to registers, its weights, and how it is folded into the others.

The two forms of `sparse_attention` call these functions and do nothing else with numbers, so they agree bit
by bit. 512 channels are held as four pieces of 128: their sums then fit beside one another in registers.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from dsv4agent.engine.kernels.kv_rows import DATA, HEAD_DIM, ROPE_DIM, SCALES, WINDOW, locate, to_bf16
from dsv4agent.engine.kernels.numerics import PRODUCT, decode_e8m0
from dsv4agent.engine.kernels.sums import sum_columns

PIECE = tl.constexpr(HEAD_DIM // 4)
LOG2E = tl.constexpr(1.4426950408889634)
_PLAIN = tl.constexpr(HEAD_DIM - ROPE_DIM)
_WINDOW = tl.constexpr(WINDOW)
_SCALE = tl.constexpr(HEAD_DIM**-0.5 * LOG2E.value)


@triton.jit
def visible_entries(counts, token, position, RATIO: tl.constexpr, CHOSEN: tl.constexpr):
    """Return how many entries a query attends to."""
    if CHOSEN:
        return tl.load(counts + token)
    elif RATIO == 0:
        return position * 0
    else:
        return (position + 1) // RATIO


@triton.jit
def load_tile(
    tile,
    sequence,
    position,
    visible,
    ring,
    ring_tails,
    ring_start,
    pages,
    page_tails,
    page_table,
    page_stride,
    ids,
    CHOSEN: tl.constexpr,
    RING_ROWS: tl.constexpr,
    PAGE_ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Return a tile's rows as four times 128 channels [KEYS, 128], and which of them count.

    Window and pages are told apart by selection, not by branches: the compiler then still knows how addresses
    are aligned, and reads 16 bytes at a time.
    """
    windows: tl.constexpr = _WINDOW // KEYS
    window = tile < windows
    key = tl.arange(0, KEYS)
    where = position - (_WINDOW - 1) + tile * KEYS + key
    slot = where % RING_ROWS
    entry = (tile - windows) * KEYS + key
    there = (entry >= 0) & (entry < visible)
    seen = there | ((entry < 0) & (where >= 0))
    if CHOSEN:
        entry = tl.load(ids + entry, mask=there, other=0)
    start, row = locate(
        page_table, page_stride, sequence, entry, PAGE_ROWS, PAGE_ROWS * (DATA + SCALES), there
    )
    data = tl.where(window, ring_start + slot * DATA, start + row * DATA)
    scales = tl.where(
        window, ring_start + RING_ROWS * DATA + slot * SCALES, start + PAGE_ROWS * DATA + row * SCALES
    )
    data, scales = tl.multiple_of(data, 16), tl.multiple_of(scales, 8)
    codes = tl.multiple_of(tl.where(window, ring, pages), 16)
    tails = tl.multiple_of(tl.where(window, ring_tails, page_tails), 16)
    return (
        _load_piece(codes, tails, data, scales, seen, 0, KEYS),
        _load_piece(codes, tails, data, scales, seen, 1, KEYS),
        _load_piece(codes, tails, data, scales, seen, 2, KEYS),
        _load_piece(codes, tails, data, scales, seen, 3, KEYS),
        seen,
    )


@triton.jit
def _load_piece(codes, tails, data, scales, seen, PART: tl.constexpr, KEYS: tl.constexpr):
    """Return 128 channels of a tile's rows: two blocks with a scale each. The last one is rotated."""
    block, channel = PART * 2 + tl.arange(0, 2), tl.arange(0, 64)
    here = seen[:, None, None] & (block < 7)[None, :, None]
    offset = block[None, :, None] * 64 + channel[None, None, :]
    x = tl.load(codes + (data[:, None, None] + offset), mask=here, other=0)
    scale = tl.load(codes + (scales[:, None] + block[None, :]), mask=seen[:, None], other=0)
    x = x.to(tl.float8e4nv, bitcast=True).to(tl.float32) * decode_e8m0(scale)[:, :, None]
    if PART == 3:
        there = seen[:, None, None] & (block == 7)[None, :, None]
        # Channel 448 stands at byte 448, which is element 224 of a row of bfloat16.
        tail = tails + ((data // 2)[:, None, None] + offset - _PLAIN // 2)
        x = tl.where(block[None, :, None] == 7, tl.load(tail, mask=there, other=0.0).to(tl.float32), x)
    return tl.reshape(x, (KEYS, PIECE)).to(PRODUCT)


@triton.jit
def load_queries(q, inside):
    """Return a block of heads as four times 128 channels [HEADS, 128]."""
    mask = inside[:, None]
    return (
        tl.load(q, mask=mask, other=0.0).to(PRODUCT),
        tl.load(q + PIECE, mask=mask, other=0.0).to(PRODUCT),
        tl.load(q + 2 * PIECE, mask=mask, other=0.0).to(PRODUCT),
        tl.load(q + 3 * PIECE, mask=mask, other=0.0).to(PRODUCT),
    )


@triton.jit
def weigh(q0, q1, q2, q3, k0, k1, k2, k3, seen):
    """Return the largest score of a tile, in powers of two, the sum of exponentials, and their roundings."""
    z = tl.dot(q0, tl.trans(k0))
    z = tl.dot(q1, tl.trans(k1), z)
    z = tl.dot(q2, tl.trans(k2), z)
    z = tl.dot(q3, tl.trans(k3), z)
    z = tl.where(seen[None, :], z * _SCALE, float("-inf"))
    top = tl.max(z, axis=1)
    # A tile without rows has weights of zero, not of exp(-inf + inf).
    p = tl.exp2(z - tl.where(top == float("-inf"), 0.0, top)[:, None])
    return top, sum_columns(p, p.shape[1]), to_bf16(p).to(PRODUCT)


@triton.jit
def fold_sums(high, sum_, top, total):
    """Return the new maximum and sum, and the factors of the old and of the tile's products."""
    most = tl.maximum(high, top)
    old, new = tl.exp2(high - most), tl.exp2(top - most)
    return most, sum_ * old + total * new, old, new


@triton.jit
def fold(a, old, part, new):
    """Return a * old + part * new for sums [HEADS, 128] and a factor per head."""
    return tl.fma(a, tl.broadcast_to(old[:, None], a.shape), part * new[:, None])


@triton.jit
def store_piece(here, a, sum_, rotation, inside, ROTATED: tl.constexpr):
    """Store 128 channels of the output; in the last ones, take the query's rotation back."""
    x = to_bf16(a / sum_[:, None])
    if ROTATED:
        heads: tl.constexpr = x.shape[0]
        even, odd = tl.split(tl.reshape(x, (heads, PIECE // 2, 2)))
        pair = tl.arange(0, PIECE // 2)
        turned = pair >= 32
        place = rotation + 2 * (pair - 32)
        cosine = tl.load(place, mask=turned, other=1.0)[None, :]
        sine = tl.load(place + 1, mask=turned, other=0.0)[None, :]
        x = tl.join(even * cosine + odd * sine, odd * cosine - even * sine)
        x = to_bf16(tl.reshape(x, (heads, PIECE)))
    tl.store(here, x.to(tl.bfloat16), mask=inside[:, None])
