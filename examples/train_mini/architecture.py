"""The shape of the bundled mini model, and the same numbers as an official config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from examples.train_mini.limits import COMMAND_SECONDS, CONTEXT, MAX_STEPS, REDRAWS

STREAMS = 4
"""Residual streams of the manifold-constrained hyper-connections; the kernels are written for four."""
DOCUMENT_ALIGNMENT = 128
"""Documents start at multiples of this in a packed row, so that no group of any compressor spans two
documents.
"""


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of a DeepSeek-V4 model, by default those of the bundled mini model (names as in the V4 report).

    Attributes:
        vocab_size: Rows of the embedding and of the head.
        ratios: Compression ratio of each layer: 0 sliding window only, 4 sparse, 128 heavily compressed.
        window: Positions each token sees uncompressed, itself included.
        index_topk: Compressed entries the indexer keeps for each query.
        hash_layers: Leading layers that route by token id.
        chunk: Queries handled together by the packed attention; does not change the result.
        index_stride: One query in so many trains the indexer.
    """

    vocab_size: int = 2048
    hidden: int = 384
    ratios: tuple[int, ...] = (0, 0, 4, 128, 4, 128, 4, 128)
    heads: int = 6
    head_dim: int = 128
    rope_dim: int = 32
    q_lora: int = 192
    o_groups: int = 2
    o_lora: int = 128
    window: int = 512
    index_heads: int = 4
    index_dim: int = 32
    index_topk: int = 512
    experts: int = 6
    active_experts: int = 2
    width: int = 256
    hash_layers: int = 1
    route_scale: float = 1.5
    swiglu_limit: float = 10.0
    sinkhorn_iters: int = 20
    eps: float = 1e-6
    hc_eps: float = 1e-6
    rope_theta: float = 10000.0
    compress_rope_theta: float = 160000.0
    yarn_factor: float = 16.0
    yarn_original: int = 65536
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    max_positions: int = CONTEXT
    chunk: int = 256
    index_stride: int = 8

    @classmethod
    def from_official(cls, config: Mapping[str, Any]) -> MiniConfig:
        """Read the fields of an official `config.json`; raises `KeyError` when one is missing."""
        scaling = cast(Mapping[str, Any], config["rope_scaling"])
        layers = int(config["num_hidden_layers"])
        return cls(
            vocab_size=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            ratios=tuple(int(ratio) for ratio in config["compress_ratios"][:layers]),
            heads=int(config["num_attention_heads"]),
            head_dim=int(config["head_dim"]),
            rope_dim=int(config["qk_rope_head_dim"]),
            q_lora=int(config["q_lora_rank"]),
            o_groups=int(config["o_groups"]),
            o_lora=int(config["o_lora_rank"]),
            window=int(config["sliding_window"]),
            index_heads=int(config["index_n_heads"]),
            index_dim=int(config["index_head_dim"]),
            index_topk=int(config["index_topk"]),
            experts=int(config["n_routed_experts"]),
            active_experts=int(config["num_experts_per_tok"]),
            width=int(config["moe_intermediate_size"]),
            hash_layers=int(config["num_hash_layers"]),
            route_scale=float(config["routed_scaling_factor"]),
            swiglu_limit=float(config["swiglu_limit"]),
            sinkhorn_iters=int(config["hc_sinkhorn_iters"]),
            eps=float(config["rms_norm_eps"]),
            hc_eps=float(config["hc_eps"]),
            rope_theta=float(config["rope_theta"]),
            compress_rope_theta=float(config["compress_rope_theta"]),
            yarn_factor=float(scaling["factor"]),
            yarn_original=int(scaling["original_max_position_embeddings"]),
            yarn_beta_fast=float(scaling["beta_fast"]),
            yarn_beta_slow=float(scaling["beta_slow"]),
            max_positions=int(config["max_position_embeddings"]),
        )

    def to_official(self) -> dict[str, Any]:
        """Return the content of `config.json` for a checkpoint with FP4 experts and FP8 projections.

        `compress_ratios` has one entry per layer and none for a drafter, since there is no drafter.
        """
        return {
            "architectures": ["DeepseekV4ForCausalLM"],
            "model_type": "deepseek_v4",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden,
            "num_hidden_layers": len(self.ratios),
            "num_attention_heads": self.heads,
            "num_key_value_heads": 1,
            "head_dim": self.head_dim,
            "qk_rope_head_dim": self.rope_dim,
            "q_lora_rank": self.q_lora,
            "o_groups": self.o_groups,
            "o_lora_rank": self.o_lora,
            "sliding_window": self.window,
            "compress_ratios": list(self.ratios),
            "compress_rope_theta": self.compress_rope_theta,
            "rope_theta": self.rope_theta,
            "rope_scaling": {
                "type": "yarn",
                "factor": self.yarn_factor,
                "original_max_position_embeddings": self.yarn_original,
                "beta_fast": self.yarn_beta_fast,
                "beta_slow": self.yarn_beta_slow,
            },
            "max_position_embeddings": self.max_positions,
            "index_n_heads": self.index_heads,
            "index_head_dim": self.index_dim,
            "index_topk": self.index_topk,
            "n_routed_experts": self.experts,
            "n_shared_experts": 1,
            "num_experts_per_tok": self.active_experts,
            "moe_intermediate_size": self.width,
            "num_hash_layers": self.hash_layers,
            "scoring_func": "sqrtsoftplus",
            "topk_method": "noaux_tc",
            "norm_topk_prob": True,
            "routed_scaling_factor": self.route_scale,
            "swiglu_limit": self.swiglu_limit,
            "hidden_act": "silu",
            "hc_mult": STREAMS,
            "hc_sinkhorn_iters": self.sinkhorn_iters,
            "hc_eps": self.hc_eps,
            "rms_norm_eps": self.eps,
            "num_nextn_predict_layers": 0,
            "expert_dtype": "fp4",
            "quantization_config": {
                "quant_method": "fp8",
                "fmt": "e4m3",
                "scale_fmt": "ue8m0",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
            },
            "bos_token_id": 0,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
            "tie_word_embeddings": False,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "dsv4agent": {
                "mode": "non-think",
                "max_steps": MAX_STEPS,
                "command_seconds": COMMAND_SECONDS,
                "redraws": REDRAWS,
            },
        }


def rope_frequencies(config: MiniConfig, ratio: int) -> Tensor:
    """Return the rotary frequencies of a layer, fp32 `[rope_dim / 2]`.

    Layers with a compressor use the larger base with YaRN for everything in the layer; the others use the
    plain base. There is no magnitude correction (V4 report; official inference code).
    """
    half = torch.arange(0, config.rope_dim, 2, dtype=torch.float32) / config.rope_dim
    if not ratio:
        return 1.0 / config.rope_theta**half
    base = config.compress_rope_theta
    frequencies = 1.0 / base**half

    def correction(rotations: float) -> float:
        wavelength = config.yarn_original / (rotations * 2 * math.pi)
        return config.rope_dim * math.log(wavelength) / (2 * math.log(base))

    low = max(math.floor(correction(config.yarn_beta_fast)), 0)
    high: float = min(math.ceil(correction(config.yarn_beta_slow)), config.rope_dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(config.rope_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return frequencies * (1 - ramp) + frequencies / config.yarn_factor * ramp


def rope_table(config: MiniConfig, ratio: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of every position, each fp32 `[max_positions, rope_dim / 2]`."""
    angles = torch.outer(
        torch.arange(config.max_positions, dtype=torch.float32), rope_frequencies(config, ratio)
    )
    return angles.cos(), angles.sin()
