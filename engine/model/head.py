"""From residual streams to logits."""

from __future__ import annotations

from torch import Tensor

from dsv4agent.engine.model.hyper_connections import HeadCollapse
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.norms import rms_norm


class Head:
    """Collapse and final norm.

    `prefix` is empty for the main model, else that of the draft module with its dot.
    """

    def __init__(self, parameters: Parameters, prefix: str, precision: Precision) -> None:
        self._collapse = HeadCollapse(parameters, prefix, precision)
        self._norm = parameters.vector(f"{prefix}norm.weight")
        self._eps = parameters.config.rms_norm_eps
        self._official = precision.official

    def collapse(self, streams: Tensor) -> Tensor:
        """Return the row before the norm, float32 [s, D], of streams [s, 4, D]."""
        return self._collapse(streams)

    def norm(self, collapsed: Tensor) -> Tensor:
        """Return the row the vocabulary matrix reads, float32 [s, D]."""
        return rms_norm(collapsed, self._norm, self._eps, official=self._official)
