"""The residual streams: write the output of one sub-layer back, read the input of the next, in one pass.

The product with the 24 mixes runs on the matrix units without loss: streams are bfloat16, and a float32 mix
is the sum of three bfloat16 numbers, so 72 rows of weights give three sums that are added in float32. It is
split into parts of 128 channels (of all four streams), added in ascending order. For few tokens each part has
a program, and the last to arrive finishes the tokens (norm of the streams, Sinkhorn, blend, RMSNorm of the
sub-layer, quantisation); for a few more, a second launch has a program per token; for many, one program goes
through all parts of a tile. The finishing code is the same, with sums as explicit trees.

Needs per call 6 * 24 * 4 D bytes of mixes, 2.4 MB in Flash (0.55 us at 4.3 TB/s) and 4.1 MB in Pro (0.96 us),
and per token 16 D bytes to rewrite the streams, 2 D for the sub-layer's output, 3 D for the new input: 86 KB
in Flash, 4096 tokens 82 us. 576 D operations per token in the product. Few tokens are latency alone: three
trips to memory one after another and about 2 000 dependent operations of Sinkhorn.

measured: not yet
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
from dsv4agent.engine.kernels.launch import ceil_div, counters, next_power_of_two, on_device
from dsv4agent.engine.kernels.mixes import PackedMix
from dsv4agent.engine.kernels.numerics import (
    PRODUCT,
    encode_e4m3,
    fp8_scale,
    round_bf16,
    tree_sum,
)
from dsv4agent.engine.kernels.quantize import QuantizedRows, quantize_rows_reference
from dsv4agent.engine.kernels.sinkhorn import sigmoid, store_write_weights
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
    """

    x: Tensor
    write: Tensor | None
    quantized: QuantizedRows | None


def write_then_read(
    streams: Tensor,
    mix: PackedMix,
    norm: Tensor | None,
    eps: float,
    *,
    y: Tensor | None = None,
    write: Tensor | None = None,
    quantize: bool = False,
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
    """
    m, _, dim = streams.shape
    assert streams.is_contiguous() and (y is None) == (write is None)
    head = mix.scale.numel() == STREAMS
    plan = tuning.STREAMS
    device = streams.device
    x = torch.empty(m, dim, dtype=torch.bfloat16, device=device)
    weights = torch.empty(m, STREAMS, STREAMS + 1, dtype=torch.float32, device=device)
    quantized = QuantizedRows.empty(m, dim, device)
    result = StreamRead(x, None if head else weights, quantized if quantize else None)
    if m == 0:
        return result
    parts, _, rows, _ = mix.pieces.shape
    parallel = m <= plan.skinny_tokens
    fused = m <= plan.fused_tokens
    tile = plan.skinny if parallel else plan.wide
    tiles = ceil_div(m, tile.tokens)
    sums = torch.empty((parts if parallel else 1) * m * rows, dtype=torch.float32, device=device)
    scratch = torch.empty(m, 32, dtype=torch.float32, device=device)
    finish = (
        streams, sums, scratch, mix.scale, mix.base, x if norm is None else norm, x, weights,
        quantized.codes.view(torch.uint8), quantized.scales, m, mix.eps, mix.norm_eps, eps,
    )  # fmt: skip
    constants = {
        "PARTS": parts if parallel else 1,
        "DIM": dim,
        "BLOCKS": next_power_of_two(ceil_div(dim, 128)),
        "COLUMNS": mix.scale.numel(),
        "ITERATIONS": mix.iterations,
        "NORMED": norm is not None,
        "QUANTIZED": quantize,
        "enable_fp_fusion": False,
    }
    with on_device(streams):
        _mix_kernel[(parts if parallel else 1, tiles)](
            y if y is not None else x,
            write if write is not None else weights,
            mix.pieces,
            counters(device, tiles),
            *finish,
            ALL_PARTS=parts,
            CHANNELS=mix.pieces.shape[3],
            WRITE=y is not None,
            FUSED=fused,
            ROWS=max(64, next_power_of_two(rows)),
            TOKENS=tile.tokens,
            **constants,
            num_warps=plan.finish_warps if fused else tile.warps,
            num_stages=tile.stages,
        )
        if not fused:
            _finish_kernel[(m,)](*finish, **constants, num_warps=plan.finish_warps)
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
            )
    return streams


@triton.jit(do_not_specialize=["m"])
def _mix_kernel(
    y, write, pieces, count,
    streams, sums, scratch, scale, base, norm, x, weights, codes, scales, m, eps, norm_eps, x_eps,
    PARTS: tl.constexpr, DIM: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
    ITERATIONS: tl.constexpr, NORMED: tl.constexpr, QUANTIZED: tl.constexpr,
    ALL_PARTS: tl.constexpr, CHANNELS: tl.constexpr, WRITE: tl.constexpr, FUSED: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write one tile of tokens, all channels or one part, and sum the products with the mixes."""
    tile = tl.program_id(1)
    token = tile * TOKENS + tl.arange(0, TOKENS)
    valid = token < m
    row = tl.arange(0, ROWS)
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    rows: tl.constexpr = 3 * COLUMNS
    # A launch with one program per tile goes through all parts; otherwise each program has its own.
    mine: tl.constexpr = ALL_PARTS // PARTS
    for inner in range(mine):
        part = tl.program_id(0) + inner
        total += _part(
            streams, y, write, pieces, token, valid, row, part, DIM, CHANNELS, rows, WRITE, ROWS, TOKENS
        )
    target = sums + (tl.program_id(0) * m + token).to(tl.int64)[None, :] * rows + row[:, None]
    tl.store(target, total, mask=(row < rows)[:, None] & valid[None, :])
    if FUSED:
        # All threads' results are stored before one of them announces it.
        tl.debug_barrier()
        if tl.atomic_add(count + tile, 1) != PARTS - 1:
            return
        tl.debug_barrier()
        for one in range(tile * TOKENS, tl.minimum(tile * TOKENS + TOKENS, m)):
            _finish(
                one, streams, sums, scratch, scale, base, norm, x, weights, codes, scales, m, eps, norm_eps,
                x_eps, PARTS, DIM, BLOCKS, COLUMNS, ITERATIONS, NORMED, QUANTIZED,
            )  # fmt: skip
        tl.store(count + tile, 0)


@triton.jit(do_not_specialize=["m"])
def _finish_kernel(
    streams, sums, scratch, scale, base, norm, x, weights, codes, scales, m, eps, norm_eps, x_eps,
    PARTS: tl.constexpr, DIM: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
    ITERATIONS: tl.constexpr, NORMED: tl.constexpr, QUANTIZED: tl.constexpr,
):  # fmt: skip
    _finish(
        tl.program_id(0), streams, sums, scratch, scale, base, norm, x, weights, codes, scales, m, eps,
        norm_eps, x_eps, PARTS, DIM, BLOCKS, COLUMNS, ITERATIONS, NORMED, QUANTIZED,
    )  # fmt: skip


@triton.jit
def _write_kernel(streams, y, write, DIM: tl.constexpr, BLOCK: tl.constexpr):
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
):  # fmt: skip
    """Write some channels of all streams; return the products with the mixes [ROWS, TOKENS] over them."""
    channel = tl.arange(0, CHANNELS)
    inside = valid[:, None] & (part * CHANNELS + channel < DIM)[None, :]
    source = streams + token.to(tl.int64)[:, None] * (4 * DIM) + part * CHANNELS + channel[None, :]
    left = pieces + part * (4 * MIX_ROWS * CHANNELS) + row[:, None] * CHANNELS + channel[None, :]
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    a, b, c, d = _streams(source, DIM, inside)
    if WRITE:
        own = tl.load(
            y + token.to(tl.int64)[:, None] * DIM + part * CHANNELS + channel[None, :], mask=inside, other=0.0
        ).to(tl.float32)
    for k in tl.static_range(4):
        if WRITE:
            w = write + token * 20 + k * 5
            new = a * tl.load(w, mask=valid, other=0.0)[:, None]
            new += b * tl.load(w + 1, mask=valid, other=0.0)[:, None]
            new += c * tl.load(w + 2, mask=valid, other=0.0)[:, None]
            new += d * tl.load(w + 3, mask=valid, other=0.0)[:, None]
            new = round_bf16(new + own * tl.load(w + 4, mask=valid, other=0.0)[:, None])
            tl.store(source + k * DIM, new.to(tl.bfloat16), mask=inside)
        elif k == 0:
            new = a
        elif k == 1:
            new = b
        elif k == 2:
            new = c
        else:
            new = d
        mixes = tl.load(left + k * (MIX_ROWS * CHANNELS), mask=(row < MIX_ROWS)[:, None], other=0.0)
        total = tl.dot(mixes.to(PRODUCT), new.to(PRODUCT).T, total, input_precision="ieee")
    return total


@triton.jit
def _streams(source, DIM: tl.constexpr, inside):
    # Other programs may have just written these: past the first cache.
    a = tl.load(source, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    b = tl.load(source + DIM, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    c = tl.load(source + 2 * DIM, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    d = tl.load(source + 3 * DIM, mask=inside, other=0.0, cache_modifier=".cg").to(tl.float32)
    return a, b, c, d


@triton.jit
def _finish(
    token, streams, sums, scratch, scale, base, norm, x, weights, codes, scales, m, eps, norm_eps, x_eps,
    PARTS: tl.constexpr, DIM: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
    ITERATIONS: tl.constexpr, NORMED: tl.constexpr, QUANTIZED: tl.constexpr,
):  # fmt: skip
    """Turn the sums of one token into its mixes, blend and normalise its row, and store its write weights."""
    size: tl.constexpr = BLOCKS * 128
    row = tl.full((), token, tl.int64)
    block = tl.arange(0, BLOCKS)
    channel = block[:, None] * 128 + tl.arange(0, 128)[None, :]
    inside = channel < DIM
    a, b, c, d = _streams(streams + row * (4 * DIM) + channel, DIM, inside)
    square = tree_sum(tl.reshape(a * a + b * b + c * c + d * d, [size]), size)
    factor = tl.div_rn(1.0, tl.sqrt_rn(square * (1.0 / (4 * DIM)) + norm_eps))

    column = tl.arange(0, 32)
    used = column < COLUMNS
    first = tl.zeros([32], tl.float32)
    second = tl.zeros([32], tl.float32)
    third = tl.zeros([32], tl.float32)
    for part in tl.static_range(PARTS):
        source = sums + (part * m + row) * (3 * COLUMNS) + column
        first += tl.load(source, mask=used, other=0.0, cache_modifier=".cg")
        second += tl.load(source + COLUMNS, mask=used, other=0.0, cache_modifier=".cg")
        third += tl.load(source + 2 * COLUMNS, mask=used, other=0.0, cache_modifier=".cg")
    gain = tl.load(scale + column, mask=used, other=0.0)
    shift = tl.load(base + column, mask=used, other=0.0)
    # Through memory: the elements of a tensor cannot be named one by one.
    z = scratch + row * 32
    tl.store(z + column, (first + second + third) * factor * gain + shift)
    tl.debug_barrier()

    value = a * (sigmoid(tl.load(z)) + eps) + b * (sigmoid(tl.load(z + 1)) + eps)
    value = value + c * (sigmoid(tl.load(z + 2)) + eps) + d * (sigmoid(tl.load(z + 3)) + eps)
    value = round_bf16(value)
    if NORMED:
        square = tree_sum(tl.reshape(value * value, [size]), size)
        factor = tl.div_rn(1.0, tl.sqrt_rn(square * (1.0 / DIM) + x_eps))
        value = round_bf16(value * factor * tl.load(norm + channel, mask=inside, other=0.0).to(tl.float32))
    tl.store(x + row * DIM + channel, value.to(tl.bfloat16), mask=inside)
    if QUANTIZED:
        blocks: tl.constexpr = (DIM + 127) // 128
        code, inverse = fp8_scale(tl.max(tl.abs(value), axis=1))
        tl.store(scales + row * blocks + block, code.to(tl.uint8), mask=block < blocks)
        target = codes + row * (blocks * 128) + channel
        tl.store(target, encode_e4m3(value * inverse[:, None]), mask=channel < blocks * 128)
    if COLUMNS > 4:
        store_write_weights(z, weights + row * 20, eps, ITERATIONS)


def write_then_read_reference(
    streams: Tensor,
    mix: ops.Mix,
    norm: Tensor | None,
    eps: float,
    *,
    y: Tensor | None = None,
    write: Tensor | None = None,
    quantize: bool = False,
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
    return StreamRead(x.to(torch.bfloat16), weights, quantize_rows_reference(x) if quantize else None)
