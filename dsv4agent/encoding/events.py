"""What the streaming parser reports, and the message it ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReasoningDelta:
    """More reasoning text."""

    text: str


@dataclass(frozen=True)
class TextDelta:
    """More visible text."""

    text: str


@dataclass(frozen=True)
class CallOpened:
    """A call of a declared tool has begun. A hint for display: only `CallClosed` makes it a call."""

    index: int
    name: str


@dataclass(frozen=True)
class ArgumentDelta:
    """More raw text of one parameter's value, as the model writes it. For display only."""

    index: int
    parameter: str
    text: str


@dataclass(frozen=True)
class ParsedCall:
    """A complete call.

    Attributes:
        name: The tool's name, without its namespace.
        arguments: Text of a JSON object; always valid JSON.
        namespace: The part before `::`, with V4.1.
    """

    name: str
    arguments: str
    namespace: str | None = None


@dataclass(frozen=True)
class CallClosed:
    """A call is complete; this is the only event to act upon."""

    index: int
    call: ParsedCall


@dataclass(frozen=True)
class Malformed:
    """Something that is neither text nor a call: a bad or cut-off call, or text dropped after calls.

    Attributes:
        reason: `unknown_tool`, `missing_name`, `unexpected_text`, `duplicate_parameter`, `invalid_value`,
            `malformed_tag`, `truncated_call` or `text_after_calls`.
        raw: The text as the model wrote it.
        name: The tool it names, if any.
        index: The index of the `CallOpened` it ends, if there was one.
    """

    reason: str
    raw: str
    name: str | None = None
    index: int | None = None


@dataclass(frozen=True)
class TurnEnd:
    """The turn is over: nothing after this is part of the message.

    Attributes:
        reason: `stop` at the end-of-sentence token, `turn_marker` where the model began another speaker's
            turn, or
            the finish reason given to `finish`.
    """

    reason: str


Event = ReasoningDelta | TextDelta | CallOpened | ArgumentDelta | CallClosed | Malformed | TurnEnd


@dataclass(frozen=True)
class InvalidCall:
    """A call that must not run; the model should be told why."""

    name: str
    raw: str
    reason: str


@dataclass(frozen=True)
class TruncatedCall:
    """A call cut off by the end of the text; kept for diagnostics only."""

    name: str | None
    raw: str


@dataclass(frozen=True)
class ParsedMessage:
    """The assistant message a completion stands for.

    Attributes:
        content: Visible text.
        reasoning_content: Reasoning text.
        tool_calls: Complete calls of declared tools.
        invalid_tool_calls: Calls to answer with an error.
        truncated_call: The call the end of the text cut off, if any.
        repairs: Ids of the recovery rules that fired, in order of first use.
    """

    content: str
    reasoning_content: str
    tool_calls: tuple[ParsedCall, ...] = ()
    invalid_tool_calls: tuple[InvalidCall, ...] = ()
    truncated_call: TruncatedCall | None = None
    repairs: tuple[str, ...] = ()

    def as_message(self) -> dict[str, Any]:
        """Return the OpenAI-shaped message, calls without ids, as the strict parser returns it."""
        calls: list[dict[str, Any]] = []
        for call in self.tool_calls:
            item: dict[str, Any] = {
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            calls.append(item if call.namespace is None else {**item, "namespace": call.namespace})
        return {
            "role": "assistant",
            "content": self.content,
            "reasoning_content": self.reasoning_content,
            "tool_calls": calls,
        }
