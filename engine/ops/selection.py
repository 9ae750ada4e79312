"""Choosing the largest scores with ties to the lower index, which a library's top-k leaves open."""

from __future__ import annotations

from torch import Tensor


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """Mark the `k` largest of each row, ties to the lower index.

    Args:
        scores: float32 [s, n], -inf for what may not be chosen; at least `k` finite scores in each row.
        k: How many to mark.

    Returns:
        bool [s, n] with exactly `k` true values per row.
    """
    threshold = scores.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    reached = scores >= threshold
    if int(reached.sum()) == k * scores.shape[0]:
        return reached
    above = scores > threshold
    level = scores == threshold
    room = k - above.sum(-1, keepdim=True)
    return above | (level & (level.cumsum(-1) <= room))
