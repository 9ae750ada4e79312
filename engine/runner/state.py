"""What the device keeps of sequences: window rings, open groups, and pages of compressed entries.

A page stands for 256 tokens of one sequence and has the same number in every layer, so one table serves all.
Entries never change once their page is full. A sequence that takes part in steps has a slot: a ring and open
groups in every layer, and a row of the table. One more slot takes the padding rows of a decode step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dsv4agent.engine.config import LayerSpec, ModelConfig
from dsv4agent.engine.errors import CacheFull
from dsv4agent.engine.kernels.compressor import RawRows
from dsv4agent.engine.kernels.kv_rows import HEAD_DIM, INDEX_DIM, PAGE_TOKENS, WINDOW, RowBlocks
from dsv4agent.engine.kernels.launch import ceil_div


@dataclass(frozen=True)
class Capacity:
    """How much the device keeps.

    Attributes:
        slots: Sequences that can take part in a step.
        context: Most tokens of one.
        chunk: Most tokens of one in a step.
        pages: Of all sequences together.
    """

    slots: int
    context: int
    chunk: int
    pages: int

    @classmethod
    def of(cls, slots: int, context: int, chunk: int) -> Capacity:
        """Return room for `slots` sequences of full length."""
        return cls(slots, context, chunk, slots * ceil_div(context, PAGE_TOKENS))


@dataclass(frozen=True)
class LayerState:
    """State of one layer; `raw` and `pages` are empty, or of attention rows and then of index rows."""

    ring: RowBlocks
    raw: tuple[RawRows, ...]
    pages: tuple[RowBlocks, ...]


@dataclass(frozen=True)
class Tail:
    """What a sequence needs besides its pages, copied out of a slot: on the host.

    Attributes:
        position: Tokens processed.
        rings: uint8 [n, 584] for each layer: the rows that the next token still sees.
        groups: float32 [n, width] for each compressor: the rows that the next entry still pools.
    """

    position: int
    rings: tuple[Tensor, ...]
    groups: tuple[Tensor, ...]


class DeviceState:
    """Rings, groups and pages of all slots, and which pages are in use by how many.

    Attributes:
        capacity: What was allocated.
        layers: By layer.
        padding: Slot of padding rows.
    """

    def __init__(self, config: ModelConfig, capacity: Capacity, device: torch.device) -> None:
        self.capacity = capacity
        self.device = device
        self.padding = capacity.slots
        slots = capacity.slots + 1
        # Page 0 belongs to nobody: padding rows write there.
        self._table = torch.zeros(
            slots, ceil_div(capacity.context, PAGE_TOKENS), dtype=torch.int32, device=device
        )
        self._free = list(range(capacity.pages, 0, -1))
        self._users = [0] * (capacity.pages + 1)
        ring_rows = ceil_div(capacity.chunk + WINDOW, 2) * 2
        self.layers = tuple(
            _layer_state(spec, slots, ring_rows, capacity.pages + 1, self._table, device)
            for spec in config.layers
        )

    # Pages

    @property
    def free_pages(self) -> int:
        """Pages that no sequence has."""
        return len(self._free)

    def take_pages(self, count: int) -> list[int]:
        """Return new pages.

        Raises:
            CacheFull: There are too few; none was taken.
        """
        if count > len(self._free):
            raise CacheFull(
                f"{count} pages of {PAGE_TOKENS} tokens are needed, {len(self._free)} of "
                f"{self.capacity.pages} are free; close a sequence or load with a larger cache."
            )
        pages = [self._free.pop() for _ in range(count)]
        self.share_pages(pages)
        return pages

    def share_pages(self, pages: list[int]) -> None:
        """Note one more user of pages."""
        for page in pages:
            self._users[page] += 1

    def give_back_pages(self, pages: list[int]) -> None:
        """Note one user less of pages."""
        for page in pages:
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)

    def is_shared(self, page: int) -> bool:
        """Whether several sequences use a page."""
        return self._users[page] > 1

    def copy_page(self, source: int, target: int) -> None:
        """Copy the entries of a page in all layers."""
        for layer in self.layers:
            for pages in layer.pages:
                pages.bytes[target] = pages.bytes[source]

    def set_pages(self, slot: int, pages: list[int], start: int = 0) -> None:
        """Let entry `start ...` of a slot's row of the table name pages."""
        if pages:
            row = torch.tensor(pages, dtype=torch.int32)
            self._table[slot, start : start + len(pages)] = row.to(self.device, non_blocking=True)

    # Slots

    def save(self, slot: int, position: int) -> Tail:
        """Copy out what the slot holds of a sequence after `position` tokens."""
        rings = [layer.ring.take(slot, self._ring_rows(layer.ring, position)).cpu() for layer in self.layers]
        groups = [raw.rows[slot, self._group_rows(raw, position)].cpu() for raw in self._raw()]
        return Tail(position, tuple(rings), tuple(groups))

    def load(self, slot: int, tail: Tail) -> None:
        """Put back what `save` copied, into any slot."""
        for layer, rows in zip(self.layers, tail.rings, strict=True):
            layer.ring.put(slot, self._ring_rows(layer.ring, tail.position), rows.to(self.device))
        for raw, rows in zip(self._raw(), tail.groups, strict=True):
            raw.rows[slot, self._group_rows(raw, tail.position)] = rows.to(self.device)

    def _raw(self) -> Iterator[RawRows]:
        for layer in self.layers:
            yield from layer.raw

    def _ring_rows(self, ring: RowBlocks, position: int) -> Tensor:
        """Return the rows of the positions that the token after `position` sees."""
        first = max(0, position - WINDOW + 1)
        return torch.arange(first, position, device=self.device) % ring.rows

    def _group_rows(self, raw: RawRows, position: int) -> Tensor:
        """Return the rows of the open group and, with overlap, of the group before it."""
        first = position // raw.ratio * raw.ratio - (raw.ratio if raw.overlap else 0)
        return torch.arange(max(0, first), position, device=self.device) % raw.rows.shape[1]


def _layer_state(
    spec: LayerSpec, slots: int, ring_rows: int, pages: int, table: Tensor, device: torch.device
) -> LayerState:
    dims = (HEAD_DIM, INDEX_DIM)[: 2 if spec.overlap else 1] if spec.ratio else ()
    return LayerState(
        ring=RowBlocks.ring(slots, ring_rows, device),
        raw=tuple(RawRows.zeros(slots, spec.ratio, dim, device) for dim in dims),
        pages=tuple(RowBlocks.pages(pages, spec.ratio, table, index=dim == INDEX_DIM) for dim in dims),
    )
