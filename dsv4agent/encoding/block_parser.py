"""A block of tool calls, from its first tag to its last, as a machine that takes symbols in any pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

from dsv4agent.encoding.arguments import DeclaredTool, WrittenParameter, json_object
from dsv4agent.encoding.events import ArgumentDelta, CallClosed, CallOpened, Event
from dsv4agent.encoding.invoke import Invoke, parsed_call
from dsv4agent.encoding.revision import Revision
from dsv4agent.encoding.symbols import to_text
from dsv4agent.encoding.tags import Markup, Tag, TagKind, Undecided, read_tag

_WHITESPACE: Final = re.compile(r"\s+")
_WORD: Final = re.compile(r"[^\s<]+")
_LINE_START: Final = re.compile(r"\r?\n[ \t]*\Z")
_LOOKAHEAD: Final = 256
_FLAGS: Final = {"true": True, "false": False}


class _State(Enum):
    BETWEEN = "between"
    INVOKE = "invoke"
    VALUE = "value"
    JSON = "json"


class BlockParser:
    """Parses one block, or one invoke without a block around it.

    Attributes:
        events: What has been found; the owner takes it from here.
        repairs: Ids of recovery rules that fired, with repetitions.
        dropped: Symbols that stood where only tags may stand, blanks left out.
        opened: The markup is confirmed: an invoke with a name, or the end of an empty block.
        confirmed: An invoke of a declared tool has closed.
        finished: The block is over.
        failed: This is no block after all.
        calls: Number of invokes opened so far, counted over the whole message.
        wrapped: Whether there is a block around the invokes.
        plain: Whether the first tag has no DSML marker at all.
        by_text: Whether spellings of the marker count as well.
    """

    def __init__(
        self,
        tools: Mapping[str, DeclaredTool],
        revision: Revision,
        *,
        by_text: bool,
        gated: bool,
        calls: int,
    ) -> None:
        """Begin after the opening tag of a genuine block; `start` says if it is another tag.

        Args:
            tools: Declared tools by the name a model writes.
            revision: The revision whose tag names need no recovery.
            by_text: See the attribute.
            gated: Without a declared tool's closed invoke this is no block.
            calls: Number of invokes before.
        """
        self.events: list[Event] = []
        self.repairs: list[str] = []
        self.dropped: list[str] = []
        self.opened = False
        self.confirmed = False
        self.finished = False
        self.failed = False
        self.calls = calls
        self.wrapped = True
        self.plain = False
        self.by_text = by_text
        self._first = calls
        self._tools = tools
        self._revision = revision
        self._gated = gated
        self._genuine = True
        self._state = _State.BETWEEN
        self._gap = ""
        self._invoke = Invoke("", calls, Markup.GENUINE, None, [])
        self._parameter = WrittenParameter("", None, "")
        self._value: list[str] = []
        self._value_markup = Markup.GENUINE

    def start(self, tag: Tag, raw: str) -> None:
        """Take the opening tag and its symbols."""
        self._genuine = tag.markup is Markup.GENUINE
        self.plain = tag.markup is Markup.PLAIN
        if tag.kind is TagKind.INVOKE:
            self.wrapped = False
            self.repairs.append("R6")
            self._open_invoke(tag, raw)
            return
        self._note(tag)
        if tag.kind is TagKind.JSON_CALL:
            self.wrapped = False
            self._state = _State.JSON

    def feed(self, text: str, position: int) -> int:
        """Take symbols from `position` on and return the position up to which they are used."""
        while position < len(text) and not (self.finished or self.failed):
            before = self._state
            match before:
                case _State.BETWEEN:
                    after = self._between(text, position)
                case _State.INVOKE:
                    after = self._inside_invoke(text, position)
                case _State.VALUE:
                    after = self._inside_value(text, position)
                case _State.JSON:
                    after = self._inside_json(text, position)
            if after == position and self._state is before:
                break
            position = after
        return position

    def truncated(self, rest: str) -> tuple[str | None, str] | None:
        """Return name and raw symbols of the call that the end of the text cuts off; None if all are whole.

        Args:
            rest: The symbols that `feed` has not used.
        """
        if self._state is not _State.BETWEEN:
            return self._invoke.name or None, "".join(self._invoke.raw) + rest
        starts_call = isinstance(read_tag(rest, 0, by_text=self.by_text), Undecided) if rest else False
        if self.calls == self._first or (starts_call and not rest.startswith("</")):
            return None, rest
        return None

    # Between the invokes of a block.

    def _between(self, text: str, position: int) -> int:
        if blank := _WHITESPACE.match(text, position):
            self._gap = (self._gap + blank.group())[:3]
            return blank.end()
        if text[position] != "<":
            return self._skip(text, position)
        tag = read_tag(text, position, by_text=self.by_text)
        if tag is Undecided.TEXT:
            return self._skip(text, position)
        if isinstance(tag, Undecided):
            return position
        if tag.kind is TagKind.INVOKE and not tag.closing:
            self._note_gap()
            self._open_invoke(tag, text[position : tag.end])
        elif tag.kind is TagKind.BLOCK and tag.closing:
            self._note_gap()
            self._close_block(tag)
        else:
            return self._skip(text, position)
        return tag.end

    def _skip(self, text: str, position: int) -> int:
        """Drop text that stands where only tags may stand."""
        if not self.opened:
            self.failed = True
            return position
        self.repairs.append("R18")
        self._gap = ""
        word = _WORD.match(text, position + 1)
        end = position + 1 if word is None else word.end()
        self.dropped.append(text[position:end])
        return end

    def _close_block(self, tag: Tag) -> None:
        self._note(tag)
        self.opened = True
        self.finished = True
        if self.calls == self._first:
            self.repairs.append("R20")
            self.failed = self._gated

    def _note_gap(self) -> None:
        if self._gap != "\n":
            self.repairs.append("R5")
        self._gap = ""

    def _note(self, tag: Tag) -> None:
        self.repairs.extend(tag.repairs)
        if tag.markup is Markup.GENUINE and tag.spaced != (self._revision is Revision.V4_1):
            self.repairs.append("R8")

    # Inside an invoke, between its parameters.

    def _open_invoke(self, tag: Tag, raw: str) -> None:
        name = to_text(tag.attributes["name"])
        if self._gated and not self.confirmed and name not in self._tools:
            self.failed = True
            return
        self._note(tag)
        self._invoke = Invoke(name, self.calls, tag.markup, self._tools.get(name), [raw])
        self._state = _State.INVOKE
        self._gap = ""
        self.calls += 1
        self.opened = True
        if self._invoke.tool is not None:
            self._report(CallOpened(self._invoke.index, name))
        if tag.self_closing:
            self._close_invoke()

    def _report(self, event: Event) -> None:
        # Only inside a genuine block is an open call worth showing before it is whole.
        early = self.wrapped and self._genuine and self._invoke.markup is Markup.GENUINE
        (self.events if early else self._invoke.pending).append(event)

    def _inside_invoke(self, text: str, position: int) -> int:
        if text[position] != "<":
            following = text.find("<", position)
            return self._take_body(text, position, len(text) if following < 0 else following)
        tag = read_tag(text, position, by_text=self.by_text)
        if isinstance(tag, Undecided):
            return self._take_body(text, position, position + 1) if tag is Undecided.TEXT else position
        is_json = self._invoke.has_json_body
        ends = self._ends_invoke(tag)
        if tag.kind is TagKind.PARAMETER and not tag.closing and not is_json:
            self._note_parameter_gap()
            self._invoke.raw.append(text[position : tag.end])
            self._open_value(tag)
            return tag.end
        if tag.kind is TagKind.INVOKE and tag.closing and ends:
            self._note_parameter_gap()
            self._note(tag)
            self._invoke.raw.append(text[position : tag.end])
            self._close_invoke()
            return tag.end
        if (
            ends
            and tag.kind is (TagKind.BLOCK if tag.closing else TagKind.INVOKE)
            and (tag.closing or not is_json)
        ):
            self._close_unfinished()
            # In a block the tag is read again, as one between invokes.
            return tag.end if tag.closing and not self.wrapped else position
        return self._take_body(text, position, position + 1)

    def _ends_invoke(self, tag: Tag) -> bool:
        # JSON in the body may speak of tags: there only tags marked as well as the invoke itself count.
        strict = self._invoke.has_json_body or not tag.closing or tag.kind is TagKind.BLOCK
        return tag.markup >= min(self._invoke.markup, Markup.VARIANT) if strict else True

    def _take_body(self, text: str, start: int, end: int) -> int:
        self._gap = (self._gap + self._invoke.take_body(text[start:end]))[:3]
        return end

    def _note_parameter_gap(self) -> None:
        blank_line = self._gap == "\n\n" and not self._invoke.parameters
        if not blank_line and not self._invoke.body:
            self._note_gap()
        self._gap = ""

    def _close_unfinished(self) -> None:
        """Close an invoke that the next tag ends (R16)."""
        if self._gated and not self.confirmed and not self._invoke.parameters:
            self.failed = True  # two mentions of invokes, not a call and the next one
            return
        self.repairs.append("R16")
        self._close_invoke()

    def _close_invoke(self) -> None:
        if self._gated and not self.confirmed and self._invoke.is_prose():
            self.failed = True
            return
        self._state = _State.BETWEEN
        self._gap = ""
        self.finished = not self.wrapped
        self.confirmed = self.confirmed or self._invoke.tool is not None
        event, repairs = self._invoke.close(self._revision)
        self.events += (*self._invoke.pending, event)
        self.repairs += repairs

    # Inside a parameter's value.

    def _open_value(self, tag: Tag) -> None:
        self._note(tag)
        flag = _FLAGS.get(tag.attributes.get("string", "").strip().lower())
        self._parameter = WrittenParameter(to_text(tag.attributes["name"]), flag, "")
        self._value = []
        self._value_markup = tag.markup
        self._state = _State.VALUE
        if tag.self_closing:
            # A value that is not there must not silently become an empty one.
            self._invoke.fault = "malformed_tag"
            self._close_value()

    def _inside_value(self, text: str, position: int) -> int:
        candidate = text.find("<", position)
        end = len(text) if candidate < 0 else candidate
        indent = _LINE_START.search(text, max(position, end - _LOOKAHEAD), end)
        text_end = indent.start() if indent else end
        if candidate < 0:
            return self._take_value(text, position, text_end)
        tag = read_tag(text, candidate, by_text=self.by_text)
        if isinstance(tag, Undecided):
            return self._take_value(text, position, candidate + 1 if tag is Undecided.TEXT else text_end)
        closes = self._closes_value(tag, text)
        if closes is None:
            return self._take_value(text, position, text_end)
        if closes:
            self._take_value(text, position, candidate)
            self._note(tag)
            self._invoke.raw.append(text[candidate : tag.end])
            self._close_value()
            return tag.end
        if indent and self._begins_next(tag):
            self._take_value(text, position, text_end)
            self._invoke.raw.append(text[text_end:candidate])
            self.repairs.append("R15")
            self._close_value()
            self._gap = "\n"
            return candidate
        return self._take_value(text, position, candidate + 1)

    def _take_value(self, text: str, start: int, end: int) -> int:
        if end > start:
            piece = text[start:end]
            self._invoke.raw.append(piece)
            self._value.append(piece)
            if self._invoke.tool is not None and self._parameter.is_string:
                self._report(ArgumentDelta(self._invoke.index, self._parameter.name, to_text(piece)))
        return end

    def _closes_value(self, tag: Tag, text: str) -> bool | None:
        """Whether a tag ends the value; None if what follows must decide and is not there yet."""
        if tag.kind is not TagKind.PARAMETER or not tag.closing:
            return False
        if tag.markup >= self._value_markup:
            return True
        if tag.markup is Markup.PLAIN and self._value_markup is Markup.GENUINE:
            return False
        # A weaker closer may be part of the value: it counts only if the markup goes on right behind it.
        blank = _WHITESPACE.match(text, tag.end, tag.end + _LOOKAHEAD)
        position = blank.end() if blank else tag.end
        if position == len(text):
            return None
        if text[position] != "<":
            return False
        following = read_tag(text, position, by_text=self.by_text)
        if isinstance(following, Undecided):
            return False if following is Undecided.TEXT else None
        opens = following.kind is TagKind.PARAMETER and not following.closing
        return following.markup >= Markup.VARIANT and (
            opens or following.kind in (TagKind.INVOKE, TagKind.BLOCK)
        )

    def _begins_next(self, tag: Tag) -> bool:
        if tag.kind is not TagKind.PARAMETER or tag.closing or tag.markup < self._value_markup:
            return False
        return self._invoke.is_declared_and_unused(to_text(tag.attributes["name"]), self._parameter.name)

    def _close_value(self) -> None:
        text = to_text("".join(self._value))
        name, flag = self._parameter.name, self._parameter.is_string
        if self._invoke.tool is not None and not flag and text:
            self._report(ArgumentDelta(self._invoke.index, name, text))
        self._invoke.parameters.append(WrittenParameter(name, flag, text))
        self._state = _State.INVOKE
        self._gap = ""

    # A plain tag around one JSON object.

    def _inside_json(self, text: str, position: int) -> int:
        candidate = text.find("<", position)
        if candidate < 0:
            self._value.append(text[position:])
            return len(text)
        tag = read_tag(text, candidate, by_text=self.by_text)
        if isinstance(tag, Tag) and tag.kind is TagKind.JSON_CALL and tag.closing:
            self._value.append(text[position:candidate])
            self._close_json()
            return tag.end
        waits = isinstance(tag, Undecided) and tag is not Undecided.TEXT
        end = candidate if waits else candidate + 1
        self._value.append(text[position:end])
        return end

    def _close_json(self) -> None:
        call = json_object(to_text("".join(self._value))) or {}
        name = call.get("name")
        tool = self._tools.get(name) if isinstance(name, str) else None
        arguments = next((call[key] for key in ("arguments", "parameters", "input") if key in call), None)
        fields = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        if tool is None or json_object(fields) is None:
            self.failed = True
            return
        self.opened = self.confirmed = self.finished = True
        closed = CallClosed(self.calls, parsed_call(tool.name, fields, self._revision))
        self.events += (CallOpened(self.calls, tool.name), closed)
        self.calls += 1
