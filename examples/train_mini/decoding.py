"""Incremental evaluation of many sequences at once, in chunks or token by token as a CUDA graph.

Every layer keeps the keys, raw compressor rows and entries of all positions, at their positions, for every
sequence of the batch. A chunk writes its rows and the entries of the groups it touches; what it writes past a
sequence's end is invisible (masked by position) until the right values overwrite it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.train_mini.attention import MASKED, Compressor, rms_norm, rotate
from examples.train_mini.model import Layer, MiniModel
from examples.train_mini.tensors import integers, split_axis


@dataclass(frozen=True)
class _CompressorCache:
    """Values and gates of every token `[B, S, channels]` and entries `[B, N, dim]`."""

    values: Tensor
    gates: Tensor
    entries: Tensor


@dataclass(frozen=True)
class _LayerCache:
    keys: Tensor
    compressed: _CompressorCache | None
    index: _CompressorCache | None


class BatchDecoder:
    """The state of `batch` sequences of up to `context` tokens under one model.

    `lengths[i]` tokens of sequence i have been computed. All methods run without gradients.
    """

    def __init__(self, model: MiniModel, batch: int, context: int) -> None:
        if context > model.config.max_positions:
            raise ValueError(
                f"The model has positions for {model.config.max_positions} tokens, not {context}."
            )
        self.model, self.batch, self.context = model, batch, context
        self.device = model.embed.device
        # Chunks may write past the end; whole groups of the largest ratio keep the entries' count even.
        self._capacity = (context // 128 + 2) * 128
        self._layers = [self._cache(layer) for layer in model.blocks]
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._graph_ids = torch.zeros(batch, 1, dtype=torch.int64, device=self.device)
        self._graph_logits: dict[int, Tensor] = {}

    @torch.inference_mode()
    def extend(self, sequences: list[int], tokens: list[list[int]], chunk: int = 128) -> Tensor:
        """Compute new tokens of some sequences; return fp32 logits `[S, V]` after each one's last.

        Raises `ValueError` if a sequence gets no token or grows past the context.
        """
        rows = torch.tensor(sequences, device=self.device)
        lengths = integers(self.lengths)
        for sequence, new in zip(sequences, tokens, strict=True):
            if not new or lengths[sequence] + len(new) > self.context:
                raise ValueError(
                    f"Sequence {sequence}: {len(new)} tokens after {lengths[sequence]} do not fit."
                )
        result = torch.empty(len(sequences), self.model.config.vocab_size, device=self.device)
        longest = max(map(len, tokens))
        for start in range(0, longest, chunk):
            # Only sequences with tokens left take part in a later chunk.
            part = [i for i, new in enumerate(tokens) if len(new) > start]
            width = min(chunk, max(len(tokens[i]) for i in part) - start)
            ids = torch.zeros(len(part), width, dtype=torch.int64)
            counts = torch.zeros(len(part), dtype=torch.int64)
            for k, i in enumerate(part):
                piece = tokens[i][start : start + width]
                ids[k, : len(piece)] = torch.tensor(piece)
                counts[k] = len(piece)
            ids, counts = ids.to(self.device), counts.to(self.device)
            places = torch.tensor(part, device=self.device)
            chosen = rows[places]
            seen = int(max(lengths[sequences[i]] for i in part)) + start + width
            hidden = self._forward(ids, chosen, self.lengths[chosen], seen)
            last = hidden[torch.arange(len(part), device=self.device), counts - 1]
            self.lengths[chosen] += counts
            # Sequences that go on overwrite this with their last chunk's.
            result[places] = self.model.logits(last).float()
        return result

    @torch.inference_mode()
    def step(self, ids: Tensor, advance: Tensor, seen: int) -> Tensor:
        """Compute one token `ids` `[B]` of every sequence; return fp32 logits `[B, V]`.

        Only sequences with `advance` (bool `[B]`) grow; the others' tokens leave no trace. `seen` is an upper
        bound of every length after the step. On a GPU a captured graph is replayed; its output is overwritten
        by the next step.
        """
        if self.device.type != "cuda":
            logits = self._step(ids.view(-1, 1), seen)
        else:
            bound = min(self._capacity, 1 << max(10, (seen - 1).bit_length()))
            if bound not in self._graphs:
                self._capture(bound)
            self._graph_ids.copy_(ids.view(-1, 1))
            self._graphs[bound].replay()
            logits = self._graph_logits[bound]
        self.lengths += advance
        return logits

    @torch.inference_mode()
    def reset(self) -> None:
        """Empty all sequences."""
        self.lengths.zero_()

    def _step(self, ids: Tensor, seen: int) -> Tensor:
        hidden = self._forward(ids, None, self.lengths, seen)
        return self.model.logits(hidden[:, 0]).float()

    def _capture(self, bound: int) -> None:
        """Record a step whose sequences have at most `bound` tokens."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._step(self._graph_ids, bound)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # In this mode other threads, such as one that watches collectives, may use the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._graph_logits[bound] = self._step(self._graph_ids, bound)
        self._graphs[bound] = graph

    def _cache(self, layer: Layer) -> _LayerCache:
        attention = layer.attn

        def empty(length: int, channels: int) -> Tensor:
            dtype = self.model.head.dtype
            return torch.zeros(self.batch, length, channels, device=self.device, dtype=dtype)

        def compressor(module: Compressor) -> _CompressorCache:
            channels = module.ape.shape[1]
            return _CompressorCache(
                empty(self._capacity, channels),
                empty(self._capacity, channels),
                empty(self._capacity // module.ratio, module.dim),
            )

        return _LayerCache(
            empty(self._capacity, self.model.config.head_dim),
            compressor(attention.compressor) if layer.ratio else None,
            compressor(attention.index_compressor) if layer.ratio == 4 else None,
        )

    def _forward(self, ids: Tensor, rows: Tensor | None, begin: Tensor, seen: int) -> Tensor:
        """Compute tokens `[b, n]` at positions from `begin` `[b]` on; return final states `[b, n, D]`."""
        positions = begin[:, None] + torch.arange(ids.shape[1], device=self.device)
        positions = positions.clamp(max=self._capacity - 1)
        streams = self.model.streams(ids)
        for layer, cache in zip(self.model.blocks, self._layers, strict=True):
            x, post, mixing = layer.attn_hc.read(streams)
            y = self._attend(layer, cache, rms_norm(x, layer.attn_norm, layer.eps), rows, positions, seen)
            streams = layer.attn_hc.write(y, streams, post, mixing)
            streams, _ = layer.feed_forward(streams, ids)
        return self.model.collapse(streams)

    def _attend(
        self, layer: Layer, cache: _LayerCache, x: Tensor, rows: Tensor | None, positions: Tensor, seen: int
    ) -> Tensor:
        c, attention = self.model.config, layer.attn
        count, width = positions.shape
        cos, sin = self._angles(layer.ratio, positions)
        latent, q, kv = attention.queries_and_keys(x, cos, sin)
        self._store(cache.keys, rows, positions, kv)
        reach = torch.arange(1 - c.window, width, device=self.device)
        near = positions[:, :1] + reach
        keys = self._gather(cache.keys, rows, near.clamp(0, self._capacity - 1))
        visible = (near[:, None] <= positions[..., None]) & (near[:, None] > positions[..., None] - c.window)
        visible = visible & (near[:, None] >= 0)
        if cache.compressed is not None:
            self._compress(layer, attention.compressor, cache.compressed, x, rows, positions)
            limit = min(-(-seen // layer.ratio), cache.compressed.entries.shape[1])
            entries = self._select_rows(cache.compressed.entries, rows)[:, :limit]
            allowed = torch.arange(limit, device=self.device) < ((positions + 1) // layer.ratio)[..., None]
            if cache.index is not None:
                self._compress(layer, attention.index_compressor, cache.index, x, rows, positions)
                if c.index_topk < limit:
                    index_keys = self._select_rows(cache.index.entries, rows)[:, :limit]
                    scores = attention.index_scores(latent, x, index_keys, cos, sin)
                    allowed = attention.select(scores, allowed)
            keys = torch.cat((keys, entries), 1)
            visible = torch.cat((visible, allowed), -1)
        scores = (q.flatten(1, 2) @ keys.transpose(1, 2)).view(count, width, c.heads, -1)
        scores = torch.where(visible.unsqueeze(2), scores.float() * c.head_dim**-0.5, MASKED)
        sink = attention.attn_sink.float().view(1, 1, -1, 1)
        peak = torch.maximum(scores.amax(-1, keepdim=True), sink)
        p = torch.exp(scores - peak)
        p = (p / (p.sum(-1, keepdim=True) + torch.exp(sink - peak))).to(x.dtype)
        o = (p.flatten(1, 2) @ keys).view(count, width, c.heads, c.head_dim)
        return attention.output(o, cos, sin)

    def _compress(
        self,
        layer: Layer,
        compressor: Compressor,
        cache: _CompressorCache,
        x: Tensor,
        rows: Tensor | None,
        positions: Tensor,
    ) -> None:
        """Store the raw rows of new tokens and the entries of the groups they touch, complete or not."""
        ratio, width = compressor.ratio, positions.shape[1]
        values, gates = compressor.project(x)
        self._store(cache.values, rows, positions, values)
        self._store(cache.gates, rows, positions, gates)
        touched = 1 if width == 1 else (width - 2) // ratio + 2
        group = positions[:, :1] // ratio + torch.arange(-1 if ratio == 4 else 0, touched, device=self.device)
        source = (group[..., None] * ratio + torch.arange(ratio, device=self.device)).flatten(1)
        source = source.clamp(0, self._capacity - 1)
        shape = (group.shape[1], ratio)
        pooled = compressor.pool(
            split_axis(self._gather(cache.values, rows, source), 1, shape),
            split_axis(self._gather(cache.gates, rows, source), 1, shape),
            group <= 0,
        )
        if ratio == 4:
            # The group before the first only lent its overlap.
            pooled, group = pooled[:, 1:], group[:, 1:]
        group = group.clamp(max=cache.entries.shape[1] - 1)
        cos, sin = self._angles(ratio, group * ratio)
        self._store(cache.entries, rows, group, rotate(pooled.to(x.dtype), cos, sin))

    def _angles(self, ratio: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.angles(ratio, positions.clamp(max=self.model.config.max_positions - 1))

    def _rows(self, rows: Tensor | None) -> Tensor:
        return (torch.arange(self.batch, device=self.device) if rows is None else rows)[:, None]

    def _store(self, target: Tensor, rows: Tensor | None, positions: Tensor, values: Tensor) -> None:
        target[self._rows(rows), positions] = values.to(target.dtype)

    def _gather(self, source: Tensor, rows: Tensor | None, positions: Tensor) -> Tensor:
        return source[self._rows(rows), positions]

    def _select_rows(self, source: Tensor, rows: Tensor | None) -> Tensor:
        return source if rows is None else source[rows]


def sample(logits: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw one id per row of fp32 `[B, V]`; the most likely one at temperature 0."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, -1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
