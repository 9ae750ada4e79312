"""The product of one tile of an expert's FP4 weights with FP8 tokens.

E2M1 becomes E4M3 by moving bits: its exponent bits and mantissa bit, put below two zero bits, are the same
number times 2**-6, subnormals included. Eight weights of a register take five instructions, see `experts`.
The matrix units add over one scale group of 32 inner columns; each sum is scaled by its row in float32, four
are added, scaled by the token, and added to the total. On Hopper, products of FP8 with fewer than 16 columns
leave the warpgroup's instruction for another one, with other bits.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from dsv4agent.engine.kernels.numerics import INTERPRETED, decode_e8m0, load_token_scales


@triton.jit
def expert_product(
    record,
    line,
    x,
    x_scales,
    row,
    valid,
    STEPS: tl.constexpr,
    AHEAD: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Return the rows `line` of a tile of weights times the rows `row` of x, float32 [ROWS, TOKENS].

    `record` is the first of the tile's records, x has STEPS * 128 columns.
    """
    column = tl.arange(0, 32)
    codes = record + line[:, None] * 32 + column[None, :]
    scales = (record + 8192).to(tl.pointer_type(tl.int32)) + line
    rows = x + row[:, None] * (STEPS * 128) + column[None, :]
    row_scales = x_scales + row * STEPS
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    # Scales are no operands, so they do not go through the pipeline of asynchronous copies. Those of the
    # weights come from memory, whose latency is that of several short steps, those of the tokens from caches.
    last: tl.constexpr = STEPS - 1
    words = tl.load(scales)
    if AHEAD == 4:
        words_1 = tl.load(scales + tl.minimum(1, last) * 2176)
        words_2 = tl.load(scales + tl.minimum(2, last) * 2176)
        words_3 = tl.load(scales + tl.minimum(3, last) * 2176)
    x_scale = load_token_scales(row_scales, 0, valid, STEPS, TOKENS)
    # Four steps written one after another need no moves between those four; the compiler does not pipeline
    # loops that have them.
    for step in tl.range(STEPS, loop_unroll_factor=AHEAD):
        near = tl.load(codes)
        far = tl.load(codes + 4096)
        x0 = tl.load(rows, mask=valid[:, None], other=0.0)
        x1 = tl.load(rows + 32, mask=valid[:, None], other=0.0)
        x2 = tl.load(rows + 64, mask=valid[:, None], other=0.0)
        x3 = tl.load(rows + 96, mask=valid[:, None], other=0.0)
        d0 = tl.dot(_first(near), x0.T)
        d1 = tl.dot(_second(near), x1.T)
        d2 = tl.dot(_first(far), x2.T)
        d3 = tl.dot(_second(far), x3.T)
        # Factors are powers of two: these products are exact, contracted or not.
        part = d0 * decode_e8m0(words & 0xFF)[:, None]
        part += d1 * decode_e8m0((words >> 8) & 0xFF)[:, None]
        part += d2 * decode_e8m0((words >> 16) & 0xFF)[:, None]
        part += d3 * decode_e8m0((words >> 24) & 0xFF)[:, None]
        total += part * decode_e8m0(x_scale)[None, :]
        after = tl.load(scales + tl.minimum(step + AHEAD, last) * 2176)
        if AHEAD == 4:
            words, words_1, words_2, words_3 = words_1, words_2, words_3, after
        else:
            words = after
        x_scale = load_token_scales(row_scales, tl.minimum(step + 1, last), valid, STEPS, TOKENS)
        codes += 8704
        rows += 128
    # Codes stand for 2**-6 of their values.
    return total * 64.0


@triton.jit
def _first(codes):
    """Return the first number of each byte, E2M1, as the E4M3 number of 2**-6 times the value."""
    if INTERPRETED:
        bits = codes & 0x9C
    else:
        bits = tl.inline_asm_elementwise(
            "and.b32 $0, $1, 0x9C9C9C9C;", "=r,r", [codes], dtype=tl.uint8, is_pure=True, pack=4
        )
    return bits.to(tl.float8e4nv, bitcast=True)


@triton.jit
def _second(codes):
    """Return the second number of each byte as `_first` does the first one."""
    if INTERPRETED:
        bits = ((codes << 2) & 0x8C) | ((codes >> 2) & 0x10)
    else:
        bits = tl.inline_asm_elementwise(
            "{ .reg .b32 a, b; shl.b32 a, $1, 2; shr.b32 b, $1, 2; and.b32 b, b, 0x10101010;"
            " lop3.b32 $0, a, 0x8C8C8C8C, b, 0xEA; }",
            "=r,r",
            [codes],
            dtype=tl.uint8,
            is_pure=True,
            pack=4,
        )
    return bits.to(tl.float8e4nv, bitcast=True)
