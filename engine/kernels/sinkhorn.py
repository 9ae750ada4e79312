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


@triton.jit
def store_write_weights(z, target, eps, ITERATIONS: tl.constexpr):
    """Store [4, 5]: the matrix after its Sinkhorn steps, transposed, and the weights of the output."""
    c00, c01, c02, c03 = _softmax(z + 8, eps)
    c10, c11, c12, c13 = _softmax(z + 12, eps)
    c20, c21, c22, c23 = _softmax(z + 16, eps)
    c30, c31, c32, c33 = _softmax(z + 20, eps)
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
    _store_row(target, c00, c10, c20, c30, z + 4)
    _store_row(target + 5, c01, c11, c21, c31, z + 5)
    _store_row(target + 10, c02, c12, c22, c32, z + 6)
    _store_row(target + 15, c03, c13, c23, c33, z + 7)


@triton.jit
def _store_row(target, a, b, c, d, z):
    tl.store(target, a)
    tl.store(target + 1, b)
    tl.store(target + 2, c)
    tl.store(target + 3, d)
    tl.store(target + 4, 2.0 * sigmoid(tl.load(z)))


@triton.jit
def _softmax(z, eps):
    a, b, c, d = tl.load(z), tl.load(z + 1), tl.load(z + 2), tl.load(z + 3)
    top = tl.maximum(tl.maximum(a, b), tl.maximum(c, d))
    a, b, c, d = tl.exp(a - top), tl.exp(b - top), tl.exp(c - top), tl.exp(d - top)
    total = a + b + c + d
    a, b = tl.div_rn(a, total), tl.div_rn(b, total)
    c, d = tl.div_rn(c, total), tl.div_rn(d, total)
    return a + eps, b + eps, c + eps, d + eps


@triton.jit
def _normalized(a, b, c, d, eps):
    share = tl.div_rn(1.0, a + b + c + d + eps)
    return a * share, b * share, c * share, d * share


@triton.jit
def sigmoid(z):
    """Return 1 / (1 + e^-z) of float32 z."""
    return tl.div_rn(1.0, 1.0 + tl.exp(tl.minimum(-z, 88.0)))
