"""One turn of the model: from ids to text, reasoning and calls, and into the transcript."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dsv4agent.encoding.events import CallClosed, Malformed
from dsv4agent.encoding.events import Event as ParsedEvent
from dsv4agent.encoding.events import ReasoningDelta as ParsedReasoning
from dsv4agent.encoding.events import TextDelta as ParsedText
from dsv4agent.encoding.stream_parser import StreamParser
from dsv4agent.progress import call_id
from dsv4agent.toolbox import failure
from dsv4agent.tools import ToolResult
from dsv4agent.transcript import NewSpan, ReasoningDelta, Span, TextDelta, Transcript
from dsv4agent.transcript.transcript import SAMPLED

BATCH_TOKENS = 16
BATCH_SECONDS = 0.1


class Closing(StrEnum):
    """Who ended a turn. The values are the provenance of the end token in the transcript."""

    MODEL = "model"
    """The model, with its end token."""
    ROLE = "runtime:role"
    """The runtime, because the model began to speak for someone else."""
    CUT = "runtime:cut"
    """The runtime, because the turn grew too long."""
    USER = "runtime:user"
    """The user, by speaking."""

    @classmethod
    def of(cls, last: Span) -> Closing:
        """Return who ended the turn whose last id is in this span."""
        return cls(last.provenance)


@dataclass(frozen=True)
class Call:
    """A call that the model wrote. One that cannot run carries the result that the model reads instead."""

    call_id: str
    name: str
    arguments: str
    problem: ToolResult | None = None


@dataclass(frozen=True)
class Turn:
    """A closed turn. `note` is what the model must be told if the turn was of no use or lost a part."""

    reasoning: str
    text: str
    calls: tuple[Call, ...]
    note: str | None


class TurnReader:
    """Reads a turn as its ids come. The token that ends it is not fed."""

    def __init__(self, parser: StreamParser, tool_names: Sequence[str]) -> None:
        self._parser = parser
        self._tool_names = tool_names
        self._calls: list[CallClosed | Malformed] = []

    def feed(self, ids: Sequence[int]) -> list[ReasoningDelta | TextDelta]:
        """Take ids and return the text that they complete."""
        return self._pieces(self._parser.feed_ids(ids))

    def close(self, step: int, closing: Closing) -> tuple[list[ReasoningDelta | TextDelta], Turn]:
        """End the turn and return the last pieces, and all that it says."""
        pieces = self._pieces(self._parser.finish("length" if closing is Closing.CUT else "stop"))
        message = self._parser.result
        calls = tuple(self._call(step, number, found) for number, found in enumerate(self._calls, 1))
        note = None
        if message.truncated_call is not None:
            name = message.truncated_call.name or "a tool"
            note = (
                f"malformed: the call of {name} was cut off before it ended and did not run; write it again."
            )
        elif closing is Closing.CUT:
            note = "malformed: the turn grew too long and was cut; call a tool or give the final answer."
        elif not calls and not message.content.strip():
            note = "malformed: the turn was empty; call a tool or give the final answer."
        return pieces, Turn(message.reasoning_content, message.content, calls, note)

    def _pieces(self, events: Sequence[ParsedEvent]) -> list[ReasoningDelta | TextDelta]:
        pieces: list[ReasoningDelta | TextDelta] = []
        for event in events:
            match event:
                case ParsedReasoning(text):
                    pieces.append(ReasoningDelta(text=text))
                case ParsedText(text):
                    pieces.append(TextDelta(text=text))
                case CallClosed():
                    self._calls.append(event)
                case Malformed(reason) if reason not in {"truncated_call", "text_after_calls"}:
                    self._calls.append(event)
                case _:
                    pass
        return pieces

    def _call(self, step: int, number: int, found: CallClosed | Malformed) -> Call:
        identity = call_id(step, number)
        if isinstance(found, CallClosed):
            name = found.call.name
            if found.call.namespace is not None:
                name = f"{found.call.namespace}::{name}"
            return Call(identity, name, found.call.arguments)
        name = found.name or "unknown"
        if found.reason == "unknown_tool":
            problem = failure("unknown_tool", f"{name}; available: {', '.join(self._tool_names) or 'none'}")
        else:
            reason = found.reason.replace("_", " ")
            problem = failure("malformed_call", f"{reason} in the call of {name}; write the whole call again")
        return Call(identity, name, json.dumps({"raw": found.raw}, ensure_ascii=False), problem)


class TurnWriter:
    """Writes the ids of a turn to the transcript, in batches while it is sampled."""

    def __init__(self, transcript: Transcript, step: int) -> None:
        self.step = step
        self._transcript = transcript
        self._ids: list[int] = []
        self._written = time.monotonic()

    @property
    def position(self) -> int:
        """Position after the last id, written or not."""
        return len(self._transcript.tokens) + len(self._ids)

    @property
    def last(self) -> int | None:
        """The last id that is not written yet."""
        return self._ids[-1] if self._ids else None

    def add(self, ids: Sequence[int], *, hold: bool) -> None:
        """Take ids, and write if enough have come; `hold` keeps them, because the turn will be closed."""
        self._ids += ids
        due = len(self._ids) >= BATCH_TOKENS or time.monotonic() - self._written >= BATCH_SECONDS
        if due and not hold:
            self.flush()

    def flush(self) -> None:
        """Write what has come."""
        if self._ids:
            self._transcript.extend(self._ids, step=self.step)
        self._ids, self._written = [], time.monotonic()

    def close(self, turn: Turn, closing: Closing, eos_id: int) -> None:
        """Write the last ids, the end token and the turn's text in one transaction."""
        ids = self._ids[:-1] if closing is Closing.ROLE else self._ids
        spans = [NewSpan(ids, SAMPLED, "model")] if ids else []
        if closing is not Closing.MODEL:
            spans.append(NewSpan((eos_id,), "control", closing.value))
        texts = [
            *([ReasoningDelta(step=self.step, text=turn.reasoning)] if turn.reasoning else []),
            *([TextDelta(step=self.step, text=turn.text)] if turn.text else []),
        ]
        self._transcript.commit(*texts, spans=spans, step=self.step)
        self._ids = []


def openai_tools(functions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `function` objects in the shape that messages and the parser take."""
    return [{"type": "function", "function": dict(function)} for function in functions]
