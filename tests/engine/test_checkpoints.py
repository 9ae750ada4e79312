from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import (
    ContradictoryConfig,
    CorruptHeader,
    MissingShard,
    MissingTensor,
    TruncatedFile,
    UnknownTensor,
    WrongDtype,
    WrongShape,
)
from dsv4agent.engine.weights import Checkpoint, fake_fp4, fake_fp8_block, random_weights, save_checkpoint
from dsv4agent.engine.weights.export import write_safetensors
from dsv4agent.engine.weights.formats import decode_e8m0
from dsv4agent.engine.weights.inventory import Role, tensors
from dsv4agent.engine.weights.reader import INDEX_NAME, SINGLE_NAME, CheckpointReader, read_header
from tests.engine.conftest import tiny_config


def open_checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, ModelConfig.from_file(folder))


def write(folder: Path, **options: Any) -> Path:
    config = tiny_config()
    save_checkpoint(folder, random_weights(config), config, **options)
    return folder


@pytest.mark.parametrize("shard", [None, 60_000])
def test_what_is_saved_is_read(tmp_path: Path, shard: int | None) -> None:
    config = tiny_config()
    weights = random_weights(config)
    save_checkpoint(tmp_path, weights, config, max_shard_bytes=shard)
    assert (tmp_path / INDEX_NAME).exists() is (shard is not None)
    checkpoint = open_checkpoint(tmp_path)
    rounding: dict[Role, Callable[[torch.Tensor], torch.Tensor]] = {
        Role.EXPERT: fake_fp4,
        Role.LINEAR: fake_fp8_block,
        Role.BF16: lambda w: w.to(torch.bfloat16).float(),
        Role.F32: lambda w: w,
        Role.INDEX: lambda w: w,
    }
    for spec in tensors(checkpoint.config):
        assert torch.equal(checkpoint.tensor(spec.name), rounding[spec.role](weights[spec.name])), spec.name


def test_unquantised_storage_is_exact(tmp_path: Path) -> None:
    config = tiny_config()
    weights = random_weights(config)
    save_checkpoint(tmp_path, weights, config, quantize=False)
    checkpoint = open_checkpoint(tmp_path)
    assert not checkpoint.config.quantized
    assert all(torch.equal(checkpoint.tensor(name), weight) for name, weight in weights.items())


def test_base_checkpoints_hold_fp8_experts_and_f32_scales(tmp_path: Path) -> None:
    write(tmp_path)
    edit(tmp_path, fp8_experts)
    checkpoint = open_checkpoint(tmp_path)
    weights = random_weights(tiny_config())
    name = "layers.1.ffn.experts.2.w1.weight"
    assert torch.equal(checkpoint.tensor(name), fake_fp8_block(weights[name]))


Stored = dict[str, tuple[str, torch.Tensor]]


def edit(folder: Path, change: Callable[[Stored], None]) -> None:
    """Rewrite the single weight file with `change` applied."""
    reader = CheckpointReader(folder)
    stored = {name: (entry.dtype, reader.read(name).clone()) for name, entry in reader.entries.items()}
    change(stored)
    write_safetensors(folder / SINGLE_NAME, stored)


def fp8_experts(stored: Stored) -> None:
    from dsv4agent.engine.weights import quantize_fp8_block

    weights = random_weights(tiny_config())
    for name in [name for name in stored if ".experts." in name and name.endswith(".weight")]:
        codes, scale = quantize_fp8_block(weights[name])
        stored[name] = ("F8_E4M3", codes)
        stored[name.removesuffix(".weight") + ".scale"] = ("F32", decode_e8m0(scale))


def test_missing_shard(tmp_path: Path) -> None:
    write(tmp_path, max_shard_bytes=60_000)
    victim = sorted(tmp_path.glob("*.safetensors"))[1]
    victim.unlink()
    with pytest.raises(MissingShard, match=victim.name):
        open_checkpoint(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingShard, match="download"):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize("kept", [4, 100, 0.5, 0.999])
def test_truncated_file(tmp_path: Path, kept: float) -> None:
    write(tmp_path)
    file = tmp_path / SINGLE_NAME
    data = file.read_bytes()
    file.write_bytes(data[: int(kept) if kept > 1 else int(len(data) * kept)])
    with pytest.raises(TruncatedFile, match=SINGLE_NAME):
        open_checkpoint(tmp_path)


def test_corrupt_headers(tmp_path: Path) -> None:
    file = tmp_path / SINGLE_NAME
    file.write_bytes(struct.pack("<Q", 4) + b"nope")
    with pytest.raises(CorruptHeader):
        read_header(file)
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CorruptHeader, match=r"a F32 \[3\]"):
        read_header(file)
    (tmp_path / INDEX_NAME).write_text('{"weight_map": 3}', encoding="utf-8")
    with pytest.raises(CorruptHeader, match="weight_map"):
        CheckpointReader(tmp_path)


def test_missing_tensor(tmp_path: Path) -> None:
    write(tmp_path)
    edit(tmp_path, lambda stored: stored.pop("layers.1.attn.compressor.ape") and None)
    with pytest.raises(MissingTensor, match=r"layers\.1\.attn\.compressor\.ape"):
        open_checkpoint(tmp_path)


def test_missing_scale(tmp_path: Path) -> None:
    write(tmp_path)
    edit(tmp_path, lambda stored: stored.pop("layers.0.attn.wq_a.scale") and None)
    with pytest.raises(MissingTensor, match=r"layers\.0\.attn\.wq_a\.scale"):
        open_checkpoint(tmp_path)


def test_tensor_that_the_index_misplaces(tmp_path: Path) -> None:
    write(tmp_path, max_shard_bytes=60_000)
    index = json.loads((tmp_path / INDEX_NAME).read_text(encoding="utf-8"))
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"]["embed.weight"] = files[-1]
    (tmp_path / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(MissingTensor, match=r"embed\.weight"):
        open_checkpoint(tmp_path)


def test_unknown_tensor(tmp_path: Path) -> None:
    write(tmp_path)
    edit(tmp_path, lambda stored: stored.update({"layers.9.extra": ("F32", torch.zeros(2))}))
    with pytest.raises(UnknownTensor, match=r"layers\.9\.extra"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("embed.weight", ("F32", torch.zeros(96, 63)), WrongShape),
        ("layers.0.attn.wq_a.scale", ("F8_E8M0", torch.zeros(2, 1, dtype=torch.uint8)), WrongShape),
        ("layers.0.ffn.experts.0.w1.weight", ("I8", torch.zeros(32, 64, dtype=torch.int8)), WrongShape),
        ("norm.weight", ("I64", torch.zeros(64, dtype=torch.int64)), WrongDtype),
        ("layers.0.attn.wq_a.weight", ("I8", torch.zeros(32, 32, dtype=torch.int8)), WrongDtype),
        ("layers.0.ffn.gate.tid2eid", ("F32", torch.zeros(96, 2)), WrongDtype),
        ("layers.0.attn.wq_a.scale", ("I64", torch.zeros(1, 1, dtype=torch.int64)), WrongDtype),
    ],
)
def test_wrong_shape_or_dtype(
    tmp_path: Path, name: str, value: tuple[str, torch.Tensor], error: type[Exception]
) -> None:
    write(tmp_path)
    edit(tmp_path, lambda stored: stored.update({name: value}))
    with pytest.raises(error, match=name.replace(".", r"\.")):
        open_checkpoint(tmp_path)


def test_dspark_weights_need_dspark_keys(tmp_path: Path) -> None:
    write(tmp_path)
    edit(tmp_path, lambda stored: stored.update({"mtp.0.main_proj.weight": ("F32", torch.zeros(64, 192))}))
    with pytest.raises(ContradictoryConfig, match="dspark"):
        open_checkpoint(tmp_path)


def test_saving_needs_the_whole_inventory(tmp_path: Path) -> None:
    config = tiny_config()
    weights = random_weights(config)
    with pytest.raises(UnknownTensor, match="more"):
        save_checkpoint(tmp_path, {**weights, "more": torch.zeros(1)}, config)
    with pytest.raises(WrongShape, match=r"norm\.weight"):
        save_checkpoint(tmp_path, {**weights, "norm.weight": torch.zeros(3)}, config)
    del weights["norm.weight"]
    with pytest.raises(MissingTensor, match=r"norm\.weight"):
        save_checkpoint(tmp_path, weights, config)
