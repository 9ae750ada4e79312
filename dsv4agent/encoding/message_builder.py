"""Collects what a parser finds: events for those who follow along, and the message at the end."""

from __future__ import annotations

from dsv4agent.encoding.errors import CompletionParseError
from dsv4agent.encoding.events import (
    CallClosed,
    Event,
    InvalidCall,
    Malformed,
    ParsedCall,
    ParsedMessage,
    ReasoningDelta,
    TextDelta,
    TruncatedCall,
)


class MessageBuilder:
    """Takes events and recovery rules in order; knows the message so far."""

    def __init__(self, *, strict: bool) -> None:
        """Start empty; with `strict`, every recovery rule raises."""
        self._strict = strict
        self._out: list[Event] = []
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[ParsedCall] = []
        self._invalid: list[InvalidCall] = []
        self._truncated: TruncatedCall | None = None
        self._repairs: dict[str, None] = {}

    @property
    def has_calls(self) -> bool:
        """Whether any call has closed, valid or not."""
        return bool(self._calls or self._invalid)

    def add(self, event: Event) -> None:
        """Take one event."""
        match event:
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case TextDelta(text):
                self._content.append(text)
            case CallClosed(_, call):
                self._calls.append(call)
            case Malformed("truncated_call", raw, name):
                self._truncated = TruncatedCall(name, raw)
            case Malformed("text_after_calls"):
                pass
            case Malformed(reason, raw, name):
                self._invalid.append(InvalidCall(name or "", raw, reason))
            case _:
                pass
        self._out.append(event)

    def repair(self, rule: str) -> None:
        """Note that a recovery rule fired.

        Raises:
            CompletionParseError: In strict mode, with the rule's id as reason.
        """
        if self._strict:
            raise CompletionParseError(
                f"The completion needs recovery rule {rule}; parse without strict to apply it.", reason=rule
            )
        self._repairs[rule] = None

    def drain(self) -> list[Event]:
        """Return the events since the last call."""
        events, self._out = self._out, []
        return events

    def message(self) -> ParsedMessage:
        """Return the message so far."""
        return ParsedMessage(
            content="".join(self._content),
            reasoning_content="".join(self._reasoning),
            tool_calls=tuple(self._calls),
            invalid_tool_calls=tuple(self._invalid),
            truncated_call=self._truncated,
            repairs=tuple(self._repairs),
        )
