"""Experts that live on the host, brought to the card for a long step while the layers before theirs compute.

A prefill step uses nearly every expert of a layer, and each several times. Read in place, every program would
wait for the link to the host. Instead the experts of the next layers are copied into two buffers in turn, by
a stream of their own; what does not fit into a buffer is read in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.kernels.experts import ExpertTable

LEAST = 64
"""Tokens of a step from which it pays: fewer leave many experts unused."""
ROOM = 224 << 20
"""Bytes of a buffer at most; both come out of the reserve of the memory plan."""


class Passage:
    """Two buffers, and which layers' experts go through them."""

    def __init__(self, tables: Sequence[ExpertTable], device: torch.device) -> None:
        """Make room for the experts on the host of the layers' tables, in the order of the layers."""
        self._tables = tables
        self._device = device
        self._layers = [index for index, table in enumerate(tables) if any(table.away)]
        size = max((tables[index].shape.size for index in self._layers), default=1)
        most = max((sum(tables[index].away) for index in self._layers), default=0)
        slots = min(most, ROOM // size)
        self._buffers = [torch.empty(slots, size, dtype=torch.uint8, device=device) for _ in range(2)]
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" and slots else None
        self._left: list[Any] = [None, None]
        self._arrived: dict[int, Any] = {}
        self._addresses: dict[int, tuple[int, Tensor]] = {}
        self._next = 0

    @property
    def needed(self) -> bool:
        """Whether any expert is on the host."""
        return bool(self._layers)

    def begin(self) -> None:
        """Start a step: the experts of its first two such layers set out."""
        self._next = 0
        self._arrived.clear()
        if self._stream is not None:
            # Experts may just have changed places.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        for _ in self._buffers:
            self._send()

    def enter(self, layer: int) -> Tensor:
        """Return where the experts of a layer are, int64 [e], once they have arrived."""
        if layer not in self._arrived:
            return self._tables[layer].addresses
        arrived = self._arrived[layer]
        if arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(arrived)
        return self._addresses[layer][1]

    def leave(self, layer: int) -> None:
        """Let a layer's buffer take the next one's experts, after what has been started until now."""
        if layer not in self._arrived:
            return
        if self._stream is not None:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))
            self._left[self._layers.index(layer) % 2] = event
        self._send()

    def _send(self) -> None:
        if self._next >= len(self._layers):
            return
        place, layer = self._next % 2, self._layers[self._next]
        self._next += 1
        table, buffer = self._tables[layer], self._buffers[place]
        going = [expert for expert in range(len(table)) if table.away[expert]][: len(buffer)]
        self._readdress(layer, going, buffer)
        with torch.cuda.stream(self._stream):
            if self._left[place] is not None:
                self._stream.wait_event(self._left[place])
            for slot, expert in enumerate(going):
                buffer[slot, : table.shape.size].copy_(table.packed[expert], non_blocking=True)
            self._arrived[layer] = None
            if self._stream is not None:
                self._arrived[layer] = torch.cuda.Event()
                self._arrived[layer].record(self._stream)

    def _readdress(self, layer: int, going: Sequence[int], buffer: Tensor) -> None:
        """Note where a layer's experts will be. They always go through the same buffer."""
        table = self._tables[layer]
        if self._addresses.get(layer, (-1,))[0] == table.version:
            return
        addresses = table.addresses.clone()
        for slot, expert in enumerate(going):
            addresses[expert : expert + 1].fill_(buffer[slot].data_ptr())
        self._addresses[layer] = table.version, addresses
