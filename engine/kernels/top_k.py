"""Selection of the k largest 16-bit sort keys of a row as ascending columns, ties to the lower column.

Two passes of a radix select: histograms of the high byte and, inside the byte that holds the k-th largest
key, of the low byte. They are kept per chunk of a row, so that a third pass knows, for each chunk alone, how
many columns before it are chosen and writes its own in order. A row of one chunk goes through all of that in
one launch. All sums are of integers: nothing depends on the order in which programs run. Rows with at most k
columns are chosen whole; their keys are not read.

Needs 6 bytes of reading per key (most of it meets the cache, which holds 25 million keys) and 4 k bytes of
writing. One row of a million tokens, 262 144 keys: 1.6 MB, 0.4 us at 4.3 TB/s: three launches. 4096 rows of
it: 6.4 GB, 1.5 ms. Workspace: 2 KB per chunk.

measured, H200, 2026-12-01, one token in three launches: 12.3 us at 8K, 30 at 128K, 59 at 1M. One was not yet.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import attention_tuning
from dsv4agent.engine.kernels.attention_tuning import SelectPlan
from dsv4agent.engine.kernels.launch import ceil_div, next_power_of_two, on_device
from dsv4agent.engine.kernels.overlap import overlapping, wait_for_previous
from dsv4agent.engine.ops.selection import top_k_mask

BINS = 256
_BINS = tl.constexpr(BINS)


def select_top_k(
    keys: Tensor,
    positions: Tensor,
    ratio: int,
    ids: Tensor,
    counts: Tensor,
    *,
    plan: SelectPlan | None = None,
) -> None:
    """Write the columns with the k largest keys of each row.

    Args:
        keys: int16 [t, n], read as unsigned; contiguous.
        positions: int32 [t].
        ratio: Columns g < (position + 1) // ratio are visible; among them is chosen.
        ids: int32 [t, k], contiguous; receives the columns, ascending, then -1.
        counts: int32 [t]; receives how many were chosen: k, or all visible ones.
        plan: Tile sizes; by default those in use.
    """
    plan = plan or attention_tuning.SELECT
    rows, width = keys.shape
    k = ids.shape[1]
    chunks = ceil_div(width, plan.chunk)
    fill = next_power_of_two(k)
    if chunks == 1:
        with on_device(keys):
            _whole_row_kernel[(rows,)](
                keys,
                positions,
                ids,
                counts,
                width,
                k,
                ratio,
                KEYS=min(plan.keys, next_power_of_two(width)),
                FILL=fill,
                num_warps=plan.warps,
                **overlapping(),
            )
        return
    high = torch.empty(rows, chunks, BINS, dtype=torch.int32, device=keys.device)
    low = torch.empty_like(high)
    grid = (rows, chunks)
    with on_device(keys):
        _high_bytes_kernel[grid](
            keys,
            positions,
            high,
            width,
            k,
            ratio,
            CHUNK=plan.chunk,
            KEYS=plan.keys,
            num_warps=plan.warps,
            **overlapping(),
        )
        _low_bytes_kernel[grid](
            keys,
            positions,
            high,
            low,
            width,
            k,
            ratio,
            CHUNKS=next_power_of_two(chunks),
            CHUNK=plan.chunk,
            KEYS=plan.keys,
            num_warps=plan.warps,
            **overlapping(),
        )
        _emit_kernel[grid](
            keys,
            positions,
            high,
            low,
            ids,
            counts,
            width,
            k,
            ratio,
            CHUNKS=next_power_of_two(chunks),
            CHUNK=plan.chunk,
            KEYS=plan.keys,
            FILL=fill,
            num_warps=plan.warps,
            **overlapping(),
        )


@triton.jit
def _whole_row_kernel(keys, positions, ids, counts, width, k, ratio, KEYS: tl.constexpr, FILL: tl.constexpr):
    """Do all three passes over a row of one chunk, whose keys stay in the caches."""
    wait_for_previous()
    row = tl.program_id(0)
    count = (tl.load(positions + row) + 1) // ratio
    ids += row.to(tl.int64) * k
    keys += row.to(tl.int64) * width
    tl.store(counts + row, tl.minimum(count, k))
    if count <= k:
        _emit_all(ids, count, k, FILL)
    else:
        byte, left = _threshold(_high_bins(keys, 0, count, KEYS), k)
        last, ties = _threshold(_low_bins(keys, 0, count, byte, KEYS), left)
        none = tl.full((), 0, tl.int32)
        _emit(keys, ids, 0, count, (byte << 8) | last, ties, none, none, KEYS)


@triton.jit
def _high_bytes_kernel(keys, positions, high, width, k, ratio, CHUNK: tl.constexpr, KEYS: tl.constexpr):
    wait_for_previous()
    row, chunk = tl.program_id(0), tl.program_id(1)
    count = (tl.load(positions + row) + 1) // ratio
    if count > k:
        keys += row.to(tl.int64) * width
        end = tl.minimum(count, (chunk + 1) * CHUNK)
        _store_bins(high, row, chunk, _high_bins(keys, chunk * CHUNK, end, KEYS))


@triton.jit
def _low_bytes_kernel(
    keys, positions, high, low, width, k, ratio, CHUNKS: tl.constexpr, CHUNK: tl.constexpr, KEYS: tl.constexpr
):
    wait_for_previous()
    row, chunk = tl.program_id(0), tl.program_id(1)
    count = (tl.load(positions + row) + 1) // ratio
    if count > k:
        keys += row.to(tl.int64) * width
        byte, _ = _threshold(tl.sum(_load_bins(high, row, CHUNKS), axis=0), k)
        end = tl.minimum(count, (chunk + 1) * CHUNK)
        _store_bins(low, row, chunk, _low_bins(keys, chunk * CHUNK, end, byte, KEYS))


@triton.jit
def _emit_kernel(
    keys,
    positions,
    high,
    low,
    ids,
    counts,
    width,
    k,
    ratio,
    CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    KEYS: tl.constexpr,
    FILL: tl.constexpr,
):
    wait_for_previous()
    row, chunk = tl.program_id(0), tl.program_id(1)
    count = (tl.load(positions + row) + 1) // ratio
    ids += row.to(tl.int64) * k
    keys += row.to(tl.int64) * width
    if chunk == 0:
        tl.store(counts + row, tl.minimum(count, k))
    if count <= k:
        if chunk == 0:
            _emit_all(ids, count, k, FILL)
    else:
        bins = _load_bins(high, row, CHUNKS)
        byte, left = _threshold(tl.sum(bins, axis=0), k)
        lows = _load_bins(low, row, CHUNKS)
        last, ties = _threshold(tl.sum(lows, axis=0), left)
        number = tl.arange(0, _BINS)[None, :]
        above = tl.sum(tl.where(number > byte, bins, 0) + tl.where(number > last, lows, 0), axis=1)
        level = tl.sum(tl.where(number == last, lows, 0), axis=1)
        before = tl.arange(0, CHUNKS) < chunk
        greater = tl.sum(tl.where(before, above, 0), axis=0)
        equal = tl.sum(tl.where(before, level, 0), axis=0)
        end = tl.minimum(count, (chunk + 1) * CHUNK)
        _emit(keys, ids, chunk * CHUNK, end, (byte << 8) | last, ties, greater, equal, KEYS)


@triton.jit
def _high_bins(keys, first, end, KEYS: tl.constexpr):
    """Return the histogram of the high bytes of the keys first ... end - 1."""
    total = tl.zeros((_BINS,), tl.int32)
    for start in range(first, end, KEYS):
        column = start + tl.arange(0, KEYS)
        key = _load_keys(keys, column, column < end)
        total += _histogram(key >> 8, column < end)
    return total


@triton.jit
def _low_bins(keys, first, end, byte, KEYS: tl.constexpr):
    """Return the histogram of the low bytes of those keys whose high byte is `byte`."""
    total = tl.zeros((_BINS,), tl.int32)
    for start in range(first, end, KEYS):
        column = start + tl.arange(0, KEYS)
        key = _load_keys(keys, column, column < end)
        total += _histogram(key & 0xFF, (column < end) & ((key >> 8) == byte))
    return total


@triton.jit
def _emit_all(ids, count, k, FILL: tl.constexpr):
    """Write all `count` columns, at most k."""
    column = tl.arange(0, FILL)
    tl.store(ids + column, tl.where(column < count, column, -1), mask=column < k)


@triton.jit
def _emit(keys, ids, first, end, limit, ties, greater, equal, KEYS: tl.constexpr):
    """Write the columns first ... end - 1 with keys above `limit`, and the first `ties` of all that equal it.

    `greater` and `equal` are how many such columns come before.
    """
    for start in range(first, end, KEYS):
        column = start + tl.arange(0, KEYS)
        inside = column < end
        key = _load_keys(keys, column, inside)
        over = (inside & (key > limit)).to(tl.int32)
        tie = (inside & (key == limit)).to(tl.int32)
        # One running count in the low, one in the high half.
        running = tl.cumsum(over | (tie << 16), axis=0)
        ahead, met = running & 0xFFFF, running >> 16
        chosen = (over == 1) | ((tie == 1) & (equal + met <= ties))
        place = greater + ahead + tl.minimum(equal + met, ties) - 1
        tl.store(ids + place, column, mask=chosen)
        greater += tl.sum(over, axis=0)
        equal += tl.sum(tie, axis=0)


@triton.jit
def _load_keys(keys, column, mask):
    return tl.load(keys + column, mask=mask, other=0).to(tl.int32) & 0xFFFF


@triton.jit
def _histogram(byte, mask):
    """Count bytes where `mask` holds; the others are counted as zeros and taken away again."""
    bins = tl.histogram(tl.where(mask, byte, 0), _BINS)
    excess = tl.sum((~mask).to(tl.int32), axis=0)
    return bins - tl.where(tl.arange(0, _BINS) == 0, excess, 0)


@triton.jit
def _store_bins(bins, row, chunk, total):
    place = (row * tl.num_programs(1) + chunk).to(tl.int64) * _BINS
    tl.store(bins + place + tl.arange(0, _BINS), total)


@triton.jit
def _load_bins(bins, row, CHUNKS: tl.constexpr):
    """Return the histograms int32 [CHUNKS, 256] of all chunks of a row."""
    chunk = tl.arange(0, CHUNKS)[:, None]
    chunks = tl.num_programs(1)
    place = (row * chunks + chunk).to(tl.int64) * _BINS + tl.arange(0, _BINS)[None, :]
    return tl.load(bins + place, mask=chunk < chunks, other=0)


@triton.jit
def _threshold(bins, k):
    """Return the bin with the k-th largest, and how many of that bin are among the k largest."""
    above = tl.sum(bins, axis=0) - tl.cumsum(bins, axis=0)
    found = (above < k) & (above + bins >= k)
    return (
        tl.sum(tl.where(found, tl.arange(0, _BINS), 0), axis=0),
        tl.sum(tl.where(found, k - above, 0), axis=0),
    )


def sort_keys_reference(scores: Tensor) -> Tensor:
    """Return the sort keys int16 of float32 scores that are bfloat16 values."""
    bits = scores.to(torch.bfloat16).view(torch.int16).to(torch.int32) & 0xFFFF
    bits = torch.where(bits == 0x8000, 0, bits)
    keys = torch.where(bits >= 0x8000, ~bits & 0xFFFF, bits | 0x8000)
    return torch.where(keys >= 0x8000, keys - 0x10000, keys).to(torch.int16)


def select_top_k_reference(scores: Tensor, visible: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what `select_top_k` writes, for scores float32 [t, n]."""
    hidden = torch.arange(scores.shape[1], device=scores.device) >= visible[:, None]
    ids = torch.full((scores.shape[0], k), -1, dtype=torch.int32, device=scores.device)
    for i, row in enumerate(scores.masked_fill(hidden, float("-inf"))):
        count = min(k, int(visible[i]))
        if count:
            ids[i, :count] = top_k_mask(row[None], count)[0].nonzero()[:, 0].to(torch.int32)
    return ids, visible.clamp(max=k)
