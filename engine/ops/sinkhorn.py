"""The small matrices of hyper-connections: sigmoid weights and the Sinkhorn-normalised 4 x 4 mix.

Forty tiny normalisations cost more in dispatch than all else of a decode step, so a single token is computed
in plain Python floats and a chunk in float64 arrays: the same exactly rounded operations in the same order,
hence the same bits. Exponentials come from one routine in both. Source: DeepSeek-V4 report,
manifold-constrained hyper-connections; the official inference code ends with the column step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dsv4agent.engine.ops.lists import doubles, floats, tensor_of

Array = NDArray[np.float64]

STREAMS = 4
_LIMIT = 700.0
"""Largest exponent, below the overflow of float64."""


@dataclass(frozen=True)
class MixParameters:
    """Scale and base of the mixes, spread over their 24 columns, and the constants."""

    scale: tuple[float, ...]
    base: tuple[float, ...]
    iterations: int
    eps: float
    norm_eps: float
    width: int

    @property
    def columns(self) -> int:
        """Columns of the raw mixes."""
        return len(self.base)

    @classmethod
    def build(
        cls, scale: Tensor, base: Tensor, *, iterations: int, eps: float, norm_eps: float, width: int
    ) -> MixParameters:
        """Spread `scale` [3] over pre, post and the matrix; `width` is 4 * D."""
        pre, post, matrix = floats(scale)
        spread = (pre,) * STREAMS + (post,) * STREAMS + (matrix,) * (STREAMS * STREAMS)
        bases = tuple(floats(base))
        return cls(spread, bases, iterations, eps, norm_eps, width)


def split_mixes(mixes: Tensor, norms: Tensor, parameters: MixParameters, count: int) -> tuple[Tensor, Tensor]:
    """Turn raw mixes into the weights of one sub-layer.

    Args:
        mixes: float32 [s, 24], the product with `fn`, not yet normalised.
        norms: float32 [s], Euclidean norms of the flattened streams.
        parameters: Scale, base and constants.
        count: Valid rows; the weights of the others are arbitrary.

    Returns:
        Read weights `pre` float32 [s, 1, 4], and write weights [s, 4, 5]: row k holds C[0..3, k] and post[k].
    """
    if count == 1:
        # One token of a decode step: the other rows of its tile are copies and share its weights.
        rows = mixes.shape[0]
        both = tensor_of(
            _one(floats(mixes)[: parameters.columns], floats(norms)[0], parameters), mixes.device
        )
        pre = both.as_strided((rows, 1, STREAMS), (0, STREAMS, 1))
        return pre, both.as_strided((rows, STREAMS, STREAMS + 1), (0, STREAMS + 1, 1), STREAMS)
    pre, write = _many(doubles(mixes), doubles(norms), parameters)
    return tensor_of(pre, mixes.device).unsqueeze(1), tensor_of(write, mixes.device)


def collapse_weights(mixes: Tensor, norms: Tensor, parameters: MixParameters) -> Tensor:
    """Return the head's weights sigmoid(m * scale + base) + eps, float32 [s, 1, 4], from raw mixes [s, 4]."""
    z = _scaled(doubles(mixes), doubles(norms), parameters)
    return tensor_of(_sigmoid(z) + parameters.eps, mixes.device).unsqueeze(1)


def _one(mixes: Sequence[float], norm: float, p: MixParameters) -> list[float]:
    """Return pre, then the rows of the write weights."""
    factor = 1.0 / sqrt(norm * norm / p.width + p.norm_eps)
    z = [m * factor * s + b for m, s, b in zip(mixes, p.scale, p.base, strict=True)]
    arguments = [min(-v, _LIMIT) for v in z[: 2 * STREAMS]]
    for row in (z[8:12], z[12:16], z[16:20], z[20:24]):
        top = max(row)
        arguments += [v - top for v in row]
    e: list[float] = np.exp(np.array(arguments)).tolist()
    result = [1.0 / (v + 1.0) + p.eps for v in e[:4]]
    post = [2.0 * (1.0 / (v + 1.0)) for v in e[4:8]]
    c: list[float] = []
    for row in (e[8:12], e[12:16], e[16:20], e[20:24]):
        total = row[0] + row[1] + row[2] + row[3]
        c += [v / total + p.eps for v in row]
    c = _normalize_floats(c, p.iterations, p.eps)
    for k in range(STREAMS):
        result += (c[k], c[4 + k], c[8 + k], c[12 + k], post[k])
    return result


def _normalize_floats(c: list[float], iterations: int, eps: float) -> list[float]:
    """Normalise columns, then rows and columns `iterations - 1` times; unrolled, 16 local floats."""
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3 = c
    for turn in range(iterations):
        if turn:
            s = a0 + a1 + a2 + a3 + eps
            a0 /= s
            a1 /= s
            a2 /= s
            a3 /= s
            s = b0 + b1 + b2 + b3 + eps
            b0 /= s
            b1 /= s
            b2 /= s
            b3 /= s
            s = c0 + c1 + c2 + c3 + eps
            c0 /= s
            c1 /= s
            c2 /= s
            c3 /= s
            s = d0 + d1 + d2 + d3 + eps
            d0 /= s
            d1 /= s
            d2 /= s
            d3 /= s
        s = a0 + b0 + c0 + d0 + eps
        a0 /= s
        b0 /= s
        c0 /= s
        d0 /= s
        s = a1 + b1 + c1 + d1 + eps
        a1 /= s
        b1 /= s
        c1 /= s
        d1 /= s
        s = a2 + b2 + c2 + d2 + eps
        a2 /= s
        b2 /= s
        c2 /= s
        d2 /= s
        s = a3 + b3 + c3 + d3 + eps
        a3 /= s
        b3 /= s
        c3 /= s
        d3 /= s
    return [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]


def _many(mixes: Array, norms: Array, p: MixParameters) -> tuple[Array, Array]:
    """Return pre [s, 4] and the write weights [s, 4, 5]."""
    z = _scaled(mixes, norms, p)
    pre = _sigmoid(z[:, :STREAMS]) + p.eps
    post = 2.0 * _sigmoid(z[:, STREAMS : 2 * STREAMS])
    matrix = z[:, 2 * STREAMS :].reshape(-1, STREAMS, STREAMS)
    # [j, k, s]: the four terms of each sum are then whole contiguous slices.
    c = np.ascontiguousarray(np.exp(matrix - matrix.max(-1, keepdims=True)).transpose(1, 2, 0))
    c = c / (c[:, 0] + c[:, 1] + c[:, 2] + c[:, 3])[:, None] + p.eps
    for turn in range(p.iterations):
        if turn:
            c /= (c[:, 0] + c[:, 1] + c[:, 2] + c[:, 3] + p.eps)[:, None]
        c /= (c[0] + c[1] + c[2] + c[3] + p.eps)[None]
    return pre, np.concatenate((c.transpose(2, 1, 0), post[..., None]), axis=-1)


def _scaled(mixes: Array, norms: Array, p: MixParameters) -> Array:
    """Return mixes [s, n] normalised, scaled and shifted."""
    factor = 1.0 / np.sqrt(norms * norms / p.width + p.norm_eps)
    columns = mixes.shape[1]
    return mixes * factor[:, None] * np.array(p.scale[:columns]) + np.array(p.base)


def _sigmoid(z: Array) -> Array:
    return 1.0 / (np.exp(np.minimum(-z, _LIMIT)) + 1.0)
