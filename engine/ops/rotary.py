"""Rotation of interleaved channel pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the last channels of `x` in place and return it.

    Args:
        x: float32 [..., d], rows contiguous in the last dimension.
        rotation: complex64, broadcastable to [..., r/2]: e^(i * angle) of the pairs (d-r+2i, d-r+2i+1).
    """
    width = rotation.shape[-1] * 2
    tail = x[..., x.shape[-1] - width :]
    # A view of `x` in any case: only the last dimension is split.
    pairs = tail.view(*tail.shape[:-1], width // 2, 2)
    torch.view_as_complex(pairs).mul_(rotation)
    return x
