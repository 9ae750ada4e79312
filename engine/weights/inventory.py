"""Which tensors an architecture has.

Official name, shape [out, in], and the format the official files use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dsv4agent.engine.config import DrafterKind, LayerSpec, ModelConfig


class Role(StrEnum):
    """How a tensor is stored officially, and which formats may stand in its place."""

    EXPERT = "expert"
    """FP4 with a scale per 32 columns; Base checkpoints: FP8."""
    LINEAR = "linear"
    """FP8 with a scale per 128 x 128."""
    BF16 = "bf16"
    F32 = "f32"
    INDEX = "index"
    """int64."""


@dataclass(frozen=True)
class TensorSpec:
    """One logical tensor; quantised ones have a companion `<name without .weight>.scale`."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def scale_name(self) -> str:
        """Name of the companion scale."""
        return self.name.removesuffix(".weight") + ".scale"


IGNORED = frozenset({"mtp.0.emb.tok_emb.weight", "mtp.0.head.weight"})
"""Copies of the shared embedding and head that some derived checkpoints carry."""


def tensors(config: ModelConfig) -> list[TensorSpec]:
    """List every tensor of the checkpoint that `config` describes."""
    return list(_all(config))


def _all(c: ModelConfig) -> Iterator[TensorSpec]:
    yield TensorSpec("embed.weight", (c.vocab_size, c.hidden_size), Role.BF16)
    yield TensorSpec("head.weight", (c.vocab_size, c.hidden_size), Role.BF16)
    yield TensorSpec("norm.weight", (c.hidden_size,), Role.BF16)
    yield from _collapse(c, "")
    for layer in c.layers:
        yield from _layer(c, layer)
    for layer in c.draft_layers:
        yield from _layer(c, layer)
    if c.drafter is DrafterKind.MTP:
        yield from _mtp(c)
    if c.drafter is DrafterKind.DSPARK:
        yield from _dspark(c)


def _collapse(c: ModelConfig, prefix: str) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{prefix}hc_head_fn", (c.hc_mult, c.hc_mult * c.hidden_size), Role.F32)
    yield TensorSpec(f"{prefix}hc_head_base", (c.hc_mult,), Role.F32)
    yield TensorSpec(f"{prefix}hc_head_scale", (1,), Role.F32)


def _layer(c: ModelConfig, layer: LayerSpec) -> Iterator[TensorSpec]:
    p, d = layer.prefix, c.hidden_size
    for part in ("attn", "ffn"):
        yield TensorSpec(f"{p}.{part}_norm.weight", (d,), Role.BF16)
        yield TensorSpec(f"{p}.hc_{part}_fn", (c.mix_width, c.hc_mult * d), Role.F32)
        yield TensorSpec(f"{p}.hc_{part}_base", (c.mix_width,), Role.F32)
        yield TensorSpec(f"{p}.hc_{part}_scale", (3,), Role.F32)
    yield from _attention(c, layer)
    yield from _moe(c, layer)


def _attention(c: ModelConfig, layer: LayerSpec) -> Iterator[TensorSpec]:
    p, d = f"{layer.prefix}.attn", c.hidden_size
    width = c.num_attention_heads * c.head_dim
    yield TensorSpec(f"{p}.wq_a.weight", (c.q_lora_rank, d), Role.LINEAR)
    yield TensorSpec(f"{p}.q_norm.weight", (c.q_lora_rank,), Role.BF16)
    yield TensorSpec(f"{p}.wq_b.weight", (width, c.q_lora_rank), Role.LINEAR)
    yield TensorSpec(f"{p}.wkv.weight", (c.head_dim, d), Role.LINEAR)
    yield TensorSpec(f"{p}.kv_norm.weight", (c.head_dim,), Role.BF16)
    yield TensorSpec(f"{p}.attn_sink", (c.num_attention_heads,), Role.F32)
    yield TensorSpec(f"{p}.wo_a.weight", (c.o_groups * c.o_lora_rank, width // c.o_groups), Role.LINEAR)
    yield TensorSpec(f"{p}.wo_b.weight", (d, c.o_groups * c.o_lora_rank), Role.LINEAR)
    if layer.ratio:
        yield from _compressor(c, layer, f"{p}.compressor", c.head_dim)
    if layer.overlap:
        yield TensorSpec(
            f"{p}.indexer.wq_b.weight", (c.index_n_heads * c.index_head_dim, c.q_lora_rank), Role.LINEAR
        )
        yield TensorSpec(f"{p}.indexer.weights_proj.weight", (c.index_n_heads, d), Role.BF16)
        yield from _compressor(c, layer, f"{p}.indexer.compressor", c.index_head_dim)


def _compressor(c: ModelConfig, layer: LayerSpec, prefix: str, dim: int) -> Iterator[TensorSpec]:
    width = dim * (2 if layer.overlap else 1)
    yield TensorSpec(f"{prefix}.ape", (layer.ratio, width), Role.F32)
    yield TensorSpec(f"{prefix}.wkv.weight", (width, c.hidden_size), Role.BF16)
    yield TensorSpec(f"{prefix}.wgate.weight", (width, c.hidden_size), Role.BF16)
    yield TensorSpec(f"{prefix}.norm.weight", (dim,), Role.BF16)


def _moe(c: ModelConfig, layer: LayerSpec) -> Iterator[TensorSpec]:
    p, d, width = f"{layer.prefix}.ffn", c.hidden_size, c.moe_intermediate_size
    yield TensorSpec(f"{p}.gate.weight", (c.n_routed_experts, d), Role.BF16)
    if layer.hash_routed:
        yield TensorSpec(f"{p}.gate.tid2eid", (c.vocab_size, c.num_experts_per_tok), Role.INDEX)
    else:
        yield TensorSpec(f"{p}.gate.bias", (c.n_routed_experts,), Role.F32)
    owners = [(f"{p}.experts.{e}", Role.EXPERT) for e in range(c.n_routed_experts)]
    for owner, role in [*owners, (f"{p}.shared_experts", Role.LINEAR)]:
        yield TensorSpec(f"{owner}.w1.weight", (width, d), role)
        yield TensorSpec(f"{owner}.w2.weight", (d, width), role)
        yield TensorSpec(f"{owner}.w3.weight", (width, d), role)


def _mtp(c: ModelConfig) -> Iterator[TensorSpec]:
    d = c.hidden_size
    for name in ("e_proj", "h_proj"):
        yield TensorSpec(f"mtp.0.{name}.weight", (d, d), Role.LINEAR)
    for name in ("enorm", "hnorm", "norm"):
        yield TensorSpec(f"mtp.0.{name}.weight", (d,), Role.BF16)
    yield from _collapse(c, "mtp.0.")


def _dspark(c: ModelConfig) -> Iterator[TensorSpec]:
    assert c.dspark is not None
    d, rank, last = c.hidden_size, c.dspark.markov_rank, c.draft_layers[-1].prefix
    yield TensorSpec("mtp.0.main_proj.weight", (d, len(c.dspark.target_layers) * d), Role.LINEAR)
    yield TensorSpec("mtp.0.main_norm.weight", (d,), Role.BF16)
    yield TensorSpec(f"{last}.norm.weight", (d,), Role.BF16)
    yield from _collapse(c, f"{last}.")
    yield TensorSpec(f"{last}.markov_head.markov_w1.weight", (c.vocab_size, rank), Role.BF16)
    yield TensorSpec(f"{last}.markov_head.markov_w2.weight", (c.vocab_size, rank), Role.BF16)
    yield TensorSpec(f"{last}.confidence_head.proj.weight", (1, d + rank), Role.BF16)
