"""The mixes of a hyper-connection in the kernels' layout: float32 as three bfloat16 pieces, without loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.kernels import tuning
from dsv4agent.engine.ops.hyper_connections import STREAMS, Mix

PIECES = 3
"""Bfloat16 numbers that make up a float32 one."""


@dataclass(frozen=True)
class PackedMix:
    """Learned mixes of one sub-layer (24 columns) or of the collapse before the head (4).

    Attributes:
        pieces: bfloat16 [parts, 4, 3 * columns, 128]: of the first, second and third pieces, one row per mix.
        scale: float32 [columns].
        base: float32 [columns].
        iterations: Sinkhorn steps.
        eps: Added to weights and sums.
        norm_eps: Of the norm of the flattened streams.
    """

    pieces: Tensor
    scale: Tensor
    base: Tensor
    iterations: int
    eps: float
    norm_eps: float


def pack_mix(mix: Mix) -> PackedMix:
    """Bring mixes into the kernels' layout."""
    columns, width = mix.fn.shape
    rest = mix.fn.to(torch.float32)
    pieces: list[Tensor] = []
    for _ in range(PIECES):
        pieces.append(rest.to(torch.bfloat16))
        rest = rest - pieces[-1].float()
    stacked = torch.cat(pieces).view(PIECES * columns, STREAMS, width // STREAMS)
    channels = tuning.STREAMS.channels
    padded = torch.nn.functional.pad(stacked, (0, -stacked.shape[2] % channels))
    parts = padded.view(PIECES * columns, STREAMS, -1, channels).permute(2, 1, 0, 3).contiguous()

    def vector(values: object) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32).to(mix.fn.device)

    return PackedMix(parts, vector(mix.scale), vector(mix.base), mix.iterations, mix.eps, mix.norm_eps)
