"""Data-parallel training on the GPUs of one host: one process a GPU, started by `torchrun`.

Every rank holds the whole model and its own stream of rows; the gradients of a step are averaged, so the
masters stay equal on all ranks. Rank 0 owns the clock, the log and the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as distributed
from torch import Tensor

PATIENCE = timedelta(minutes=15)
"""How long a rank waits for another, which may be compiling or writing a checkpoint."""


class Ranks:
    """This process's place among the training processes; one alone if none was started by `torchrun`.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size == 1:
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # Gradients go over NCCL where there are GPUs; the clock's word goes over gloo, without the device.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        cast(Any, distributed).init_process_group(backend, timeout=PATIENCE)

    @property
    def first(self) -> bool:
        """Whether this process owns the clock, the log and the files."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """Return rank 0's `value` on every rank."""
        if self.size == 1:
            return value
        word = torch.tensor([value], dtype=torch.float64)
        cast(Any, distributed).broadcast(word, 0)
        return float(word.item())

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over the ranks, on every rank; waits until all have come here."""
        if self.size == 1:
            return list(values)
        words = torch.tensor(list(values), dtype=torch.float64)
        cast(Any, distributed).all_reduce(words)
        return [float(word) for word in words]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            cast(Any, distributed).all_reduce(tensor)
            tensor.div_(self.size)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            cast(Any, distributed).destroy_process_group()
