"""Manifold-constrained hyper-connections.

Four residual streams, float32 [s, 4, D], read and written through small learned mixes.
"""

from __future__ import annotations

from torch import Tensor

from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.hyper_connections import (
    STREAMS,
    Mix,
    collapse_streams,
    read_streams,
    write_streams_,
)


class HyperConnection:
    """Reads the input of one sub-layer from the streams and writes its output back."""

    def __init__(self, parameters: Parameters, connection: str, norm: str, precision: Precision) -> None:
        self._mix = _mix(parameters, connection, parameters.config.hc_sinkhorn_iters, norm)
        self._official = precision.official

    def read(self, streams: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sub-layer's normalised input [s, D] and the weights [s, 4, 5] that `write` takes."""
        return read_streams(streams, self._mix, official=self._official)

    def write(self, streams: Tensor, y: Tensor, write: Tensor) -> Tensor:
        """Overwrite the streams with those after the sub-layer, whose output is `y` [s, D]; return them."""
        return write_streams_(streams, y, write, official=self._official)


class HeadCollapse:
    """Mixes the four streams into the one row that the final norm and the head read."""

    def __init__(self, parameters: Parameters, prefix: str, precision: Precision) -> None:
        self._mix = _mix(parameters, f"{prefix}hc_head", 1)
        self._official = precision.official

    def __call__(self, streams: Tensor) -> Tensor:
        """Return float32 [s, D] of streams [s, 4, D]."""
        return collapse_streams(streams, self._mix, official=self._official)


def spread(rows: Tensor) -> Tensor:
    """Copy rows [s, D] into four identical streams, [s, 4, D]."""
    return rows.unsqueeze(1).expand(-1, STREAMS, -1).contiguous()


def _mix(parameters: Parameters, name: str, iterations: int, norm: str | None = None) -> Mix:
    c = parameters.config
    return Mix.build(
        parameters.vector(f"{name}_fn"),
        parameters.vector(f"{name}_scale").expand(3),
        parameters.vector(f"{name}_base"),
        iterations=iterations,
        eps=c.hc_eps,
        norm_eps=c.rms_norm_eps,
        norm=None if norm is None else parameters.vector(norm),
    )
