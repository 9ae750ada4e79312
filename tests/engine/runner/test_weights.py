from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import UnsupportedScale
from dsv4agent.engine.kernels.experts import unpack_expert
from dsv4agent.engine.runner.weights import ModelWeights, pack_weights, scales_can_be_packed
from dsv4agent.engine.weights import write_random_checkpoint
from dsv4agent.engine.weights.loader import Checkpoint
from tests.engine.runner.conftest import SMALL

NAME = "layers.1.ffn.experts.2.w2"


def changed(checkpoint: Checkpoint, folder: Path, *, zero: bool) -> Checkpoint:
    """Copy a checkpoint; one block of one expert gets the scale 2**-127, and zeros if asked for."""
    shutil.copytree(checkpoint.folder, folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if f"{NAME}.weight" not in tensors:
            continue
        scale = tensors[f"{NAME}.scale"].view(torch.uint8).clone()
        scale[5, 1] = 0
        tensors[f"{NAME}.scale"] = scale.view(torch.float8_e8m0fnu)
        weight = tensors[f"{NAME}.weight"]
        weight.view(torch.uint8)[5, 16:32] = 0x80 if zero else 0x21
        save_file(tensors, file)
    return Checkpoint(folder, checkpoint.config)


def every_expert(weights: ModelWeights) -> list[Tensor]:
    tables = [layer.moe.experts for layer in weights.layers]
    return [matrix for table in tables for one in table.packed for matrix in unpack_expert(one, table.shape)]


def test_scales_of_four_bits_lose_nothing(device: torch.device, tmp_path: Path) -> None:
    even = {**SMALL, "hidden_size": 256, "moe_intermediate_size": 256}
    folder = write_random_checkpoint(tmp_path / "even", even, seed=5)
    checkpoint = Checkpoint(folder, ModelConfig.from_dict(even))
    assert scales_can_be_packed(checkpoint)
    assert not scales_can_be_packed(changed(checkpoint, tmp_path / "far", zero=False))
    assert scales_can_be_packed(changed(checkpoint, tmp_path / "zero", zero=True))
    plain, packed = (pack_weights(checkpoint, device, packed_scales=choice) for choice in (False, True))
    assert packed.layers[0].moe.experts.shape.size < plain.layers[0].moe.experts.shape.size
    for before, after in zip(every_expert(plain), every_expert(packed), strict=True):
        assert torch.equal(before, after)


def test_small_models_keep_bytes(checkpoint: Checkpoint) -> None:
    assert not scales_can_be_packed(checkpoint), "a record would need 256 columns"


def test_scales_that_would_not_be_exact_are_refused(
    checkpoint: Checkpoint, device: torch.device, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedScale, match=rf"{NAME}.weight .* 2\*\*-127"):
        pack_weights(changed(checkpoint, tmp_path / "model", zero=False), device)


def test_zeros_may_have_any_scale(checkpoint: Checkpoint, device: torch.device, tmp_path: Path) -> None:
    packed = pack_weights(changed(checkpoint, tmp_path / "model", zero=True), device)
    table = packed.layers[1].moe.experts
    _, w2, _ = unpack_expert(table.packed[2], table.shape)
    assert not bool(w2[5, 32:64].any()) and bool(w2[5, :32].any())
