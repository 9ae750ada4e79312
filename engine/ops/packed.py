"""Weights packed as float16 for products with float32 rows, where that loses nothing.

A decode step reads every weight once, so its speed is that of memory. Dequantised FP4 and FP8 weights, and
bfloat16 ones times a power of two, are float16 numbers exactly: half the bytes carry the same matrix. The
kernel widens them in registers and adds in float32, every output element by itself in ascending order of the
inner dimension, so that a row's bits do not depend on how many rows there are; a probe checks that.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.config import BLOCK

_SMALLEST = 4096
"""Elements below which a plain product is as fast."""
_TOP_EXPONENT = 15
"""Weights are scaled to just below 2**15, in the upper part of what float16 holds."""


class PackedMatrix:
    """A [k, n] matrix that only products read.

    Attributes:
        shape: (k, n).
    """

    def __init__(self, packed: Tensor, shape: tuple[int, int], unscale: float) -> None:
        self.shape = shape
        self._packed = packed
        self._unscale = unscale

    def multiply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return x [m, k] times the matrix, float32 [m, n], in contiguous `out` if given."""
        if out is None:
            out = _linear(x, self._packed, None)
        else:
            # The kernel knows no strides and would write past the rows of a wider tensor.
            assert out.is_contiguous()
            _linear(x, self._packed, None, output=out)
        return out if self._unscale == 1.0 else out.mul_(self._unscale)


def pack(matrix: Tensor) -> PackedMatrix | None:
    """Pack float32 [k, n] on the CPU; None if it is small, not exact in float16, or the machine cannot."""
    k, n = matrix.shape
    if matrix.device.type != "cpu" or k * n < _SMALLEST or not _supported(k, n, torch.get_num_threads()):
        return None
    for exponent in (0, _TOP_EXPONENT - int(torch.frexp(matrix.abs().max()).exponent)):
        scaled = matrix * 2.0**exponent
        if torch.equal(scaled.to(torch.float16).to(torch.float32), scaled):
            return PackedMatrix(_pack(scaled.t().contiguous()), (k, n), 2.0**-exponent)
    return None


@functools.cache
def _supported(k: int, n: int, threads: int) -> bool:
    """Return whether the kernels exist here and give a row the same bits in every tile."""
    del threads  # Part of the key: the split of the work may depend on it.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BLOCK, k, generator=generator)
    w = torch.randn(k, n, generator=generator).to(torch.float16).to(torch.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix = PackedMatrix(_pack(w.t().contiguous()), (k, n), 1.0)
            whole = matrix.multiply(x)
    except RuntimeError:
        return False
    return torch.allclose(whole, x @ w, rtol=1e-3, atol=1e-2) and all(
        torch.equal(matrix.multiply(x[start : start + rows]), whole[start : start + rows])
        for rows in (1, 2, 4, 8, 16, 32, 64)
        for start in (0, rows, BLOCK - rows)
    )


def _missing(*_: object, **__: object) -> Any:
    raise RuntimeError("this build of torch has no products with float16 weights")


_pack: Callable[..., Tensor] = getattr(torch, "fbgemm_pack_gemm_matrix_fp16", _missing)
_linear: Callable[..., Tensor] = getattr(torch, "fbgemm_linear_fp16_weight_fp32_activation", _missing)
