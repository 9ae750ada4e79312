"""The residual streams: write the output of one sub-layer back, read the input of the next, in one pass.

The product with the 24 mixes runs on the matrix units without loss: streams are bfloat16, and a float32 mix
is the sum of three bfloat16 numbers, so 72 rows of weights give three sums that are added in float32. It is
split into parts of 128 channels (of all four streams), added in ascending order, as are the parts' sums of
squares. For few tokens each part has a program; for many, one program goes through all parts of a tile. A
second launch finishes the tokens with two programs for each: one blends the streams, normalises the row and
quantises it, the other turns the matrix of the next write doubly stochastic.

Needs per call 6 * 24 * 4 D bytes of mixes, 2.4 MB in Flash (0.55 us at 4.3 TB/s) and 4.1 MB in Pro (0.96 us),
and per token 16 D bytes to rewrite the streams, 2 D for the sub-layer's output, 3 D for the new input: 86 KB
in Flash, 4096 tokens 82 us. 576 D operations per token in the product. Few tokens are latency alone: in
each launch two trips to memory one after another, and forty dependent steps of Sinkhorn of some 50 cycles.

measured, H200, 2026-12-01: 1 token 9.2 us, 8 9.1 us, 4096 310 us (25 %).
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.launch import ceil_div, next_power_of_two, on_device
from dsv4agent.engine.kernels.mixes import PackedMix
from dsv4agent.engine.kernels.numerics import (
    PRODUCT,
    decode_e8m0,
    encode_e4m3,
    fp8_scale,
    round_bf16,
    round_e4m3,
)
from dsv4agent.engine.kernels.overlap import overlapping, prefetch, wait_for_previous
from dsv4agent.engine.kernels.quantize import QuantizedRows, quantize_rows_reference, round_rows_reference
from dsv4agent.engine.kernels.sinkhorn import pick, sigmoid, store_write_weights
from dsv4agent.engine.kernels.sums import sum_columns
from dsv4agent.engine.ops import hyper_connections as ops
from dsv4agent.engine.ops.hyper_connections import MIXES, STREAMS
from dsv4agent.engine.ops.norms import rms_norm


@dataclass(frozen=True)
class StreamRead:
    """What a sub-layer gets.

    Attributes:
        x: Its input, bfloat16 [m, D].
        write: Weights to write its output back with, float32 [m, 4, 5]; None for the head.
        quantized: The input in FP8, if asked for.
        rounded: The same numbers in bfloat16 [m, c], c a multiple of 128, if asked for.
    """

    x: Tensor
    write: Tensor | None
    quantized: QuantizedRows | None
    rounded: Tensor | None = None


def write_then_read(
    streams: Tensor,
    mix: PackedMix,
    norm: Tensor | None,
    eps: float,
    *,
    y: Tensor | None = None,
    write: Tensor | None = None,
    quantize: bool = False,
    rounded: bool = False,
) -> StreamRead:
    """Write `y` back with the weights `write` of its own read, if given, then read the streams with `mix`.

    Args:
        streams: bfloat16 [m, 4, D], overwritten where there is something to write.
        mix: Of the sub-layer that reads, or of the head.
        norm: bfloat16 or float32 [D], weight of the norm of what is read; None leaves the norm out.
        eps: Of that norm.
        y: Output of the previous sub-layer, bfloat16 [m, D].
        write: float32 [m, 4, 5].
        quantize: Whether to quantise what is read.
        rounded: Whether what that leaves of it is wanted in bfloat16, too.
    """
    m, _, dim = streams.shape
    assert quantize or not rounded
    assert streams.is_contiguous() and (y is None) == (write is None)
    head = mix.scale.numel() == STREAMS
    plan = tuning.STREAMS
    device = streams.device
    x = torch.empty(m, dim, dtype=torch.bfloat16, device=device)
    weights = torch.empty(m, STREAMS, STREAMS + 1, dtype=torch.float32, device=device)
    quantized = QuantizedRows.empty(m, dim, device)
    kept = torch.empty(quantized.codes.shape, dtype=torch.bfloat16, device=device) if rounded else None
    result = StreamRead(x, None if head else weights, quantized if quantize else None, kept)
    if m == 0:
        return result
    parts, _, rows, _ = mix.pieces.shape
    parallel = m <= plan.skinny_tokens
    tile = plan.skinny if parallel else plan.wide
    programs = parts if parallel else 1
    sums = torch.empty(programs * m * (rows + 1), dtype=torch.float32, device=device)
    finish = (
        streams, sums, mix.scale, mix.base, x if norm is None else norm, x, weights,
        quantized.codes.view(torch.uint8), quantized.scales,
        x if kept is None else kept, m, mix.eps, mix.norm_eps, eps,
    )  # fmt: skip
    constants = {
        "PARTS": programs,
        "DIM": dim,
        "BLOCKS": next_power_of_two(ceil_div(dim, 128)),
        "COLUMNS": mix.scale.numel(),
        "ITERATIONS": mix.iterations,
        "NORMED": norm is not None,
        "QUANTIZED": quantize,
        "ROUNDED": rounded,
        "enable_fp_fusion": False,
        **overlapping(),
    }
    with on_device(streams):
        _mix_kernel[(programs, ceil_div(m, tile.tokens))](
            y if y is not None else x,
            write if write is not None else weights,
            mix.pieces,
            streams,
            sums,
            m,
            PARTS=programs,
            ALL_PARTS=parts,
            DIM=dim,
            CHANNELS=mix.pieces.shape[3],
            MIX_ROWS=rows,
            WRITE=y is not None,
            ROWS=max(64, next_power_of_two(rows)),
            TOKENS=tile.tokens,
            num_warps=tile.warps,
            STAGES=tile.stages,
            # Of the loop over parts, whose body is too large.
            num_stages=1,
            enable_fp_fusion=False,
            **overlapping(),
        )
        if head:
            _finish_kernel[(m, 1)](*finish, ROLE=_ROW, **constants, num_warps=plan.finish_warps)
        elif m <= plan.together_tokens:
            _finish_kernel[(m, 2)](*finish, ROLE=_BOTH, **constants, num_warps=plan.finish_warps)
        else:
            _finish_kernel[(m, 1)](*finish, ROLE=_ROW, **constants, num_warps=plan.finish_warps)
            # Every warp of a program computes all of the small matrix: more than one would be a waste.
            _finish_kernel[(m, 1)](*finish, ROLE=_WEIGHTS, **constants, num_warps=1)
    return result


def write_streams_(streams: Tensor, y: Tensor, write: Tensor) -> Tensor:
    """Replace the streams, bfloat16 [m, 4, D], by post y + C^T X, and return them."""
    m, _, dim = streams.shape
    if m:
        with on_device(streams):
            _write_kernel[(m, ceil_div(dim, tuning.ROWS.columns))](
                streams,
                y,
                write,
                DIM=dim,
                BLOCK=tuning.ROWS.columns,
                num_warps=tuning.ROWS.warps,
                enable_fp_fusion=False,
                **overlapping(),
            )
    return streams


@triton.jit(do_not_specialize=["m"])
def _mix_kernel(
    y, write, pieces, streams, sums, m,
    PARTS: tl.constexpr, ALL_PARTS: tl.constexpr, DIM: tl.constexpr, CHANNELS: tl.constexpr,
    MIX_ROWS: tl.constexpr, WRITE: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Write one tile of tokens, all channels or one part; sum products with the mixes, and squares."""
    if PARTS == ALL_PARTS:
        size: tl.constexpr = 8 * MIX_ROWS * CHANNELS
        prefetch(pieces + tl.program_id(0) * (size // 2), size, 65536)
    wait_for_previous()
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    valid = token < m
    row = tl.arange(0, ROWS)
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    squares = tl.zeros([TOKENS], tl.float32)
    # A launch with one program per tile goes through all parts; otherwise each program has its own.
    mine: tl.constexpr = ALL_PARTS // PARTS
    for inner in range(mine):
        part = tl.program_id(0) + inner
        products, square = _part(
            streams, y, write, pieces, token, valid, row, part, DIM, CHANNELS, MIX_ROWS, WRITE, ROWS, TOKENS,
            STAGES,
        )  # fmt: skip
        total += products
        squares += square
    target = sums + (tl.program_id(0) * m + token).to(tl.int64) * (MIX_ROWS + 1)
    tl.store(target[None, :] + row[:, None], total, mask=(row < MIX_ROWS)[:, None] & valid[None, :])
    tl.store(target + MIX_ROWS, squares, mask=valid)


_ROW = tl.constexpr(0)
_WEIGHTS = tl.constexpr(1)
_BOTH = tl.constexpr(2)


@triton.jit(do_not_specialize=["m"])
def _finish_kernel(
    streams, sums, scale, base, norm, x, weights, codes, scales, rounded, m, eps, norm_eps, x_eps,
    ROLE: tl.constexpr, PARTS: tl.constexpr, DIM: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
    ITERATIONS: tl.constexpr, NORMED: tl.constexpr, QUANTIZED: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """Turn the sums of one token into the row that the sub-layer reads, its write weights, or both."""
    token = tl.program_id(0).to(tl.int64)
    if ROLE == _ROW or (ROLE == _BOTH and tl.program_id(1) == 0):
        _finish_row(
            token, streams, sums, scale, base, norm, x, codes, scales, rounded, m, eps, norm_eps, x_eps,
            PARTS, DIM, BLOCKS, COLUMNS, NORMED, QUANTIZED, ROUNDED,
        )  # fmt: skip
    else:
        _finish_weights(token, sums, scale, base, weights, m, eps, norm_eps, PARTS, DIM, COLUMNS, ITERATIONS)


@triton.jit
def _write_kernel(streams, y, write, DIM: tl.constexpr, BLOCK: tl.constexpr):
    wait_for_previous()
    token = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < DIM
    source = streams + token * (4 * DIM) + channel
    a, b, c, d = _streams(source, DIM, inside)
    own = tl.load(y + token * DIM + channel, mask=inside, other=0.0).to(tl.float32)
    for k in tl.static_range(4):
        w = write + token * 20 + k * 5
        new = a * tl.load(w) + b * tl.load(w + 1) + c * tl.load(w + 2) + d * tl.load(w + 3)
        new = round_bf16(new + own * tl.load(w + 4))
        tl.store(source + k * DIM, new.to(tl.bfloat16), mask=inside)


@triton.jit
def _part(
    streams, y, write, pieces, token, valid, row, part,
    DIM: tl.constexpr, CHANNELS: tl.constexpr, MIX_ROWS: tl.constexpr, WRITE: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Write some channels of all streams.

    Returns:
        The products with the mixes [ROWS, TOKENS] over them, and the sums of their squares [TOKENS].
    """
    channel = tl.arange(0, CHANNELS)
    inside = valid[:, None] & (part * CHANNELS + channel < DIM)[None, :]
    wide = token.to(tl.int64)[:, None]
    source = streams + wide * (4 * DIM) + part * CHANNELS + channel[None, :]
    left = pieces + part * (4 * MIX_ROWS * CHANNELS) + row[:, None] * CHANNELS + channel[None, :]
    a, b, c, d = _streams(source, DIM, inside)
    if WRITE:
        own = tl.load(y + wide * DIM + part * CHANNELS + channel[None, :], mask=inside, other=0.0)
        own = own.to(tl.float32)
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    square = tl.zeros([TOKENS, CHANNELS], tl.float32)
    # The mixes come from memory and wait for nothing: with enough stages all are on their way before one
    # is used.
    for k in tl.range(4, num_stages=STAGES):
        mixes = tl.load(left + k * (MIX_ROWS * CHANNELS), mask=(row < MIX_ROWS)[:, None], other=0.0)
        if WRITE:
            w = write + token * 20 + k * 5
            new = a * tl.load(w, mask=valid, other=0.0)[:, None]
            new += b * tl.load(w + 1, mask=valid, other=0.0)[:, None]
            new += c * tl.load(w + 2, mask=valid, other=0.0)[:, None]
            new += d * tl.load(w + 3, mask=valid, other=0.0)[:, None]
            new = round_bf16(new + own * tl.load(w + 4, mask=valid, other=0.0)[:, None])
            tl.store(source + k * DIM, new.to(tl.bfloat16), mask=inside)
        else:
            new = tl.where(k < 2, tl.where(k == 0, a, b), tl.where(k == 2, c, d))
        square += new * new
        total = tl.dot(mixes.to(PRODUCT), new.to(PRODUCT).T, total, input_precision="ieee")
    return total, sum_columns(square, CHANNELS)


@triton.jit
def _streams(source, DIM: tl.constexpr, inside):
    # Other programs may have just written these: past the first cache.
    a = tl.load(source, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    b = tl.load(source + DIM, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    c = tl.load(source + 2 * DIM, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    d = tl.load(source + 3 * DIM, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    return a, b, c, d


@triton.jit
def _finish_row(
    row, streams, sums, scale, base, norm, x, codes, scales, rounded, m, eps, norm_eps, x_eps,
    PARTS: tl.constexpr, DIM: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
    NORMED: tl.constexpr, QUANTIZED: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """Blend the streams of one token, normalise and quantise."""
    block = tl.arange(0, BLOCKS)
    channel = block[:, None] * 128 + tl.arange(0, 128)[None, :]
    inside = channel < DIM
    gain = 1.0
    if NORMED:
        gain = tl.load(norm + channel, mask=inside, other=0.0).to(tl.float32)
    wait_for_previous()
    a, b, c, d = _streams(streams + row * (4 * DIM) + channel, DIM, inside)
    # Lanes 0 ... 11 add up the three pieces of the first four columns, the next one the squares.
    lane = tl.arange(0, 16)
    place = tl.where(lane < 12, lane // 4 * COLUMNS + lane % 4, 3 * COLUMNS)
    found = tl.zeros([16], tl.float32)
    for part in tl.static_range(PARTS):
        source = sums + (part * m + row) * (3 * COLUMNS + 1) + place
        found += tl.load(source, mask=lane < 13, other=0.0, cache_modifier=".cg")
    factor = _norm_factor(pick(found, lane, 12), norm_eps, DIM)
    value = a * _gate(found, lane, factor, scale, base, eps, 0)
    value += b * _gate(found, lane, factor, scale, base, eps, 1)
    value += c * _gate(found, lane, factor, scale, base, eps, 2)
    value += d * _gate(found, lane, factor, scale, base, eps, 3)
    value = round_bf16(value)
    if NORMED:
        square = tl.sum(tl.sum(value * value, axis=1), axis=0)
        value = round_bf16(value * tl.div_rn(1.0, tl.sqrt_rn(square * (1.0 / DIM) + x_eps)) * gain)
    tl.store(x + row * DIM + channel, value.to(tl.bfloat16), mask=inside)
    if QUANTIZED:
        blocks: tl.constexpr = (DIM + 127) // 128
        code, inverse = fp8_scale(tl.max(tl.abs(value), axis=1))
        tl.store(scales + row * blocks + block, code.to(tl.uint8), mask=block < blocks)
        target = codes + row * (blocks * 128) + channel
        tl.store(target, encode_e4m3(value * inverse[:, None]), mask=channel < blocks * 128)
        if ROUNDED:
            grid = round_e4m3(value * inverse[:, None]) * decode_e8m0(code)[:, None]
            target = rounded + row * (blocks * 128) + channel
            tl.store(target, grid.to(tl.bfloat16), mask=channel < blocks * 128)


@triton.jit
def _gate(found, lane, factor, scale, base, eps, COLUMN: tl.constexpr):
    """Return the weight of one stream in what is read."""
    product = pick(found, lane, COLUMN) + pick(found, lane, COLUMN + 4) + pick(found, lane, COLUMN + 8)
    return sigmoid(product * factor * tl.load(scale + COLUMN) + tl.load(base + COLUMN)) + eps


@triton.jit
def _norm_factor(square, norm_eps, DIM: tl.constexpr):
    """Return the factor that normalises streams with so large a sum of squares."""
    return tl.div_rn(1.0, tl.sqrt_rn(square * (1.0 / (4 * DIM)) + norm_eps))


@triton.jit
def _finish_weights(
    row, sums, scale, base, weights, m, eps, norm_eps,
    PARTS: tl.constexpr, DIM: tl.constexpr, COLUMNS: tl.constexpr, ITERATIONS: tl.constexpr,
):  # fmt: skip
    """Store the weights with which the output for one token will be written back."""
    column = tl.arange(0, 32)
    used = column < COLUMNS
    gain = tl.load(scale + column, mask=used, other=0.0)
    shift = tl.load(base + column, mask=used, other=0.0)
    first = tl.zeros([32], tl.float32)
    second = tl.zeros([32], tl.float32)
    third = tl.zeros([32], tl.float32)
    square = 0.0
    wait_for_previous()
    for part in tl.static_range(PARTS):
        source = sums + (part * m + row) * (3 * COLUMNS + 1)
        first += tl.load(source + column, mask=used, other=0.0, cache_modifier=".cg")
        second += tl.load(source + COLUMNS + column, mask=used, other=0.0, cache_modifier=".cg")
        third += tl.load(source + 2 * COLUMNS + column, mask=used, other=0.0, cache_modifier=".cg")
        square += tl.load(source + 3 * COLUMNS, cache_modifier=".cg")
    z = (first + second + third) * _norm_factor(square, norm_eps, DIM) * gain + shift
    store_write_weights(z, column, weights + row * 20, eps, ITERATIONS)


def write_then_read_reference(
    streams: Tensor,
    mix: ops.Mix,
    norm: Tensor | None,
    eps: float,
    *,
    y: Tensor | None = None,
    write: Tensor | None = None,
    quantize: bool = False,
    rounded: bool = False,
) -> StreamRead:
    """Do as `write_then_read` with the host's routines; `streams` are not overwritten."""
    state = streams.float()
    if y is not None and write is not None:
        state = ops.write_streams_(state, y.float().contiguous(), write, official=True)
    if mix.fn.shape[0] == MIXES:
        assert norm is not None
        x, weights = ops.read_streams(state, replace(mix, norm=norm.float(), norm_eps=eps), official=True)
    else:
        x, weights = ops.collapse_streams(state, mix, official=True), None
        if norm is not None:
            x = rms_norm(x, norm.float(), eps, official=True)
    codes = quantize_rows_reference(x) if quantize else None
    kept = round_rows_reference(x) if rounded else None
    return StreamRead(x.to(torch.bfloat16), weights, codes, kept)
