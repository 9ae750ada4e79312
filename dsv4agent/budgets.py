"""Limits of one run, and what is left of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import anyio

from dsv4agent.errors import UsageError
from dsv4agent.transcript import StopReason


@dataclass(frozen=True)
class Limits:
    """How far a run may go. None means no limit, save for `turn_tokens`.

    Attributes:
        steps: Model turns.
        new_tokens: Ids that the model may produce.
        seconds: Wall time, tools included.
        turn_tokens: Ids of one turn; a turn that reaches this is closed and counts as malformed. None means a
            quarter of the context window.
        repeats: The same calls with the same arguments, so many times among the last twice as many turns: the
            model goes round in a circle. Waiting for something by asking again looks the same, so there is no
            such limit unless one is given.
        redraws: How often a turn is drawn again whose edits leave the files as they are, or as an earlier
            turn left them; the last draw counts. None means what the checkpoint recommends.
    """

    steps: int | None = None
    new_tokens: int | None = None
    seconds: float | None = None
    turn_tokens: int | None = None
    repeats: int | None = None
    redraws: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "new_tokens", "seconds", "turn_tokens", "repeats"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"The limit {name} must be positive, not {value}.")
        if self.redraws is not None and self.redraws < 0:
            raise UsageError(f"The limit redraws cannot be negative, it is {self.redraws}.")


@dataclass
class Spending:
    """What one run has used."""

    limits: Limits
    steps: int = 0
    new_tokens: int = 0
    begin: float = field(default_factory=anyio.current_time)
    turns: list[object] = field(default_factory=list[object])
    """What identifies the calls of each turn so far; turns without calls are left out."""

    @property
    def seconds(self) -> float:
        """Wall time since the run began."""
        return anyio.current_time() - self.begin

    @property
    def deadline(self) -> float:
        """When the run must end, on the event loop's clock."""
        return math.inf if self.limits.seconds is None else self.begin + self.limits.seconds

    @property
    def tokens_left(self) -> float:
        """Ids that may still be sampled."""
        return math.inf if self.limits.new_tokens is None else self.limits.new_tokens - self.new_tokens

    def time_is_over(self) -> bool:
        """Whether the deadline has passed."""
        return anyio.current_time() >= self.deadline

    def exhausted(self) -> StopReason | None:
        """Return the limit that forbids another step, if one does."""
        if self.time_is_over():
            return StopReason.TIME
        if self.tokens_left <= 0:
            return StopReason.MAX_TOKENS
        if self.limits.steps is not None and self.steps >= self.limits.steps:
            return StopReason.MAX_STEPS
        repeats = self.limits.repeats
        if repeats is not None and self.turns and self.turns[-2 * repeats :].count(self.turns[-1]) >= repeats:
            return StopReason.REPEATING
        return None
