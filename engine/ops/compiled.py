"""Loops compiled for the CPU by numba.

A decode step of a small model is hundreds of operations on a few hundred numbers: dispatching them costs more
than the work. Each kernel does what stands between two matrix products in one call. It treats every row of a
chunk by itself and in the same order, so a row's bits do not depend on its neighbours.

Two rules keep that true in the compiled code. Kernels take contiguous arrays only: another layout is another
compilation. And arithmetic is exactly IEEE but in `reduction`s, whose sums may be spread over vector lanes;
they store nothing, for a loop that stores is compiled twice, with lanes and without, and a test at run time
whether arrays overlap would choose between the two sums by where the allocator happened to put them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

COMPILED = find_spec("numba") is not None
"""Whether kernels are compiled. Otherwise they are plain Python: enough for what a GPU leaves to the host."""

P = ParamSpec("P")
R = TypeVar("R")
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function when it is first called, and keep the result on disk where that is possible.

    A kernel that calls others must stand in one file with them: the stored code of a caller does not notice
    a change of what it calls elsewhere. (The small ones of this file have no reason to change.)
    """
    return _compiled(function, set())


def reduction(function: Callable[P, R]) -> Callable[P, R]:
    """Do as `kernel` for a sum over one row, which may be added up in lanes."""
    return _compiled(function, {"reassoc", "contract"})


def _compiled(function: Callable[P, R], fast: set[str]) -> Callable[P, R]:
    if not COMPILED:
        return function
    compiler: Any = import_module("numba")  # It has no type annotations.
    options: dict[str, Any] = {"nogil": True, "fastmath": fast, "error_model": "numpy"}
    try:
        compiled = compiler.njit(cache=True, **options)(function)
    except RuntimeError:  # Neither the package's folder nor the user's cache can be written.
        compiled = compiler.njit(**options)(function)
    return cast("Callable[P, R]", compiled)


def floats_of(x: Tensor) -> Floats:
    """View a contiguous float32 tensor of the host as an array."""
    assert x.is_contiguous(), "kernels know one layout"
    return cast("Floats", x.numpy())


@reduction
def dot(a: Floats, b: Floats) -> np.float32:
    """Return the inner product of two rows."""
    total = np.float32(0.0)
    for d in range(a.shape[0]):
        total += a[d] * b[d]
    return total


@reduction
def sum_of_squares(row: Floats) -> np.float32:
    """Return the inner product of a row with itself."""
    total = np.float32(0.0)
    for d in range(row.shape[0]):
        total += row[d] * row[d]
    return total


@kernel
def to_bf16(value: np.float32) -> np.float32:
    """Round to the nearest bfloat16, ties to even; finite values only."""
    bits = np.float32(value).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.uint32(rounded).view(np.float32)


@kernel
def round_row(row: Floats) -> None:
    """Round a row to bfloat16 in place."""
    for d in range(row.shape[0]):
        row[d] = to_bf16(row[d])
