"""Channelwise softmax pooling of a group of tokens into one compressed entry."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_pool(values: Tensor, gates: Tensor) -> Tensor:
    """Return sum over slots of softmax(gates) * values, separately for every channel.

    Args:
        values: float32 [g, slots, d]; `slots` is a power of two.
        gates: float32 [g, slots, d]; -inf excludes a slot.

    Returns:
        float32 [g, d]. Sums are halved pairwise, slot by slot, so bits do not depend on the number of groups.
    """
    weights = torch.exp(gates - gates.amax(1, keepdim=True))
    return _sum_slots(weights * values) / _sum_slots(weights)


def _sum_slots(x: Tensor) -> Tensor:
    while x.shape[1] > 1:
        half = x.shape[1] // 2
        x = x[:, :half] + x[:, half:]
    return x[:, 0]
