"""One step of the main model by the kernels: some tokens of some sequences in, the rows before the head out.

The same code serves prefill chunks and decode steps. What a kernel returns depends on its row alone, so the
logits of a sequence do not depend on what else is in the step, nor on how its tokens were cut into steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.config import LayerSpec, ModelConfig
from dsv4agent.engine.kernels import router
from dsv4agent.engine.kernels.embedding import embed
from dsv4agent.engine.kernels.hyper_connections import StreamRead, write_then_read
from dsv4agent.engine.kernels.indexer import finish_index_queries, select_entries
from dsv4agent.engine.kernels.intake import Compression, take_in
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, Places, finish_queries
from dsv4agent.engine.kernels.launch import ceil_div
from dsv4agent.engine.kernels.linear import linear
from dsv4agent.engine.kernels.moe import routed_experts
from dsv4agent.engine.kernels.quantize import quantize_rows, rms_norm_quantize, swiglu_quantize
from dsv4agent.engine.kernels.sparse_attention import Entries, attend
from dsv4agent.engine.model.rope import frequencies
from dsv4agent.engine.runner.passage import LEAST, Passage
from dsv4agent.engine.runner.side_stream import InOrder, SideStream
from dsv4agent.engine.runner.state import DeviceState, LayerState
from dsv4agent.engine.runner.weights import AttentionWeights, ModelWeights, MoeWeights

_RATIOS = (4, 128)


@dataclass(frozen=True)
class StepInput:
    """The tokens of a step.

    Attributes:
        ids: int32 or int64 [t].
        places: Whose they are.
        end: At least the position after the last token of any sequence; fixed in a captured graph.
        wanted: int64 [n], tokens whose logits are wanted; None for all.
        passage: Whether experts on the host are brought to the card for the step; not in a captured one.
        beside: Whether work runs side by side where it can: worth it for few tokens.
    """

    ids: Tensor
    places: Places
    end: int
    wanted: Tensor | None = None
    passage: bool = False
    beside: bool = False


class Forward:
    """Weights, state and the constants of a model."""

    def __init__(self, config: ModelConfig, weights: ModelWeights, state: DeviceState) -> None:
        self.config = config
        self.weights = weights
        self.state = state
        plain = frequencies(config.rope_dim, config.rope_theta, None)
        compressed = frequencies(config.rope_dim, config.compress_rope_theta, config.yarn)
        table = torch.stack((plain, *[compressed] * (1 + len(_RATIOS))))
        self._frequencies = table.to(state.device)[:, None]
        self._passage = Passage([layer.moe.experts for layer in weights.layers], state.device)
        self._beside, self._in_order = SideStream(state.device), InOrder()

    def __call__(self, step: StepInput) -> Tensor:
        """Return the rows that the head reads, bfloat16 [n, D], and advance the step's sequences."""
        c, eps = self.config, self.config.rms_norm_eps
        rotations = self._rotations(step.places.positions)
        streams = embed(self.weights.embedding, step.ids)
        y: Tensor | None = None
        write: Tensor | None = None
        if step.passage:
            self._passage.begin()
        for index, (layer, state) in enumerate(zip(self.weights.layers, self.state.layers, strict=True)):
            read = write_then_read(
                streams, layer.attention_mix, layer.attention_norm, eps, y=y, write=write, quantize=True
            )
            y, write = self._attention(layer.spec, layer.attention, state, read, rotations, step), read.write
            read = write_then_read(
                streams, layer.ffn_mix, layer.ffn_norm, eps, y=y, write=write, quantize=True, rounded=True
            )
            y, write = self._moe(index, layer.moe, read, step), read.write
        assert y is not None and write is not None
        if step.wanted is not None:
            streams, y, write = (x.index_select(0, step.wanted) for x in (streams, y, write))
        last = write_then_read(
            streams, self.weights.head_mix, self.weights.norm, c.rms_norm_eps, y=y, write=write
        )
        return last.x

    def brings_experts(self, tokens: int) -> bool:
        """Tell whether experts on the host are to be brought to the card for a step of so many tokens."""
        return self._passage.needed and tokens >= LEAST

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 [n, V] of rows [n, D]."""
        return linear(hidden, self.weights.head, dtype=torch.float32)

    def _rotations(self, positions: Tensor) -> Tensor:
        """Return float32 [4, t, 32, 2]: plain, compressed, and compressed at the start of both groups."""
        groups = [positions // ratio * ratio for ratio in _RATIOS]
        angles = torch.stack((positions, positions, *groups)).to(torch.float32)[..., None] * self._frequencies
        return torch.stack((angles.cos(), angles.sin()), dim=-1)

    def _attention(
        self,
        spec: LayerSpec,
        w: AttentionWeights,
        state: LayerState,
        read: StreamRead,
        rotations: Tensor,
        step: StepInput,
    ) -> Tensor:
        c, eps, places = self.config, self.config.rms_norm_eps, step.places
        assert read.quantized is not None
        turn = rotations[1 if spec.compress_rope else 0]
        group_turn = rotations[2 + _RATIOS.index(spec.ratio)] if spec.ratio else turn
        side = self._beside if step.beside else self._in_order
        plain = None
        if w.plain is not None:
            plain = side.run(lambda weights=w.plain: linear(read.x, weights, dtype=torch.float32))
        narrow = linear(read.quantized, w.narrow)
        compressions: list[Compression] = []
        start = 0
        for part, raw, pages in zip(w.compressors, state.raw, state.pages, strict=True):
            assert plain is not None
            width = raw.rows.shape[2]
            rows = plain[:, start : start + width]
            compressions.append(Compression(rows, part.ape, part.norm, raw, pages))
            start += width
        kv = narrow[:, c.q_lora_rank :]
        side.run(lambda: take_in(kv, w.kv_norm, turn, state.ring, compressions, group_turn, places, eps=eps))
        _, low = rms_norm_quantize(narrow[:, : c.q_lora_rank], w.q_norm, eps)
        wide = linear(low, w.query)
        side.join()
        q = side.run(lambda: finish_queries(wide, c.num_attention_heads, turn, eps=eps))
        entries: Entries | None = None
        visible = step.end // spec.ratio if spec.ratio else 0
        if spec.overlap and visible:
            assert plain is not None
            heads = c.num_attention_heads * HEAD_DIM
            raw_q = wide[:, heads : heads + c.index_n_heads * INDEX_DIM]
            queries = finish_index_queries(raw_q, plain[:, start : start + c.index_n_heads], turn)
            ids, counts = select_entries(queries, state.pages[1], places, c.index_topk, visible)
            most = min(c.index_topk, visible)
            entries = Entries(state.pages[0], spec.ratio, most, ids, counts)
        elif visible:
            entries = Entries(state.pages[0], spec.ratio, visible)
        side.join()
        heads_out = attend(q, w.sink, turn, places, state.ring, entries)
        grouped = linear(heads_out.flatten(1), w.group_out)
        return linear(quantize_rows(grouped), w.out)

    def _moe(self, index: int, w: MoeWeights, read: StreamRead, step: StepInput) -> Tensor:
        c, scale = self.config, self.config.routed_scaling_factor
        x = read.quantized
        assert x is not None and read.rounded is not None
        side = self._beside if step.beside else self._in_order
        shared = side.run(
            lambda: linear(swiglu_quantize(linear(x, w.shared_in), None, c.swiglu_limit), w.shared_out)
        )
        uses: router.Uses | None = None
        if w.experts.uses is not None:
            uses = router.Uses(w.experts.uses, step.places.sequences, self.state.padding)
        if w.table is not None:
            ids, weights = router.route_by_table(read.x, w.gate, w.table, step.ids, scale=scale, uses=uses)
        else:
            assert w.bias is not None
            ids, weights = router.route(
                read.x, w.gate, w.bias, chosen=c.num_experts_per_tok, scale=scale, uses=uses
            )
        addresses = self._passage.enter(index) if step.passage else None
        out = routed_experts(
            read.rounded,
            ids,
            weights,
            w.experts,
            shared,
            limit=c.swiglu_limit,
            addresses=addresses,
            before_sum=side.join,
        )
        if step.passage:
            self._passage.leave(index)
        return out


def padded_end(end: int, context: int, *, least: int = 1024) -> int:
    """Return `end` rounded up to a power of two, at least `least`: one captured graph serves up to there."""
    size = least
    while size < end:
        size *= 2
    return max(end, min(size, ceil_div(context, 128) * 128))
