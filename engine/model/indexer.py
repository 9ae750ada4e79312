"""Indexer of sparse layers: scores the compressed entries and keeps the best for each query."""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.cache.rows import EntryRows
from dsv4agent.engine.config import LayerSpec
from dsv4agent.engine.model.chunk import Chunk
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.hadamard import hadamard_matrix
from dsv4agent.engine.ops.rotary import rotate_
from dsv4agent.engine.ops.selection import top_k_mask
from dsv4agent.engine.ops.tiling import Tiling


class Indexer:
    """Scores I[t, g] = sum over heads of w[t, h] * max(0, q[t, h] . k[g])."""

    def __init__(
        self, parameters: Parameters, layer: LayerSpec, precision: Precision, tiling: Tiling
    ) -> None:
        c = parameters.config
        self._heads, self._dim = c.index_n_heads, c.index_head_dim
        self._scale = c.index_head_dim**-0.5 * c.index_n_heads**-0.5
        self._hadamard = hadamard_matrix(self._dim).to(parameters.device)
        parameters.note(self._dim, self._dim, rows=self._heads)
        self._layer = layer
        self._precision = precision
        self._tiling = tiling
        self.top_k = c.index_topk

    def keys(self, entries: Tensor) -> Tensor:
        """Return the stored form of new keys [g, d] from the pooled, rotated entries."""
        rows = entries.shape[0]
        size = max(self._tiling.size(rows), self._tiling.rows)
        padded = torch.nn.functional.pad(entries, (0, 0, 0, size - rows)) if size != rows else entries
        return self._to_index(padded)[:rows]

    def select(
        self, raw_q: Tensor, raw_weights: Tensor, keys: EntryRows, hidden: Tensor, chunk: Chunk
    ) -> Tensor:
        """Mark the `top_k` entries of each query; every query sees more than `top_k` of them.

        Args:
            raw_q: float32 [s, heads * d], projected queries before rotation.
            raw_weights: float32 [s, heads], projected head weights before scaling.
            keys: Index keys.
            hidden: bool [s or 1, columns]: entries a query may not see.
            chunk: The present chunk.

        Returns:
            bool [s, columns]; one row for a single token.
        """
        rows = raw_q.shape[0]
        q = raw_q.reshape(rows, self._heads, self._dim).contiguous()
        q = self._precision.round(rotate_(q, chunk.rotations(self._layer.compress_rope)))
        q = self._to_index(q.view(rows * self._heads, self._dim))
        weights = self._precision.round(self._precision.round(raw_weights) * self._scale).unsqueeze(1)
        parts = [self._scores(q, weights, block) for block in keys.keys().unbind(0)]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        if chunk.count == 1:
            scores = scores[:1]
        return top_k_mask(scores.masked_fill_(hidden, float("-inf")), self.top_k)

    def _scores(self, q: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
        """Return scores [s, b] of one block of keys [d, b]."""
        p = self._precision
        z = p.round(self._tiling.matmul(q, keys)).relu_().view(weights.shape[0], self._heads, -1)
        if not p.official:
            return torch.bmm(weights, z).squeeze(1)
        weighted = p.round(z * weights.transpose(1, 2))
        return p.round(torch.bmm(torch.ones_like(weights), weighted).squeeze(1))

    def _to_index(self, rows: Tensor) -> Tensor:
        p = self._precision
        return p.index_row(p.round(self._tiling.matmul(rows, self._hadamard)))
