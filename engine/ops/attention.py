"""Core attention over one window ring and compressed entries, keys being values.

Rows always stand at the same column for the same query position: sink columns, ring slots, then entries in
blocks of fixed size (or the selected entries in ascending order). What a query may not see gets weight
exactly zero, which leaves sums unchanged; so bits do not depend on how a prompt was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsv4agent.engine.ops.compiled import Floats, floats_of, kernel
from dsv4agent.engine.ops.tiling import Tiling

Booleans = NDArray[np.bool_]
_NOTHING: Booleans = np.empty((0, 0), np.bool_)

SINK_COLUMNS = 16
"""Columns before the ring.

The first holds the sink, so that one softmax covers it and later columns stay aligned.
"""


@dataclass(frozen=True)
class EntryBlocks:
    """Compressed entries a chunk attends to, densely.

    Attributes:
        keys: float32 [blocks, d, b], transposed.
        values: float32 [blocks, b, d].
        hidden: bool, broadcastable to [s, blocks * b]: what each query may not see.
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class EntrySelection:
    """Entries gathered per query: float32 [s, k, d]."""

    rows: Tensor


def attend(
    q: Tensor,
    sink: Tensor,
    ring_keys: Tensor,
    ring_values: Tensor,
    ring_bias: Tensor,
    entries: EntryBlocks | EntrySelection | None,
    tiling: Tiling,
    *,
    round_probabilities: bool = False,
) -> Tensor:
    """Return softmax(q rows, with the sink in the denominator) rows.

    Args:
        q: float32 [s, h, d], scaled by d**-0.5.
        sink: float32 [h, 16]: the sink, then -inf.
        ring_keys: float32 [d, c], transposed window rows.
        ring_values: float32 [c, d].
        ring_bias: float32 [s or 1, c], 0 where visible, else -inf.
        entries: Compressed entries, or None for a pure sliding layer.
        tiling: Row tiles of the engine.
        round_probabilities: Round weights to bfloat16 for the sum over rows, as the official precision path
            does.

    Returns:
        float32 [s, h, d].
    """
    tokens, heads, dim = q.shape
    window = ring_keys.shape[1]
    flat = q.view(tokens * heads, dim)
    first = SINK_COLUMNS + window
    z = q.new_empty(tokens, heads, first + _columns(entries))
    rows = z.view(tokens * heads, -1)
    tiling.matmul(flat, ring_keys, out=rows[:, SINK_COLUMNS:first])
    hidden: Tensor | None = None
    if isinstance(entries, EntryBlocks):
        block = entries.keys.shape[2]
        for index, keys in enumerate(entries.keys.unbind(0)):
            start = first + index * block
            tiling.matmul(flat, keys, out=rows[:, start : start + block])
        hidden = entries.hidden
    elif entries is not None:
        z[:, :, first:] = torch.bmm(q, entries.rows.transpose(1, 2))
    _finish_scores_(z, sink, ring_bias, hidden)
    p = _softmax(rows, round_probabilities)
    out = tiling.matmul(p[:, SINK_COLUMNS:first], ring_values)
    if isinstance(entries, EntryBlocks):
        block = entries.values.shape[1]
        for index, values in enumerate(entries.values.unbind(0)):
            start = first + index * block
            tiling.addmm_(out, p[:, start : start + block], values)
    elif entries is not None:
        out += torch.bmm(p.view(tokens, heads, -1)[:, :, first:], entries.rows).view(tokens * heads, dim)
    return out.view(tokens, heads, dim)


def _columns(entries: EntryBlocks | EntrySelection | None) -> int:
    if entries is None:
        return 0
    if isinstance(entries, EntryBlocks):
        return entries.keys.shape[0] * entries.keys.shape[2]
    return entries.rows.shape[1]


def _finish_scores_(z: Tensor, sink: Tensor, ring_bias: Tensor, hidden: Tensor | None) -> None:
    """Put the sink before the scores [s, h, n], and -inf where a query may not look."""
    first = SINK_COLUMNS + ring_bias.shape[1]
    if z.device.type == "cpu" and ring_bias.is_contiguous():
        hides = _NOTHING if hidden is None else hidden.contiguous().numpy()
        _finish_scores(floats_of(z), floats_of(sink), floats_of(ring_bias), hides)
        return
    z[:, :, :SINK_COLUMNS] = sink
    z[:, :, SINK_COLUMNS:first] += ring_bias.unsqueeze(1)
    if hidden is not None:
        z[:, :, first:].masked_fill_(hidden.unsqueeze(1), float("-inf"))


@kernel
def _finish_scores(z: Floats, sink: Floats, ring_bias: Floats, hidden: Booleans) -> None:
    first = sink.shape[1] + ring_bias.shape[1]
    for i in range(z.shape[0]):
        bias = ring_bias[min(i, ring_bias.shape[0] - 1)]
        for h in range(z.shape[1]):
            row = z[i, h]
            for column in range(sink.shape[1]):
                row[column] = sink[h, column]
            for slot in range(bias.shape[0]):
                row[sink.shape[1] + slot] += bias[slot]
            if hidden.shape[0]:
                hides = hidden[min(i, hidden.shape[0] - 1)]
                for entry in range(hides.shape[0]):
                    if hides[entry]:
                        row[first + entry] = -np.inf


def _softmax(z: Tensor, round_probabilities: bool) -> Tensor:
    if not round_probabilities:
        return torch.softmax(z, dim=-1)
    # The official kernel rounds the unnormalised exponentials and divides by their exact sum. The largest of
    # them is exactly one, so the largest normalised weight is the reciprocal of that sum, in whatever order
    # it was added.
    top = torch.softmax(z, dim=-1).amax(-1, keepdim=True)
    return torch.exp(z - z.amax(-1, keepdim=True)).to(torch.bfloat16).to(torch.float32) * top
