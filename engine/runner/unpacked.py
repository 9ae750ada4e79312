"""Packed weights under their official names again, dequantised: what another program can compute with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.kernels.experts import unpack_expert
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM
from dsv4agent.engine.kernels.linear import unpack_linear
from dsv4agent.engine.kernels.mixes import PIECES, PackedMix
from dsv4agent.engine.ops.hyper_connections import STREAMS
from dsv4agent.engine.runner.weights import AttentionWeights, LayerWeights, ModelWeights


def unpacked(weights: ModelWeights, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the main model: float32 (table entries int64), on the device that computes."""
    yield "embed.weight", weights.embedding.rows
    yield "head.weight", unpack_linear(weights.head)
    yield "norm.weight", weights.norm
    yield from _mix("hc_head", weights.head_mix, config)
    for layer in weights.layers:
        yield from _layer(layer, config)


def _layer(layer: LayerWeights, c: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    p, moe = layer.spec.prefix, layer.moe
    yield f"{p}.attn_norm.weight", layer.attention_norm
    yield f"{p}.ffn_norm.weight", layer.ffn_norm
    yield from _mix(f"{p}.hc_attn", layer.attention_mix, c)
    yield from _mix(f"{p}.hc_ffn", layer.ffn_mix, c)
    yield from _attention(layer, layer.attention, c)
    yield f"{p}.ffn.gate.weight", unpack_linear(moe.gate)
    if moe.table is not None:
        yield f"{p}.ffn.gate.tid2eid", moe.table.to(torch.int64)
    if moe.bias is not None:
        yield f"{p}.ffn.gate.bias", moe.bias
    gate, up = unpack_linear(moe.shared_in).chunk(2)
    shared = (gate, unpack_linear(moe.shared_out), up)
    for number, matrix in enumerate(shared, 1):
        yield f"{p}.ffn.shared_experts.w{number}.weight", matrix
    for index, expert in enumerate(moe.experts.packed):
        matrices = unpack_expert(expert.to(layer.ffn_norm.device), moe.experts.shape)
        for number, matrix in enumerate(matrices, 1):
            # Four bits and a power of two: bfloat16 holds them exactly.
            yield f"{p}.ffn.experts.{index}.w{number}.weight", matrix.to(torch.bfloat16)


def _attention(layer: LayerWeights, w: AttentionWeights, c: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    spec, p = layer.spec, f"{layer.spec.prefix}.attn"
    low, latent = unpack_linear(w.narrow).split((c.q_lora_rank, HEAD_DIM))
    yield f"{p}.wq_a.weight", low
    yield f"{p}.wkv.weight", latent
    heads = c.num_attention_heads * HEAD_DIM
    query = unpack_linear(w.query)
    yield f"{p}.wq_b.weight", query[:heads]
    yield f"{p}.q_norm.weight", w.q_norm
    yield f"{p}.kv_norm.weight", w.kv_norm
    yield f"{p}.attn_sink", w.sink
    yield f"{p}.wo_a.weight", unpack_linear(w.group_out)
    yield f"{p}.wo_b.weight", unpack_linear(w.out)
    if w.plain is None:
        return
    rows, start = unpack_linear(w.plain), 0
    for inner, dim, part in zip(
        (f"{p}.compressor", f"{p}.indexer.compressor"), (HEAD_DIM, INDEX_DIM), w.compressors, strict=False
    ):
        width = dim * (2 if spec.overlap else 1)
        yield f"{inner}.wkv.weight", rows[start : start + width]
        yield f"{inner}.wgate.weight", rows[start + width : start + 2 * width]
        yield f"{inner}.ape", part.ape
        yield f"{inner}.norm.weight", part.norm
        start += 2 * width
    if spec.overlap:
        yield f"{p}.indexer.wq_b.weight", query[heads:]
        yield f"{p}.indexer.weights_proj.weight", rows[start:]


def _mix(name: str, mix: PackedMix, c: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    columns = mix.base.shape[0]
    parts = mix.pieces.float().permute(2, 1, 0, 3).reshape(PIECES, columns, STREAMS, -1)
    yield f"{name}_fn", parts.sum(0)[..., : c.hidden_size].reshape(columns, -1)
    yield f"{name}_scale", mix.scale[: 2 * STREAMS + 1 : STREAMS]
    yield f"{name}_base", mix.base
