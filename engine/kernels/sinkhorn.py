"""The 4 x 4 matrix of a hyper-connection, made nearly doubly stochastic, as scalars of one program.

Sixteen numbers are too few for a tensor: as scalars their sums have a written order, and a step needs no
exchange between threads.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

from dsv4agent.engine.kernels.numerics import INTERPRETED


@triton.jit
def store_write_weights(z, column, target, eps, ITERATIONS: tl.constexpr):
    """Store [4, 5]: the matrix after its Sinkhorn steps, transposed, and the weights of the output.

    `z` [32] are the mixes of the columns `column`.
    """
    c00, c01, c02, c03 = _softmax(z, column, eps, 8)
    c10, c11, c12, c13 = _softmax(z, column, eps, 12)
    c20, c21, c22, c23 = _softmax(z, column, eps, 16)
    c30, c31, c32, c33 = _softmax(z, column, eps, 20)
    for turn in range(ITERATIONS):
        if turn > 0:
            c00, c01, c02, c03 = _normalized(c00, c01, c02, c03, eps)
            c10, c11, c12, c13 = _normalized(c10, c11, c12, c13, eps)
            c20, c21, c22, c23 = _normalized(c20, c21, c22, c23, eps)
            c30, c31, c32, c33 = _normalized(c30, c31, c32, c33, eps)
        c00, c10, c20, c30 = _normalized(c00, c10, c20, c30, eps)
        c01, c11, c21, c31 = _normalized(c01, c11, c21, c31, eps)
        c02, c12, c22, c32 = _normalized(c02, c12, c22, c32, eps)
        c03, c13, c23, c33 = _normalized(c03, c13, c23, c33, eps)
    _store_row(target, c00, c10, c20, c30, pick(z, column, 4))
    _store_row(target + 5, c01, c11, c21, c31, pick(z, column, 5))
    _store_row(target + 10, c02, c12, c22, c32, pick(z, column, 6))
    _store_row(target + 15, c03, c13, c23, c33, pick(z, column, 7))


@triton.jit
def _store_row(target, a, b, c, d, z):
    tl.store(target, a)
    tl.store(target + 1, b)
    tl.store(target + 2, c)
    tl.store(target + 3, d)
    tl.store(target + 4, 2.0 * sigmoid(z))


@triton.jit
def _softmax(z, column, eps, FIRST: tl.constexpr):
    a, b = pick(z, column, FIRST), pick(z, column, FIRST + 1)
    c, d = pick(z, column, FIRST + 2), pick(z, column, FIRST + 3)
    top = tl.maximum(tl.maximum(a, b), tl.maximum(c, d))
    a, b, c, d = tl.exp(a - top), tl.exp(b - top), tl.exp(c - top), tl.exp(d - top)
    share = _reciprocal((a + b) + (c + d))
    return a * share + eps, b * share + eps, c * share + eps, d * share + eps


@triton.jit
def _normalized(a, b, c, d, eps):
    share = _reciprocal((a + b) + (c + d) + eps)
    return a * share, b * share, c * share, d * share


@triton.jit
def _reciprocal(x):
    """Return 1 / x of positive x to a unit in the last place.

    A rounded division is three times as long, and the steps are a chain of forty.
    """
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def pick(x, place, PLACE: tl.constexpr):
    """Return the element of x [n] whose `place` is PLACE, without a way through memory."""
    return tl.sum(tl.where(place == PLACE, x, 0.0), axis=0)


@triton.jit
def sigmoid(z):
    """Return 1 / (1 + e^-z) of float32 z."""
    return tl.div_rn(1.0, 1.0 + tl.exp(tl.minimum(-z, 88.0)))
