"""Attention of one layer.

Low-rank queries, one shared key-value row per token, window and compressed entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.cache.rows import EntryRows
from dsv4agent.engine.cache.state import LayerState, WindowRing
from dsv4agent.engine.config import LayerSpec
from dsv4agent.engine.model.chunk import Chunk
from dsv4agent.engine.model.compressor import Compressor
from dsv4agent.engine.model.indexer import Indexer
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.attention import SINK_COLUMNS, EntryBlocks, EntrySelection, attend
from dsv4agent.engine.ops.heads import finish_queries, finish_rows, rotate_heads_
from dsv4agent.engine.ops.norms import rms_norm
from dsv4agent.engine.ops.packed import PackedMatrix
from dsv4agent.engine.ops.tiling import Tiling

_DENSE_FACTOR = 4
"""Up to this many times top-k visible entries, masking the rest costs less than gathering the selected."""


class Attention:
    """Queries, key-value rows and output projection, with the layer's compressor and indexer."""

    def __init__(
        self, parameters: Parameters, layer: LayerSpec, precision: Precision, tiling: Tiling
    ) -> None:
        c = parameters.config
        prefix = f"{layer.prefix}.attn"
        self.config = c
        self.layer = layer
        self._precision = precision
        self._tiling = tiling
        self._q_norm = parameters.vector(f"{prefix}.q_norm.weight")
        self._kv_norm = parameters.vector(f"{prefix}.kv_norm.weight")
        self.sink = parameters.vector(f"{prefix}.attn_sink").new_full(
            (c.num_attention_heads, SINK_COLUMNS), float("-inf")
        )
        self.sink[:, 0] = parameters.vector(f"{prefix}.attn_sink")
        quantized = [f"{prefix}.wq_a.weight", f"{prefix}.wkv.weight"]
        plain: list[str] = []
        query = [f"{prefix}.wq_b.weight"]
        self._compressor = self._index_compressor = self._indexer = None
        if layer.ratio:
            plain += [f"{prefix}.compressor.wkv.weight", f"{prefix}.compressor.wgate.weight"]
            self._compressor = Compressor(
                parameters, f"{prefix}.compressor", layer, c.head_dim, start=0, precision=precision
            )
        if layer.overlap and self._compressor is not None:
            inner = f"{prefix}.indexer.compressor"
            plain += [f"{inner}.wkv.weight", f"{inner}.wgate.weight"]
            plain.append(f"{prefix}.indexer.weights_proj.weight")
            query.append(f"{prefix}.indexer.wq_b.weight")
            self._index_compressor = Compressor(
                parameters,
                inner,
                layer,
                c.index_head_dim,
                start=self._compressor.width,
                precision=precision,
            )
            self._indexer = Indexer(parameters, layer, precision, tiling)
        # Where inputs are equal, one product serves all: unless the official path quantises some of them.
        joined = not precision.official or not plain
        self._w_in = parameters.matrix(*quantized, *plain) if joined else parameters.matrix(*quantized)
        self._w_plain = None if joined else parameters.matrix(*plain)
        self._w_query = parameters.matrix(*query)
        self._w_group = [
            parameters.joined([weight])
            for weight in parameters.vector(f"{prefix}.wo_a.weight").chunk(c.o_groups, dim=0)
        ]
        self._w_out = parameters.matrix(f"{prefix}.wo_b.weight")
        # Packed products take any number of rows; others need whole tiles.
        self._packed_out = all(isinstance(w, PackedMatrix) for w in (*self._w_group, self._w_out))
        self._note_attention(parameters)
        self._ring_bias: Tensor | None = None

    def __call__(self, x: Tensor, state: LayerState, chunk: Chunk) -> Tensor:
        """Return the sub-layer's output float32 [s, D] of normalised input [s, D], and advance `state`.

        For a single token, whose tile holds copies, one row may stand for all.
        """
        c, p = self.config, self._precision
        rotations = chunk.rotations(self.layer.compress_rope)
        narrow, plain = self._project(x)
        q, raw_index_q = self.queries(narrow, rotations)
        row = self.finish_row(narrow, c.q_lora_rank, rotations)
        state.ring.write(chunk.position, row[: chunk.count])
        entries = self._entries(plain, raw_index_q, state, chunk) if plain is not None else None
        # The heads of a single token fill tiles by themselves; padding rows then need not attend.
        attending = self._attending(chunk)
        out = attend(
            q[:attending],
            self.sink,
            state.ring.values.t() if self._tiling.values_as_keys else state.ring.keys,
            state.ring.values,
            self._visible_slots(state.ring, chunk),
            entries,
            self._tiling,
            round_probabilities=p.official,
        )
        if attending != chunk.size and not self._packed_out:
            out = torch.nn.functional.pad(out, (0, 0, 0, 0, 0, chunk.size - attending))
        return self.project_out(out, rotations)

    def queries(self, narrow: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotated, scaled queries [s, h, d] and the indexer's raw ones, from [wq_a, ...] x [s, n]."""
        c, p = self.config, self._precision
        low = rms_norm(narrow, self._q_norm, c.rms_norm_eps, official=p.official)
        wide = self._tiling.matmul(p.activation(low), self._w_query)
        q = finish_queries(
            wide,
            c.num_attention_heads,
            c.head_dim,
            rotations,
            eps=c.rms_norm_eps,
            scale=c.head_dim**-0.5,
            official=p.official,
        )
        return q, p.round(wide[:, c.num_attention_heads * c.head_dim :])

    def finish_row(self, narrow: Tensor, start: int, rotations: Tensor) -> Tensor:
        """Return key-value rows as the cache stores them, [s, d]; columns `start ...` hold wkv x."""
        c, p = self.config, self._precision
        row = finish_rows(
            narrow, self._kv_norm, rotations, start=start, eps=c.rms_norm_eps, official=p.official
        )
        return p.cache_row(row, c.rope_dim)

    def project_out(self, out: Tensor, rotations: Tensor) -> Tensor:
        """Take the query's rotation back, project per group, then jointly: [s, D]."""
        c, p = self.config, self._precision
        rotate_heads_(out, rotations, official=p.official, back=True)
        grouped = out.view(out.shape[0], c.o_groups, -1)
        rows, rank = out.shape[0], self._w_group[0].shape[1]
        parts = out.new_empty(c.o_groups, rows, rank)
        for part, x, w in zip(parts.unbind(0), grouped.unbind(1), self._w_group, strict=True):
            self._tiling.matmul(x, w, out=part)
        # Of a lone row a view.
        low = parts.transpose(0, 1).reshape(rows, -1)
        return p.round(self._tiling.matmul(p.activation(p.round(low)), self._w_out))

    def project_narrow(self, x: Tensor) -> Tensor:
        """Return [wq_a, wkv, ...] x, float32 [s, n], of normalised input [s, D]."""
        return self._project(x)[0]

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return [wq_a, wkv, ...] x and, with a compressor, the raw compressor rows and indexer weights."""
        split = self.config.q_lora_rank + self.config.head_dim
        joined = self._tiling.matmul(self._precision.activation(x), self._w_in)
        if self._w_plain is not None:
            return joined, self._tiling.matmul(x, self._w_plain)
        return joined, joined[:, split:] if self.layer.ratio else None

    def _entries(
        self, plain: Tensor, raw_index_q: Tensor, state: LayerState, chunk: Chunk
    ) -> EntryBlocks | EntrySelection | None:
        """Extend the compressed entries by the chunk and return what its queries attend to."""
        assert self._compressor is not None and state.groups is not None and state.entries is not None
        width = state.groups.rows.shape[1]
        state.groups.write(chunk.position, plain[: chunk.count, :width])
        entries, p = state.entries, self._precision
        pooled = self._compressor.pool(state.groups, chunk)
        if pooled is not None:
            entries.append(p.cache_row(pooled, self.config.rope_dim))
        if (
            self._index_compressor is not None
            and self._indexer is not None
            and state.index_entries is not None
        ):
            keys = self._index_compressor.pool(state.groups, chunk)
            if keys is not None:
                state.index_entries.append(self._indexer.keys(keys))
        if chunk.offset + chunk.count == state.groups.rows.shape[0] - state.groups.lead:
            state.groups.close_block()
        if entries.count == 0:
            return None
        return self._select(plain[:, width:], raw_index_q, state, entries, chunk)

    def _select(
        self, raw_weights: Tensor, raw_index_q: Tensor, state: LayerState, entries: EntryRows, chunk: Chunk
    ) -> EntryBlocks | EntrySelection:
        ratio = self.layer.ratio
        seen = (chunk.position + 1) // ratio
        if self._indexer is None or seen <= self._indexer.top_k:
            columns = entries.blocks() * entries.block
            return self._blocks(entries, chunk.hidden(ratio, columns))
        assert state.index_entries is not None
        index = state.index_entries
        hidden = chunk.hidden(ratio, index.blocks() * index.block)
        chosen = self._indexer.select(raw_index_q, raw_weights, index, hidden, chunk)
        chunk.record(f"topk.{self.layer.prefix}", chosen)
        if seen <= _DENSE_FACTOR * self._indexer.top_k:
            left_out = ~chosen[:, : entries.blocks() * entries.block]
            return self._blocks(entries, left_out)
        ids = chosen.nonzero()[:, 1]
        rows = entries.dense().index_select(0, ids).view(chosen.shape[0], self._indexer.top_k, -1)
        return EntrySelection(rows.expand(self._attending(chunk), -1, -1))

    def _blocks(self, entries: EntryRows, hidden: Tensor) -> EntryBlocks:
        values = entries.values()
        keys = values.transpose(1, 2) if self._tiling.values_as_keys else entries.keys()
        return EntryBlocks(keys, values, hidden)

    def _attending(self, chunk: Chunk) -> int:
        """Return how many rows of the tile attend."""
        single = chunk.count == 1 and self.config.num_attention_heads % self._tiling.rows == 0
        return 1 if single else chunk.size

    def regime_borders(self) -> tuple[int, ...]:
        """Return the positions at which the way of choosing entries changes.

        No chunk may reach across one.
        """
        if self._indexer is None:
            return ()
        ratio, k = self.layer.ratio, self._indexer.top_k
        return tuple(ratio * (limit + 1) - 1 for limit in (k, _DENSE_FACTOR * k))

    def _visible_slots(self, ring: WindowRing, chunk: Chunk) -> Tensor:
        """Return the additive mask [s or 1, capacity] of ring slots, 0 inside the query's window."""
        if self._ring_bias is None:
            slots = torch.arange(ring.capacity, device=ring.values.device)
            age = (slots[:, None] - slots[None, :]) % ring.capacity
            table = torch.full(age.shape, float("-inf"), device=age.device)
            table[age < ring.window] = 0.0
            # Before the ring is full, slots after the query's own have never been written.
            self._ring_bias = torch.stack(
                (table.masked_fill(slots[None, :] > slots[:, None], float("-inf")), table)
            )
        slot = chunk.position % ring.capacity
        lap = self._ring_bias[0 if chunk.position < ring.capacity else 1]
        return chunk.pad(lap[slot : slot + chunk.count])

    def _note_attention(self, parameters: Parameters) -> None:
        c = self.config
        ring = WindowRing(c.sliding_window, 1, torch.device("meta")).capacity
        parameters.note_rows(c.head_dim, ring)
        if self.layer.ratio:
            block = LayerState.empty(c, self.layer, torch.device("meta")).entries
            assert block is not None
            parameters.note_rows(c.head_dim, block.block)
            if self.layer.overlap:
                index = LayerState.empty(c, self.layer, torch.device("meta")).index_entries
                assert index is not None
                parameters.note(c.index_head_dim, index.block, rows=c.index_n_heads)
