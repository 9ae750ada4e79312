"""One layer: attention and mixture of experts, each between a read and a write of the residual streams."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dsv4agent.engine.cache.state import LayerState
from dsv4agent.engine.config import LayerSpec
from dsv4agent.engine.model.attention import Attention
from dsv4agent.engine.model.chunk import Chunk
from dsv4agent.engine.model.hyper_connections import HyperConnection
from dsv4agent.engine.model.moe import MoE
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.norms import rms_norm
from dsv4agent.engine.ops.sinkhorn import STREAMS
from dsv4agent.engine.ops.tiling import Tiling


class Layer:
    """A row of the layer table with its weights."""

    def __init__(
        self, parameters: Parameters, layer: LayerSpec, precision: Precision, tiling: Tiling
    ) -> None:
        self.spec = layer
        self.attention = Attention(parameters, layer, precision, tiling)
        self._moe = MoE(parameters, layer, precision, tiling)
        self._attn_connection = HyperConnection(parameters, f"{layer.prefix}.hc_attn", precision, tiling)
        self._ffn_connection = HyperConnection(parameters, f"{layer.prefix}.hc_ffn", precision, tiling)
        self._attn_norm = parameters.vector(f"{layer.prefix}.attn_norm.weight")
        self._ffn_norm = parameters.vector(f"{layer.prefix}.ffn_norm.weight")
        self._eps = parameters.config.rms_norm_eps
        self._precision = precision

    def __call__(self, streams: Tensor, state: LayerState, chunk: Chunk) -> Tensor:
        """Return the streams float32 [s, 5, D] after this layer, and advance `state`."""
        return self.run(streams, chunk, lambda x: self.attention(x, state, chunk))

    def run(self, streams: Tensor, chunk: Chunk, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute the layer with `attention` in the place of its own; draft stages attend differently."""
        prefix = self.spec.prefix
        x, write = self._attn_connection.read(streams, chunk.count)
        streams[:, STREAMS] = attention(
            self._precision.round(rms_norm(x, self._attn_norm, self._eps, copies=chunk.count == 1))
        )
        chunk.record(f"attn_out.{prefix}", streams[:, STREAMS])
        streams = self._attn_connection.write(streams, write)
        x, write = self._ffn_connection.read(streams, chunk.count)
        streams[:, STREAMS] = self._moe(
            self._precision.round(rms_norm(x, self._ffn_norm, self._eps, copies=chunk.count == 1)), chunk
        )
        chunk.record(f"ffn_out.{prefix}", streams[:, STREAMS])
        streams = self._ffn_connection.write(streams, write)
        chunk.record(f"streams.{prefix}", streams[:, :STREAMS])
        return streams
