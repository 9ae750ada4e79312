"""Mixture of experts: routing by score or by token id, routed experts and the shared one."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from dsv4agent.engine.config import LayerSpec
from dsv4agent.engine.model.chunk import Chunk
from dsv4agent.engine.model.parameters import Parameters
from dsv4agent.engine.model.precision import Precision
from dsv4agent.engine.ops.activations import swiglu
from dsv4agent.engine.ops.compiled import Doubles
from dsv4agent.engine.ops.lists import doubles, integers, tensor_of
from dsv4agent.engine.ops.routing import (
    Ids,
    expert_scores,
    expert_weights,
    gate_logits,
    route_by_score,
)
from dsv4agent.engine.ops.tiling import Tiling


class MoE:
    """Routed experts summed in ascending order of expert id, the shared expert last.

    Routing is computed on the host in float64: the ids are needed there, to address the experts.
    """

    def __init__(
        self, parameters: Parameters, layer: LayerSpec, precision: Precision, tiling: Tiling
    ) -> None:
        c = parameters.config
        prefix = f"{layer.prefix}.ffn"
        self._precision = precision
        self._tiling = tiling
        self._layer = layer
        self._experts_per_token = c.num_experts_per_tok
        self._scale = c.routed_scaling_factor
        self._limit = c.swiglu_limit
        self._width = c.moe_intermediate_size
        self._gate = parameters.vector(f"{prefix}.gate.weight").contiguous()
        self._table: Ids | None = None
        self._bias: Doubles | None = None
        if layer.hash_routed:
            table = parameters.vector(f"{prefix}.gate.tid2eid")
            self._table = cast("Ids", table.sort(dim=-1).values.cpu().numpy())
        else:
            self._bias = doubles(parameters.vector(f"{prefix}.gate.bias"))
        owners = [f"{prefix}.experts.{index}" for index in range(c.n_routed_experts)]
        owners.append(f"{prefix}.shared_experts")
        self._w_in = [parameters.matrix(f"{owner}.w1.weight", f"{owner}.w3.weight") for owner in owners]
        self._w_out = [parameters.matrix(f"{owner}.w2.weight") for owner in owners]

    def __call__(self, x: Tensor, chunk: Chunk) -> Tensor:
        """Return float32 [s, D] of normalised input [s, D]."""
        ids, weights = self._route(x, chunk)
        if chunk.trace is not None:
            chunk.record(f"route_idx.{self._layer.prefix}", torch.from_numpy(ids))  # pyright: ignore[reportUnknownMemberType]
            chunk.record(f"route_w.{self._layer.prefix}", tensor_of(weights, x.device))
        quantized = self._precision.activation(x)
        if chunk.count == 1:
            return self._one_token(quantized, ids[0].tolist(), weights[0].tolist())
        count = chunk.count
        flat = torch.from_numpy(ids[:count].reshape(-1)).to(x.device)  # pyright: ignore[reportUnknownMemberType]
        return self._grouped(quantized, flat, tensor_of(weights[:count].reshape(-1), x.device))

    def _route(self, x: Tensor, chunk: Chunk) -> tuple[Ids, Doubles]:
        """Return expert ids int64 [s, k], ascending, and their weights float64 [s, k], for the valid rows."""
        scores = expert_scores(gate_logits(x, self._gate)[: chunk.count])
        if self._table is not None:
            ids = self._table[chunk.token_ids]
            return ids, expert_weights(scores, ids, self._scale)
        assert self._bias is not None
        return route_by_score(scores, self._bias, self._experts_per_token, self._scale)

    def _one_token(self, x: Tensor, ids: list[int], weights: list[float]) -> Tensor:
        """All chosen experts see the same tile; their activations are computed together."""
        owners = [*ids, len(self._w_in) - 1]
        hidden = x.new_empty(len(owners), x.shape[0], 2 * self._width)
        for target, owner in zip(hidden.unbind(0), owners, strict=True):
            self._tiling.matmul(x, self._w_in[owner], out=target)
        factors = tensor_of([*weights, 1.0], x.device)
        if x.shape[0] != 1:
            factors = factors.repeat_interleave(x.shape[0])
        active = self._activate(hidden.view(-1, 2 * self._width), factors).view(len(owners), x.shape[0], -1)
        out: Tensor | None = None
        for part, owner in zip(active.unbind(0), owners, strict=True):
            rows = self._precision.round(self._tiling.matmul(part, self._w_out[owner]))
            out = rows if out is None else out.add_(rows)
        assert out is not None
        return self._precision.round(out)

    def _grouped(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Each expert sees a tile of the tokens that chose it; `ids` and `weights` are [tokens * k]."""
        order = ids.sort(stable=True).indices
        counts = integers(ids.bincount(minlength=len(self._w_in) - 1))
        out = torch.zeros_like(x)
        start = 0
        for expert, count in enumerate(counts):
            if count == 0:
                continue
            slots = order[start : start + count]
            start += count
            tokens = slots // self._experts_per_token
            missing = self._tiling.size(count) - count
            routed = weights[slots]
            if missing:
                padded = torch.cat((tokens, tokens[:1].expand(missing)))
                routed = torch.cat((routed, routed.new_zeros(missing)))
                rows = self._expert(x[padded], expert, routed)[:count]
            else:
                rows = self._expert(x[tokens], expert, routed)
            out.index_add_(0, tokens, rows)
        shared = self._expert(x, len(self._w_in) - 1, None)
        return self._precision.round(out.add_(shared))

    def _expert(self, x: Tensor, owner: int, weights: Tensor | None) -> Tensor:
        hidden = self._tiling.matmul(x, self._w_in[owner])
        active = self._activate(hidden, weights)
        return self._precision.round(self._tiling.matmul(active, self._w_out[owner]))

    def _activate(self, hidden: Tensor, weights: Tensor | None) -> Tensor:
        """Return the clamped SwiGLU times the routing weight, rounded as input of the last product."""
        p = self._precision
        return p.activation(swiglu(hidden, weights, self._limit, official=p.official))
