"""Linear layers: FP8 x FP8, bfloat16 x FP8 (the grouped output projection) and bfloat16 x bfloat16.

Official numerics: FP8 activations with a scale per 128 channels, FP8 weights with one per 128 x 128, products
summed by the matrix units over 128 inner columns, then scaled and added in float32.

FP8 weights that meet bfloat16 rows become bfloat16 with their scale in the exponent, exactly, and the product
is one chain of bfloat16 matrix instructions. They are stored in pairs: a little-endian word of 16 bits holds
the code of column c of a step in its upper byte and that of column 64 + c in the lower one, so that both are
some shifts away from bfloat16, and a thread reads its operand as it is.

Weights are the left operand and stored in tiles of 64 rows x 128 inner columns, one after another along a row
of tiles, so that a program streams one contiguous piece of memory. Skinny and wide batches use the same
product with more columns. The inner dimension falls into `tuning.linear_splits` parts, a function of the
weights' shape: in the skinny form each has a program, and the one that comes last adds the parts in ascending
order; in the wide form one program goes through them in that order. So the bits of a row are always the same.

Needs N K bytes of weights (twice for bfloat16), 2 N K M operations. Flash at M = 1, and floor at 4.3 TB/s:

    wq_a + wkv    1 536 x 4 096   6.3 MB   1.5 us     shared w1 + w3   4 096 x 4 096  16.8 MB    3.9 us
    wq_b         32 768 x 1 024  33.6 MB   7.8 us     shared w2        4 096 x 2 048   8.4 MB    2.0 us
    wo_a      8 x 1 024 x 4 096  33.6 MB   7.8 us     lm_head        129 280 x 4 096   1.06 GB   246 us
    wo_b          4 096 x 8 192  33.6 MB   7.8 us     gate               256 x 4 096   2.1 MB    0.5 us

At M = 4096, 1.58 PFLOP/s: wq_b 174 us, wo_b 174 us.

measured, H200, 2026-12-01, of the floor at M = 1: wq_a + wkv 30 %, wq_b 72, wo_a 56, wo_b 70, lm_head 97.
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

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.kernels.launch import ceil_div, counters, on_device
from dsv4agent.engine.kernels.numerics import (
    INTERPRETED,
    PRODUCT,
    decode_e8m0,
    load_token_scales,
    round_bf16,
)
from dsv4agent.engine.kernels.overlap import overlapping, prefetch, wait_for_previous
from dsv4agent.engine.kernels.quantize import QuantizedRows
from dsv4agent.engine.kernels.tuning import BLOCK, TILE_ROWS
from dsv4agent.engine.weights.formats import decode_e4m3
from dsv4agent.engine.weights.formats import decode_e8m0 as decode_scales


@dataclass(frozen=True)
class PackedLinear:
    """Weights of a linear layer in the kernels' layout.

    Attributes:
        tiles: float8_e4m3fn or bfloat16 [ceil(n / 64), ceil(k / 128), 64, 128], padded with zeros.
        scales: E8M0 codes uint8 [ceil(n / 128), ceil(k / 128)] of FP8 weights, else None.
        n: Rows.
        k: Inner columns.
        groups: The rows fall into so many equal groups, and group g reads columns g * k ... of the input.
        paired: Whether FP8 codes are stored in pairs, for bfloat16 rows.
    """

    tiles: Tensor
    scales: Tensor | None
    n: int
    k: int
    groups: int = 1
    paired: bool = False


LEAST_SCALE, MOST_SCALE = 74, 198
"""E8M0 codes of scales with which paired weights are exact: 2**-53 to 2**71."""


def pack_linear(
    weight: Tensor, scale: Tensor | None = None, *, groups: int = 1, paired: bool = False
) -> PackedLinear:
    """Bring weights into the kernels' layout, once, at load.

    Args:
        weight: bfloat16 [n, k], or E4M3 codes (float8_e4m3fn, int8 or uint8) with `scale`.
        scale: E8M0 codes uint8 [ceil(n / 128), ceil(k / 128)].
        groups: See `PackedLinear`; rows of a group are a multiple of 128.
        paired: Whether FP8 weights are for bfloat16 rows.
    """
    n, k = weight.shape
    assert scale is not None or not paired
    assert groups == 1 or n % (128 * groups) == 0
    raw = weight if scale is None else weight.view(torch.uint8)
    padded = torch.nn.functional.pad(raw, (0, -k % BLOCK, 0, -n % TILE_ROWS))
    tiles = padded.view(-1, TILE_ROWS, padded.shape[1] // BLOCK, BLOCK).transpose(1, 2).contiguous()
    if scale is None:
        return PackedLinear(tiles.to(torch.bfloat16), None, n, k, groups)
    if paired:
        tiles = torch.stack((tiles[..., 64:], tiles[..., :64]), dim=-1).flatten(-2)
    codes = tiles.view(torch.float8_e4m3fn)
    return PackedLinear(codes, scale.view(torch.uint8).contiguous(), n, k, groups, paired)


def unpack_linear(packed: PackedLinear) -> Tensor:
    """Return float32 [n, k]."""
    tiles = packed.tiles
    if packed.paired:
        pairs = tiles.view(torch.uint8).unflatten(-1, (64, 2))
        tiles = torch.cat((pairs[..., 1], pairs[..., 0]), dim=-1)
    whole = decode_e4m3(tiles.view(torch.uint8)) if packed.scales is not None else tiles.float()
    rows, columns = tiles.shape[0] * TILE_ROWS, tiles.shape[1] * BLOCK
    whole = whole.transpose(1, 2).reshape(rows, columns)
    if packed.scales is not None:
        spread = decode_scales(packed.scales).repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        whole = whole * spread[:rows, :columns]
    return whole[: packed.n, : packed.k]


def linear(x: QuantizedRows | Tensor, w: PackedLinear, *, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Return x [m, k] times the transpose of the weights.

    Args:
        x: Quantised rows (FP8 weights only), or bfloat16 [m, groups * k] with contiguous last dimension (FP8
            weights only in pairs).
        w: The weights.
        dtype: Of the result: bfloat16 or float32.

    Returns:
        [m, n].
    """
    quantized = isinstance(x, QuantizedRows)
    rows = x.codes if quantized else x
    assert not quantized or (w.scales is not None and w.groups == 1)
    assert w.paired == (w.scales is not None and not quantized)
    assert quantized or rows.shape[1] == w.groups * w.k
    m = rows.shape[0]
    out = torch.empty(m, w.n, dtype=dtype, device=rows.device)
    if m == 0:
        return out
    weight_size = w.tiles.element_size()
    plan = tuning.linear_plan(w.n, w.k, weight_size)
    skinny = m <= plan.skinny_tokens
    tile = tuning.skinny_tile(plan, m, weight_size) if skinny else plan.wide
    row_tiles, token_tiles = ceil_div(w.n, tile.rows), ceil_div(m, tile.tokens)
    partial = count = out
    if skinny and plan.splits > 1:
        size = row_tiles * token_tiles * plan.splits * tile.rows * tile.tokens
        partial = torch.empty(size, dtype=torch.float32, device=rows.device)
        count = counters(rows.device, row_tiles * token_tiles)
    with on_device(rows):
        _linear_kernel[(row_tiles, token_tiles, plan.splits if skinny else 1)](
            rows,
            x.scales if quantized else rows,
            rows.stride(0),
            w.tiles,
            rows if w.scales is None else w.scales,
            out,
            partial,
            count,
            m,
            w.n,
            K=w.k,
            STEPS=w.tiles.shape[1],
            GROUP_ROWS=w.n // w.groups,
            SPLITS=plan.splits,
            PARALLEL=skinny,
            X_FP8=quantized,
            W_FP8=w.scales is not None,
            ROWS=tile.rows,
            TOKENS=tile.tokens,
            num_warps=tile.warps,
            num_stages=tile.stages,
            maxnreg=tile.registers,
            **overlapping(),
        )
    return out


@triton.jit(do_not_specialize=["m"])
def _linear_kernel(
    x,
    x_scales,
    x_stride,
    w,
    w_scales,
    out,
    partial,
    count,
    m,
    n,
    K: tl.constexpr,
    STEPS: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    PARALLEL: tl.constexpr,
    X_FP8: tl.constexpr,
    W_FP8: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    row_tile = tl.program_id(0)
    if PARALLEL:
        _prefetch(w, row_tile, n, STEPS, SPLITS, ROWS, 1 if W_FP8 else 2)
    wait_for_previous()
    token_tile = tl.program_id(1)
    row = row_tile * ROWS + tl.arange(0, ROWS)
    token = token_tile * TOKENS + tl.arange(0, TOKENS)
    group = row_tile * ROWS // GROUP_ROWS
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    if PARALLEL:
        split = tl.program_id(2)
        part = _part(
            x + group * K, x_scales, x_stride, w, w_scales, row_tile, token, m, n, split,
            K, STEPS, SPLITS, X_FP8, W_FP8, ROWS, TOKENS,
        )  # fmt: skip
        if SPLITS > 1:
            tile = token_tile * tl.num_programs(0) + row_tile
            inside = tl.arange(0, TOKENS)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
            used = (token < m)[None, :]
            mine = partial + (tile * SPLITS).to(tl.int64) * (ROWS * TOKENS)
            tl.store(mine + split * (ROWS * TOKENS) + inside, part, mask=used)
            # All threads' parts are stored before one of them announces it.
            tl.debug_barrier()
            if tl.atomic_add(count + tile, 1) != SPLITS - 1:
                return
            tl.debug_barrier()
            for other in tl.static_range(SPLITS):
                source = mine + other * (ROWS * TOKENS) + inside
                total += tl.load(source, mask=used, other=0.0, cache_modifier=".cg")
            tl.store(count + tile, 0)
        else:
            total += part
    else:
        for split in range(SPLITS):
            total += _part(
                x + group * K, x_scales, x_stride, w, w_scales, row_tile, token, m, n, split,
                K, STEPS, SPLITS, X_FP8, W_FP8, ROWS, TOKENS,
            )  # fmt: skip
    target = out + token.to(tl.int64)[None, :] * n + row[:, None]
    if out.dtype.element_ty == tl.bfloat16:
        total = round_bf16(total)
    tl.store(target, total.to(out.dtype.element_ty), mask=(row < n)[:, None] & (token < m)[None, :])


@triton.jit
def _prefetch(
    w, row_tile, n, STEPS: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr
):
    """Ask for the first weights of a program, before its input is there."""
    per_split: tl.constexpr = (STEPS + SPLITS - 1) // SPLITS
    start = tl.program_id(2) * per_split
    left = tl.maximum(tl.minimum(STEPS - start, per_split), 1) * (8192 * SIZE)
    for tile in tl.static_range(ROWS // 64):
        place = tl.minimum(row_tile * (ROWS // 64) + tile, (n + 63) // 64 - 1).to(tl.int64)
        prefetch(w + (place * STEPS + start) * 8192, left, 32768)


@triton.jit
def _part(
    x,
    x_scales,
    x_stride,
    w,
    w_scales,
    row_tile,
    token,
    m,
    n,
    split,
    K: tl.constexpr,
    STEPS: tl.constexpr,
    SPLITS: tl.constexpr,
    X_FP8: tl.constexpr,
    W_FP8: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Return the product [rows, tokens] over one part of the inner dimension."""
    per_split: tl.constexpr = (STEPS + SPLITS - 1) // SPLITS
    start = split * per_split
    stop = tl.minimum(start + per_split, STEPS)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, 128)
    valid = token < m
    # Tiles of 64 rows x 128 columns lie one after another along the inner dimension.
    # The last program may have more rows than there are tiles: it reads the last tile again.
    tile = tl.minimum(row_tile * (ROWS // 64) + row // 64, (n + 63) // 64 - 1)
    if W_FP8 and not X_FP8:
        pair = tl.arange(0, 64)
        w_pointers = w.to(tl.pointer_type(tl.int16)) + (row % 64)[:, None] * 64 + pair[None, :]
        w_pointers += (tile.to(tl.int64)[:, None] * STEPS + start) * 4096
        # One for each row, so that the unpacking has all it needs where the matrix units want their operand.
        wide_scales = w_scales + ((row_tile * ROWS + row) // 128)[:, None] * STEPS
    else:
        w_pointers = (
            w + tile.to(tl.int64)[:, None] * (STEPS * 8192) + (row % 64)[:, None] * 128 + column[None, :]
        )
        w_pointers += start * 8192
    x_pointers = x + token.to(tl.int64)[:, None] * x_stride + start * 128 + column[None, :]
    w_scale_pointer = w_scales + (row_tile * ROWS // 128) * STEPS
    x_scale_pointers = x_scales + token * STEPS
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    # Scales are too small for asynchronous copies: those of the next step are read a step ahead.
    if X_FP8:
        w_scale = tl.load(w_scale_pointer + start)
        x_scale = load_token_scales(x_scale_pointers, start, valid, STEPS, TOKENS)
    for step in range(start, stop):
        left = tl.load(w_pointers)
        inside = valid[:, None]
        if not X_FP8 and K % 128 != 0:
            inside = inside & (step * 128 + column < K)[None, :]
        right = tl.load(x_pointers, mask=inside, other=0.0)
        x_pointers += 128
        if X_FP8:
            # Powers of two: both products below are exact, contracted or not.
            both = decode_e8m0(w_scale) * decode_e8m0(x_scale)
            after = tl.minimum(step + 1, STEPS - 1)
            w_scale = tl.load(w_scale_pointer + after)
            x_scale = load_token_scales(x_scale_pointers, after, valid, STEPS, TOKENS)
            total += tl.dot(left, right.T) * both[None, :]
            w_pointers += 8192
        elif W_FP8:
            code = tl.load(wide_scales + step).to(tl.int32)
            factor = ((code + 56) << 7).to(tl.int16).to(tl.bfloat16, bitcast=True)
            factor = tl.broadcast_to(factor, [ROWS, 64])
            planes = tl.join(_widened(left, factor, False), _widened(left, factor, True))
            wide = tl.reshape(tl.permute(planes, [0, 2, 1]), [ROWS, 128])
            total = tl.dot(wide, right.to(PRODUCT).T, total, input_precision="ieee")
            w_pointers += 4096
        else:
            total = tl.dot(left.to(PRODUCT), right.to(PRODUCT).T, total, input_precision="ieee")
            w_pointers += 8192
    if W_FP8 and not X_FP8:
        # Factors are too small by that much, so that those above one are in bfloat16's range, too.
        total *= 18446744073709551616.0
    return total


@triton.jit
def _widened(words, factor, SECOND: tl.constexpr):
    """Return one of the weights in each word, bfloat16, times 2**-64.

    A code's seven bits below the sign, put at the end of bfloat16's exponent, are the same number times
    2**-120, subnormals included.
    """
    if INTERPRETED:
        code = (words.to(tl.int32) if SECOND else words.to(tl.int32) >> 8) & 0xFF
        # Bfloat16's bits are the upper half of float32's.
        bits = ((code & 0x80) << 24) | ((code & 0x7F) << 20)
        power = factor.to(tl.int16, bitcast=True).to(tl.int32) << 16
        return bits.to(tl.float32, bitcast=True) * power.to(tl.float32, bitcast=True)
    elif SECOND:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 a, b;
            shl.b32 a, $1, 8;
            and.b32 a, a, 0x80008000;
            shl.b32 b, $1, 4;
            lop3.b32 a, b, 0x07F007F0, a, 0xEA;
            mul.rn.bf16x2 $0, a, $2;
            }""",
            "=r,r,r", [words, factor], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    else:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 a, b;
            and.b32 a, $1, 0x80008000;
            shr.u32 b, $1, 4;
            lop3.b32 a, b, 0x07F007F0, a, 0xEA;
            mul.rn.bf16x2 $0, a, $2;
            }""",
            "=r,r,r", [words, factor], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip


def linear_reference(
    x: QuantizedRows | Tensor, w: PackedLinear, *, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Do as `linear` in torch, with one float32 sum per element."""
    weight = unpack_linear(w)
    if isinstance(x, QuantizedRows):
        rows = x.dequantize()[:, : w.k]
    else:
        rows = x.float()
    parts = [
        part @ block.t()
        for part, block in zip(rows.chunk(w.groups, dim=1), weight.chunk(w.groups, dim=0), strict=True)
    ]
    return torch.cat(parts, dim=1).to(dtype)
