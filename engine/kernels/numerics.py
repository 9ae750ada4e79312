"""Device functions shared by the kernels: block scales and roundings."""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run under Triton's interpreter, whose bfloat16 products are wrong: operands are widened."""

PRODUCT = tl.constexpr(tl.float32 if triton.knobs.runtime.interpret else tl.bfloat16)
"""Type of the operands of bfloat16 products; both hold them exactly."""


@triton.jit
def decode_e8m0(code):
    """Return 2**(code - 127), float32, of integer codes 1 ... 254; 0 gives 0."""
    return (code.to(tl.int32) << 23).to(tl.float32, bitcast=True)


@triton.jit
def fp8_scale(amax):
    """Return the E8M0 code int32 of blocks with largest magnitude `amax`, and 1 / scale in float32."""
    bits = (tl.maximum(amax, 1e-4) * (1.0 / 448.0)).to(tl.int32, bitcast=True)
    code = ((bits >> 23) & 0xFF) + ((bits & 0x7FFFFF) != 0).to(tl.int32)
    return code, decode_e8m0(254 - code)


@triton.jit
def encode_e4m3(x):
    """Round float32 to E4M3, nearest even, saturating at 448; uint8 codes."""
    x = tl.minimum(tl.maximum(x, -448.0), 448.0)
    bits = x.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    normal = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - (120 << 3)
    # In the binade of 2**14 a step of float32 is the smallest subnormal, 2**-9: the addition rounds.
    small = (tl.abs(x) + 16384.0).to(tl.int32, bitcast=True) & 0xF
    code = tl.where(magnitude < (121 << 23), small, normal) | ((bits >> 24) & 0x80)
    return code.to(tl.uint8)


@triton.jit
def round_e4m3(x):
    """Round float32 to the nearest E4M3 number, ties to even, saturating at 448; float32."""
    x = tl.minimum(tl.maximum(x, -448.0), 448.0)
    bits = x.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & -1048576).to(tl.float32, bitcast=True)
    # In the binade of 2**14 a step of float32 is the smallest subnormal, 2**-9: the addition rounds.
    small = (tl.abs(x) + 16384.0) - 16384.0
    return tl.where(tl.abs(x) < 0.015625, tl.where(bits < 0, -small, small), normal)


@triton.jit
def round_bf16(x):
    """Round finite float32 to bfloat16, nearest even, and return it as float32."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
    return rounded.to(tl.float32, bitcast=True)


@triton.jit
def swiglu(gate, up, weight, limit):
    """Return bfloat16(silu(min(gate, limit)) * clip(up, -limit, limit) * weight), all in float32."""
    gate = tl.minimum(round_bf16(gate), limit)
    up = tl.minimum(tl.maximum(round_bf16(up), -limit), limit)
    # exp(88) is finite, and the quotient far below what any scale keeps.
    return round_bf16(tl.div_rn(gate, 1.0 + tl.exp(tl.minimum(-gate, 88.0))) * up * weight)


@triton.jit
def log1p(u):
    """Return ln(1 + u) of float32 u in [0, 1], to a few units in the last place also for small u."""
    # 2 atanh(u / (2 + u)); the argument is at most 1/3, so nine terms reach float32.
    s = tl.div_rn(u, 2.0 + u)
    square = s * s
    total = 1.0 / 17.0
    total = total * square + 1.0 / 15.0
    total = total * square + 1.0 / 13.0
    total = total * square + 1.0 / 11.0
    total = total * square + 1.0 / 9.0
    total = total * square + 1.0 / 7.0
    total = total * square + 1.0 / 5.0
    total = total * square + 1.0 / 3.0
    return 2.0 * s * (total * square + 1.0)


@triton.jit
def load_token_scales(pointers, step, valid, STEPS: tl.constexpr, TOKENS: tl.constexpr):
    """Return the E8M0 codes [TOKENS] of one step, from uint8 pointers to each token's STEPS codes."""
    if TOKENS < 64:
        return tl.load(pointers + step, mask=valid, other=127).to(tl.int32)
    else:
        # In a wide tile every thread needs many scales, and the compiler would let it load them all, byte by
        # byte, in as many instructions as the product takes. A tensor with an element per thread it loads
        # once: eight steps, of which one is kept.
        window = step // 8 * 8 + tl.arange(0, 8)
        inside = valid[:, None] & (window < STEPS)[None, :]
        codes = tl.load(pointers[:, None] + window[None, :], mask=inside, other=0).to(tl.int32)
        return tl.sum(tl.where((window == step)[None, :], codes, 0), axis=1)
