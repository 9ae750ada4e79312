"""What the device keeps of sequences: window rings, open groups, and pages of compressed entries.

A page stands for 256 tokens of one sequence and has the same number in every layer, so one table serves all.
Entries never change once their page is full: a fork shares full pages and copies the rest. Every sequence has
a slot; one more slot takes the padding rows of a decode step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.config import LayerSpec, ModelConfig
from dsv4agent.engine.errors import CacheFull
from dsv4agent.engine.kernels.compressor import RawRows
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, PAGE_TOKENS, WINDOW, RowBlocks
from dsv4agent.engine.kernels.launch import ceil_div

REWIND = 64
"""Tokens that a sequence can be taken back without a copy of its state."""


@dataclass(frozen=True)
class Capacity:
    """How much the device keeps.

    Attributes:
        sequences: At once.
        context: Most tokens of one.
        chunk: Most tokens of one in a step.
        pages: Of all sequences together.
    """

    sequences: int
    context: int
    chunk: int
    pages: int

    @classmethod
    def of(cls, sequences: int, context: int, chunk: int) -> Capacity:
        """Return room for `sequences` of full length."""
        return cls(sequences, context, chunk, sequences * ceil_div(context, PAGE_TOKENS))


@dataclass(frozen=True)
class LayerState:
    """State of one layer; `raw` and `pages` are empty, or of attention rows and then of index rows."""

    ring: RowBlocks
    raw: tuple[RawRows, ...]
    pages: tuple[RowBlocks, ...]


class DeviceState:
    """The state of all sequences, and which slots and pages are in use.

    Attributes:
        capacity: What was allocated.
        layers: By layer.
        padding: Slot of padding rows.
    """

    def __init__(self, config: ModelConfig, capacity: Capacity, device: torch.device) -> None:
        self.capacity = capacity
        self.device = device
        self.padding = capacity.sequences
        slots = capacity.sequences + 1
        self._width = ceil_div(capacity.context, PAGE_TOKENS)
        # Page 0 belongs to nobody: padding rows write there, and so does a row of the table not yet in use.
        self._table = torch.zeros(slots, self._width, dtype=torch.int32, device=device)
        self._free_pages = list(range(capacity.pages, 0, -1))
        self._free_slots = list(range(capacity.sequences - 1, -1, -1))
        self._owned: list[list[int]] = [[] for _ in range(capacity.sequences)]
        self._users = [0] * (capacity.pages + 1)
        ring_rows = ceil_div(capacity.chunk + WINDOW + REWIND, 2) * 2
        self.layers = tuple(
            _layer_state(spec, slots, ring_rows, capacity.pages + 1, self._table, device)
            for spec in config.layers
        )

    @property
    def free_pages(self) -> int:
        """Pages that no sequence has."""
        return len(self._free_pages)

    def open(self) -> int:
        """Take a slot for a new sequence.

        Raises:
            CacheFull: All are taken.
        """
        if not self._free_slots:
            raise CacheFull(f"All {self.capacity.sequences} sequences are in use; close one.")
        return self._free_slots.pop()

    def close(self, slot: int) -> None:
        """Give back a slot and its pages."""
        self._give_back(self._owned[slot])
        self._owned[slot] = []
        self._free_slots.append(slot)

    def reserve(self, slot: int, tokens: int) -> None:
        """Make sure that a sequence has pages for its first `tokens` tokens.

        Raises:
            CacheFull: There are too few; nothing was taken.
        """
        owned = self._owned[slot]
        missing = ceil_div(tokens, PAGE_TOKENS) - len(owned)
        if missing <= 0:
            return
        if missing > len(self._free_pages):
            raise CacheFull(
                f"{missing} pages of {PAGE_TOKENS} tokens are needed and {len(self._free_pages)} of "
                f"{self.capacity.pages} are free; close a sequence."
            )
        new = [self._free_pages.pop() for _ in range(missing)]
        for page in new:
            self._users[page] = 1
        self._write_table(slot, len(owned), new)
        owned += new

    def fork(self, slot: int, position: int) -> int:
        """Return a new slot that continues `slot` from `position`, at most `REWIND` tokens before its end.

        Raises:
            CacheFull: No slot or no page is free; nothing was taken.
        """
        whole, rest = divmod(position, PAGE_TOKENS)
        if rest and not self._free_pages:
            raise CacheFull("No page is free; close a sequence.")
        other = self.open()
        shared = self._owned[slot][:whole]
        for page in shared:
            self._users[page] += 1
        self._owned[other] = list(shared)
        self._write_table(other, 0, shared)
        for layer in self.layers:
            layer.ring.bytes[other] = layer.ring.bytes[slot]
            for raw in layer.raw:
                raw.rows[other] = raw.rows[slot]
        if rest:
            self.reserve(other, position)
            source, target = self._owned[slot][whole], self._owned[other][whole]
            for layer in self.layers:
                for pages in layer.pages:
                    pages.bytes[target] = pages.bytes[source]
        return other

    def _give_back(self, pages: list[int]) -> None:
        for page in pages:
            self._users[page] -= 1
            if not self._users[page]:
                self._free_pages.append(page)

    def _write_table(self, slot: int, start: int, pages: list[int]) -> None:
        if pages:
            row = torch.tensor(pages, dtype=torch.int32)
            self._table[slot, start : start + len(pages)] = row.to(self.device, non_blocking=True)


def _layer_state(
    spec: LayerSpec, slots: int, ring_rows: int, pages: int, table: Tensor, device: torch.device
) -> LayerState:
    dims = (HEAD_DIM, INDEX_DIM)[: 2 if spec.overlap else 1] if spec.ratio else ()
    return LayerState(
        ring=RowBlocks.ring(slots, ring_rows, device),
        raw=tuple(RawRows.zeros(slots, spec.ratio, dim, device, rewind=REWIND) for dim in dims),
        pages=tuple(RowBlocks.pages(pages, spec.ratio, table, index=dim == INDEX_DIM) for dim in dims),
    )
