"""The same weights in Hugging Face transformers, for comparison: greedy, one sequence.

Its loader needs a GPU for FP8 and FP4 files, so its model is built from the config and given our dequantised
weights under its own names, one after another.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_OURS = frozenset(
    ("quantization_config", "expert_dtype", "torch_dtype", "architectures", "model_type", "dsv4agent")
)
"""Keys of config.json that say how weights are stored, or are not the library's."""
_EXPERT = re.compile(r"^layers\.(\d+)\.ffn\.experts\.(\d+)\.w([123])\.weight$")


class TransformersModel:
    """The reference model and the decode loop that a user of the library would write."""

    def __init__(
        self,
        raw: Mapping[str, Any],
        weights: Iterable[tuple[str, Tensor]],
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        """Build the model and copy the weights into it.

        Args:
            raw: The object of an official config.json.
            weights: Official names with tensors of any real type; routed experts in order, layer by layer.
            dtype: To compute in.
            device: To compute on.

        Raises:
            ModuleNotFoundError: transformers is not installed; install the extra `bench`.
            KeyError: This version names or shapes a tensor otherwise.
        """
        library: Any = importlib.import_module("transformers")
        settings = library.DeepseekV4Config(**{key: raw[key] for key in raw if key not in _OURS})
        settings._attn_implementation = "eager"
        self.version = str(library.__version__)
        self._device = device
        self._cache: Any = None
        with torch.device(device):
            self._model: Any = library.AutoModelForCausalLM.from_config(settings, dtype=dtype).eval()
        # References to the model's own tensors.
        targets: dict[str, Tensor] = self._model.state_dict()
        left = {name for name in targets if not name.endswith("inv_freq")}
        for name, tensor in _renamed(weights):
            target = targets.get(name)
            if target is None or target.shape != tensor.shape:
                shape = None if target is None else tuple(target.shape)
                raise KeyError(
                    f"transformers {self.version} has {name} as {shape}, not {tuple(tensor.shape)}"
                )
            target.copy_(tensor)
            left.discard(name)
        if left:
            raise KeyError(f"transformers {self.version} has tensors that we have not: {sorted(left)[:3]}")

    @classmethod
    def from_checkpoint(cls, folder: Path) -> TransformersModel:
        """Load a checkpoint folder in float32 on the CPU. Raises as the constructor."""
        config = ModelConfig.from_file(folder)
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        checkpoint = Checkpoint(folder, config)
        names = [spec.name for spec in tensors(config) if not spec.name.startswith("mtp.")]
        return cls(raw, ((name, checkpoint.tensor(name)) for name in names))

    @torch.inference_mode()
    def prefill(self, token_ids: Sequence[int]) -> Tensor:
        """Start anew with `token_ids`; return the last token's logits [V]."""
        self._cache = None
        return self._logits(token_ids)

    @torch.inference_mode()
    def decode(self, token_id: int) -> Tensor:
        """Append one token; return its logits [V]."""
        return self._logits([token_id])

    def _logits(self, token_ids: Sequence[int]) -> Tensor:
        ids = torch.tensor([list(token_ids)], device=self._device)
        out = self._model(ids, use_cache=True, past_key_values=self._cache, logits_to_keep=1)
        self._cache = out.past_key_values
        return cast("Tensor", out.logits[0, -1])


def official_to_transformers(name: str) -> str:
    """Return the library's name of a tensor that is no routed expert's."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _renamed(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights under the library's names; routed experts stacked, gate rows before up rows."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        match = _EXPERT.match(name)
        if match is None:
            yield from _stacked(parts)
            yield official_to_transformers(name), tensor
            continue
        layer, expert, matrix = match.groups()
        if layer not in parts:
            yield from _stacked(parts)
        parts.setdefault(layer, {})[f"{expert}.{matrix}"] = tensor
    yield from _stacked(parts)


def _stacked(parts: dict[str, dict[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the experts of a layer, and empty `parts`."""
    for layer, found in parts.items():
        count = len(found) // 3
        gate_up = [torch.cat([found[f"{e}.1"], found[f"{e}.3"]]) for e in range(count)]
        owner = f"model.layers.{layer}.mlp.experts"
        yield f"{owner}.gate_up_proj", torch.stack(gate_up)
        del gate_up
        yield f"{owner}.down_proj", torch.stack([found[f"{e}.2"] for e in range(count)])
    parts.clear()
