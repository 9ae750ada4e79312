"""Sums as explicit trees: halves are added onto one another until one element is left.

`tl.sum` adds in an order that follows from how a tensor is spread over threads, which may differ between two
kernels, or with the number of warps. A sum of two elements has one order. Halves, and not neighbours, because
a product's columns lie in one thread eight or more apart: most of the tree needs no exchange between threads.
"""
# Triton's language has no types that a checker understands.
# pyright: basic, reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sum_columns(x, SIZE: tl.constexpr):
    """Return the sums [n] over the second dimension of x [n, SIZE], a power of two."""
    half: tl.constexpr = SIZE // 2
    if half == 0:
        return tl.sum(x, axis=1)
    else:
        return sum_columns(tl.sum(tl.reshape(x, (x.shape[0], 2, half)), axis=1), half)


@triton.jit
def sum_rows(x, SIZE: tl.constexpr):
    """Return the sums [n] over the first dimension of x [SIZE, n], a power of two."""
    half: tl.constexpr = SIZE // 2
    if half == 0:
        return tl.sum(x, axis=0)
    else:
        return sum_rows(tl.sum(tl.reshape(x, (2, half, x.shape[1])), axis=0), half)


@triton.jit
def sum_all(x, SIZE: tl.constexpr):
    """Return the sum of x [SIZE], a power of two."""
    return tl.sum(sum_columns(tl.reshape(x, (1, SIZE)), SIZE), axis=0)
