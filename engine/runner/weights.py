"""The weights of a model in the layouts of the kernels, packed once from the stored formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.config import LayerSpec, ModelConfig
from dsv4agent.engine.errors import UnsupportedScale
from dsv4agent.engine.kernels import experts as expert_layout
from dsv4agent.engine.kernels import linear as linear_layout
from dsv4agent.engine.kernels.embedding import EmbeddingTable
from dsv4agent.engine.kernels.experts import (
    ExpertShape,
    ExpertTable,
    Fp4Weight,
    pack_expert,
    scales_fit,
)
from dsv4agent.engine.kernels.linear import PackedLinear, pack_linear
from dsv4agent.engine.kernels.mixes import PackedMix, pack_mix
from dsv4agent.engine.ops.hyper_connections import Mix
from dsv4agent.engine.weights.loader import Checkpoint
from dsv4agent.engine.weights.sizes import scales_may_be_packed

Placement = Callable[[int, int], bool]
"""Says of a layer and an expert whether the expert stays in pinned host memory."""


@dataclass(frozen=True)
class CompressorWeights:
    """What pools raw rows.

    Attributes:
        ape: float32 [ratio, width / 2].
        norm: float32 [512], or [128] for index rows.
    """

    ape: Tensor
    norm: Tensor


@dataclass(frozen=True)
class AttentionWeights:
    """One attention layer; products with the same input are joined.

    Attributes:
        narrow: wq_a and wkv, [q_lora_rank + 512, D].
        query: wq_b and, with an indexer, its wq_b, [heads * 512 + index heads * 128, q_lora_rank].
        plain: bfloat16: wkv and wgate of the compressors and weights_proj, with a compressor.
        group_out: wo_a, in groups.
        out: wo_b.
        q_norm: float32 [q_lora_rank].
        kv_norm: float32 [512].
        sink: float32 [heads].
        compressors: None, or that of attention rows and, after it, of index rows.
    """

    narrow: PackedLinear
    query: PackedLinear
    plain: PackedLinear | None
    group_out: PackedLinear
    out: PackedLinear
    q_norm: Tensor
    kv_norm: Tensor
    sink: Tensor
    compressors: tuple[CompressorWeights, ...]


@dataclass(frozen=True)
class MoeWeights:
    """Router, shared expert and routed experts.

    Attributes:
        gate: bfloat16 [E, D].
        bias: float32 [E]; None where a table routes.
        table: int32 [V, experts per token], rows ascending; None where scores route.
        shared_in: w1 and w3 of the shared expert.
        shared_out: Its w2.
        experts: Where the routed ones are.
    """

    gate: PackedLinear
    bias: Tensor | None
    table: Tensor | None
    shared_in: PackedLinear
    shared_out: PackedLinear
    experts: ExpertTable


@dataclass(frozen=True)
class LayerWeights:
    """One row of the layer table; norms are float32 [D]."""

    spec: LayerSpec
    attention_mix: PackedMix
    attention_norm: Tensor
    attention: AttentionWeights
    ffn_mix: PackedMix
    ffn_norm: Tensor
    moe: MoeWeights


@dataclass(frozen=True)
class ModelWeights:
    """Everything the main model reads; `norm` is float32 [D], `head` bfloat16 [V, D]."""

    embedding: EmbeddingTable
    layers: tuple[LayerWeights, ...]
    head_mix: PackedMix
    norm: Tensor
    head: PackedLinear


def pack_weights(
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    on_host: Placement = lambda _layer, _expert: False,
    embedding_on_host: bool = False,
    packed_scales: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ModelWeights:
    """Bring a checkpoint's main model into the kernels' layouts, tensor by tensor.

    Args:
        checkpoint: Opened, so its tensors have the right shapes.
        device: That computes.
        on_host: Which experts stay in pinned host memory.
        embedding_on_host: Whether the embedding does.
        packed_scales: Whether experts' scales take four bits, which `scales_can_be_packed` must allow.
        progress: Told of each part when it is done.

    Raises:
        WrongDtype: A tensor is not stored as the kernels read it: FP4 experts, FP8 projections.
    """
    packer = _Packer(checkpoint, device, packed_scales)
    rows = checkpoint.stored("embed.weight").to(torch.bfloat16)
    embedding = EmbeddingTable(packer.place(rows, on_host=embedding_on_host), device)
    if progress:
        progress("embedding")
    layers: list[LayerWeights] = []
    for index, spec in enumerate(checkpoint.config.layers):
        layers.append(packer.layer(index, spec, on_host))
        if progress:
            progress(spec.prefix)
    return ModelWeights(
        embedding=embedding,
        layers=tuple(layers),
        head_mix=packer.mix("hc_head", 1),
        norm=packer.plain("norm.weight"),
        head=packer.bf16("head.weight"),
    )


def scales_can_be_packed(checkpoint: Checkpoint) -> bool:
    """Return whether four bits say what the scales of all routed experts say; reads those, a sixteenth."""
    c = checkpoint.config
    return scales_may_be_packed(c) and all(
        scales_fit(*(checkpoint.stored_codes(name) for name in _expert_names(spec, expert)))
        for spec in c.layers
        for expert in range(c.n_routed_experts)
    )


def _expert_names(spec: LayerSpec, expert: int) -> tuple[str, ...]:
    return tuple(f"{spec.prefix}.ffn.experts.{expert}.{name}.weight" for name in ("w1", "w2", "w3"))


class _Packer:
    def __init__(self, checkpoint: Checkpoint, device: torch.device, packed_scales: bool) -> None:
        self._checkpoint = checkpoint
        self._packed_scales = packed_scales
        self._config: ModelConfig = checkpoint.config
        self._device = device

    def layer(self, index: int, spec: LayerSpec, on_host: Placement) -> LayerWeights:
        p = spec.prefix
        iterations = self._config.hc_sinkhorn_iters
        return LayerWeights(
            spec=spec,
            attention_mix=self.mix(f"{p}.hc_attn", iterations),
            attention_norm=self.plain(f"{p}.attn_norm.weight"),
            attention=self._attention(spec),
            ffn_mix=self.mix(f"{p}.hc_ffn", iterations),
            ffn_norm=self.plain(f"{p}.ffn_norm.weight"),
            moe=self._moe(index, spec, on_host),
        )

    def _attention(self, spec: LayerSpec) -> AttentionWeights:
        p = f"{spec.prefix}.attn"
        query, plain = [f"{p}.wq_b.weight"], list[str]()
        compressors: list[CompressorWeights] = []
        for inner in self._compressors(spec):
            plain += [f"{inner}.wkv.weight", f"{inner}.wgate.weight"]
            compressors.append(
                CompressorWeights(self.plain(f"{inner}.ape"), self.plain(f"{inner}.norm.weight"))
            )
        if spec.overlap:
            query.append(f"{p}.indexer.wq_b.weight")
            plain.append(f"{p}.indexer.weights_proj.weight")
        return AttentionWeights(
            narrow=self.fp8(f"{p}.wq_a.weight", f"{p}.wkv.weight"),
            query=self.fp8(*query),
            plain=self.bf16(*plain) if plain else None,
            group_out=self._grouped(f"{p}.wo_a.weight"),
            out=self.fp8(f"{p}.wo_b.weight"),
            q_norm=self.plain(f"{p}.q_norm.weight"),
            kv_norm=self.plain(f"{p}.kv_norm.weight"),
            sink=self.plain(f"{p}.attn_sink"),
            compressors=tuple(compressors),
        )

    def _compressors(self, spec: LayerSpec) -> Iterator[str]:
        if spec.ratio:
            yield f"{spec.prefix}.attn.compressor"
        if spec.overlap:
            yield f"{spec.prefix}.attn.indexer.compressor"

    def _moe(self, index: int, spec: LayerSpec, on_host: Placement) -> MoeWeights:
        c, p = self._config, f"{spec.prefix}.ffn"
        shape = ExpertShape(c.hidden_size, c.moe_intermediate_size, self._packed_scales)
        away = [on_host(index, e) for e in range(c.n_routed_experts)]
        experts = [
            self.place(
                pack_expert(*map(self._fp4, _expert_names(spec, e)), packed_scales=shape.packed_scales),
                on_host=gone,
            )
            for e, gone in enumerate(away)
        ]
        table = bias = None
        if spec.hash_routed:
            stored = self._checkpoint.stored(f"{p}.gate.tid2eid").to(self._device)
            table = stored.sort(dim=-1).values.to(torch.int32)
        else:
            bias = self.plain(f"{p}.gate.bias")
        return MoeWeights(
            gate=self.bf16(f"{p}.gate.weight"),
            bias=bias,
            table=table,
            shared_in=self.fp8(f"{p}.shared_experts.w1.weight", f"{p}.shared_experts.w3.weight"),
            shared_out=self.fp8(f"{p}.shared_experts.w2.weight"),
            experts=ExpertTable(shape, experts, self._device, away=away),
        )

    def place(self, x: Tensor, *, on_host: bool) -> Tensor:
        """Bring a tensor to its place; its allocation is its own."""
        device = torch.device("cpu") if on_host else self._device
        pinned = on_host and self._device.type == "cuda"
        return torch.empty(x.shape, dtype=x.dtype, device=device, pin_memory=pinned).copy_(x)

    def plain(self, name: str) -> Tensor:
        """Return a small tensor, float32."""
        return self._checkpoint.stored(name).to(self._device, torch.float32)

    def mix(self, name: str, iterations: int) -> PackedMix:
        """Return the mixes of a hyper-connection."""
        c = self._config
        mix = Mix.build(
            self.plain(f"{name}_fn"),
            self.plain(f"{name}_scale").expand(3),
            self.plain(f"{name}_base"),
            iterations=iterations,
            eps=c.hc_eps,
            norm_eps=c.rms_norm_eps,
        )
        return pack_mix(mix)

    def bf16(self, *names: str) -> PackedLinear:
        """Return matrices with the same input as one."""
        parts = [self._checkpoint.stored(name).to(self._device, torch.bfloat16) for name in names]
        return pack_linear(torch.cat(parts))

    def fp8(self, *names: str) -> PackedLinear:
        """Return quantised matrices with the same input as one; all but the last fill blocks of rows."""
        parts = [self._checkpoint.stored_codes(name) for name in names]
        codes = torch.cat([code.to(self._device) for code, _ in parts])
        scales = torch.cat([scale.to(self._device) for _, scale in parts])
        return pack_linear(codes, scales)

    def _grouped(self, name: str) -> PackedLinear:
        codes, scales = self._checkpoint.stored_codes(name)
        _require_scales(name, scales, linear_layout.LEAST_SCALE, linear_layout.MOST_SCALE)
        codes, scales = codes.to(self._device), scales.to(self._device)
        return pack_linear(codes, scales, groups=self._config.o_groups, paired=True)

    def _fp4(self, name: str) -> Fp4Weight:
        codes, scales = self._checkpoint.stored_codes(name)
        # Those of zeros may be any.
        zero = (codes.view(torch.uint8).view(*scales.shape, -1) & 0x77).amax(dim=-1) == 0
        scales = torch.where(zero, 127, scales.view(torch.uint8))
        _require_scales(name, scales, expert_layout.LEAST_SCALE, expert_layout.MOST_SCALE)
        return codes.to(self._device), scales.to(self._device)


def _require_scales(name: str, scales: Tensor, least: int, most: int) -> None:
    """Raise `UnsupportedScale` unless all E8M0 codes lie between these."""
    for code in map(int, scales.view(torch.uint8).aminmax()):
        if not least <= code <= most:
            raise UnsupportedScale(
                f"{name} has a block with the scale 2**{code - 127}; the kernels take 2**{least - 127} to "
                f"2**{most - 127}. The reference path (device cpu) takes all."
            )
