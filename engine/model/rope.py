"""Rotary tables: plain for sliding layers, YaRN for compressed ones."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor

from dsv4agent.engine.config import BLOCK, ModelConfig, Yarn

_KEPT_BLOCKS = 64


def frequencies(dim: int, theta: float, yarn: Yarn | None) -> Tensor:
    """Return the inverse frequencies float32 [dim/2], blended by YaRN if given.

    Computed in float32 throughout: at a million tokens one unit in the last place shifts the angle visibly.
        Neither the rotation nor the softmax scale carries a YaRN magnitude factor. Source: official inference
        code.
    """
    f = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    if yarn is None:
        return f

    def corrected(rotations: float) -> float:
        turns = yarn.original_positions / (rotations * 2 * math.pi)
        return dim * math.log(turns) / (2 * math.log(theta))

    low = max(math.floor(corrected(yarn.beta_fast)), 0)
    high: float = min(math.ceil(corrected(yarn.beta_slow)), dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return f * (1 - ramp) + f / yarn.factor * ramp


class RopeTable:
    """e^(i * position * f) by aligned block, computed when first needed."""

    def __init__(self, f: Tensor, device: torch.device) -> None:
        self.f = f.to(device)
        self._blocks: OrderedDict[int, Tensor] = OrderedDict()

    def block(self, index: int) -> Tensor:
        """Return the rotations complex64 [128, dim/2] of positions 128 * index ..."""
        found = self._blocks.get(index)
        if found is None:
            positions = torch.arange(index * BLOCK, (index + 1) * BLOCK, device=self.f.device)
            angles = positions.to(torch.float32)[:, None] * self.f
            found = torch.complex(torch.cos(angles), torch.sin(angles))
            self._blocks[index] = found
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return found

    def rows(self, start: int, count: int) -> Tensor:
        """Return the rotations complex64 [count, dim/2] of `count` positions from `start`, across blocks."""
        first, last = start // BLOCK, (start + count - 1) // BLOCK
        joined = torch.cat([self.block(index) for index in range(first, last + 1)])
        return joined[start - first * BLOCK : start - first * BLOCK + count]


class RopeTables:
    """The two tables of a model, chosen per layer."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._plain = RopeTable(frequencies(config.rope_dim, config.rope_theta, None), device)
        self._compressed = RopeTable(
            frequencies(config.rope_dim, config.compress_rope_theta, config.yarn), device
        )

    def table(self, compressed: bool) -> RopeTable:
        """Return the table of compressed or of sliding layers."""
        return self._compressed if compressed else self._plain
