"""The residual streams of hyper-connections: read through small learned mixes, and written back.

A sub-layer reads sum_j pre[j] X[j] and, with output y, leaves row k as post[k] y + sum_j C[j, k] X[j]. The
weights come from the streams themselves: a product with 24 rows, sigmoids, and a 4 x 4 matrix made doubly
stochastic by Sinkhorn steps, in float64. Source: DeepSeek-V4 report, manifold-constrained hyper-connections;
the official inference code ends with the column step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dsv4agent.engine.ops.compiled import Doubles, Floats, dot, floats_of, kernel, round_row, sum_of_squares
from dsv4agent.engine.ops.lists import doubles, floats
from dsv4agent.engine.ops.norms import rms_norm, row_norms
from dsv4agent.engine.ops.quantizers import round_bf16

STREAMS = 4
MIXES = STREAMS + STREAMS + STREAMS * STREAMS
"""Columns of the raw mixes: pre, post, matrix."""
_LIMIT = 700.0
"""Largest exponent, below the overflow of float64."""


@dataclass(frozen=True)
class Mix:
    """Learned mixes of one sub-layer, and the constants.

    Attributes:
        fn: float32 [24, 4 * D], or [4, 4 * D] for the collapse before the head.
        scale: float64 [24], spread over the columns.
        base: float64 [24].
        iterations: Sinkhorn steps.
        eps: Added to weights and sums.
        norm_eps: Of the norm of the flattened streams, and of the sub-layer's own.
        norm: float32 [D], weight of the sub-layer's norm; empty for the collapse.
    """

    fn: Tensor
    scale: Doubles
    base: Doubles
    iterations: int
    eps: float
    norm_eps: float
    norm: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def build(
        cls,
        fn: Tensor,
        scale: Tensor,
        base: Tensor,
        *,
        iterations: int,
        eps: float,
        norm_eps: float,
        norm: Tensor | None = None,
    ) -> Mix:
        """Spread `scale` [3] over pre, post and the matrix, as far as `base` has columns."""
        pre, post, matrix = floats(scale)
        spread = [pre] * STREAMS + [post] * STREAMS + [matrix] * (STREAMS * STREAMS)
        return cls(
            fn.contiguous(),
            np.array(spread[: base.numel()]),
            doubles(base),
            iterations,
            eps,
            norm_eps,
            fn.new_empty(0) if norm is None else norm,
        )

    @cached_property
    def arrays(self) -> tuple[Floats, Floats]:
        """`fn` and `norm` as the kernels take them; the same memory, seen once and for all."""
        return floats_of(self.fn), floats_of(self.norm)


def read_streams(streams: Tensor, mix: Mix, *, official: bool) -> tuple[Tensor, Tensor]:
    """Return the normalised input of a sub-layer and the weights with which its output is written back.

    Args:
        streams: float32 [s, 4, D].
        mix: Of the sub-layer.
        official: Round to bfloat16 before and after the norm.

    Returns:
        float32 [s, D], and float32 [s, 4, 5]: row k holds C[0..3, k] and post[k].
    """
    rows, _, dim = streams.shape
    if streams.device.type == "cpu":
        x, write = torch.empty(rows, dim), torch.empty(rows, STREAMS, STREAMS + 1)
        fn, norm = mix.arrays
        arguments = (mix.scale, mix.base, mix.iterations, mix.eps, mix.norm_eps)
        _read(floats_of(streams), fn, *arguments, norm, official, floats_of(x), floats_of(write))
        return x, write
    flat = streams.flatten(1)
    pre, write = mix_weights(flat @ mix.fn.t(), row_norms(flat), mix, flat.shape[1])
    x = _rounded(torch.bmm(pre.unsqueeze(1), streams).squeeze(1), official)
    return _rounded(rms_norm(x, mix.norm, mix.norm_eps), official), write


def write_streams_(streams: Tensor, y: Tensor, write: Tensor, *, official: bool) -> Tensor:
    """Replace the streams [s, 4, D] by post y + C^T X with `write` of `read_streams`, and return them.

    Args:
        streams: float32 [s, 4, D], overwritten.
        y: float32 [s, D], the output of the sub-layer; one row may stand for all.
        write: float32 [s, 4, 5].
        official: Round to bfloat16.
    """
    if streams.device.type == "cpu":
        _write(floats_of(streams), floats_of(y), floats_of(write), official)
        return streams
    y = y.expand(streams.shape[0], -1).unsqueeze(1)
    return streams.copy_(_rounded(torch.bmm(write, torch.cat((streams, y), dim=1)), official))


def collapse_streams(streams: Tensor, mix: Mix, *, official: bool) -> Tensor:
    """Return float32 [s, D]: the streams [s, 4, D] weighted by sigmoid(m * scale + base) + eps."""
    flat = streams.flatten(1)
    if streams.device.type == "cpu":
        x = torch.empty(streams.shape[0], streams.shape[2])
        arguments = (mix.scale, mix.base, mix.eps, mix.norm_eps)
        _collapse(floats_of(streams), mix.arrays[0], *arguments, official, floats_of(x))
        return x
    z = _scaled(doubles(flat @ mix.fn.t()), doubles(row_norms(flat)), mix, flat.shape[1])
    weights = 1.0 / (np.exp(np.minimum(-z, _LIMIT)) + 1.0) + mix.eps
    pre = torch.from_numpy(weights.astype(np.float32)).to(streams.device)  # pyright: ignore[reportUnknownMemberType]
    return _rounded(torch.bmm(pre.unsqueeze(1), streams).squeeze(1), official)


def mix_weights(mixes: Tensor, norms: Tensor, mix: Mix, width: int) -> tuple[Tensor, Tensor]:
    """Turn raw mixes into weights.

    Args:
        mixes: float32 [s, 24], the product with `fn`, not yet normalised.
        norms: float32 [s], Euclidean norms of the flattened streams.
        mix: Scale, base and constants.
        width: Elements of a flattened row.

    Returns:
        Read weights float32 [s, 4], and write weights float32 [s, 4, 5].
    """
    rows = mixes.shape[0]
    pre, write = np.empty((rows, STREAMS), np.float32), np.empty((rows, STREAMS, STREAMS + 1), np.float32)
    _many(_scaled(doubles(mixes), doubles(norms), mix, width), mix.iterations, mix.eps, pre, write)
    return (
        torch.from_numpy(pre).to(mixes.device),  # pyright: ignore[reportUnknownMemberType]
        torch.from_numpy(write).to(mixes.device),  # pyright: ignore[reportUnknownMemberType]
    )


def _scaled(mixes: Doubles, norms: Doubles, mix: Mix, width: int) -> Doubles:
    factor = 1.0 / np.sqrt(norms * norms / width + mix.norm_eps)
    return mixes * factor[:, None] * mix.scale + mix.base


def _rounded(x: Tensor, official: bool) -> Tensor:
    return round_bf16(x) if official else x


@kernel
def _read(
    streams: Floats,
    fn: Floats,
    scale: Doubles,
    base: Doubles,
    iterations: int,
    eps: float,
    norm_eps: float,
    norm: Floats,
    official: bool,
    x: Floats,
    write: Floats,
) -> None:
    dim = streams.shape[2]
    z = np.empty(MIXES)
    pre = np.empty(STREAMS, np.float32)
    for i in range(streams.shape[0]):
        _mixes(streams[i].reshape(STREAMS * dim), fn, scale, base, norm_eps, z)
        _weights(z, iterations, eps, pre, write[i])
        _blend(streams[i], pre, official, x[i])
        factor = np.float32(1.0 / math.sqrt(sum_of_squares(x[i]) / dim + norm_eps))
        for d in range(dim):
            x[i, d] = x[i, d] * factor * norm[d]
        if official:
            round_row(x[i])


@kernel
def _collapse(
    streams: Floats,
    fn: Floats,
    scale: Doubles,
    base: Doubles,
    eps: float,
    norm_eps: float,
    official: bool,
    x: Floats,
) -> None:
    dim = streams.shape[2]
    z = np.empty(STREAMS)
    pre = np.empty(STREAMS, np.float32)
    for i in range(streams.shape[0]):
        _mixes(streams[i].reshape(STREAMS * dim), fn, scale, base, norm_eps, z)
        for j in range(STREAMS):
            pre[j] = 1.0 / (math.exp(min(-z[j], _LIMIT)) + 1.0) + eps
        _blend(streams[i], pre, official, x[i])


@kernel
def _write(streams: Floats, y: Floats, write: Floats, official: bool) -> None:
    for i in range(streams.shape[0]):
        own = y[min(i, y.shape[0] - 1)]
        for d in range(streams.shape[2]):
            a, b = streams[i, 0, d], streams[i, 1, d]
            c, e = streams[i, 2, d], streams[i, 3, d]
            for k in range(STREAMS):
                w = write[i, k]
                streams[i, k, d] = a * w[0] + b * w[1] + c * w[2] + e * w[3] + own[d] * w[4]
        if official:
            for k in range(STREAMS):
                round_row(streams[i, k])


@kernel
def _many(z: Doubles, iterations: int, eps: float, pre: Floats, write: Floats) -> None:
    for i in range(z.shape[0]):
        _weights(z[i], iterations, eps, pre[i], write[i])


@kernel
def _mixes(row: Floats, fn: Floats, scale: Doubles, base: Doubles, norm_eps: float, z: Doubles) -> None:
    """Fill `z` with the normalised, scaled and shifted products of a flattened row."""
    width = row.shape[0]
    factor = 1.0 / math.sqrt(sum_of_squares(row) / width + norm_eps)
    for c in range(z.shape[0]):
        z[c] = dot(row, fn[c]) * factor * scale[c] + base[c]


@kernel
def _blend(streams: Floats, pre: Floats, official: bool, x: Floats) -> None:
    a, b, c, e = pre[0], pre[1], pre[2], pre[3]
    for d in range(x.shape[0]):
        x[d] = streams[0, d] * a + streams[1, d] * b + streams[2, d] * c + streams[3, d] * e
    if official:
        round_row(x)


@kernel
def _weights(z: Doubles, iterations: int, eps: float, pre: Floats, write: Floats) -> None:
    """Fill the read weights [4] and the write weights [4, 5] of one row from its 24 scaled mixes."""
    for k in range(STREAMS):
        pre[k] = 1.0 / (math.exp(min(-z[k], _LIMIT)) + 1.0) + eps
        write[k, STREAMS] = 2.0 / (math.exp(min(-z[STREAMS + k], _LIMIT)) + 1.0)
    c = np.empty((STREAMS, STREAMS))
    for j in range(STREAMS):
        start = 2 * STREAMS + j * STREAMS
        top = max(max(z[start], z[start + 1]), max(z[start + 2], z[start + 3]))
        total = 0.0
        for k in range(STREAMS):
            c[j, k] = math.exp(z[start + k] - top)
            total += c[j, k]
        for k in range(STREAMS):
            c[j, k] = c[j, k] / total + eps
    for turn in range(iterations):
        if turn:
            for j in range(STREAMS):
                share = 1.0 / (c[j, 0] + c[j, 1] + c[j, 2] + c[j, 3] + eps)
                for k in range(STREAMS):
                    c[j, k] *= share
        for k in range(STREAMS):
            share = 1.0 / (c[0, k] + c[1, k] + c[2, k] + c[3, k] + eps)
            for j in range(STREAMS):
                c[j, k] *= share
    for k in range(STREAMS):
        for j in range(STREAMS):
            write[k, j] = c[j, k]
