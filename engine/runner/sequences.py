"""Sequences on the device: their pages, by reference, and the slot that those in work have.

A sequence at rest needs no slot: what its slot held is kept on the host, a few megabytes. So there can be
many more sequences, forks and snapshots than slots; the one that rested longest gives its slot up. Full pages
are shared. The page that is being filled is shared too, until one of its users writes.

Handles are let go by whichever thread drops the last reference, so that only notes the fact; the device
thread gives the pages back before it next takes some.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dsv4agent.engine.errors import CacheFull, ContextOverflow
from dsv4agent.engine.kernels.kv_rows import PAGE_TOKENS
from dsv4agent.engine.kernels.launch import ceil_div
from dsv4agent.engine.runner.state import DeviceState, Tail


@dataclass(eq=False)
class _Holding:
    """What a sequence holds: pages, and a slot or (at rest, after the first token) a tail.

    `used` says when it last took part in a step.
    """

    position: int = 0
    pages: list[int] = field(default_factory=list[int])
    slot: int | None = None
    tail: Tail | None = None
    used: int = 0


class DeviceSequence:
    """Made by `Sequences.open` or by `fork`.

    Attributes:
        seed: Of sampling on the device.
        temperature: Of sampling on the device; 0 is greedy.
        hidden: bfloat16 [1, D], the row that the head reads after the last token; None before the first.
        logits: float32 [1, V], of that row, if they are known. Copies do without.
    """

    def __init__(self, owner: Sequences, holding: _Holding) -> None:
        self.seed = 0
        self.temperature = 0.0
        self.hidden: Tensor | None = None
        self.logits: Tensor | None = None
        self.holding = holding
        self._owner = owner
        self._release = weakref.finalize(self, owner.dropped.append, holding)

    @property
    def position(self) -> int:
        """Tokens processed."""
        return self.holding.position

    @position.setter
    def position(self, position: int) -> None:
        self.holding.position = position

    @property
    def slot(self) -> int:
        """Its slot, while it takes part in a step."""
        assert self.holding.slot is not None
        return self.holding.slot

    def fork(self) -> DeviceSequence:
        """Return a sequence that continues on its own; it takes no slot before it does."""
        return self._owner.copy(self)

    def snapshot(self) -> DeviceSequence:
        """Return a copy to keep."""
        return self._owner.copy(self)

    def close(self) -> None:
        """Let go of everything now. The sequence cannot be used any more."""
        self._release()


class Sequences:
    """All sequences of a device.

    Attributes:
        state: Slots and pages.
        dropped: What closed sequences held, not yet given back.
    """

    def __init__(self, state: DeviceState, make_room: Callable[[], bool] = lambda: False) -> None:
        """Take over `state`. `make_room` lets sequences go that nobody needs; False if there are none."""
        self.state = state
        self.dropped: deque[_Holding] = deque()
        self.make_room = make_room
        self._slots = list(range(state.capacity.slots - 1, -1, -1))
        self._active: list[_Holding] = []
        self._clock = 0

    def open(self) -> DeviceSequence:
        """Return a new, empty sequence."""
        return DeviceSequence(self, _Holding())

    def copy(self, sequence: DeviceSequence) -> DeviceSequence:
        """Return a sequence at rest in the same place."""
        self._collect()
        source = sequence.holding
        pages = source.pages[: ceil_div(source.position, PAGE_TOKENS)]
        self.state.share_pages(pages)
        other = DeviceSequence(self, _Holding(source.position, pages, tail=self._tail(source)))
        other.seed, other.temperature = sequence.seed, sequence.temperature
        other.hidden = sequence.hidden
        return other

    def prepare(self, members: Sequence[DeviceSequence], more: int) -> None:
        """Give each of `members` a slot, and pages of its own for `more` tokens.

        Raises:
            CacheFull: There are too many members, or too few pages.
            ContextOverflow: A sequence would be longer than there is room for.
        """
        capacity = self.state.capacity
        if len(members) > capacity.slots:
            raise CacheFull(f"{len(members)} sequences cannot take part in one step; {capacity.slots} can.")
        for member in members:
            if member.position + more > capacity.context:
                raise ContextOverflow(
                    f"{member.position} + {more} tokens exceed the {capacity.context} there is room for; "
                    "load with a larger max_context."
                )
        self._collect()
        self._clock += 1
        for member in members:
            member.holding.used = self._clock
        for member in members:
            self._activate(member)
            self._own_pages(member, more)

    @property
    def count(self) -> int:
        """Sequences that have a slot."""
        self._collect()
        return len(self._active)

    def _activate(self, member: DeviceSequence) -> None:
        holding = member.holding
        if holding.slot is not None:
            return
        if not self._slots:
            self._park(min(self._active, key=lambda other: other.used))
        holding.slot = self._slots.pop()
        self._active.append(holding)
        self.state.set_pages(holding.slot, holding.pages)
        if holding.tail is not None:
            self.state.load(holding.slot, holding.tail)
            holding.tail = None

    def _park(self, holding: _Holding) -> None:
        holding.tail = self._tail(holding)
        self._leave_slot(holding)

    def _leave_slot(self, holding: _Holding) -> None:
        assert holding.slot is not None
        self._slots.append(holding.slot)
        self._active.remove(holding)
        holding.slot = None

    def _tail(self, holding: _Holding) -> Tail | None:
        if holding.slot is None:
            return holding.tail
        return self.state.save(holding.slot, holding.position) if holding.position else None

    def _own_pages(self, member: DeviceSequence, more: int) -> None:
        """Take missing pages; copy the one that is being filled if others use it."""
        holding = member.holding
        place, inside = divmod(member.position, PAGE_TOKENS)
        shared = inside > 0 and self.state.is_shared(holding.pages[place])
        missing = max(0, ceil_div(member.position + more, PAGE_TOKENS) - len(holding.pages))
        new = self._take(missing + shared)
        if shared:
            copied = new.pop()
            self.state.copy_page(holding.pages[place], copied)
            self.state.give_back_pages([holding.pages[place]])
            holding.pages[place] = copied
            self.state.set_pages(member.slot, [copied], place)
        self.state.set_pages(member.slot, new, len(holding.pages))
        holding.pages += new

    def _take(self, count: int) -> list[int]:
        while True:
            try:
                return self.state.take_pages(count)
            except CacheFull:
                if not self.make_room():
                    raise
                self._collect()

    def _collect(self) -> None:
        """Give back what dropped sequences held."""
        while self.dropped:
            holding = self.dropped.popleft()
            if holding.slot is not None:
                self._leave_slot(holding)
            self.state.give_back_pages(holding.pages)
            holding.pages, holding.tail = [], None
