"""Small tensors as Python lists and float64 arrays, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def integers(x: Tensor) -> list[int]:
    """Return the elements of an integer tensor, flattened."""
    return cast("list[int]", x.flatten().tolist())  # pyright: ignore[reportUnknownMemberType]


def floats(x: Tensor) -> list[float]:
    """Return the elements of a floating-point tensor, flattened."""
    return cast("list[float]", x.flatten().tolist())  # pyright: ignore[reportUnknownMemberType]


def doubles(x: Tensor) -> NDArray[np.float64]:
    """Return a tensor as float64 array of the same shape, on the host."""
    return cast("NDArray[np.float64]", x.to("cpu", torch.float64).numpy())


def tensor_of(values: Sequence[float] | NDArray[np.float64], device: torch.device) -> Tensor:
    """Return `values` rounded to float32, on `device`."""
    single = np.array(values, dtype=np.float32)
    return torch.from_numpy(single).to(device)  # pyright: ignore[reportUnknownMemberType]
