"""What the engine's sequences need of a way to compute a model: the seam between them.

Two ways implement it: `model.transformer`, torch operations on any device, and `runner.model`, kernels on a
GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, Self, TypeVar

from torch import Tensor

from dsv4agent.engine.sampling import Draw, SamplingParams


class State(Protocol):
    """What was computed of one sequence. Copies continue independently, with the same bits."""

    @property
    def position(self) -> int:
        """Tokens processed."""
        ...

    def fork(self) -> Self:
        """Return a copy to continue with."""
        ...

    def snapshot(self) -> Self:
        """Return a compact copy to keep; `fork` of it continues."""
        ...


S = TypeVar("S", bound=State)


class Model(Protocol[S]):
    """Weights on a device, and one step over some tokens."""

    @property
    def snapshot_interval(self) -> int:
        """Tokens of a long prefill between two snapshots; a multiple of 128."""
        ...

    @property
    def patience(self) -> float:
        """Seconds that a single token may wait for those of other sequences; 0 if together saves nothing."""
        ...

    def empty_state(self) -> S:
        """Return the state before the first token."""
        ...

    def chunks(self, start: int, stop: int, cuts: Iterable[int] = ()) -> Iterable[tuple[int, int]]:
        """Cut [start, stop) into steps (start, stop), at least at `cuts`."""
        ...

    def advance(self, state: S, token_ids: Sequence[int]) -> None:
        """Process one step that `chunks` allows."""
        ...

    def advance_together(self, states: Sequence[S], token_ids: Sequence[int]) -> None:
        """Process one token of each of several sequences."""
        ...

    def every_logits(self, state: S, token_ids: Sequence[int]) -> Tensor:
        """Do as `advance`; return the logits after each token, float32 [len, V]."""
        ...

    def last_logits(self, state: S) -> Tensor:
        """Return the logits after the last token processed, float32 [V], on the model's device."""
        ...

    def choose(self, logits: Tensor, params: SamplingParams, draw: Draw) -> int:
        """Choose a token as `sampling.sample` does, where the logits are.

        Raises:
            ConstraintDeadEnd: Nothing is allowed.
        """
        ...
