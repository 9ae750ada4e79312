from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from dsv4agent.engine.config import ModelConfig
from dsv4agent.engine.errors import UnsupportedScale
from dsv4agent.engine.kernels.experts import unpack_expert
from dsv4agent.engine.runner.weights import pack_weights
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
    return Checkpoint(folder, ModelConfig.from_dict(SMALL))


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
