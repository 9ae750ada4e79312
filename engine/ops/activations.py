"""The clamped SwiGLU of an expert."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dsv4agent.engine.ops.compiled import Floats, floats_of, kernel, to_bf16
from dsv4agent.engine.ops.quantizers import round_bf16


def swiglu(hidden: Tensor, weights: Tensor | None, limit: float, *, official: bool) -> Tensor:
    """Return silu(min(gate, limit)) * clip(up, -limit, limit), times the routing weight of the row.

    Args:
        hidden: float32 [r, 2 * w]: gate, then up.
        weights: float32 [r], or None for ones.
        limit: Of the clamps.
        official: Round to bfloat16 before and after.

    Returns:
        float32 [r, w].
    """
    width = hidden.shape[1] // 2
    if hidden.device.type == "cpu":
        out = torch.empty(hidden.shape[0], width)
        factors = torch.ones(hidden.shape[0]) if weights is None else weights
        _swiglu(floats_of(hidden), floats_of(factors), limit, official, floats_of(out))
        return out
    rounded = round_bf16(hidden) if official else hidden
    gate, up = rounded[:, :width].clamp(max=limit), rounded[:, width:].clamp(-limit, limit)
    active = gate / (1.0 + torch.exp(-gate)) * up
    if weights is not None:
        active = active * weights.unsqueeze(1)
    return round_bf16(active) if official else active


@kernel
def _swiglu(hidden: Floats, weights: Floats, limit: float, official: bool, out: Floats) -> None:
    width = out.shape[1]
    top = np.float32(limit)
    for i in range(out.shape[0]):
        for d in range(width):
            gate, up = hidden[i, d], hidden[i, width + d]
            if official:
                gate, up = to_bf16(gate), to_bf16(up)
            gate = min(gate, top)
            up = min(max(up, -top), top)
            value = gate / (np.float32(1.0) + math.exp(-gate)) * up * weights[i]
            out[i, d] = to_bf16(np.float32(value)) if official else value
