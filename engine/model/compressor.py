"""Compressor: pools the raw rows of each complete group of tokens into one entry."""

from __future__ import annotations

import torch
from torch import Tensor

from dsv4agent.engine.cache.state import GroupRows
from dsv4agent.engine.config import LayerSpec
from dsv4agent.engine.model.chunk import Chunk
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.norms import rms_norm
from dsv4agent.engine.ops.pooling import softmax_pool
from dsv4agent.engine.ops.rotary import rotate_


class Compressor:
    """One compressor, of a layer or of its indexer.

    Raw rows hold its values and gates in adjacent columns from `start`. With overlap there are two series of
    channels: the first pools into the next group's entry, the second into the token's own.
    """

    def __init__(
        self,
        parameters: Parameters,
        prefix: str,
        layer: LayerSpec,
        dim: int,
        *,
        start: int,
        precision: Precision,
    ) -> None:
        self._ape = parameters.vector(f"{prefix}.ape")
        self._norm = parameters.vector(f"{prefix}.norm.weight")
        self._eps = parameters.config.rms_norm_eps
        self._layer = layer
        self._dim = dim
        self._start = start
        self._precision = precision
        self.width = 2 * self._ape.shape[1]

    def pool(self, groups: GroupRows, chunk: Chunk) -> Tensor | None:
        """Return the entries float32 [g, dim] that the chunk's tokens complete, or None.

        They are normalised and rotated to the position of their group's first token; cache rounding is the
        caller's.
        """
        ratio, dim = self._layer.ratio, self._dim
        first, last = chunk.offset // ratio, (chunk.offset + chunk.count) // ratio
        if first == last:
            return None
        rows = groups.rows[:, self._start : self._start + self.width]
        lead = groups.lead
        current = rows[lead + first * ratio : lead + last * ratio].view(last - first, ratio, -1)
        if self._layer.overlap:
            before = rows[first * ratio : last * ratio].view(last - first, ratio, -1)
            values = torch.cat((before[..., :dim], current[..., dim : 2 * dim]), dim=1)
            gates = torch.cat(
                (
                    before[..., 2 * dim : 3 * dim] + self._ape[:, :dim],
                    current[..., 3 * dim :] + self._ape[:, dim:],
                ),
                dim=1,
            )
        else:
            values, gates = current[..., :dim], current[..., dim:] + self._ape
        p = self._precision
        entries = rms_norm(softmax_pool(values, gates), self._norm, self._eps, official=p.official)
        rotations = chunk.block_rotations(self._layer.compress_rope)[first * ratio : last * ratio : ratio]
        return p.round(rotate_(entries, rotations))
