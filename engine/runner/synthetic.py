"""Random weights of any real shape in the kernels' layouts, made on the device in seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsv4agent.engine.config import LayerSpec, ModelConfig
from dsv4agent.engine.kernels.embedding import EmbeddingTable
from dsv4agent.engine.kernels.experts import ExpertShape, ExpertTable
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM
from dsv4agent.engine.kernels.mixes import PackedMix, pack_mix
from dsv4agent.engine.kernels.random_data import (
    fill_index_rows,
    fill_rows,
    normal,
    random_experts,
    random_linear,
)
from dsv4agent.engine.ops.hyper_connections import MIXES, STREAMS, Mix
from dsv4agent.engine.runner.state import DeviceState
from dsv4agent.engine.runner.weights import (
    AttentionWeights,
    CompressorWeights,
    LayerWeights,
    ModelWeights,
    MoeWeights,
    Placement,
)

_NEVER = 1e9
"""Far above any score: an expert whose bias is less by so much is never chosen."""


def random_weights(
    config: ModelConfig,
    generator: torch.Generator,
    *,
    on_host: Placement = lambda _layer, _expert: False,
    embedding_on_host: bool = False,
    routed: Sequence[int] | None = None,
    packed_scales: bool = False,
) -> ModelWeights:
    """Draw all weights of the main model on the generator's device.

    Args:
        config: Of the model.
        generator: Source, on the device that computes.
        on_host: Which experts are put into pinned host memory.
        embedding_on_host: Whether the embedding is.
        routed: For each layer, how many of its experts, the first ones, can be chosen; None for all.
        packed_scales: Whether experts' scales take four bits.
    """
    shape = ExpertShape(config.hidden_size, config.moe_intermediate_size, packed_scales)
    return _Draw(config, generator, routed, shape).model(on_host, embedding_on_host)


def fill_state(state: DeviceState, generator: torch.Generator) -> None:
    """Write random rows everywhere, as if long texts had been processed."""
    for layer in state.layers:
        fill_rows(layer.ring, generator)
        for raw in layer.raw:
            raw.rows.normal_(generator=generator)
        if layer.pages:
            fill_rows(layer.pages[0], generator)
        if len(layer.pages) > 1:
            fill_index_rows(layer.pages[1], generator)


class _Draw:
    def __init__(
        self,
        config: ModelConfig,
        generator: torch.Generator,
        routed: Sequence[int] | None,
        shape: ExpertShape,
    ) -> None:
        self._config = config
        self._shape = shape
        self._generator = generator
        self._device = torch.device(generator.device)
        self._routed = routed

    def model(self, on_host: Placement, embedding_on_host: bool) -> ModelWeights:
        c = self._config
        # First what needs the most room while it is drawn.
        embedding = self._embedding(embedding_on_host)
        head = random_linear(self._generator, c.vocab_size, c.hidden_size, "bf16")
        return ModelWeights(
            embedding=embedding,
            layers=tuple(self._layer(index, spec, on_host) for index, spec in enumerate(c.layers)),
            head_mix=self._mix(STREAMS, 1),
            norm=self._ones(c.hidden_size),
            head=head,
        )

    def _embedding(self, on_host: bool) -> EmbeddingTable:
        rows = normal(self._generator, self._config.vocab_size, self._config.hidden_size)
        return EmbeddingTable(self._pinned(rows) if on_host else rows, self._device)

    def _layer(self, index: int, spec: LayerSpec, on_host: Placement) -> LayerWeights:
        c = self._config
        return LayerWeights(
            spec=spec,
            attention_mix=self._mix(MIXES, c.hc_sinkhorn_iters),
            attention_norm=self._ones(c.hidden_size),
            attention=self._attention(spec),
            ffn_mix=self._mix(MIXES, c.hc_sinkhorn_iters),
            ffn_norm=self._ones(c.hidden_size),
            moe=self._moe(index, spec, on_host),
        )

    def _attention(self, spec: LayerSpec) -> AttentionWeights:
        c, g, d = self._config, self._generator, self._config.hidden_size
        heads = c.num_attention_heads * HEAD_DIM
        query, plain = heads, 0
        compressors: list[CompressorWeights] = []
        for dim in (HEAD_DIM, INDEX_DIM)[: 2 if spec.overlap else 1] if spec.ratio else ():
            width = dim * (2 if spec.overlap else 1)
            plain += 2 * width
            ape = 0.5 * torch.randn(spec.ratio, width, generator=g, device=self._device)
            compressors.append(CompressorWeights(ape, self._ones(dim)))
        if spec.overlap:
            query += c.index_n_heads * INDEX_DIM
            plain += c.index_n_heads
        out = c.o_groups * c.o_lora_rank
        return AttentionWeights(
            narrow=random_linear(g, c.q_lora_rank + HEAD_DIM, d, "fp8"),
            query=random_linear(g, query, c.q_lora_rank, "fp8"),
            plain=random_linear(g, plain, d, "bf16") if plain else None,
            group_out=random_linear(g, out, heads // c.o_groups, "grouped", c.o_groups),
            out=random_linear(g, d, out, "fp8"),
            q_norm=self._ones(c.q_lora_rank),
            kv_norm=self._ones(HEAD_DIM),
            sink=torch.zeros(c.num_attention_heads, device=self._device),
            compressors=tuple(compressors),
        )

    def _moe(self, index: int, spec: LayerSpec, on_host: Placement) -> MoeWeights:
        c, g, d, width = (
            self._config,
            self._generator,
            self._config.hidden_size,
            self._config.moe_intermediate_size,
        )
        shape = self._shape
        away = [on_host(index, number) for number in range(c.n_routed_experts)]
        # Drawn apart, so that what goes away leaves its room on the device.
        resident = iter(random_experts(g, away.count(False), shape))
        spilled = iter(self._pinned(torch.stack(random_experts(g, sum(away), shape))) if any(away) else ())
        experts = [next(spilled if gone else resident) for gone in away]
        never = slice(c.n_routed_experts if self._routed is None else self._routed[index], None)
        table = bias = None
        if spec.hash_routed:
            scores = torch.rand(c.vocab_size, c.n_routed_experts, generator=g, device=self._device)
            scores[:, never] = -1
            chosen = scores.topk(c.num_experts_per_tok).indices
            table = chosen.sort(dim=-1).values.to(torch.int32)
        else:
            bias = 0.1 * torch.randn(c.n_routed_experts, generator=g, device=self._device)
            bias[never] = -_NEVER
        return MoeWeights(
            gate=random_linear(g, c.n_routed_experts, d, "bf16"),
            bias=bias,
            table=table,
            shared_in=random_linear(g, 2 * width, d, "fp8"),
            shared_out=random_linear(g, d, width, "fp8"),
            experts=ExpertTable(shape, experts, self._device, away=away),
        )

    def _pinned(self, x: Tensor) -> Tensor:
        away = x.cpu()
        return away.pin_memory() if self._device.type == "cuda" else away

    def _mix(self, columns: int, iterations: int) -> PackedMix:
        c, width = self._config, STREAMS * self._config.hidden_size
        fn = torch.randn(columns, width, generator=self._generator, device=self._device) / width**0.5
        half = torch.full((3,), 0.5)
        base = 0.5 * torch.randn(columns, generator=self._generator, device=self._device)
        mix = Mix.build(fn, half, base, iterations=iterations, eps=c.hc_eps, norm_eps=c.rms_norm_eps)
        return pack_mix(mix)

    def _ones(self, count: int) -> Tensor:
        return torch.ones(count, device=self._device)
