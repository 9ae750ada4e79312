"""The product of one tile of an expert's FP4 weights with FP8 tokens.

E2M1 becomes E4M3 by moving bits: its exponent bits and mantissa bit, put below two zero bits, are the same
number times 2**-6, subnormals included. Four weights of a register take three or four instructions. The
matrix units add over one scale group of 32 inner columns; each sum is scaled by its row in float32, four are
added, scaled by the token, and added to the total.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from dsv4agent.engine.kernels.numerics import (
    INTERPRETED,
    decode_e8m0,
    encode_e4m3,
    fp8_scale,
    load_token_scales,
)


@triton.jit
def expert_product(
    base,
    tile,
    x,
    x_scales,
    row,
    valid,
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TOKENS: tl.constexpr,
    QUANTIZED: tl.constexpr,
):
    """Return 128 rows of weights times rows `row` of x [., COLUMNS], float32 [128, TOKENS]."""
    line = tl.arange(0, 128)
    column = tl.arange(0, 32)
    record = base + tile.to(tl.int64) * (STEPS * 8704)
    codes = record + line[:, None] * 32 + column[None, :]
    scales = (record + 8192).to(tl.pointer_type(tl.int32)) + line
    rows = x + row[:, None] * COLUMNS + column[None, :]
    row_scales = x_scales + row * STEPS
    total = tl.zeros([128, TOKENS], tl.float32)
    # Scales are read a step ahead of their use.
    words = tl.load(scales)
    if QUANTIZED:
        x_scale = load_token_scales(row_scales, 0, valid, STEPS, TOKENS)
    for step in range(STEPS):
        low = tl.load(codes)
        high = tl.load(codes + 4096)
        x0 = _columns(rows, step, column, valid, COLUMNS, QUANTIZED)
        x1 = _columns(rows + 32, step, column + 32, valid, COLUMNS, QUANTIZED)
        x2 = _columns(rows + 64, step, column + 64, valid, COLUMNS, QUANTIZED)
        x3 = _columns(rows + 96, step, column + 96, valid, COLUMNS, QUANTIZED)
        if QUANTIZED:
            factor = decode_e8m0(x_scale)
        else:
            largest = tl.maximum(
                tl.maximum(_largest(x0), _largest(x1)), tl.maximum(_largest(x2), _largest(x3))
            )
            code, inverse = fp8_scale(largest)
            factor = decode_e8m0(code)
            x0, x1 = _quantized(x0, inverse), _quantized(x1, inverse)
            x2, x3 = _quantized(x2, inverse), _quantized(x3, inverse)
        d0 = tl.dot(_low(low), x0.T)
        d1 = tl.dot(_high(low), x1.T)
        d2 = tl.dot(_low(high), x2.T)
        d3 = tl.dot(_high(high), x3.T)
        # Factors are powers of two: these products are exact, contracted or not.
        part = d0 * _row_scale(words, 0)[:, None]
        part += d1 * _row_scale(words, 8)[:, None]
        part += d2 * _row_scale(words, 16)[:, None]
        part += d3 * _row_scale(words, 24)[:, None]
        total += part * factor[None, :]
        after = tl.minimum(step + 1, STEPS - 1)
        words = tl.load(scales + after * 2176)
        if QUANTIZED:
            x_scale = load_token_scales(row_scales, after, valid, STEPS, TOKENS)
        codes += 8704
        rows += 128
    return total


@triton.jit
def _columns(rows, step, column, valid, COLUMNS: tl.constexpr, QUANTIZED: tl.constexpr):
    if QUANTIZED:
        return tl.load(rows, mask=valid[:, None], other=0.0)
    else:
        inside = valid[:, None]
        if COLUMNS % 128 != 0:
            inside = inside & (step * 128 + column < COLUMNS)[None, :]
        return tl.load(rows, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _largest(x):
    return tl.max(tl.abs(x), axis=1)


@triton.jit
def _quantized(x, inverse):
    return encode_e4m3(x * inverse[:, None]).to(tl.float8e4nv, bitcast=True)


@triton.jit
def _row_scale(words, SHIFT: tl.constexpr):
    """Return 2**6 times the scale in one byte of `words`: the codes stand for 2**-6 of their values."""
    return decode_e8m0(((words >> SHIFT) & 0xFF) + 6)


@triton.jit
def _low(codes):
    """Return the low nibbles, E2M1, as E4M3 numbers of 2**-6 times the value."""
    if INTERPRETED:
        bits = ((codes & 0x08) << 4) | ((codes & 0x07) << 2)
    else:
        bits = tl.inline_asm_elementwise(
            "{ .reg .b32 s, m; shl.b32 s, $1, 4; shl.b32 m, $1, 2; and.b32 m, m, 0x1C1C1C1C;"
            " lop3.b32 $0, s, 0x80808080, m, 0xEA; }",
            "=r,r",
            [codes],
            dtype=tl.uint8,
            is_pure=True,
            pack=4,
        )
    return bits.to(tl.float8e4nv, bitcast=True)


@triton.jit
def _high(codes):
    """Return the high nibbles as `_low` does the low ones."""
    if INTERPRETED:
        bits = (codes & 0x80) | ((codes & 0x70) >> 2)
    else:
        bits = tl.inline_asm_elementwise(
            "{ .reg .b32 m; shr.b32 m, $1, 2; and.b32 m, m, 0x1C1C1C1C;"
            " lop3.b32 $0, $1, 0x80808080, m, 0xEA; }",
            "=r,r",
            [codes],
            dtype=tl.uint8,
            is_pure=True,
            pack=4,
        )
    return bits.to(tl.float8e4nv, bitcast=True)
