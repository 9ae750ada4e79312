"""Compressed entries of one layer: append-only rows that forks share by reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Arena:
    """Backing memory: `used` rows have been written by whichever owner came first."""

    keys: Tensor
    values: Tensor | None
    used: int


class EntryRows:
    """A growing list of rows, kept transposed in blocks for scores and, if asked for, plain for sums.

    Copies share the arena. An append writes in place if nobody has written behind this list's end; else the
    list moves to an arena of its own first. Written rows never change.
    """

    def __init__(self, dim: int, block: int, *, with_values: bool, device: torch.device) -> None:
        self.count = 0
        self._dim = dim
        self._block = block
        self._with_values = with_values
        self._device = device
        self._arena = self._allocate(1)

    @property
    def block(self) -> int:
        """Rows per block."""
        return self._block

    def fork(self) -> EntryRows:
        """Return a list with the same rows; no row is copied."""
        other = EntryRows.__new__(EntryRows)
        other.__dict__.update(self.__dict__)
        return other

    def blocks(self) -> int:
        """Return how many blocks hold the present rows; at least one."""
        return max(1, -(-self.count // self._block))

    def keys(self) -> Tensor:
        """Return the filled blocks, transposed: float32 [blocks, dim, block].

        Columns past `count` are arbitrary.
        """
        return self._arena.keys[: self.blocks()]

    def values(self) -> Tensor:
        """Return the filled blocks: float32 [blocks, block, dim].

        Rows past `count` are arbitrary but finite.
        """
        assert self._arena.values is not None
        return self._arena.values[: self.blocks()]

    def dense(self) -> Tensor:
        """Return the present rows, float32 [count, dim]."""
        if self._arena.values is not None:
            return self._arena.values.view(-1, self._dim)[: self.count]
        return self._arena.keys.transpose(1, 2).reshape(-1, self._dim)[: self.count]

    def append(self, rows: Tensor) -> None:
        """Append `rows` float32 [n, dim]."""
        end = self.count + rows.shape[0]
        if self._arena.used != self.count or end > self._arena.keys.shape[0] * self._block:
            self._move(end)
        start = self.count
        if self._arena.values is not None:
            self._arena.values.view(-1, self._dim)[start:end] = rows
        for block in range(start // self._block, (end - 1) // self._block + 1):
            low = max(start, block * self._block)
            high = min(end, (block + 1) * self._block)
            base = block * self._block
            self._arena.keys[block, :, low - base : high - base] = rows[low - start : high - start].t()
        self.count = end
        self._arena.used = end

    def _move(self, needed: int) -> None:
        blocks = 1
        while blocks * self._block < needed:
            blocks *= 2
        arena = self._allocate(blocks)
        filled = self.blocks()
        arena.keys[:filled] = self._arena.keys[:filled]
        if arena.values is not None and self._arena.values is not None:
            arena.values[:filled] = self._arena.values[:filled]
        arena.used = self.count
        self._arena = arena

    def _allocate(self, blocks: int) -> _Arena:
        # Zeros, not empty memory: rows past the end meet weights of exactly zero, which NaN would survive.
        keys = torch.zeros(blocks, self._dim, self._block, device=self._device)
        values = (
            torch.zeros(blocks, self._block, self._dim, device=self._device) if self._with_values else None
        )
        return _Arena(keys=keys, values=values, used=0)
