"""How a run is shown: as text for people, or as one JSON object a line for programs."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Protocol, cast

from rich.console import Console
from rich.text import Text

from dsv4agent.transcript import (
    Event,
    ReasoningDelta,
    RunFinished,
    SessionStarted,
    SessionWarning,
    StepStarted,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolOutput,
    TurnDiscarded,
    UserMessage,
)

# Text of models and programs must not steer the terminal: no escape sequences, no other control characters,
# nothing that reorders, breaks or hides text.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks and overrides of direction
    "|[\u2028\u2029]"  # line and paragraph separators
    "|[\U000e0000-\U000e007f]"  # invisible tags
    "|[\ud800-\udfff]"  # no characters at all
)
_SHOWN_LINES = 20


class View(Protocol):
    """Takes the events of a run as they come."""

    def show(self, event: Event) -> None:
        """Show one event."""
        ...


class JsonView:
    """One event a line on standard output, flushed at once, and nothing else."""

    def show(self, event: Event) -> None:
        """Print the event."""
        sys.stdout.write(json_line(event.model_dump(mode="json")))
        sys.stdout.flush()


class TextView:
    """Streams text and tool output to a terminal or a file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._at_line_start = True
        self._streamed: set[str] = set()

    def show(self, event: Event) -> None:
        """Print what a person wants to know of the event."""
        match event:
            case SessionStarted():
                guarantees = cast("dict[str, str]", event.sandbox.get("guarantees", {}))
                weak = [f"{name}: {level}" for name, level in guarantees.items() if level != "full"]
                state = "resumed" if event.resumed else "started"
                self._line(f"session {event.session_id} {state}; {event.model}, {event.mode}", "dim")
                note = f" ({', '.join(weak)})" if weak else ""
                self._line(
                    f"workspace {event.workspace}; sandbox {event.sandbox.get('provider')}{note}", "dim"
                )
            case UserMessage(origin="runtime"):
                self._line(f"note to the model: {event.text}", "yellow")
            case StepStarted():
                self._line(f"step {event.step}", "dim")
            case ReasoningDelta():
                self._stream(event.text, "dim italic")
            case TextDelta():
                self._stream(event.text, "")
            case ToolCallStarted():
                self._line(f"● {event.name} {_brief(event.arguments)}", "bold cyan")
            case ToolOutput():
                self._streamed.add(event.call_id)
                self._stream(event.text, "dim")
            case ToolCallFinished():
                self._result(event)
            case TurnDiscarded():
                self._line("  drawn again: these edits leave nothing new", "yellow")
            case SessionWarning():
                self._line(f"warning: {event.message}", "yellow")
            case RunFinished():
                style = "green" if event.stop_reason == "finished" else "yellow"
                self._line(f"{event.stop_reason.value}: {event.message}", style)
            case _:
                pass

    def _result(self, event: ToolCallFinished) -> None:
        if event.call_id not in self._streamed or event.status != "ok":
            lines = event.text.splitlines()
            self._line("\n".join(lines[:_SHOWN_LINES]), "dim")
            if len(lines) > _SHOWN_LINES:
                self._line(f"({len(lines) - _SHOWN_LINES} more lines)", "dim")
        exit_code = f", exit code {event.exit_code}" if event.exit_code else ""
        style = "dim" if event.status == "ok" and not event.exit_code else "red"
        self._line(f"  {event.status}{exit_code}, {event.duration_ms / 1000:.2f} s", style)

    def _line(self, text: str, style: str) -> None:
        if not self._at_line_start:
            self._console.print()
        self._at_line_start = True
        self._console.print(Text(safe(text), style), soft_wrap=True, highlight=False)

    def _stream(self, text: str, style: str) -> None:
        text = safe(text)
        if text:
            self._at_line_start = text.endswith("\n")
            self._console.print(Text(text, style), soft_wrap=True, highlight=False, end="")


def safe(text: str) -> str:
    """Return text that cannot steer a terminal."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def json_line(value: object) -> str:
    """Return a value as one line of JSON, in ASCII alone: it may end up on a terminal all the same."""
    return json.dumps(value).replace("\x7f", "\\u007f") + "\n"


def _brief(arguments: str, limit: int = 240) -> str:
    """Return arguments on one line."""
    try:
        values: Any = json.loads(arguments)
    except ValueError:
        values = arguments
    if isinstance(values, dict):
        items = cast("dict[str, Any]", values)
        text = (
            items["command"]
            if list(items) == ["command"]
            else ", ".join(f"{k}={v!r}" for k, v in items.items())
        )
    else:
        text = arguments
    line = str(text).replace("\n", "↵")
    return line if len(line) <= limit else line[: limit - 1] + "…"
