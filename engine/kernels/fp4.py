"""The product of one tile of an expert's FP4 weights with tokens rounded to FP8.

Weights become bfloat16 with their scale in the exponent, and tokens are bfloat16 with theirs, both exactly.
So the whole product is one chain of bfloat16 matrix instructions whose sums are float32, with nothing to
scale in between. E2M1 becomes bfloat16 by moving bits: its exponent bits and mantissa bit, put at the end of
bfloat16's exponent, are the same number times 2**-126, subnormals included; a product with a power of two
does the rest. Eight weights take fifteen instructions, however many tokens there are, see `experts`.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from dsv4agent.engine.kernels.numerics import INTERPRETED, PRODUCT, decode_e8m0


@triton.jit
def expert_product(
    record, base, line, x, row, valid,
    STEPS: tl.constexpr, PACKED: tl.constexpr, UNROLL: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Return the rows `line` of a tile of weights times the rows `row` of x, float32 [ROWS, TOKENS].

    `record` is the first of the tile's records, x has STEPS * 128 columns. `base` points to the tile's base
    if scales are PACKED.
    """
    # A word of 32 bits has the scales of one step or, of four bits each, those of two.
    EACH: tl.constexpr = 2 if PACKED else 1
    RECORD: tl.constexpr = 8192 * EACH + 512
    codes = record.to(tl.pointer_type(tl.int16)) + line[:, None] * 32 + tl.arange(0, 32)[None, :]
    # Two dimensions from the start: the compiler can then move all of the unpacking to where the matrix units
    # want their operand, and nothing goes back through shared memory.
    scales = (record + 8192 * EACH).to(tl.pointer_type(tl.int32)) + line[:, None]
    rows = x + row[:, None] * (STEPS * 128) + tl.arange(0, 128)[None, :]
    total = tl.zeros([ROWS, TOKENS], tl.float32)
    for _ in tl.range(STEPS // EACH, loop_unroll_factor=(UNROLL + EACH - 1) // EACH):
        words = tl.load(scales)
        for step in tl.static_range(EACH):
            packed = tl.load(codes + step * 4096)
            right = tl.load(rows + step * 128, mask=valid[:, None], other=0.0)
            w0 = _group(packed, words, 0, 4 * step, PACKED, ROWS)
            w1 = _group(packed, words, 1, 4 * step + 1, PACKED, ROWS)
            w2 = _group(packed, words, 2, 4 * step + 2, PACKED, ROWS)
            w3 = _group(packed, words, 3, 4 * step + 3, PACKED, ROWS)
            both = tl.join(tl.join(w0, w1), tl.join(w2, w3))
            left = tl.reshape(tl.permute(both, [0, 3, 2, 1]), [ROWS, 128])
            total = tl.dot(left, right.to(PRODUCT).T, total, input_precision="ieee")
        codes += RECORD // 2
        scales += RECORD // 4
        rows += 128 * EACH
    # Factors are too small by that much, so that those above one are in bfloat16's range, too.
    total *= 18446744073709551616.0
    if PACKED:
        total *= decode_e8m0(tl.load(base).to(tl.int32) + 7)
    return total


@triton.jit
def _group(packed, words, GROUP: tl.constexpr, PLACE: tl.constexpr, PACKED: tl.constexpr, ROWS: tl.constexpr):
    """Return the weights of one scale group, whose scale is at PLACE, bfloat16 [ROWS, 32], times 2**-64."""
    if PACKED:
        # As if the base were 120.
        exponent = ((words >> (4 * PLACE)) & 0xF) + 182
    else:
        exponent = ((words >> (8 * PLACE)) & 0xFF) + 62
    factor = (exponent << 7).to(tl.int16).to(tl.bfloat16, bitcast=True)
    factor = tl.broadcast_to(factor, [ROWS, 32])
    if INTERPRETED:
        return _widen_interpreted(packed, factor, GROUP)
    elif GROUP == 0:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 a; and.b32 a, $1, 0x81C081C0; mul.rn.bf16x2 $0, a, $2; }",
            "=r,r,r", [packed, factor], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    elif GROUP == 1:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 a; shl.b32 a, $1, 3; and.b32 a, a, 0x81C081C0; mul.rn.bf16x2 $0, a, $2; }",
            "=r,r,r", [packed, factor], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    elif GROUP == 2:
        return tl.inline_asm_elementwise(
            "{ .reg .b32 a; shl.b32 a, $1, 6; and.b32 a, a, 0x81C081C0; mul.rn.bf16x2 $0, a, $2; }",
            "=r,r,r", [packed, factor], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip
    else:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 a, b;
            shl.b32 a, $1, 1;
            and.b32 a, a, 0x80008000;
            shr.u32 b, $1, 5;
            lop3.b32 a, b, 0x01000100, a, 0xEA;
            shr.u32 b, $1, 4;
            lop3.b32 a, b, 0x00C000C0, a, 0xEA;
            mul.rn.bf16x2 $0, a, $2;
            }""",
            "=r,r,r", [packed, factor], dtype=tl.bfloat16, is_pure=True, pack=2,
        )  # fmt: skip


@triton.jit
def _widen_interpreted(packed, factor, GROUP: tl.constexpr):
    """Do the same number by number; float32, which the interpreter multiplies right."""
    word = packed.to(tl.int32) & 0xFFFF
    if GROUP < 3:
        bits = (word << (3 * GROUP)) & 0x81C0
    else:
        bits = ((word << 1) & 0x8000) | ((word >> 5) & 0x100) | ((word >> 4) & 0xC0)
    # Bfloat16's bits are the upper half of float32's.
    wide = factor.to(tl.int16, bitcast=True).to(tl.int32) << 16
    return (bits << 16).to(tl.float32, bitcast=True) * wide.to(tl.float32, bitcast=True)
