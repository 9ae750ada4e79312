"""What happens in a session, as typed events: the stream a caller iterates over and what is stored.

Every event but `ToolOutput` is stored; text and reasoning are stored once per turn and streamed in
pieces. `seq` is the event's place in the stored log and is absent while an event is only streamed.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class StopReason(StrEnum):
    """Why a run ended. All but `finished` leave a session that can go on where it stands."""

    FINISHED = "finished"
    MAX_STEPS = "max_steps"
    MAX_TOKENS = "max_tokens"
    TIME = "time"
    CONTEXT_FULL = "context_full"
    INTERRUPTED = "interrupted"
    MALFORMED = "malformed"
    REPEATING = "repeating"
    ERROR = "error"


class EventBase(BaseModel):
    """What all events carry.

    Attributes:
        seq: Place in the stored log; None for an event that is only streamed.
        step: The step (one model turn and its tool calls, counted from 1) that the event belongs to.
        time: Unix time in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int | None = None
    step: int = 0
    time: float = Field(default_factory=time.time)


class SessionStarted(EventBase):
    """A session was opened, new or resumed; `sandbox` is the enforcement report in force from here on."""

    type: Literal["session_started"] = "session_started"
    session_id: str
    model: str
    mode: str
    workspace: str
    tools: tuple[str, ...]
    sandbox: dict[str, Any]
    resumed: bool


class UserMessage(EventBase):
    """Text for the model's next step; `origin` tells the user's own words from a note of the runtime."""

    type: Literal["user_message"] = "user_message"
    text: str
    origin: Literal["user", "runtime"] = "user"


class StepStarted(EventBase):
    """The new material of the step was encoded and appended; sampling begins at `position`."""

    type: Literal["step_started"] = "step_started"
    position: int
    new_tokens: int


class ReasoningDelta(EventBase):
    """A piece of reasoning."""

    type: Literal["reasoning_delta"] = "reasoning_delta"
    text: str


class TextDelta(EventBase):
    """A piece of the answer's text."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class ToolCallStarted(EventBase):
    """A call is about to run; `arguments` is the JSON text that the model wrote."""

    type: Literal["tool_call_started"] = "tool_call_started"
    call_id: str
    name: str
    arguments: str


class ToolOutput(EventBase):
    """Live output of a running call. Never stored: the result is."""

    type: Literal["tool_output"] = "tool_output"
    call_id: str
    text: str


class ToolCallFinished(EventBase):
    """A call ended; `text` is exactly what the model reads."""

    type: Literal["tool_call_finished"] = "tool_call_finished"
    call_id: str
    name: str
    status: str
    text: str
    code: str | None = None
    exit_code: int | None = None
    duration_ms: float = 0.0
    omitted_tokens: int = 0


class StepFinished(EventBase):
    """A model turn and its calls are done.

    Attributes:
        computed_tokens: Positions that the engine computed for this step.
        reused_tokens: Positions that came from cached state when the sequence was opened for this step.
        sampled_tokens: Ids that the model produced in this turn.
        seconds: Wall time of sampling, prefill included, tools not.
    """

    type: Literal["step_finished"] = "step_finished"
    calls: int
    computed_tokens: int
    reused_tokens: int
    sampled_tokens: int
    seconds: float


class SessionWarning(EventBase):
    """Something the user should know that does not end the run."""

    type: Literal["warning"] = "warning"
    code: str
    message: str


class Rewound(EventBase):
    """The transcript was cut back to `position`; the next step is `step` again."""

    type: Literal["rewound"] = "rewound"
    position: int


class TurnDiscarded(EventBase):
    """The step's turn was taken back to `position`, before any call of it ran, and is drawn again.

    Attributes:
        draw: Number of the draw that comes next; the first was 0.
        reason: Why: `repeats` if its edits would leave files as they are, or as an earlier turn left them.
        calls: What the calls would have been, as (tool, JSON text of the arguments).
    """

    type: Literal["turn_discarded"] = "turn_discarded"
    position: int
    draw: int
    reason: Literal["repeats"]
    calls: tuple[tuple[str, str], ...]


class RunFinished(EventBase):
    """A run ended; token counts are those of this run."""

    type: Literal["run_finished"] = "run_finished"
    stop_reason: StopReason
    message: str
    steps: int
    computed_tokens: int
    reused_tokens: int
    sampled_tokens: int
    seconds: float


Event = (
    SessionStarted
    | UserMessage
    | StepStarted
    | ReasoningDelta
    | TextDelta
    | ToolCallStarted
    | ToolOutput
    | ToolCallFinished
    | StepFinished
    | SessionWarning
    | Rewound
    | TurnDiscarded
    | RunFinished
)

EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])
