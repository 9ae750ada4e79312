"""A chunk: the tokens of one forward step, inside one aligned block, padded to a row tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsv4agent.engine.config import BLOCK
from dsv4agent.engine.model.rope import RopeTables

Trace = Callable[[str, int, Tensor], None]
"""Receives intermediate values, for oracles and tests.

Arguments: name (`streams.layers.3`, `topk.layers.2`, ...), position of the first row, the valid rows.
"""


@dataclass
class Chunk:
    """Positions and ids of one step.

    Attributes:
        position: Position of the first token; `position % 128 + count` is at most 128.
        count: Tokens.
        size: Rows of the tile; rows from `count` on are padding whose results are never read.
        ids: int64 [size]; padding repeats the last token, so that one token fills its tile with copies.
        token_ids: The valid ids.
        ropes: Rotary tables of the model.
        trace: Where intermediate values go, if anywhere.
    """

    position: int
    count: int
    size: int
    ids: Tensor
    token_ids: list[int]
    ropes: RopeTables
    trace: Trace | None = None
    _rotations: dict[bool, Tensor] = field(default_factory=dict[bool, Tensor])
    _hidden: dict[tuple[int, int], Tensor] = field(default_factory=dict[tuple[int, int], Tensor])

    def rotations(self, compressed: bool) -> Tensor:
        """Return the rotations of the tile's rows, complex64 [size or 1, 1, r/2]."""
        found = self._rotations.get(compressed)
        if found is None:
            found = self.pad(self.block_rotations(compressed)[self.offset : self.offset + self.count])
            found = self._rotations[compressed] = found.unsqueeze(1)
        return found

    def block_rotations(self, compressed: bool) -> Tensor:
        """Return the rotations of the whole aligned block, complex64 [128, r/2]."""
        return self.ropes.table(compressed).block(self.position // BLOCK)

    @property
    def offset(self) -> int:
        """Place of the first token in its aligned block."""
        return self.position % BLOCK

    def pad(self, rows: Tensor) -> Tensor:
        """Extend [count, ...] to tile rows by repeating the last one.

        A single row stays one, to be broadcast.
        """
        missing = self.size - rows.shape[0]
        if missing == 0 or rows.shape[0] == 1:
            return rows
        return torch.cat((rows, rows[-1:].expand(missing, *rows.shape[1:])))

    def hidden(self, ratio: int, columns: int) -> Tensor:
        """Return which of `columns` entries each row may not see, bool [size or 1, columns].

        Entry g is visible at t if g < floor((t + 1) / ratio). Layers of one ratio share the result.
        """
        found = self._hidden.get((ratio, columns))
        if found is None:
            device = self.ids.device
            first = self.position + 1
            counts = torch.arange(first, first + self.count, device=device) // ratio
            entries = torch.arange(columns, device=device)
            found = self._hidden[ratio, columns] = entries >= self.pad(counts.unsqueeze(1))
        return found

    def record(self, name: str, value: Tensor) -> None:
        """Hand `value` [size, ...] to the trace."""
        if self.trace is not None:
            self.trace(name, self.position, value[: self.count].clone())
