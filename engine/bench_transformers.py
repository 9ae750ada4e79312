"""The same checkpoint in Hugging Face transformers, for comparison: float32, greedy, one sequence.

Its loader needs a GPU for FP8 and FP4 files, so its model is built from the config and given our dequantised
weights under its own names.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.weights.inventory import tensors
from dsv4agent.engine.weights.loader import Checkpoint

_RULES = (
    (r"^embed\.", "model.embed_tokens."),
    (r"^head\.weight", "lm_head.weight"),
    (r"^norm\.", "model.norm."),
    (r"^hc_head_(\w+)", r"model.hc_head.hc_\1"),
    (r"^layers\.", "model.layers."),
    (r"\.attn_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.hc_attn_", ".attn_hc."),
    (r"\.hc_ffn_", ".ffn_hc."),
    (r"\.attn\.indexer\.compressor\.", ".attn.compressor.indexer."),
    (r"\.attn\.indexer\.wq_b", ".attn.compressor.indexer.q_b_proj"),
    (r"\.attn\.indexer\.weights_proj", ".attn.compressor.indexer.scorer.weights_proj"),
    (r"(\.compressor\.(?:indexer\.)?)wkv\.", r"\1kv_proj."),
    (r"(\.compressor\.(?:indexer\.)?)wgate\.", r"\1gate_proj."),
    (r"(\.compressor\.(?:indexer\.)?)ape$", r"\1position_bias"),
    (r"(\.compressor\.(?:indexer\.)?)norm\.", r"\1kv_norm."),
    (r"\.attn\.wq_a", ".attn.q_a_proj"),
    (r"\.attn\.wq_b", ".attn.q_b_proj"),
    (r"\.attn\.wkv", ".attn.kv_proj"),
    (r"\.attn\.wo_a", ".attn.o_a_proj"),
    (r"\.attn\.wo_b", ".attn.o_b_proj"),
    (r"\.attn\.q_norm", ".attn.q_a_norm"),
    (r"\.attn\.attn_sink", ".attn.sinks"),
    (r"\.attn\.", ".self_attn."),
    (r"\.ffn\.gate\.bias", ".ffn.gate.e_score_correction_bias"),
    (r"\.shared_experts\.w1", ".shared_experts.gate_proj"),
    (r"\.shared_experts\.w2", ".shared_experts.down_proj"),
    (r"\.shared_experts\.w3", ".shared_experts.up_proj"),
    (r"\.ffn\.", ".mlp."),
)
_EXPERT = re.compile(r"^layers\.(\d+)\.ffn\.experts\.(\d+)\.w([123])\.weight$")


class TransformersModel:
    """The reference model and the decode loop that a user of the library would write.

    Raises:
        ModuleNotFoundError: transformers is not installed; install the extra `bench`.
    """

    def __init__(self, folder: Path) -> None:
        library: Any = importlib.import_module("transformers")
        config = ModelConfig.from_file(folder)
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for key in ("quantization_config", "expert_dtype", "torch_dtype", "architectures", "model_type"):
            raw.pop(key, None)
        settings = library.DeepseekV4Config(**raw)
        settings._attn_implementation = "eager"
        self._model: Any = library.DeepseekV4ForCausalLM(settings).to(torch.float32).eval()
        self.version = str(library.__version__)
        state = dict(_renamed(Checkpoint(folder, config), config))
        missing, unexpected = self._model.load_state_dict(state, strict=False)
        lost = [name for name in missing if not name.endswith("inv_freq")]
        if lost or unexpected:
            raise KeyError(f"names do not fit transformers {self.version}: {lost[:3]} {unexpected[:3]}")
        self._cache: Any = None

    @torch.inference_mode()
    def prefill(self, token_ids: list[int]) -> Tensor:
        """Start anew with `token_ids`; return the last token's logits float32 [V]."""
        out = self._model(torch.tensor([token_ids]), use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values
        return cast("Tensor", out.logits[0, -1])

    @torch.inference_mode()
    def decode(self, token_id: int) -> Tensor:
        """Append one token; return its logits float32 [V]."""
        out = self._model(torch.tensor([[token_id]]), use_cache=True, past_key_values=self._cache)
        self._cache = out.past_key_values
        return cast("Tensor", out.logits[0, -1])


def official_to_transformers(name: str) -> str:
    """Return the library's name of a tensor that is no routed expert's."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _renamed(checkpoint: Checkpoint, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield float32 weights under the library's names; routed experts stacked, gate rows before up rows."""
    for spec in tensors(config):
        if spec.name.startswith("mtp.") or _EXPERT.match(spec.name):
            continue
        yield official_to_transformers(spec.name), checkpoint.tensor(spec.name)
    for layer in config.layers:
        owner = f"{layer.prefix}.ffn.experts"
        ids = range(config.n_routed_experts)
        gate_up = [
            torch.cat([checkpoint.tensor(f"{owner}.{e}.{w}.weight") for w in ("w1", "w3")]) for e in ids
        ]
        down = [checkpoint.tensor(f"{owner}.{e}.w2.weight") for e in ids]
        yield f"model.{layer.prefix}.mlp.experts.gate_up_proj", torch.stack(gate_up)
        yield f"model.{layer.prefix}.mlp.experts.down_proj", torch.stack(down)
