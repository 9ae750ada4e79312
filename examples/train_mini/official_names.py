"""How the mini model's parameters are called and stored in an official checkpoint.

Every parameter has one storage format: FP4 for routed experts, FP8 for projections and the shared expert, F32
for hyper-connections, sinks, positional gates and routing biases, BF16 for the rest (V4 report, checkpoint
format).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from examples.train_mini.model import MiniModel


class Storage(StrEnum):
    """The stored number format of a tensor."""

    FP4 = "fp4"
    FP8 = "fp8"
    BF16 = "bf16"
    F32 = "f32"
    I64 = "i64"


@dataclass(frozen=True)
class StoredTensor:
    """One logical tensor of a checkpoint: official name without `.weight`, format, dequantised value."""

    name: str
    storage: Storage
    value: Tensor

    @property
    def key(self) -> str:
        """Name of the value's entry in the file."""
        return self.name if _is_bare(self.name) else f"{self.name}.weight"

    @property
    def scale_key(self) -> str:
        """Name of the scales' entry in the file, for quantised formats."""
        return f"{self.name}.scale"


_BARE = ("ape", "attn_sink", "bias", "tid2eid")
_SUFFIXES = {
    "attn_norm": ("attn_norm", Storage.BF16),
    "ffn_norm": ("ffn_norm", Storage.BF16),
    "attn.wq_a": ("attn.wq_a", Storage.FP8),
    "attn.q_norm": ("attn.q_norm", Storage.BF16),
    "attn.wq_b": ("attn.wq_b", Storage.FP8),
    "attn.wkv": ("attn.wkv", Storage.FP8),
    "attn.kv_norm": ("attn.kv_norm", Storage.BF16),
    "attn.attn_sink": ("attn.attn_sink", Storage.F32),
    "attn.wo_a": ("attn.wo_a", Storage.FP8),
    "attn.wo_b": ("attn.wo_b", Storage.FP8),
    "attn.index_wq_b": ("attn.indexer.wq_b", Storage.FP8),
    "attn.index_weights": ("attn.indexer.weights_proj", Storage.BF16),
    "ffn.gate": ("ffn.gate", Storage.BF16),
    "ffn.bias": ("ffn.gate.bias", Storage.F32),
    "ffn.tid2eid": ("ffn.gate.tid2eid", Storage.I64),
    "ffn.w1": ("ffn.experts.{}.w1", Storage.FP4),
    "ffn.w2": ("ffn.experts.{}.w2", Storage.FP4),
    "ffn.w3": ("ffn.experts.{}.w3", Storage.FP4),
    "ffn.shared_w1": ("ffn.shared_experts.w1", Storage.FP8),
    "ffn.shared_w2": ("ffn.shared_experts.w2", Storage.FP8),
    "ffn.shared_w3": ("ffn.shared_experts.w3", Storage.FP8),
}
for _part in ("fn", "base", "scale"):
    for _half in ("attn", "ffn"):
        _SUFFIXES[f"{_half}_hc.{_part}"] = (f"hc_{_half}_{_part}", Storage.F32)
for _mine, _theirs in (("compressor", "compressor"), ("index_compressor", "indexer.compressor")):
    _SUFFIXES[f"attn.{_mine}.ape"] = (f"attn.{_theirs}.ape", Storage.F32)
    for _part in ("wkv", "wgate", "norm"):
        _SUFFIXES[f"attn.{_mine}.{_part}"] = (f"attn.{_theirs}.{_part}", Storage.BF16)
_TOP = {
    "embed": ("embed", Storage.BF16),
    "head": ("head", Storage.BF16),
    "norm": ("norm", Storage.BF16),
    "hc_head_fn": ("hc_head_fn", Storage.F32),
    "hc_head_base": ("hc_head_base", Storage.F32),
    "hc_head_scale": ("hc_head_scale", Storage.F32),
}


def storage_of(parameter: str) -> Storage:
    """Return the storage format of a parameter or buffer, by its name in `MiniModel`."""
    return _rule(parameter)[1]


def stored_tensors(model: MiniModel) -> list[StoredTensor]:
    """List a model's tensors under official names, in fp32 and not yet rounded to their storage format."""
    result: list[StoredTensor] = []
    for parameter, tensor in _tensors(model).items():
        name, storage = _rule(parameter)
        value = tensor.detach() if storage is Storage.I64 else tensor.detach().float()
        if "{}" in name:
            result += [
                StoredTensor(name.format(expert), storage, value[expert]) for expert in range(len(value))
            ]
        elif parameter.endswith("wo_a"):
            result.append(StoredTensor(name, storage, value.flatten(0, 1)))
        else:
            result.append(StoredTensor(name, storage, value))
    return result


@torch.no_grad()
def load_stored(model: MiniModel, read: Callable[[str], Tensor]) -> None:
    """Copy dequantised tensors into a model; `read` returns the tensor of a key such as `embed.weight`.

    Only keys that the model has a place for are asked for, so a drafter's tensors are left out.
    """
    for parameter, target in _tensors(model).items():
        name, storage = _rule(parameter)
        if "{}" in name:
            keys = [StoredTensor(name.format(expert), storage, target).key for expert in range(len(target))]
            value = torch.stack([read(key) for key in keys])
        else:
            value = read(StoredTensor(name, storage, target).key)
        target.copy_(value.reshape(target.shape))


def _tensors(model: MiniModel) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    # `load` is a running average of the training, not part of the model.
    tensors |= {name: b for name, b in model.named_buffers() if name.endswith((".bias", ".tid2eid"))}
    return tensors


def _rule(parameter: str) -> tuple[str, Storage]:
    if parameter in _TOP:
        return _TOP[parameter]
    _, index, suffix = parameter.split(".", 2)
    name, storage = _SUFFIXES[suffix]
    return f"layers.{index}.{name}", storage


def _is_bare(name: str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return last in _BARE or last.startswith("hc_")
