"""Where a session stands, read from its transcript alone: so it goes on after a crash as after a pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dsv4agent.context import system_message
from dsv4agent.transcript import (
    Event,
    ReasoningDelta,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    Transcript,
    TurnDiscarded,
    UserMessage,
)

Message = dict[str, Any]


class Phase(StrEnum):
    """The three places where a session can stand."""

    BETWEEN = "between"
    """No step is open; new material, if there is any, starts the next one."""
    SAMPLING = "sampling"
    """The model's turn is open, with none, some or most of its ids sampled."""
    CALLING = "calling"
    """The turn is closed; some of its calls may have results."""


@dataclass(frozen=True)
class Progress:
    """A reading of the transcript.

    Attributes:
        phase: Where it stands.
        step: Number of the open step, or of the last finished one; 0 before the first.
        turn_start: Position of the first sampled id of that step.
        pending: Messages that wait to be encoded, results first.
        started: Ids of the step's calls that were started.
        finished: Results of the step's calls by id.
        draw: How many draws of the step's turn were discarded.
    """

    phase: Phase
    step: int
    turn_start: int
    pending: tuple[Message, ...]
    started: frozenset[str]
    finished: dict[str, ToolCallFinished]
    draw: int

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the user speaks."""
        return self.phase is Phase.BETWEEN and not self.pending


def read_progress(transcript: Transcript, eos_id: int) -> Progress:
    """Return where a session stands."""
    events = transcript.live_events()
    opened = next((event for event in reversed(events) if isinstance(event, StepStarted)), None)
    step = opened.step if opened else 0
    own = [event for event in events if event.step == step]
    phase = Phase.BETWEEN
    if opened is not None and not any(isinstance(event, StepFinished) for event in own):
        closed = len(transcript.tokens) > opened.position and transcript.tokens[-1] == eos_id
        phase = Phase.CALLING if closed else Phase.SAMPLING
    results = [event for event in own if isinstance(event, ToolCallFinished)]
    said = [event for event in events if isinstance(event, UserMessage) and event.step == step + 1]
    return Progress(
        phase=phase,
        step=step,
        turn_start=opened.position if opened else 0,
        pending=(*map(_tool_message, results), *map(_user_message, said)) if phase is Phase.BETWEEN else (),
        started=frozenset(event.call_id for event in own if isinstance(event, ToolCallStarted)),
        finished={event.call_id: event for event in results},
        draw=sum(isinstance(event, TurnDiscarded) for event in own),
    )


def call_id(step: int, number: int) -> str:
    """Return the id of the step's call with this number, counted from 1."""
    return f"call_{step}_{number}"


def messages(transcript: Transcript) -> list[Message]:
    """Return the conversation as messages: a view for people and other programs, never encoded again."""
    header = transcript.header
    result: list[Message] = [system_message(header.tools, header.instructions)]
    events = transcript.live_events()
    last = max((event.step for event in events), default=0)
    for step in range(1, last + 1):
        own = [event for event in events if event.step == step]
        result += [_user_message(event) for event in own if isinstance(event, UserMessage)]
        if any(isinstance(event, StepStarted) for event in own):
            result.append(_assistant_message(own))
            result += [_tool_message(event) for event in own if isinstance(event, ToolCallFinished)]
    return result


def _assistant_message(own: Sequence[Event]) -> Message:
    calls = [
        {
            "id": event.call_id,
            "type": "function",
            "function": {"name": event.name, "arguments": event.arguments},
        }
        for event in own
        if isinstance(event, ToolCallStarted)
    ]
    message: Message = {
        "role": "assistant",
        "content": "".join(event.text for event in own if isinstance(event, TextDelta)),
        "reasoning_content": "".join(event.text for event in own if isinstance(event, ReasoningDelta)),
    }
    return message | ({"tool_calls": calls} if calls else {})


def _tool_message(event: ToolCallFinished) -> Message:
    return {
        "role": "tool",
        "tool_call_id": event.call_id,
        "content": event.text,
        "provenance": f"tool:{event.name}",
    }


def _user_message(event: UserMessage) -> Message:
    return {"role": "user", "content": event.text, "provenance": event.origin}
