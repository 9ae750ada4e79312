"""Draft modules: the MTP block, which predicts one token ahead, and DSpark, which drafts a block at once.

Source: DeepSeek-V4 report, multi-token prediction; official inference code of the two generations of
    checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.cache.state import LayerState, SequenceState
from dsv4agent.engine.config import DrafterKind, DSparkConfig
from dsv4agent.engine.model.chunk import Chunk
from dsv4agent.engine.model.head import Head
from dsv4agent.engine.model.hyper_connections import spread
from dsv4agent.engine.model.layer import Layer
from dsv4agent.engine.model.transformer import Transformer
from dsv4agent.engine.ops.attention import attend
from dsv4agent.engine.ops.hyper_connections import STREAMS
from dsv4agent.engine.ops.norms import rms_norm


@dataclass(frozen=True)
class DSparkDraft:
    """One drafted block.

    Attributes:
        token_ids: The given next token, then the drafted ones, greedily: 1 + block_size ids.
        logits: float32 [block_size, V].
        confidence: float32 [block_size], raw scores.
    """

    token_ids: tuple[int, ...]
    logits: Tensor
    confidence: Tensor


class MTPDrafter:
    """One sliding-window layer over the main model's final streams and the embedding of the next token."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        spec = model.config.draft_layers[0]
        p, precision, tiling = model.parameters, model.precision, model.tiling
        self._layer = Layer(p, spec, precision, tiling)
        self._head = Head(p, f"{spec.prefix}.", precision)
        self._e_proj = p.matrix(f"{spec.prefix}.e_proj.weight")
        self._h_proj = p.matrix(f"{spec.prefix}.h_proj.weight")
        self._e_norm = p.vector(f"{spec.prefix}.enorm.weight")
        self._h_norm = p.vector(f"{spec.prefix}.hnorm.weight")

    def logits(self, token_ids: list[int]) -> Tensor:
        """Return float32 [len-1, V]: row t predicts token t+2 from the text up to t and token t+1."""
        model = self._model
        state = model.empty_state()
        own = LayerState.empty(model.config, self._layer.spec, model.device)
        rows: list[Tensor] = []
        for start, stop in model.chunks(0, len(token_ids) - 1):
            _, streams = model.step_streams(state, token_ids[start:stop])
            following = model.make_chunk(start, token_ids[start + 1 : stop + 1])
            rows.append(self.step(own, streams, following)[: stop - start])
        return torch.cat(rows)

    def step(self, state: LayerState, streams: Tensor, following: Chunk) -> Tensor:
        """Return logits [s, V] for a chunk, and advance the block's own window.

        Args:
            state: Window of the block.
            streams: float32 [s, 4, D], final streams of the main model at the chunk's positions.
            following: A chunk at these positions whose ids are the *next* tokens.
        """
        model, precision = self._model, self._model.precision
        eps = model.config.rms_norm_eps
        official = precision.official
        e = rms_norm(model.embed[following.ids], self._e_norm, eps, official=official)
        e = precision.round(model.tiling.matmul(precision.activation(e), self._e_proj))
        mixed = streams.clone()
        for stream in range(STREAMS):
            h = rms_norm(streams[:, stream].contiguous(), self._h_norm, eps, official=official)
            h = precision.round(model.tiling.matmul(precision.activation(h), self._h_proj))
            mixed[:, stream] = precision.round(e + h)
        out = self._layer(mixed, state, following)
        return model.logits(self._head.norm(self._head.collapse(out)))


class DSparkDrafter:
    """Layers that see the main model's late streams as context and draft a block bidirectionally."""

    def __init__(self, model: Transformer, config: DSparkConfig) -> None:
        self._model = model
        self._config = config
        p, precision, tiling = model.parameters, model.precision, model.tiling
        specs = model.config.draft_layers
        self._stages = [Layer(p, spec, precision, tiling) for spec in specs]
        self._w_rows = [p.matrix(f"{spec.prefix}.attn.wkv.weight") for spec in specs]
        self._main_proj = p.matrix("mtp.0.main_proj.weight")
        self._main_norm = p.vector("mtp.0.main_norm.weight")
        last = specs[-1].prefix
        self._head = Head(p, f"{last}.", precision)
        self._markov_in = p.vector(f"{last}.markov_head.markov_w1.weight")
        self._markov_out = p.matrix(f"{last}.markov_head.markov_w2.weight")
        self._confidence = p.vector(f"{last}.confidence_head.proj.weight")[0]

    def drafts(self, token_ids: list[int], positions: list[int]) -> list[DSparkDraft]:
        """Process the text once and draft greedily after each of `positions` (in the given order)."""
        model = self._model
        state = model.empty_state()
        rings = [LayerState.empty(model.config, stage.spec, model.device) for stage in self._stages]
        made: dict[int, DSparkDraft] = {}
        wanted = set(positions)
        for start, stop in model.chunks(0, max(wanted) + 1, (position + 1 for position in wanted)):
            self._feed(rings, state, token_ids[start:stop])
            if stop - 1 in wanted:
                made[stop - 1] = self.draft(rings, stop - 1, token_ids[stop])
        return [made[position] for position in positions]

    def draft(self, rings: list[LayerState], position: int, next_token: int) -> DSparkDraft:
        """Draft after committed `position`, given the token that follows it."""
        model, config = self._model, self._config
        count = config.block_size
        size = model.tiling.size(count)
        tokens = [next_token, *([config.noise_token_id] * (size - 1))]
        ids = torch.tensor(tokens, dtype=torch.int64, device=model.device)
        chunk = Chunk(position + 1, count, size, ids, tokens[:count], model.ropes)
        rotations = chunk.pad(model.ropes.table(False).rows(position + 1, count)).unsqueeze(1)
        streams = spread(model.embed[ids])
        for stage, ring in zip(self._stages, rings, strict=True):
            context = ring.ring.last(position + 1)
            streams = stage.run(streams, chunk, _BlockAttention(stage, model, context, rotations, count))
        collapsed = self._head.collapse(streams)
        base = model.logits(self._head.norm(collapsed))
        return self._unroll(next_token, collapsed, base)

    def _unroll(self, next_token: int, collapsed: Tensor, base: Tensor) -> DSparkDraft:
        """Add the first-order token term, position by position, and choose greedily."""
        model = self._model
        tokens = [next_token]
        logits: list[Tensor] = []
        confidence: list[Tensor] = []
        for index in range(self._config.block_size):
            m = self._markov_in[tokens[-1]]
            tile = m.expand(model.tiling.size(1), -1).contiguous()
            row = base[index] + model.tiling.matmul(tile, self._markov_out)[0]
            logits.append(row)
            confidence.append((torch.cat((collapsed[index], m)) * self._confidence).sum())
            tokens.append(int((row == row.max()).nonzero()[0]))
        return DSparkDraft(tuple(tokens), torch.stack(logits).cpu(), torch.stack(confidence).cpu())

    def _feed(self, rings: list[LayerState], state: SequenceState, token_ids: list[int]) -> None:
        """Process a chunk of the main model and store its context rows in every stage's ring."""
        model, precision = self._model, self._model.precision
        start, count = state.position, len(token_ids)
        means: dict[str, Tensor] = {}
        wanted = {f"streams.layers.{layer}" for layer in self._config.target_layers}

        def keep(name: str, position: int, value: Tensor) -> None:
            del position
            if name in wanted:
                means[name] = precision.round(value.mean(dim=1))

        model.step(state, token_ids, keep)
        joined = torch.cat([means[f"streams.layers.{layer}"] for layer in self._config.target_layers], dim=1)
        chunk = model.make_chunk(start, token_ids)
        joined = torch.nn.functional.pad(joined, (0, 0, 0, chunk.size - count))
        c = precision.round(model.tiling.matmul(precision.activation(joined), self._main_proj))
        c = rms_norm(c, self._main_norm, model.config.rms_norm_eps, official=precision.official)
        for stage, weight, ring in zip(self._stages, self._w_rows, rings, strict=True):
            raw = model.tiling.matmul(precision.activation(c), weight)
            row = stage.attention.finish_row(raw, 0, chunk.rotations(False))
            ring.ring.write(start, row[:count])


class _BlockAttention:
    """Attention of one draft stage: context rows of the last positions and all rows of the block itself."""

    def __init__(
        self, stage: Layer, model: Transformer, context: Tensor, rotations: Tensor, count: int
    ) -> None:
        self._attention = stage.attention
        self._model = model
        self._context = context
        self._rotations = rotations
        self._count = count

    def __call__(self, x: Tensor) -> Tensor:
        """Return the sub-layer's output float32 [s, D]."""
        narrow = self._attention.project_narrow(x)
        split = self._model.config.q_lora_rank
        q, _ = self._attention.queries(narrow, self._rotations)
        own = self._attention.finish_row(narrow, split, self._rotations)[: self._count]
        rows = torch.cat((self._context, own))
        out = attend(
            q,
            self._attention.sink,
            rows.t(),
            rows,
            rows.new_zeros(1, rows.shape[0]),
            None,
            self._model.tiling,
            round_probabilities=self._model.precision.official,
        )
        return self._attention.project_out(out, self._rotations)


def load_drafter(model: Transformer) -> MTPDrafter | DSparkDrafter | None:
    """Return the draft module that the checkpoint of `model` has, if any."""
    config = model.config
    if config.drafter is DrafterKind.MTP:
        return MTPDrafter(model)
    if config.drafter is DrafterKind.DSPARK and config.dspark is not None:
        return DSparkDrafter(model, config.dspark)
    return None
