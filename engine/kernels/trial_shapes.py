"""What the cases of `trial` are made of, and the shapes of the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model, and the numbers of tokens to try.

    Attributes:
        cold_bytes: Copies of weights are made until they take so much, so that none is read from a cache.
    """

    name: str
    hidden: int
    width: int
    experts: int
    chosen: int
    vocabulary: int
    query_rank: int
    query_width: int
    groups: int
    group_rank: int
    tokens: tuple[int, ...] = (1, 8, 32, 4096)
    cold_bytes: int = 200_000_000


FLASH = ModelShape("flash", 4096, 2048, 256, 6, 129280, 1024, 32768, 8, 1024)
PRO = ModelShape("pro", 7168, 3072, 384, 6, 129280, 1536, 65536, 16, 1024)


@dataclass(frozen=True)
class Prepared:
    """A case with its data.

    Attributes:
        runs: The same work on several sets of buffers, to be run in turn.
        error: Returns the distance from the reference, see `Case.tolerance`.
        same_bits: Returns whether rows alone and in other batches have the same bits; None: nothing to see.
        result: Returns the same every time, to compare plans; None if the first of `runs` does.
    """

    runs: tuple[Callable[[], object], ...]
    error: Callable[[], float]
    same_bits: Callable[[], bool] | None = None
    result: Callable[[], object] | None = None


@dataclass(frozen=True)
class Case:
    """A kernel at a shape.

    Attributes:
        moved: Bytes that must be read or written.
        operations: Of products, and in which type they run ("fp8" or "bf16").
        tolerance: Largest relative error, or share of choices that differ.
    """

    kernel: str
    shape: str
    moved: int
    operations: int
    unit: str
    tolerance: float
    prepare: Callable[[torch.Generator], Prepared]
