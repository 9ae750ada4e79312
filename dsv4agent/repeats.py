"""Which turns give nothing new: all that they would change was changed so before, from the same state."""

from __future__ import annotations

from collections.abc import Sequence

from dsv4agent.tools import Foresight

HOTTER = 1.0
"""Temperature at which a turn is drawn again, if it was drawn at less: a greedy model would say the same."""
SEED_STEP = 0x9E3779B97F4A7C15
"""Between the seeds of two draws of one turn: 2**64 divided by the golden ratio, so that few collide."""


class KnownCalls:
    """What the calls of one run did, as far as their tools foresaw it."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def vain(self, foreseen: Sequence[Foresight | None]) -> bool:
        """Tell whether a turn with these calls gives nothing new: none of its edits is new, and it has some.

        Calls that nobody can foresee, a test run after an edit for one, do not count either way.
        """
        known = [sight for sight in foreseen if sight is not None]
        return bool(known) and all(not sight.changes or sight.key in self._keys for sight in known)

    def add(self, foreseen: Sequence[Foresight | None]) -> None:
        """Take in calls that are going to run."""
        self._keys.update(sight.key for sight in foreseen if sight is not None)


def redrawn(temperature: float, seed: int, draw: int) -> tuple[float, int]:
    """Return temperature and seed for the draw of this number of one turn; draw 0 changes nothing."""
    if draw == 0:
        return temperature, seed
    return max(temperature, HOTTER), (seed + draw * SEED_STEP) % (1 << 63)
