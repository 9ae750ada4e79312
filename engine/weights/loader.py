"""Checkpoint tensors as the engine computes with them.

Checked against the inventory, dequantised to float32.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from dsv4agent.engine.config import DrafterKind, ModelConfig
from dsv4agent.engine.errors import ContradictoryConfig, MissingTensor, UnknownTensor, WrongDtype, WrongShape
from dsv4agent.engine.weights import formats
from dsv4agent.engine.weights.inventory import IGNORED, Role, TensorSpec, tensors
from dsv4agent.engine.weights.reader import CheckpointReader, TensorEntry

_PLAIN = frozenset({"F32", "BF16", "F16"})


class Checkpoint:
    """An official checkpoint folder, checked as a whole when opened.

    Raises:
        CheckpointError: A subclass names the file, the tensor and what is wrong with it.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.folder = folder
        self.config = config
        self._reader = CheckpointReader(folder)
        self._specs = {spec.name: spec for spec in tensors(config)}
        self._check()

    def tensor(self, name: str) -> Tensor:
        """Return `name` dequantised: float32 of the logical shape, or int64 for a table of expert ids."""
        spec = self._specs[name]
        entry = self._reader.entry(name)
        stored = self._reader.read(name)
        if spec.role is Role.INDEX:
            return stored.to(torch.int64)
        if entry.dtype in _PLAIN:
            return stored.to(torch.float32)
        scale = self._scale(spec)
        if entry.dtype == "I8":
            return formats.dequantize_fp4(stored, scale)
        return formats.dequantize_fp8_block(stored, scale)

    def stored(self, name: str) -> Tensor:
        """Return an unquantised tensor as it is stored.

        Raises:
            WrongDtype: It is stored quantised.
        """
        entry = self._reader.entry(name)
        if self._specs[name].role is not Role.INDEX and entry.dtype not in _PLAIN:
            raise WrongDtype(f"{entry.file}: {name} is stored as {entry.dtype}; the kernels need it plain.")
        return self._reader.read(name)

    def stored_codes(self, name: str) -> tuple[Tensor, Tensor]:
        """Return codes and E8M0 scale codes uint8 of a tensor in its official format: FP4 experts, else FP8.

        Raises:
            WrongDtype: It is stored otherwise, or its scales are not powers of two.
        """
        spec, entry = self._specs[name], self._reader.entry(name)
        official = {Role.EXPERT: "I8", Role.LINEAR: "F8_E4M3"}[spec.role]
        if entry.dtype != official:
            raise WrongDtype(
                f"{entry.file}: {name} is stored as {entry.dtype}; the GPU kernels read {official} there. "
                "Use device='cpu', or convert the checkpoint to the official format."
            )
        scale = self._reader.read(spec.scale_name)
        if scale.dtype is not torch.uint8:
            codes = formats.encode_e8m0(scale)
            if codes is None:
                raise WrongDtype(
                    f"{entry.file}: scales of {name} are not powers of two from 2**-126 to 2**127."
                )
            scale = codes
        return self._reader.read(name).view(torch.uint8), scale

    def _scale(self, spec: TensorSpec) -> Tensor:
        stored = self._reader.read(spec.scale_name)
        return formats.decode_e8m0(stored) if stored.dtype is torch.uint8 else stored.to(torch.float32)

    def _check(self) -> None:
        entries = self._reader.entries
        if "mtp.0.main_proj.weight" in entries and self.config.drafter is not DrafterKind.DSPARK:
            raise ContradictoryConfig(
                f"{self.folder}: the files hold a DSpark module but config.json has no dspark_* keys."
            )
        known: set[str] = set(IGNORED)
        for spec in self._specs.values():
            if spec.name not in entries:
                raise MissingTensor(
                    f"{self.folder}: no file holds {spec.name}; the checkpoint is incomplete."
                )
            known.add(spec.name)
            if self._check_tensor(spec, entries[spec.name]):
                known.add(spec.scale_name)
        unknown = sorted(set(entries) - known)
        if unknown:
            entry = entries[unknown[0]]
            raise UnknownTensor(
                f"{entry.file}: {unknown[0]} (and {len(unknown) - 1} more) is no tensor of this model; "
                "config.json and weights do not belong together."
            )

    def _check_tensor(self, spec: TensorSpec, entry: TensorEntry) -> bool:
        """Check dtype and shape; return whether a scale accompanies the tensor."""
        allowed = {
            Role.EXPERT: _PLAIN | {"I8", "F8_E4M3"},
            Role.LINEAR: _PLAIN | {"F8_E4M3"},
            Role.BF16: _PLAIN,
            Role.F32: _PLAIN,
            Role.INDEX: frozenset({"I64", "I32"}),
        }[spec.role]
        if entry.dtype not in allowed:
            raise WrongDtype(
                f"{entry.file}: {spec.name} is stored as {entry.dtype}; expected one of {sorted(allowed)}."
            )
        packed = entry.dtype == "I8"
        shape = (*spec.shape[:-1], spec.shape[-1] // 2) if packed else spec.shape
        if entry.shape != shape:
            raise WrongShape(
                f"{entry.file}: {spec.name} has shape {list(entry.shape)}; config.json implies {list(shape)}."
            )
        if entry.dtype not in ("I8", "F8_E4M3"):
            return False
        rows, columns = spec.shape
        block = formats.FP8_BLOCK
        scale_shape = (
            (rows, columns // formats.FP4_BLOCK)
            if packed
            else (math.ceil(rows / block), math.ceil(columns / block))
        )
        scale = self._reader.entry(spec.scale_name)
        if scale.dtype not in ("F8_E8M0", "F32"):
            raise WrongDtype(f"{scale.file}: {spec.scale_name} is {scale.dtype}; expected F8_E8M0 or F32.")
        if scale.shape != scale_shape:
            raise WrongShape(
                f"{scale.file}: {spec.scale_name} is {list(scale.shape)}; expected {list(scale_shape)}."
            )
        return True


def resident_bytes(config: ModelConfig) -> int:
    """Return the bytes all weights take in float32, the form in which this engine computes."""
    return sum(math.prod(spec.shape) * (8 if spec.role is Role.INDEX else 4) for spec in tensors(config))
