"""What the runtime asks of a model: sequences of ids that grow by appending and by sampling."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dsv4agent.encoding import Tokenizer
from dsv4agent.transcript import ModelRecord, Sampling

if TYPE_CHECKING:
    from dsv4agent.engine import Constraint


@dataclass(frozen=True)
class GenerationRequest:
    """How far and how to sample.

    Attributes:
        sampling: Temperature, top-p and seed.
        max_tokens: Most ids to sample.
        stop_ids: Ids that end the generation and stay part of the sequence.
        constraint: The grammar at this place of the turn, for backends that constrain.
    """

    sampling: Sampling
    max_tokens: int
    stop_ids: frozenset[int]
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Chunk:
    """One or more new ids; a stop id can only be the last."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Usage:
    """Positions of one sequence: computed by the model, or taken from cached state."""

    computed_tokens: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True)
class Defaults:
    """What the checkpoint recommends."""

    mode: str = "think-high"
    temperature: float = 1.0
    top_p: float = 1.0
    max_steps: int = 500
    command_seconds: float = 300.0
    redraws: int = 0


class BackendSequence(Protocol):
    """One growing token sequence with its model state.

    `usage.computed_tokens + usage.reused_tokens + pending == len(tokens)` whenever no call is running.
    """

    @property
    def tokens(self) -> Sequence[int]:
        """All ids, appended and sampled."""
        ...

    @property
    def usage(self) -> Usage:
        """What was computed and reused so far."""
        ...

    @property
    def pending(self) -> int:
        """Ids at the end that the model has not been fed yet."""
        ...

    async def append(self, ids: Sequence[int]) -> None:
        """Add ids; they are computed with the next generation at the latest."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Sample. Closing or cancelling the iteration leaves the sequence at the last id that was sampled."""
        ...

    async def rewind(self, length: int) -> None:
        """Drop all ids from `length` on."""
        ...

    async def close(self) -> None:
        """Release the state; the prefix may stay cached."""
        ...


class Backend(Protocol):
    """A model that is ready to be asked."""

    @property
    def record(self) -> ModelRecord:
        """Which checkpoint this is."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer."""
        ...

    @property
    def vocab_size(self) -> int | None:
        """Length of the logits that a constraint masks; None if this backend takes no constraint."""
        ...

    @property
    def defaults(self) -> Defaults:
        """Mode, sampling and budget that the checkpoint recommends."""
        ...

    async def open(self, tokens: Sequence[int]) -> BackendSequence:
        """Start a sequence that begins with `tokens`, on the longest cached prefix there is."""
        ...

    async def aclose(self) -> None:
        """Release the model."""
        ...
