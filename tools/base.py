"""What a tool is: a name, a JSON Schema, the effects it may have, and one asynchronous call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dsv4agent.sandboxes import Sandbox


class Effects(StrEnum):
    """The widest effect a call of the tool may have."""

    NONE = "none"
    WORKSPACE = "workspace"
    NETWORK = "network"
    EXTERNAL = "external"


class Status(StrEnum):
    """How a call ended. Independent of the exit code of a command that the call ran."""

    OK = "ok"
    ERROR = "error"
    DENIED = "denied"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Truncation:
    """What was cut from a result: token counts, and the file that holds the whole of it."""

    shown_tokens: int
    total_tokens: int
    path: Path | None


@dataclass(frozen=True)
class ToolResult:
    """One record per call.

    `text` is all that the model reads. If `status` is not `ok` because of an expected failure, `text`
    begins with `code` (`not_found`, `not_unique`, `timeout`, ...) followed by a colon and the next useful
    step.
    """

    text: str
    status: Status = Status.OK
    code: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    duration_ms: float = 0.0
    truncated: Truncation | None = None


@dataclass(frozen=True)
class ToolContext:
    """What the runtime lends to a call.

    Attributes:
        sandbox: The only way to processes and files.
        count_tokens: Exact token count of a text under the session's tokenizer.
        max_output_tokens: Budget of `ToolResult.text`.
        spill_dir: Host folder (mode 0700, inside the session's own folder) that keeps outputs too long to
            show.
        on_output: Called with each piece of live output, for display only. Never blocks for long.
    """

    sandbox: Sandbox
    count_tokens: Callable[[str], int]
    max_output_tokens: int
    spill_dir: Path | None = None
    on_output: Callable[[str], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Foresight:
    """What is known of a call before it runs: that it changes one thing, and how.

    Attributes:
        place: What it changes, a path for one.
        before: Stands for the state that it would find there.
        after: And for that which it would leave; equal to `before` if it would change nothing.
    """

    place: str
    before: str
    after: str


class Tool(Protocol):
    """The seam that built-in and user tools share."""

    @property
    def name(self) -> str:
        """The name the model calls; matches `^[a-zA-Z0-9_-]+$`."""
        ...

    @property
    def description(self) -> str:
        """What the model reads about the tool."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON Schema (2020-12 subset, `type: object`) of the arguments."""
        ...

    @property
    def effects(self) -> Effects:
        """The widest effect of a call."""
        ...

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Run with arguments that already validate against `parameters`; expected failures are results."""
        ...

    async def aclose(self) -> None:
        """Release what the tool holds for this session (a shell, a browser)."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """What a tool may do besides, so that a model that repeats itself can be told from one that goes on."""

    async def foresee(
        self, ctx: ToolContext, args: Mapping[str, Any], planned: dict[str, str]
    ) -> Foresight | None:
        """Return what these arguments would do, without doing it; None if nobody can know.

        Args:
            ctx: As for the call.
            args: As for the call.
            planned: Texts of files as earlier calls of the same turn would leave them, by absolute path; what
                this call would leave is put there.
        """
        ...
