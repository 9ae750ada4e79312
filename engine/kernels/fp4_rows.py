"""Device functions for index rows: E2M1 with a scale per 32 channels, and the Hadamard transform.

Rows are held as pairs: one tensor for the even, one for the odd channels, as the nibbles of a byte are.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from dsv4agent.engine.kernels.numerics import decode_e8m0


@triton.jit
def hadamard(SIZE: tl.constexpr):
    """Return Sylvester's matrix of -1 and 1, float32 [SIZE, SIZE].

    The transform of a row of twice the size is (u + v, u - v) in its even and odd channels, if u and v are
    those of its even and of its odd channels.
    """
    bits = tl.arange(0, SIZE)[:, None] & tl.arange(0, SIZE)[None, :]
    bits ^= bits >> 4
    bits ^= bits >> 2
    bits ^= bits >> 1
    # Sizes up to 256 have eight bits.
    return 1.0 - 2.0 * (bits & 1).to(tl.float32)


@triton.jit
def quantize_pairs(a, b, ROWS: tl.constexpr):
    """Return codes and scales of rows given as even and odd channels, float32 [ROWS, 64] each.

    Returns:
        E2M1 codes int32 [ROWS, 64] of both, and E8M0 codes int32 [ROWS, 4].
    """
    a = tl.reshape(a, (ROWS, 4, 16))
    b = tl.reshape(b, (ROWS, 4, 16))
    largest = tl.max(tl.maximum(tl.abs(a), tl.abs(b)), axis=2)
    floor: tl.constexpr = 6.0 * 2.0**-126
    bits = (tl.maximum(largest, floor) * (1.0 / 6.0)).to(tl.int32, bitcast=True)
    scale = ((bits >> 23) & 0xFF) + ((bits & 0x7FFFFF) != 0).to(tl.int32)
    inverse = decode_e8m0(254 - scale)[:, :, None]
    return (
        tl.reshape(encode_e2m1(a * inverse), (ROWS, 64)),
        tl.reshape(encode_e2m1(b * inverse), (ROWS, 64)),
        scale,
    )


@triton.jit
def pack_pairs(a, b, ROWS: tl.constexpr):
    """Return packed codes uint8 [ROWS, 64] and scales uint8 [ROWS, 4] of even and odd channels."""
    low, high, scale = quantize_pairs(a, b, ROWS)
    return (low | (high << 4)).to(tl.uint8), scale.to(tl.uint8)


@triton.jit
def encode_e2m1(x):
    """Round float32 to E2M1, nearest even, saturating at 6; int32 codes 0 ... 15."""
    magnitude = tl.minimum(tl.abs(x), 6.0)
    inverse = tl.where(magnitude < 2.0, 2.0, tl.where(magnitude < 4.0, 1.0, 0.5))
    # Adding 1.5 * 2**23 rounds to an integer and leaves it in the low bits.
    steps = (magnitude * inverse + 12582912.0).to(tl.int32, bitcast=True) & 0xF
    code = steps + tl.where(magnitude < 2.0, 0, tl.where(magnitude < 4.0, 2, 4))
    return code | ((x.to(tl.int32, bitcast=True) >> 28) & 8)


@triton.jit
def decode_e2m1(code):
    """Return the values float32 of integer codes 0 ... 15."""
    code = code.to(tl.int32)
    bits = ((code & 7) << 22) | ((code & 8) << 28)
    # As a float32 that is the value times 2**-126, also below its smallest normal number.
    return bits.to(tl.float32, bitcast=True) * 8.507059173023462e37


@triton.jit
def decode_pairs(packed, scales, ROWS: tl.constexpr):
    """Return even and odd channels float32 [ROWS, 64] of packed uint8 [ROWS, 64] and scales [ROWS, 4]."""
    scale = decode_e8m0(scales)[:, :, None]
    low = tl.reshape(decode_e2m1(packed & 0xF), (ROWS, 4, 16)) * scale
    high = tl.reshape(decode_e2m1(packed >> 4), (ROWS, 4, 16)) * scale
    return tl.reshape(low, (ROWS, 64)), tl.reshape(high, (ROWS, 64))
