"""Transcript: the token log of a session with its spans and events, stored so that nothing done is lost."""

from dsv4agent.transcript.events import (
    EVENT_ADAPTER,
    Event,
    ReasoningDelta,
    Rewound,
    RunFinished,
    SessionStarted,
    SessionWarning,
    StepFinished,
    StepStarted,
    StopReason,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolOutput,
    TurnDiscarded,
    UserMessage,
)
from dsv4agent.transcript.header import Header, ModelRecord, Parent, Sampling, new_session_id
from dsv4agent.transcript.library import SessionSummary, find_session, list_sessions, sessions_dir
from dsv4agent.transcript.transcript import NewSpan, Span, Transcript

__all__ = [
    "EVENT_ADAPTER",
    "Event",
    "Header",
    "ModelRecord",
    "NewSpan",
    "Parent",
    "ReasoningDelta",
    "Rewound",
    "RunFinished",
    "Sampling",
    "SessionStarted",
    "SessionSummary",
    "SessionWarning",
    "Span",
    "StepFinished",
    "StepStarted",
    "StopReason",
    "TextDelta",
    "ToolCallFinished",
    "ToolCallStarted",
    "ToolOutput",
    "Transcript",
    "TurnDiscarded",
    "UserMessage",
    "find_session",
    "list_sessions",
    "new_session_id",
    "sessions_dir",
]
