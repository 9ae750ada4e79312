"""Which experts are on the card, where not all fit: those that are used most.

The router counts how often each expert of such a layer is chosen. Every some decode steps the counts come to
the host, without anyone waiting for them, and are added to what was counted before, which fades. Where an
expert in host memory was used clearly more than one of its layer on the card, the two change places. Where an
expert is does not change what it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsv4agent.engine.kernels.experts import ExpertTable

EVERY = 64
"""Decode steps between two looks."""
FADING = 0.9
"""What a use is worth at the next look."""
MARGIN = 1.5
"""How many times as often an expert must have been used to take the place of another."""
MOST = 8
"""Pairs that change places at one look: each takes half a millisecond."""


class Residency:
    """Keeps the most used experts on the card. Made before any step is captured.

    Attributes:
        uses: int32 [layers with experts on the host, e], on the device: chosen since the last look.
        moved: Pairs that changed places.
    """

    def __init__(self, tables: Sequence[ExpertTable], device: torch.device) -> None:
        """Count the uses of those tables that have experts on the host."""
        self._tables = [table for table in tables if any(table.away)]
        most = max(map(len, self._tables), default=0)
        size = max((table.shape.size for table in self._tables), default=0)
        self.uses = torch.zeros(len(self._tables), most, dtype=torch.int32, device=device)
        for table, uses in zip(self._tables, self.uses, strict=True):
            table.uses = uses[: len(table)]
        self.moved = 0
        self._on_card = device.type == "cuda"
        self._staging = torch.empty(size, dtype=torch.uint8, device=device)
        self._seen = torch.zeros(self.uses.shape, dtype=torch.int32, pin_memory=self._on_card)
        self._scores = torch.zeros(self.uses.shape, dtype=torch.float64)
        self._steps = 0
        self._arrival: Any = None
        self._asked = False

    def note(self, steps: int) -> None:
        """Take note of decode steps that were started; between steps, on the thread that starts them."""
        if not self._tables:
            return
        self._steps += steps
        if not self._asked:
            if self._steps >= EVERY:
                self._ask()
        elif self._arrival is None or self._arrival.query():
            self._look()

    def _ask(self) -> None:
        self._seen.copy_(self.uses, non_blocking=True)
        self.uses.zero_()
        if self._on_card:
            self._arrival = torch.cuda.Event()
            self._arrival.record()
        self._asked, self._steps = True, 0

    def _look(self) -> None:
        self._asked = False
        self._scores.mul_(FADING).add_(self._seen)
        pairs = [
            pair
            for table, row in zip(self._tables, self._scores, strict=True)
            for pair in _better(table, row)
        ]
        pairs.sort(key=lambda pair: -pair[0])
        for _, table, wanted, unused in pairs[:MOST]:
            table.exchange(wanted, unused, self._staging)
            self.moved += 1


def _better(table: ExpertTable, scores: Tensor) -> list[tuple[float, ExpertTable, int, int]]:
    """Return pairs that should change places: gain, table, the expert on the host, the one on the card."""
    order = sorted(range(len(table)), key=lambda expert: float(scores[expert]))
    unused = [expert for expert in order if not table.away[expert]]
    wanted = [expert for expert in reversed(order) if table.away[expert]]
    return [
        (float(scores[hot] - scores[cold]), table, hot, cold)
        for hot, cold in zip(wanted, unused, strict=False)
        if scores[hot] > MARGIN * scores[cold]
    ]
