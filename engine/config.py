"""ModelConfig from the official config.json.

What differs between members of the family is a table of layers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from dsv4agent.engine.errors import ContradictoryConfig, MissingConfigKey, UnsupportedArchitecture

BLOCK = 128
"""Tokens of an aligned block. Chunks never cross its border, and every compression ratio divides it."""


class LayerKind(StrEnum):
    """What a layer attends to besides its sliding window."""

    SLIDING = "sliding"
    SPARSE = "compressed_sparse"
    HEAVY = "heavily_compressed"


class DrafterKind(StrEnum):
    """Which module drafts tokens ahead of the main model."""

    NONE = "none"
    MTP = "mtp"
    DSPARK = "dspark"


@dataclass(frozen=True)
class LayerSpec:
    """One row of the layer table.

    Attributes:
        prefix: Name of the layer in the checkpoint, without the final dot (`layers.7`, `mtp.0`).
        kind: What the layer attends to besides its window.
        ratio: Tokens per compressed entry; 0 without a compressor.
        compress_rope: Whether the whole layer uses the YaRN table of compressed layers.
        hash_routed: Whether experts are chosen by token id.
    """

    prefix: str
    kind: LayerKind
    ratio: int
    compress_rope: bool
    hash_routed: bool

    @property
    def overlap(self) -> bool:
        """Whether an entry also pools the group before its own (two series of channels)."""
        return self.kind is LayerKind.SPARSE


@dataclass(frozen=True)
class Yarn:
    """Context extension of the compressed layers' rotary table."""

    factor: float
    original_positions: int
    beta_fast: float
    beta_slow: float


@dataclass(frozen=True)
class DSparkConfig:
    """Shape of the block drafter."""

    block_size: int
    noise_token_id: int
    target_layers: tuple[int, ...]
    markov_rank: int


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and rules of one checkpoint, under the names of config.json where it has one."""

    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    num_attention_heads: int
    head_dim: int
    rope_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    sliding_window: int
    rope_theta: float
    compress_rope_theta: float
    yarn: Yarn
    max_position_embeddings: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    routed_scaling_factor: float
    swiglu_limit: float
    hc_mult: int
    hc_sinkhorn_iters: int
    hc_eps: float
    rms_norm_eps: float
    drafter: DrafterKind
    draft_layers: tuple[LayerSpec, ...]
    dspark: DSparkConfig | None
    bos_token_id: int
    eos_token_id: int
    quantized: bool

    @property
    def mix_width(self) -> int:
        """Width of the hyper-connection mixes: pre, post and the n x n matrix."""
        return (2 + self.hc_mult) * self.hc_mult

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Read an official config.json; `path` is the file or its folder."""
        file = path / "config.json" if path.is_dir() else path
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MissingConfigKey(
                f"{file} does not exist; give the folder of an official checkpoint."
            ) from error
        except ValueError as error:
            raise ContradictoryConfig(f"{file} is not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise ContradictoryConfig(f"{file} must hold one JSON object.")
        return cls.from_dict(cast("dict[str, Any]", data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Build from the parsed config.json.

        Raises:
            UnsupportedArchitecture: `model_type` is another.
            MissingConfigKey: A key is absent.
            ContradictoryConfig: Keys exclude each other.
        """
        if data.get("model_type") != "deepseek_v4":
            raise UnsupportedArchitecture(
                f"model_type is {data.get('model_type')!r}; this engine computes 'deepseek_v4' only."
            )
        read = _Reader(data)
        read.require("scoring_func", "sqrtsoftplus")
        read.require("topk_method", "noaux_tc")
        read.require("hidden_act", "silu")
        read.require("num_key_value_heads", 1)
        read.require("norm_topk_prob", True)
        count = read.integer("num_hidden_layers")
        hash_layers = read.integer("num_hash_layers")
        ratios = read.integers("compress_ratios")
        dspark = _dspark(read, data)
        nextn = int(data.get("num_nextn_predict_layers", 0))
        drafter = DrafterKind.DSPARK if dspark else DrafterKind.MTP if nextn else DrafterKind.NONE
        if len(ratios) < count:
            raise ContradictoryConfig(
                f"compress_ratios has {len(ratios)} entries for num_hidden_layers = {count}."
            )
        tail = ratios[count:]
        if any(tail):
            raise ContradictoryConfig(f"compress_ratios of draft layers must be 0, found {list(tail)}.")
        draft_count = {DrafterKind.NONE: 0, DrafterKind.MTP: 1, DrafterKind.DSPARK: max(len(tail), 1)}[
            drafter
        ]
        scaling = read.mapping("rope_scaling")
        config = cls(
            vocab_size=read.integer("vocab_size"),
            hidden_size=read.integer("hidden_size"),
            layers=tuple(
                _layer(f"layers.{index}", ratio, index < hash_layers)
                for index, ratio in enumerate(ratios[:count])
            ),
            num_attention_heads=read.integer("num_attention_heads"),
            head_dim=read.integer("head_dim"),
            rope_dim=read.integer("qk_rope_head_dim"),
            q_lora_rank=read.integer("q_lora_rank"),
            o_groups=read.integer("o_groups"),
            o_lora_rank=read.integer("o_lora_rank"),
            sliding_window=read.integer("sliding_window"),
            rope_theta=read.number("rope_theta"),
            compress_rope_theta=read.number("compress_rope_theta"),
            yarn=Yarn(
                factor=scaling.number("factor"),
                original_positions=scaling.integer("original_max_position_embeddings"),
                beta_fast=scaling.number("beta_fast"),
                beta_slow=scaling.number("beta_slow"),
            ),
            max_position_embeddings=read.integer("max_position_embeddings"),
            index_n_heads=read.integer("index_n_heads"),
            index_head_dim=read.integer("index_head_dim"),
            index_topk=read.integer("index_topk"),
            n_routed_experts=read.integer("n_routed_experts"),
            n_shared_experts=read.integer("n_shared_experts"),
            num_experts_per_tok=read.integer("num_experts_per_tok"),
            moe_intermediate_size=read.integer("moe_intermediate_size"),
            routed_scaling_factor=read.number("routed_scaling_factor"),
            swiglu_limit=read.number("swiglu_limit"),
            hc_mult=read.integer("hc_mult"),
            hc_sinkhorn_iters=read.integer("hc_sinkhorn_iters"),
            hc_eps=read.number("hc_eps"),
            rms_norm_eps=read.number("rms_norm_eps"),
            drafter=drafter,
            draft_layers=tuple(_layer(f"mtp.{index}", 0, False) for index in range(draft_count)),
            dspark=dspark,
            bos_token_id=int(data.get("bos_token_id", 0)),
            eos_token_id=int(data.get("eos_token_id", 1)),
            quantized="quantization_config" in data,
        )
        config._check()
        return config

    def _check(self) -> None:
        """Refuse what the forward pass cannot mean."""
        rules = (
            (self.head_dim % 2 == 0 and self.rope_dim % 2 == 0, "head_dim and qk_rope_head_dim must be even"),
            (0 < self.rope_dim <= self.head_dim, "qk_rope_head_dim must lie in 1..head_dim"),
            (self.num_attention_heads % self.o_groups == 0, "o_groups must divide num_attention_heads"),
            (self.sliding_window >= 1, "sliding_window must be at least 1"),
            (
                1 <= self.num_experts_per_tok <= self.n_routed_experts,
                "num_experts_per_tok must lie in 1..n_routed_experts",
            ),
            (self.n_shared_experts == 1, "exactly one shared expert is supported"),
            (self.hc_mult == 4, "hc_mult must be 4"),
            (self.hc_sinkhorn_iters >= 1, "hc_sinkhorn_iters must be at least 1"),
        )
        sparse = any(layer.kind is LayerKind.SPARSE for layer in self.layers)
        index_rules = (
            (self.index_head_dim & (self.index_head_dim - 1) == 0, "index_head_dim must be a power of two"),
            (self.rope_dim <= self.index_head_dim, "index_head_dim must not be below qk_rope_head_dim"),
            (self.index_topk >= 1, "index_topk must be at least 1"),
        )
        for holds, rule in rules + (index_rules if sparse else ()):
            if not holds:
                raise ContradictoryConfig(f"config.json: {rule}.")
        if self.dspark and any(not 0 <= layer < len(self.layers) for layer in self.dspark.target_layers):
            raise ContradictoryConfig("config.json: dspark_target_layer_ids name layers that do not exist.")


def _layer(prefix: str, ratio: int, hash_routed: bool) -> LayerSpec:
    if ratio < 0 or (ratio and BLOCK % ratio):
        raise ContradictoryConfig(f"{prefix}: compress ratio {ratio} does not divide {BLOCK}.")
    kind = LayerKind.SLIDING if ratio == 0 else LayerKind.SPARSE if ratio == 4 else LayerKind.HEAVY
    return LayerSpec(prefix=prefix, kind=kind, ratio=ratio, compress_rope=ratio > 0, hash_routed=hash_routed)


def _dspark(read: _Reader, data: Mapping[str, Any]) -> DSparkConfig | None:
    if not any(key.startswith("dspark_") for key in data):
        return None
    return DSparkConfig(
        block_size=read.integer("dspark_block_size"),
        noise_token_id=read.integer("dspark_noise_token_id"),
        target_layers=tuple(read.integers("dspark_target_layer_ids")),
        markov_rank=read.integer("dspark_markov_rank"),
    )


class _Reader:
    """Typed access to one JSON object; errors name the key."""

    def __init__(self, data: Mapping[str, Any], where: str = "") -> None:
        self._data = data
        self._where = where

    def _get(self, key: str) -> Any:
        if key not in self._data:
            raise MissingConfigKey(f"config.json lacks {self._where}{key}.")
        return self._data[key]

    def integer(self, key: str) -> int:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ContradictoryConfig(f"config.json: {self._where}{key} must be an integer, found {value!r}.")
        return value

    def number(self, key: str) -> float:
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ContradictoryConfig(f"config.json: {self._where}{key} must be a number, found {value!r}.")
        return float(value)

    def integers(self, key: str) -> tuple[int, ...]:
        value = self._get(key)
        items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [None]
        if not all(isinstance(item, int) for item in items):
            raise ContradictoryConfig(f"config.json: {self._where}{key} must be a list of integers.")
        return tuple(cast("list[int]", items))

    def mapping(self, key: str) -> _Reader:
        value = self._get(key)
        if not isinstance(value, dict):
            raise ContradictoryConfig(f"config.json: {self._where}{key} must be an object.")
        return _Reader(cast("dict[str, Any]", value), f"{self._where}{key}.")

    def require(self, key: str, expected: object) -> None:
        value = self._data.get(key, expected)
        if value != expected:
            raise ContradictoryConfig(f"config.json: {key} is {value!r}; only {expected!r} is supported.")
