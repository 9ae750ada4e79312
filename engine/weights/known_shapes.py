"""Shapes of the published checkpoints, so that memory can be planned before one is downloaded.

The values are those of the official config.json files; the drafters of the two later releases are of another
kind than those of the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsv4agent.engine.config import ModelConfig

_FAMILY: Mapping[str, Any] = {
    "model_type": "deepseek_v4",
    "vocab_size": 129280,
    "num_key_value_heads": 1,
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "o_lora_rank": 1024,
    "sliding_window": 128,
    "compress_rope_theta": 160000,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 16,
        "original_max_position_embeddings": 65536,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "max_position_embeddings": 1048576,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 6,
    "num_hash_layers": 3,
    "scoring_func": "sqrtsoftplus",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "swiglu_limit": 10.0,
    "hidden_act": "silu",
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6,
    "rms_norm_eps": 1e-6,
    "num_nextn_predict_layers": 1,
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
}

_FLASH: Mapping[str, Any] = {
    **_FAMILY,
    "hidden_size": 4096,
    "num_hidden_layers": 43,
    "num_attention_heads": 64,
    "q_lora_rank": 1024,
    "o_groups": 8,
    "compress_ratios": [0, 0, *[4, 128] * 20, 4, 0],
    "index_topk": 512,
    "n_routed_experts": 256,
    "moe_intermediate_size": 2048,
    "routed_scaling_factor": 1.5,
}

_PRO: Mapping[str, Any] = {
    **_FAMILY,
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "o_groups": 16,
    "compress_ratios": [128, 128, *[4, 128] * 29, 4, 0],
    "index_topk": 1024,
    "n_routed_experts": 384,
    "moe_intermediate_size": 3072,
    "routed_scaling_factor": 2.5,
}


def _with_dspark(base: Mapping[str, Any], rank: int) -> Mapping[str, Any]:
    last = base["num_hidden_layers"]
    return {
        **base,
        "compress_ratios": [*base["compress_ratios"], 0, 0],
        "dspark_block_size": 5,
        "dspark_noise_token_id": 128799,
        "dspark_target_layer_ids": [last - 3, last - 2, last - 1],
        "dspark_markov_rank": rank,
    }


KNOWN: Mapping[str, Mapping[str, Any]] = {
    "flash": _FLASH,
    "flash-0731": _with_dspark(_FLASH, 256),
    "pro": _PRO,
    "pro-0813": _with_dspark(_PRO, 512),
}
"""What decides the sizes in config.json of each published checkpoint."""


def known_config(name: str) -> ModelConfig:
    """Return the configuration of a published checkpoint. Raises `KeyError`."""
    return ModelConfig.from_dict(KNOWN[name])
