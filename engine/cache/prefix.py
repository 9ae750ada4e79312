"""State records by token prefix: what lets a sequence start where another one already was.

Records only ever save time. A record is used for exactly the tokens it was computed from, and a state
restored from one continues with the same bits as a cold start.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence

from dsv4agent.engine.compute import State

MAX_SNAPSHOTS = 48
MAX_CLOSED = 8


class Lineage:
    """One sequence's tokens, the states kept along them, and the state it is in."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.state: State | None = None
        self._snapshots: dict[int, State] = {}

    def keep(self, state: State) -> None:
        """Keep a copy of `state`; beyond the limit the state that leaves the smallest gap is dropped."""
        if state.position in self._snapshots or state.position == 0:
            return
        self._snapshots[state.position] = state.snapshot()
        if len(self._snapshots) > MAX_SNAPSHOTS:
            places = [0, *sorted(self._snapshots)]
            gaps = [(places[i + 1] - places[i - 1], places[i]) for i in range(1, len(places) - 1)]
            del self._snapshots[min(gaps)[1]]

    def truncate(self, length: int) -> None:
        """Forget tokens and states beyond `length`, and move to the nearest state at or below it."""
        del self.tokens[length:]
        self._snapshots = {place: state for place, state in self._snapshots.items() if place <= length}
        if self.state is not None and self.state.position > length:
            self.state = self.restore(length)

    def restore(self, limit: int) -> State | None:
        """Return a copy of the deepest kept state at or below `limit`, or None."""
        place = self.depth(limit)
        if place == 0:
            return None
        if self.state is not None and self.state.position == place:
            return self.state.fork()
        return self._snapshots[place].fork()

    def depth(self, limit: int) -> int:
        """Return the position of the deepest state at or below `limit`; 0 for none."""
        places = [place for place in self._snapshots if place <= limit]
        if self.state is not None and self.state.position <= limit:
            places.append(self.state.position)
        return max(places, default=0)

    def fork(self) -> Lineage:
        """Return a lineage that continues independently; kept states are shared."""
        other = Lineage(list(self.tokens))
        other.state = None if self.state is None else self.state.fork()
        other._snapshots = dict(self._snapshots)
        return other


class PrefixRecords:
    """The lineages of an engine: live ones as long as they live, the last few closed ones."""

    def __init__(self) -> None:
        self._live: weakref.WeakSet[Lineage] = weakref.WeakSet()
        self._closed: OrderedDict[int, Lineage] = OrderedDict()

    def add(self, lineage: Lineage) -> None:
        """Register a live lineage."""
        self._live.add(lineage)

    def retire(self, lineage: Lineage) -> None:
        """Keep a closed lineage among the recent ones."""
        self._live.discard(lineage)
        self._closed[id(lineage)] = lineage
        if len(self._closed) > MAX_CLOSED:
            self._closed.popitem(last=False)

    def drop_oldest(self) -> bool:
        """Forget the lineage that was closed or used first, to make room; return whether there was one."""
        if not self._closed:
            return False
        self._closed.popitem(last=False)
        return True

    def clear(self) -> None:
        """Forget all lineages that were closed."""
        self._closed.clear()

    def attach(self, tokens: Sequence[int]) -> State | None:
        """Return a copy of the deepest known state on a prefix of `tokens`, or None."""
        best: Lineage | None = None
        best_limit = best_depth = 0
        for lineage in [*self._live, *self._closed.values()]:
            limit = common_prefix(tokens, lineage.tokens)
            depth = lineage.depth(limit)
            if depth > best_depth:
                best, best_limit, best_depth = lineage, limit, depth
        if best is None:
            return None
        if id(best) in self._closed:
            self._closed.move_to_end(id(best))
        return best.restore(best_limit)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many leading tokens are equal; compares slices, by bisection."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if list(a[low:middle]) == list(b[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
