"""Writes checkpoints in the official format from float32 masters."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import MissingTensor, UnknownTensor, WrongShape
from dsv4agent.engine.weights import formats
from dsv4agent.engine.weights.inventory import Role, TensorSpec, tensors
from dsv4agent.engine.weights.reader import INDEX_NAME, SINGLE_NAME

_Stored = tuple[str, Tensor]


def save_checkpoint(
    folder: Path | str,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    quantize: bool = True,
    max_shard_bytes: int | None = None,
) -> None:
    """Write an official checkpoint.

    Args:
        folder: Made if missing.
        weights: Official name to float32 tensor [out, in] (int64 for `tid2eid`), the complete inventory of
            `config`.
        config: Content of config.json; written as it is, with `quantization_config` and `expert_dtype` set to
            what
            the files hold.
        quantize: Experts as FP4, dense matrices as FP8, the rest as BF16 or F32. False stores everything as
            F32.
        max_shard_bytes: Cut into shards with an index; a single `model.safetensors` by default.

    Raises:
        MissingTensor, UnknownTensor, WrongShape: `weights` does not fit `config`.
    """
    target = Path(folder)
    specs = {spec.name: spec for spec in tensors(ModelConfig.from_dict(config))}
    unknown = sorted(set(weights) - set(specs))
    if unknown:
        raise UnknownTensor(f"{unknown[0]} is no tensor of this config; leave it out.")
    target.mkdir(parents=True, exist_ok=True)
    stored: dict[str, _Stored] = {}
    for name, spec in specs.items():
        if name not in weights:
            raise MissingTensor(f"{name} is missing from the weights to save.")
        if tuple(weights[name].shape) != spec.shape:
            raise WrongShape(
                f"{name} has shape {list(weights[name].shape)}; config implies {list(spec.shape)}."
            )
        stored.update(_encode(spec, weights[name].detach().cpu(), quantize))
    _write_all(target, stored, max_shard_bytes)
    (target / "config.json").write_text(
        json.dumps(_final_config(config, quantize), indent=1), encoding="utf-8"
    )


def write_safetensors(file: Path, stored: Mapping[str, _Stored]) -> None:
    """Write tensors, given with their safetensors dtype names, to one file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, tensor) in stored.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with file.open("wb") as handle:
        handle.write(struct.pack("<Q", len(raw)))
        handle.write(raw)
        for _, tensor in stored.values():
            handle.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _encode(spec: TensorSpec, weight: Tensor, quantize: bool) -> dict[str, _Stored]:
    if spec.role is Role.INDEX:
        return {spec.name: ("I64", weight.to(torch.int64))}
    if not quantize or spec.role is Role.F32:
        return {spec.name: ("F32", weight.to(torch.float32))}
    if spec.role is Role.BF16:
        return {spec.name: ("BF16", weight.to(torch.bfloat16))}
    if spec.role is Role.EXPERT:
        codes, scale = formats.quantize_fp4(weight)
        return {spec.name: ("I8", codes), spec.scale_name: ("F8_E8M0", scale)}
    codes, scale = formats.quantize_fp8_block(weight)
    return {spec.name: ("F8_E4M3", codes), spec.scale_name: ("F8_E8M0", scale)}


def _write_all(target: Path, stored: Mapping[str, _Stored], limit: int | None) -> None:
    if limit is None:
        write_safetensors(target / SINGLE_NAME, stored)
        return
    shards: list[dict[str, _Stored]] = [{}]
    used = total = 0
    for name, (dtype, tensor) in stored.items():
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and used + size > limit:
            shards.append({})
            used = 0
        shards[-1][name] = (dtype, tensor)
        used += size
        total += size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(target / file, shard)
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")


def _final_config(config: Mapping[str, Any], quantize: bool) -> dict[str, Any]:
    result = {
        key: value for key, value in config.items() if key not in ("quantization_config", "expert_dtype")
    }
    if quantize:
        result["expert_dtype"] = "fp4"
        result["quantization_config"] = {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "scale_fmt": "ue8m0",
            "weight_block_size": [formats.FP8_BLOCK, formats.FP8_BLOCK],
        }
    return result
