"""Manifold-constrained hyper-connections.

Four residual streams, read and written through small learned mixes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.norms import row_norms
from dsv4agent.engine.ops.sinkhorn import STREAMS, MixParameters, collapse_weights, split_mixes
from dsv4agent.engine.ops.tiling import Tiling


class HyperConnection:
    """Reads the input of one sub-layer from the streams and writes its output back.

    Streams travel as float32 [s, 5, D]: four streams and, in the fifth row, the output of the sub-layer, so
    that writing back is one small product per token.
    """

    def __init__(self, parameters: Parameters, prefix: str, precision: Precision, tiling: Tiling) -> None:
        self._fn = parameters.matrix(f"{prefix}_fn")
        c = parameters.config
        self._mix = MixParameters.build(
            parameters.vector(f"{prefix}_scale"),
            parameters.vector(f"{prefix}_base"),
            iterations=c.hc_sinkhorn_iters,
            eps=c.hc_eps,
            norm_eps=c.rms_norm_eps,
            width=STREAMS * c.hidden_size,
        )
        self._precision = precision
        self._tiling = tiling

    def read(self, streams: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the sub-layer's input [s, D] and the write weights [s, 4, 5] that `write` takes."""
        flat = flatten(streams)
        mixes = self._tiling.matmul(flat, self._fn)
        pre, write = split_mixes(mixes, row_norms(flat), self._mix, count)
        x = torch.bmm(pre, streams[:, :STREAMS]).squeeze(1)
        return self._precision.round(x), write

    def write(self, streams: Tensor, write: Tensor) -> Tensor:
        """Return the new streams: row k is post[k] * y + sum_j C[j, k] X[j], with y in row 4 of `streams`."""
        out = torch.empty_like(streams)
        out[:, :STREAMS] = self._precision.round(torch.bmm(write, streams))
        return out


class HeadCollapse:
    """Mixes the four streams into the one row that the final norm and the head read."""

    def __init__(self, parameters: Parameters, prefix: str, precision: Precision, tiling: Tiling) -> None:
        self._fn = parameters.matrix(f"{prefix}hc_head_fn")
        c = parameters.config
        scale = parameters.vector(f"{prefix}hc_head_scale").expand(3)
        self._mix = MixParameters.build(
            scale,
            parameters.vector(f"{prefix}hc_head_base"),
            iterations=1,
            eps=c.hc_eps,
            norm_eps=c.rms_norm_eps,
            width=STREAMS * c.hidden_size,
        )
        self._precision = precision
        self._tiling = tiling

    def __call__(self, streams: Tensor) -> Tensor:
        """Return float32 [s, D] of streams [s, 5, D]."""
        flat = flatten(streams)
        mixes = self._tiling.matmul(flat, self._fn)
        weights = collapse_weights(mixes, row_norms(flat), self._mix)
        return self._precision.round(torch.bmm(weights, streams[:, :STREAMS]).squeeze(1))


def spread(rows: Tensor) -> Tensor:
    """Copy rows [s, D] into four identical streams, [s, 5, D]."""
    streams = rows.new_empty(rows.shape[0], STREAMS + 1, rows.shape[1])
    streams[:, :STREAMS] = rows.unsqueeze(1)
    return streams


def flatten(streams: Tensor) -> Tensor:
    """View streams [s, 5, D] as [s, 4 * D], stream-major, without the row of the sub-layer's output."""
    rows, _, dim = streams.shape
    return streams.as_strided((rows, STREAMS * dim), ((STREAMS + 1) * dim, 1))
