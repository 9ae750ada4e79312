"""Random checkpoints in the official format, for tests and for measuring speed without trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.weights.export import save_checkpoint
from dsv4agent.engine.weights.inventory import Role, TensorSpec, tensors

_MINI: Mapping[str, Any] = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "vocab_size": 2048,
    "hidden_size": 384,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "qk_rope_head_dim": 32,
    "q_lora_rank": 192,
    "o_groups": 2,
    "o_lora_rank": 128,
    "sliding_window": 512,
    "compress_ratios": [0, 0, 4, 128, 4, 128, 4, 128],
    "compress_rope_theta": 160000,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 16,
        "original_max_position_embeddings": 65536,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "max_position_embeddings": 8192,
    "index_n_heads": 4,
    "index_head_dim": 32,
    "index_topk": 512,
    "n_routed_experts": 6,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 256,
    "num_hash_layers": 1,
    "scoring_func": "sqrtsoftplus",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0,
    "hidden_act": "silu",
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6,
    "rms_norm_eps": 1e-6,
    "num_nextn_predict_layers": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
}


def mini_config(**changes: Any) -> dict[str, Any]:
    """Return config.json of the 24-million-parameter mini shape, with `changes` on top."""
    return {**_MINI, **changes}


def random_weights(config: Mapping[str, Any], *, seed: int = 0) -> dict[str, Tensor]:
    """Draw a complete set of float32 weights whose activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    model = ModelConfig.from_dict(config)
    return {spec.name: _draw(spec, model, generator) for spec in tensors(model)}


def write_random_checkpoint(
    folder: Path | str,
    config: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    quantize: bool = True,
    max_shard_bytes: int | None = None,
) -> Path:
    """Write a random checkpoint (the mini shape by default) and return its folder."""
    chosen = mini_config() if config is None else config
    weights = random_weights(chosen, seed=seed)
    save_checkpoint(folder, weights, chosen, quantize=quantize, max_shard_bytes=max_shard_bytes)
    return Path(folder)


def _draw(spec: TensorSpec, config: ModelConfig, generator: torch.Generator) -> Tensor:
    leaf = spec.name.removesuffix(".weight").rsplit(".", 1)[-1]
    if spec.role is Role.INDEX:
        scores = torch.rand(spec.shape[0], config.n_routed_experts, generator=generator)
        return scores.argsort(-1)[:, : spec.shape[1]].contiguous()
    noise = torch.randn(spec.shape, generator=generator)
    if "norm" in leaf:
        return 1.0 + 0.1 * noise
    if leaf.endswith("_scale"):
        return 0.5 + 0.1 * noise
    if leaf.endswith("_base") or leaf in ("attn_sink", "ape"):
        return 0.5 * noise
    if leaf == "bias":
        return 0.1 * noise
    if leaf == "embed":
        return noise
    return noise * spec.shape[-1] ** -0.5
