"""Decode state of one sequence: what fork, rewind and prefix reuse must carry.

Per layer: the window ring; for compressed layers the raw rows of the open group with, for overlapping groups,
    the group before it; and the compressed entries, of the layer and of its indexer. Entries are shared by
    reference, the rest is copied. Source: DeepSeek-V4 report, KV cache structure; official inference code,
    decode path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.cache.rows import EntryRows
from dsv4agent.engine.config import BLOCK, LayerSpec, ModelConfig


class WindowRing:
    """Key-value rows of the last positions, at slot `position % capacity`.

    The capacity is a whole number of aligned blocks, one more than the window needs, so that a chunk inside
    one block never overwrites a row that one of its own queries still sees.
    """

    def __init__(self, window: int, dim: int, device: torch.device) -> None:
        self.window = window
        self.capacity = (-(-window // BLOCK) + 1) * BLOCK
        self.values = torch.zeros(self.capacity, dim, device=device)
        self._keys: Tensor | None = None

    @property
    def keys(self) -> Tensor:
        """The rows transposed, float32 [dim, capacity]; a copy kept from the first use on."""
        if self._keys is None:
            self._keys = self.values.t().contiguous()
        return self._keys

    def write(self, position: int, rows: Tensor) -> None:
        """Store `rows` float32 [n, dim] for positions `position ...`; they stay inside one aligned block."""
        slot = position % self.capacity
        count = rows.shape[0]
        self.values[slot : slot + count] = rows
        if self._keys is not None:
            self._keys[:, slot : slot + count] = rows.t()

    def last(self, position: int) -> Tensor:
        """Return the visible rows before `position`, oldest first: float32 [min(window, position), dim]."""
        count = min(self.window, position)
        slots = torch.arange(position - count, position, device=self.values.device) % self.capacity
        return self.values[slots]

    def fork(self, *, transposed: bool = True) -> WindowRing:
        """Return an independent copy.

        Without `transposed`, half the memory, and the rest is rebuilt when used.
        """
        other = WindowRing.__new__(WindowRing)
        other.window, other.capacity = self.window, self.capacity
        other.values = self.values.clone()
        other._keys = self._keys.clone() if transposed and self._keys is not None else None
        return other


class GroupRows:
    """Raw compressor rows (values, gates) of the present aligned block, with one group before it for overlap.

    Row `lead + position % 128` holds a position; `lead` is the ratio of an overlapping compressor, else 0.
    """

    def __init__(self, lead: int, width: int, gates: list[slice], device: torch.device) -> None:
        self.lead = lead
        self.rows = torch.zeros(lead + BLOCK, width, device=device)
        for columns in gates:
            # There is no group before the first: its gates exclude it.
            self.rows[:lead, columns] = float("-inf")

    def write(self, position: int, rows: Tensor) -> None:
        """Store `rows` float32 [n, width] for positions `position ...` inside one aligned block."""
        start = self.lead + position % BLOCK
        self.rows[start : start + rows.shape[0]] = rows

    def close_block(self) -> None:
        """Keep the last group of a complete block as the one before the next block."""
        if self.lead:
            self.rows[: self.lead] = self.rows[BLOCK:]

    def fork(self) -> GroupRows:
        """Return an independent copy."""
        other = GroupRows.__new__(GroupRows)
        other.lead, other.rows = self.lead, self.rows.clone()
        return other


@dataclass
class LayerState:
    """State of one layer; `groups` and `entries` exist with a compressor, `index_entries` with an indexer."""

    ring: WindowRing
    groups: GroupRows | None = None
    entries: EntryRows | None = None
    index_entries: EntryRows | None = None

    @classmethod
    def empty(cls, config: ModelConfig, layer: LayerSpec, device: torch.device) -> LayerState:
        """Return the state before the first token."""
        state = cls(WindowRing(config.sliding_window, config.head_dim, device))
        if not layer.ratio:
            return state
        block, index_block = (512, 1024) if layer.ratio < 32 else (64, 64)
        main = (2 if layer.overlap else 1) * config.head_dim
        width, gates = 2 * main, [slice(main, 2 * main)]
        state.entries = EntryRows(config.head_dim, block, with_values=True, device=device)
        if layer.overlap:
            index = 2 * config.index_head_dim
            gates.append(slice(width + index, width + 2 * index))
            width += 2 * index
            state.index_entries = EntryRows(
                config.index_head_dim, index_block, with_values=False, device=device
            )
        state.groups = GroupRows(layer.ratio if layer.overlap else 0, width, gates, device)
        return state

    def fork(self, *, transposed: bool = True) -> LayerState:
        """Copy the small parts, share the entries."""
        return LayerState(
            ring=self.ring.fork(transposed=transposed),
            groups=None if self.groups is None else self.groups.fork(),
            entries=None if self.entries is None else self.entries.fork(),
            index_entries=None if self.index_entries is None else self.index_entries.fork(),
        )


@dataclass
class SequenceState:
    """State after `position` tokens.

    Attributes:
        position: Tokens processed.
        layers: One state per layer of the main model.
        hidden: Normalised final hidden row float32 [D] of the last token, from which its logits follow; None
            at 0.
    """

    position: int
    layers: list[LayerState]
    hidden: Tensor | None = None

    @classmethod
    def empty(cls, config: ModelConfig, device: torch.device) -> SequenceState:
        """Return the state before the first token."""
        return cls(0, [LayerState.empty(config, layer, device) for layer in config.layers])

    def fork(self) -> SequenceState:
        """Return a state that continues independently, bit for bit."""
        return SequenceState(self.position, [layer.fork() for layer in self.layers], self.hidden)

    def snapshot(self) -> SequenceState:
        """Return a compact copy to keep; `fork` of it continues bit for bit. It is never advanced itself."""
        return SequenceState(
            self.position, [layer.fork(transposed=False) for layer in self.layers], self.hidden
        )
