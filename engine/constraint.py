"""What the engine asks of a grammar that constrains decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """Decides which tokens may come next; the engine calls it once per step, from one thread at a time."""

    def mask(self, logits: Tensor) -> Tensor | Sequence[int] | None:
        """Return what may come next: bool [V], the allowed ids, or None if everything may.

        `logits` is float32 [V] on the CPU, for implementations that need only look at the likely ones; it is
        read only.
        """
        ...

    def commit(self, tokens: Sequence[int]) -> None:
        """Advance over `tokens`, sampled or forced, in the order in which they joined the sequence."""
        ...

    def rollback(self, count: int) -> None:
        """Take back the last `count` committed tokens."""
        ...

    def forced(self) -> Sequence[int]:
        """Return the tokens that must come next in any case, possibly none.

        They join without being sampled.
        """
        ...

    def fork(self) -> Constraint:
        """Return an independent copy at the same place."""
        ...
