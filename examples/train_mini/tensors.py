"""Tensor methods whose types the library leaves open, with their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor


def split_axis(x: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """Return a view of `x` with one axis split into several; one size may be -1."""
    return cast(Tensor, x.unflatten(axis, tuple(sizes)))  # pyright: ignore[reportUnknownMemberType]


def transposed(x: Tensor) -> Tensor:
    """Return a view of `x` with its last two axes swapped."""
    return x.transpose(-2, -1)


def norm(x: Tensor, axes: tuple[int, ...] | None = None, *, keepdim: bool = False) -> Tensor:
    """Return the Euclidean norm over some axes, or over all."""
    vector_norm = cast(Any, torch.linalg).vector_norm
    return cast(Tensor, vector_norm(x, dim=axes, keepdim=keepdim))


def integers(x: Tensor) -> list[int]:
    """Return the elements of a one-dimensional integer tensor."""
    return cast("list[int]", x.tolist())  # pyright: ignore[reportUnknownMemberType]


def from_array(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares memory with a numpy array."""
    return cast(Tensor, cast(Any, torch).from_numpy(array))


def seed(number: int) -> None:
    """Seed the global random generators."""
    cast(Any, torch).manual_seed(number)
