"""Which turns give nothing new: their edits leave the files as they are, or as an earlier turn left them."""

from __future__ import annotations

from collections.abc import Sequence

from dsv4agent.tools import Foresight

HOTTER = 1.0
"""Temperature at which a turn is drawn again, if it was drawn at less: a greedy model would say the same."""
SEED_STEP = 0x9E3779B97F4A7C15
"""Between the seeds of two draws of one turn: 2**64 divided by the golden ratio, so that few collide."""

State = dict[str, str]
"""What the tools said of each place: what stands for its state."""


class KnownStates:
    """The states in which the turns of a run left what they changed, as far as their tools foresaw it."""

    def __init__(self) -> None:
        self._first: State = {}
        self._now: State = {}
        self._left: set[frozenset[tuple[str, str]]] = set()

    def vain(self, foreseen: Sequence[Foresight | None]) -> bool:
        """Tell whether a turn with these calls, in their order, gives nothing new.

        Calls that nobody can foresee, a test run after an edit for one, do not count either way. To take
        everything back to how the run found it is no repeat, how often it may be done.
        """
        known = [sight for sight in foreseen if sight is not None]
        if not known:
            return False
        start, end = self._states(known)
        return start == end or (bool(changed := self._changed(known, end)) and changed in self._left)

    def add(self, foreseen: Sequence[Foresight | None]) -> None:
        """Take in the calls of a turn that is going to run."""
        known = [sight for sight in foreseen if sight is not None]
        if not known:
            return
        _, self._now = self._states(known)
        self._left.add(self._changed(known, self._now))
        self._first = _found(known) | self._first

    def _states(self, known: Sequence[Foresight]) -> tuple[State, State]:
        """Return the states before and after the turn. What others changed meanwhile is as it is found."""
        start = self._now | _found(known)
        return start, start | {sight.place: sight.after for sight in known}

    def _changed(self, known: Sequence[Foresight], end: State) -> frozenset[tuple[str, str]]:
        """Return what is not as the run found it."""
        first = _found(known) | self._first
        return frozenset((place, state) for place, state in end.items() if state != first[place])


def _found(known: Sequence[Foresight]) -> State:
    """Return what the first call for each place finds there."""
    return {sight.place: sight.before for sight in reversed(known)}


def redrawn(temperature: float, seed: int, draw: int) -> tuple[float, int]:
    """Return temperature and seed for the draw of this number of one turn; draw 0 changes nothing."""
    if draw == 0:
        return temperature, seed
    return max(temperature, HOTTER), (seed + draw * SEED_STEP) % (1 << 63)
