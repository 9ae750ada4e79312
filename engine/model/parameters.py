"""Weights as products want them.

Float32, transposed to [in, out], joined where inputs are equal, on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.ops.packed import PackedMatrix, pack

Matrix = Tensor | PackedMatrix
"""What `Tiling.matmul` takes as its second factor."""


class Parameters:
    """Named tensors of one checkpoint, prepared for the forward pass.

    The [k, n] shape of every plain matrix handed out is remembered, with the rows that a token gives it, so
    that the row tiles can be probed for exactly these products.
    """

    def __init__(self, config: ModelConfig, read: Callable[[str], Tensor], device: torch.device) -> None:
        self.config = config
        self.device = device
        self.shapes: dict[tuple[int, int], set[int]] = {}
        self.key_shapes: set[tuple[int, int]] = set()
        self._read = read

    def vector(self, name: str) -> Tensor:
        """Return a tensor as it is, float32 or int64."""
        return self._read(name).to(self.device)

    def matrix(self, *names: str) -> Matrix:
        """Return the transposed weights side by side: float32 [in, sum of out]."""
        return self.joined([self._read(name) for name in names])

    def joined(self, weights: Sequence[Tensor]) -> Matrix:
        """Return the transposes of weights [out, in] side by side, packed where that loses nothing."""
        matrix = torch.cat([weight.t() for weight in weights], dim=1).contiguous().to(self.device)
        packed = pack(matrix)
        if packed is not None:
            return packed
        self.note(matrix.shape[0], matrix.shape[1], rows=1)
        return matrix

    def note(self, k: int, n: int, *, rows: int) -> None:
        """Remember that `rows` rows per token will be multiplied with a [k, n] matrix."""
        self.shapes.setdefault((k, n), set()).add(rows)

    def note_rows(self, dim: int, count: int) -> None:
        """Remember that attention reads blocks of `count` rows of `dim` channels, as keys and as values."""
        heads = self.config.num_attention_heads
        self.note(dim, count, rows=heads)
        self.note(count, dim, rows=heads)
        self.key_shapes.add((dim, count))
