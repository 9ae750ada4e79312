"""One line per compared key, and whether all held."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

FP32_TOLERANCE = 1e-4


def load(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file."""
    return load_file(str(file))


def share(errors: Tensor, part: float) -> float:
    """Return the error that `part` of the rows do not exceed."""
    ordered = errors.sort().values
    return float(ordered[min(int(part * ordered.numel()), ordered.numel() - 1)])


@dataclass(frozen=True)
class Result:
    """One comparison: `error` must not exceed `tolerance`; NaN never holds."""

    key: str
    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        mark = "ok  " if self.holds else "FAIL"
        return f"{mark} {self.key:32} {self.error:.3e} (at most {self.tolerance:.0e})"


def largest(key: str, actual: Tensor, expected: Tensor, tolerance: float = FP32_TOLERANCE) -> Result:
    """Compare by largest absolute difference; another shape is an infinite error."""
    if actual.shape != expected.shape:
        return Result(f"{key} {list(actual.shape)} != {list(expected.shape)}", float("inf"), tolerance)
    if actual.numel() == 0:
        return Result(key, 0.0, tolerance)
    difference = (actual.detach().cpu().double() - expected.cpu().double()).abs()
    return Result(key, float(difference.max()), tolerance)


def mismatches(key: str, actual: Tensor, expected: Tensor) -> Result:
    """Compare exactly; the error is the share of differing elements."""
    if actual.shape != expected.shape:
        return Result(f"{key} {list(actual.shape)} != {list(expected.shape)}", float("inf"), 0.0)
    return Result(key, float((actual.cpu() != expected.cpu()).float().mean()), 0.0)


def bf16_ulps(key: str, actual: Tensor, expected: Tensor, tolerance: float = 1.0) -> Result:
    """Compare values as bfloat16, in units of the last place."""
    ordered = [_ordered(value.cpu().to(torch.bfloat16)) for value in (actual, expected)]
    return Result(key, float((ordered[0] - ordered[1]).abs().max()), tolerance)


def _ordered(value: Tensor) -> Tensor:
    """Map bfloat16 to integers that grow by one per representable value."""
    bits = value.contiguous().view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)
