"""One invoke while it is being read: what is written in it, and the call it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsv4agent.encoding.arguments import (
    DeclaredTool,
    InvalidArguments,
    WrittenParameter,
    build_arguments,
    json_object,
)
from dsv4agent.encoding.events import CallClosed, Event, Malformed, ParsedCall
from dsv4agent.encoding.namespaces import SEPARATOR
from dsv4agent.encoding.revision import Revision
from dsv4agent.encoding.symbols import to_text
from dsv4agent.encoding.tags import Markup


@dataclass
class Invoke:
    """The parts of an invoke, in symbols.

    Attributes:
        name: The tool it names.
        index: Its place among all invokes of the message.
        markup: How its opening tag is marked.
        tool: The declared tool of that name, if there is one.
        raw: All of it as written, in pieces.
        parameters: Complete parameters.
        body: Text outside of parameters, in pieces, without leading blanks.
        fault: Why it cannot be a valid call, if that is clear already.
        pending: Events to report when it closes.
    """

    name: str
    index: int
    markup: Markup
    tool: DeclaredTool | None
    raw: list[str]
    parameters: list[WrittenParameter] = field(default_factory=list[WrittenParameter])
    body: list[str] = field(default_factory=list[str])
    fault: str | None = None
    pending: list[Event] = field(default_factory=list[Event])
    has_json_body: bool = False

    def take_body(self, piece: str) -> str:
        """Add text that stands outside of parameters; return the blanks that were skipped before it."""
        self.raw.append(piece)
        blanks = ""
        if not self.body:
            text = piece.lstrip()
            blanks = piece[: len(piece) - len(text)]
            piece = text
            self.has_json_body = piece.startswith("{") and not self.parameters
        if piece:
            self.body.append(piece)
        return blanks

    def is_declared_and_unused(self, parameter: str, current: str) -> bool:
        """Whether the tool declares a parameter that is neither complete nor the current one."""
        used = {current, *(written.name for written in self.parameters)}
        return self.tool is not None and parameter in self.tool.properties and parameter not in used

    def is_prose(self) -> bool:
        """Whether it holds text that is neither a parameter nor JSON, as a mention of an invoke does."""
        body = to_text("".join(self.body)).strip()
        return bool(body) and (bool(self.parameters) or json_object(body) is None)

    def close(self, revision: Revision) -> tuple[Event, list[str]]:
        """Return the closing event, `CallClosed` or `Malformed`, and the recovery rules it needed."""
        reason = self.fault
        if self.tool is None:
            return self._malformed("unknown_tool"), ["R23"]
        if reason is None:
            try:
                arguments, repairs = build_arguments(self.tool, self.parameters, to_text("".join(self.body)))
            except InvalidArguments as error:
                reason = error.reason
            else:
                return CallClosed(self.index, parsed_call(self.name, arguments, revision)), repairs
        return self._malformed(reason), []

    def _malformed(self, reason: str) -> Malformed:
        opened = None if self.tool is None else self.index
        return Malformed(reason, to_text("".join(self.raw)), self.name, opened)


def parsed_call(name: str, arguments: str, revision: Revision) -> ParsedCall:
    """Return a call by the name the model wrote, which V4.1 splits at its namespace."""
    if revision is Revision.V4_1 and SEPARATOR in name:
        namespace, _, bare = name.partition(SEPARATOR)
        return ParsedCall(bare, arguments, namespace)
    return ParsedCall(name, arguments)
