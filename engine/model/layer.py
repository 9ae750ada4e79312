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
from dsv4agent.engine.ops.tiling import Tiling


class Layer:
    """A row of the layer table with its weights."""

    def __init__(
        self, parameters: Parameters, layer: LayerSpec, precision: Precision, tiling: Tiling
    ) -> None:
        self.spec = layer
        self.attention = Attention(parameters, layer, precision, tiling)
        self._moe = MoE(parameters, layer, precision, tiling)
        prefix = layer.prefix
        self._attn = HyperConnection(parameters, f"{prefix}.hc_attn", f"{prefix}.attn_norm.weight", precision)
        self._ffn = HyperConnection(parameters, f"{prefix}.hc_ffn", f"{prefix}.ffn_norm.weight", precision)

    def __call__(self, streams: Tensor, state: LayerState, chunk: Chunk) -> Tensor:
        """Return the streams float32 [s, 4, D] after this layer, which overwrites them; advance `state`."""
        return self.run(streams, chunk, lambda x: self.attention(x, state, chunk))

    def run(self, streams: Tensor, chunk: Chunk, attention: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute the layer with `attention` in the place of its own; draft stages attend differently."""
        prefix = self.spec.prefix
        x, write = self._attn.read(streams)
        y = attention(x)
        chunk.record(f"attn_out.{prefix}", y)
        self._attn.write(streams, y, write)
        x, write = self._ffn.read(streams)
        y = self._moe(x, chunk)
        chunk.record(f"ffn_out.{prefix}", y)
        self._ffn.write(streams, y, write)
        chunk.record(f"streams.{prefix}", streams)
        return streams
