"""Which experts a token goes to, and with what weights. Scores are computed in float64, on the host."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsv4agent.engine.ops.compiled import Doubles, Floats, dot, floats_of, kernel

Ids = NDArray[np.int64]


def gate_logits(x: Tensor, gate: Tensor) -> Tensor:
    """Return x [s, D] times the transpose of `gate` [E, D], float32 [s, E]."""
    if x.device.type == "cpu":
        out = torch.empty(x.shape[0], gate.shape[0])
        _gate_logits(floats_of(x), floats_of(gate), floats_of(out))
        return out
    return x @ gate.t()


def expert_scores(logits: Tensor) -> Doubles:
    """Return sqrt(ln(1 + e^z)) of float32 logits [s, E], stable for large |z|, float64 on the host."""
    z = cast("Floats", logits.cpu().contiguous().numpy())
    scores = np.empty(z.shape)
    _scores(z, scores)
    return scores


def route_by_score(scores: Doubles, bias: Doubles, k: int, scale: float) -> tuple[Ids, Doubles]:
    """Choose the `k` experts with the largest biased scores, ties to the lower id.

    Args:
        scores: float64 [s, E].
        bias: float64 [E], for the choice only.
        k: Experts per token.
        scale: What the weights of a token sum to.

    Returns:
        Ids int64 [s, k], ascending, and weights float64 [s, k].
    """
    ids = np.empty((scores.shape[0], k), np.int64)
    _choose(scores, bias, ids)
    return ids, expert_weights(scores, ids, scale)


def expert_weights(scores: Doubles, ids: Ids, scale: float) -> Doubles:
    """Return the scores of the experts `ids` int64 [s, k], normalised to sum `scale`, float64 [s, k]."""
    weights = np.empty(ids.shape)
    _weigh(scores, scale, ids, weights)
    return weights


@kernel
def _gate_logits(x: Floats, gate: Floats, out: Floats) -> None:
    for i in range(x.shape[0]):
        for e in range(gate.shape[0]):
            out[i, e] = dot(x[i], gate[e])


@kernel
def _scores(logits: Floats, scores: Doubles) -> None:
    for i in range(logits.shape[0]):
        for e in range(logits.shape[1]):
            z = float(logits[i, e])
            scores[i, e] = math.sqrt(max(z, 0.0) + math.log1p(math.exp(-abs(z))))


@kernel
def _choose(scores: Doubles, bias: Doubles, ids: Ids) -> None:
    experts, k = scores.shape[1], ids.shape[1]
    biased = np.empty(experts)
    taken = np.empty(experts, np.bool_)
    for i in range(scores.shape[0]):
        for e in range(experts):
            biased[e] = scores[i, e] + bias[e]
            taken[e] = False
        for _ in range(k):
            best = -1
            for e in range(experts):
                if not taken[e] and (best < 0 or biased[e] > biased[best]):
                    best = e
            taken[best] = True
        slot = 0
        for e in range(experts):
            if taken[e]:
                ids[i, slot] = e
                slot += 1


@kernel
def _weigh(scores: Doubles, scale: float, ids: Ids, weights: Doubles) -> None:
    for i in range(ids.shape[0]):
        total = 0.0
        for slot in range(ids.shape[1]):
            total += scores[i, ids[i, slot]]
        for slot in range(ids.shape[1]):
            weights[i, slot] = scores[i, ids[i, slot]] / total * scale
