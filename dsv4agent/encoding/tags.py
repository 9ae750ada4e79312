"""One tag of tool-call markup: exact, or with the tolerance of recovery rules R7 to R11, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import Final

from dsv4agent.encoding.symbols import DSML_SYMBOL

MAX_TAG: Final = 4096
"""Longer candidates are text. Bounds what is held back, and the work per character."""


class TagKind(Enum):
    """What a tag is for."""

    BLOCK = "block"
    INVOKE = "invoke"
    PARAMETER = "parameter"
    JSON_CALL = "json_call"


class Markup(IntEnum):
    """How a tag is marked, from least to most trusted."""

    PLAIN = 0
    VARIANT = 1
    GENUINE = 2


@dataclass(frozen=True)
class Tag:
    """A recognised tag, ending before index `end`."""

    kind: TagKind
    closing: bool
    markup: Markup
    end: int
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    spaced: bool = False
    self_closing: bool = False
    repairs: tuple[str, ...] = ()


class Undecided(Enum):
    """Why there is no tag (yet)."""

    TEXT = "text"
    """Whatever follows, this is text."""
    MORE = "more"
    """Could become a tag."""
    MORE_GENUINE = "more_genuine"
    """Could become a tag, and its DSML marker is already there."""


_PIPES: Final = "｜|‖"
_MARKER_SPELLING: Final = "DSML"
_PLAIN_NAMES: Final = {
    "tool_calls": TagKind.BLOCK,
    "function_calls": TagKind.BLOCK,
    "invoke": TagKind.INVOKE,
    "parameter": TagKind.PARAMETER,
    "tool_call": TagKind.JSON_CALL,
}
# Cheap: most `<` of code and prose end here.
_BEGINNING: Final = re.compile(f"<(?:/?(?:[{_PIPES} D{DSML_SYMBOL}ipft]|$))")
_NAME: Final = re.compile(r"[A-Za-z_][\w.:-]*", re.ASCII)
_SPACES: Final = re.compile(r"[ \t]*")
_WHITESPACE: Final = re.compile(r"\s*")
_MARK_EDGE: Final = re.compile(f"[{_PIPES} ]*")
_PIPE_RUN: Final = re.compile(f"[{_PIPES}]*")
_ATTRIBUTE: Final = re.compile(r"([A-Za-z_][\w-]*)\s*=\s*", re.ASCII)
_ATTRIBUTE_START: Final = re.compile(r"[A-Za-z_][\w-]*\s*=?\s*\Z", re.ASCII)
_BARE_VALUE: Final = re.compile(r"""[^\s<>"'“”‘’=/]+""")
_QUOTES: Final = {'"': '"', "'": "'", "“": '”“"', "”": '”"', "‘": "’‘'", "’": "’'", "„": '“”"', "«": "»"}
# The form the encoder writes. Keys stand unescaped and may hold quotes.
_EXACT: Final = {
    TagKind.PARAMETER: re.compile(rf'\s+name="((?:(?!">)[^\n{DSML_SYMBOL}])*?)" string="(true|false)">'),
    TagKind.INVOKE: re.compile(rf'\s+name="((?:(?!">)[^\n{DSML_SYMBOL}])*)">'),
}
_LINE_END: Final = re.compile(f"[\n{DSML_SYMBOL}]")


def read_tag(text: str, start: int, *, by_text: bool) -> Tag | Undecided:
    """Read the tag that begins with the `<` at `start`.

    Args:
        text: Symbols.
        start: Index of `<`.
        by_text: Whether spellings of the marker and plain tags count too, as they must where ids are not
            known.

    Returns:
        The tag, or whether more symbols could make one.
    """
    if not _BEGINNING.match(text, start):
        return Undecided.TEXT
    window = text[start : start + MAX_TAG]
    result = _Reader(window, by_text).read()
    if isinstance(result, Tag):
        return replace(result, end=start + result.end)
    return Undecided.TEXT if len(text) - start > MAX_TAG else result


class _Reader:
    def __init__(self, text: str, by_text: bool) -> None:
        self.text = text
        self.by_text = by_text
        self.repairs: list[str] = []
        self.more = Undecided.MORE

    def at(self, position: int) -> str:
        return self.text[position] if position < len(self.text) else ""

    def read(self) -> Tag | Undecided:
        position = 1
        closing = self.at(position) == "/"
        position += closing
        edge = _match_end(_MARK_EDGE, self.text, position)
        marker = self._marker(position, edge)
        if isinstance(marker, Undecided):
            return marker
        markup, after = marker
        return (
            self._plain(position, closing) if markup is Markup.PLAIN else self._marked(after, closing, markup)
        )

    def _marker(self, position: int, edge: int) -> tuple[Markup, int] | Undecided:
        """Return how the tag is marked and where its name may begin."""
        if edge == len(self.text):
            return Undecided.MORE
        if self.text[edge] == DSML_SYMBOL:
            self.more = Undecided.MORE_GENUINE if edge == position else Undecided.MORE
            return (Markup.GENUINE if edge == position else Markup.VARIANT), edge + 1
        if not self.by_text:
            return Undecided.TEXT
        if self.text.startswith(_MARKER_SPELLING, edge):
            return Markup.VARIANT, edge + len(_MARKER_SPELLING)
        if _MARKER_SPELLING.startswith(self.text[edge : edge + len(_MARKER_SPELLING)]):
            return Undecided.MORE
        return (Markup.PLAIN, edge) if edge == position else Undecided.TEXT

    def _plain(self, position: int, closing: bool) -> Tag | Undecided:
        end = _match_end(_NAME, self.text, position)
        name = self.text[position:end]
        if end == len(self.text):
            return Undecided.MORE if any(known.startswith(name) for known in _PLAIN_NAMES) else Undecided.TEXT
        kind = _PLAIN_NAMES.get(name)
        return Undecided.TEXT if kind is None else self._rest(kind, closing, Markup.PLAIN, end, False)

    def _marked(self, position: int, closing: bool, markup: Markup) -> Tag | Undecided:
        edge = _match_end(_MARK_EDGE, self.text, position)
        end = _match_end(_NAME, self.text, edge)
        if end == len(self.text):
            return self.more
        lead, name = self.text[position:edge], self.text[edge:end]
        if lead.strip(" "):
            markup = Markup.VARIANT
        pipes = _match_end(_PIPE_RUN, self.text, end)
        if pipes == len(self.text):
            return self.more
        if pipes > end:
            markup = Markup.VARIANT
        if not name and self.text[pipes] != ">":
            return Undecided.TEXT
        kind = TagKind.BLOCK
        if name in ("invoke", "parameter"):
            kind = TagKind(name)
        elif name not in ("tool_calls", "calls"):
            self.repairs.append("R7")
        return self._rest(kind, closing, markup, pipes, lead.startswith(" "))

    def _rest(
        self, kind: TagKind, closing: bool, markup: Markup, position: int, spaced: bool
    ) -> Tag | Undecided:
        if markup is not Markup.GENUINE:
            self.repairs.append("R10" if markup is Markup.PLAIN else "R9")
            self.more = Undecided.MORE
        attributes: dict[str, str] = {}
        self_closing = False
        if closing or kind in (TagKind.BLOCK, TagKind.JSON_CALL):
            end = self._bare_end(position, markup)
        else:
            found = self._attributes(kind, position)
            if isinstance(found, Undecided):
                return found
            attributes, end, self_closing = found
        if isinstance(end, Undecided):
            return end
        return Tag(kind, closing, markup, end, attributes, spaced, self_closing, tuple(self.repairs))

    def _bare_end(self, position: int, markup: Markup) -> int | Undecided:
        end = _match_end(_SPACES, self.text, position)
        following = self.at(end)
        if not following:
            return self.more
        if following == ">":
            return end + 1
        # Without `>`, only a marked tag at the end of a line or before the next tag is one.
        if markup is Markup.PLAIN or following not in "\r\n<":
            return Undecided.TEXT
        self.repairs.append("R7")
        return position

    def _attributes(self, kind: TagKind, position: int) -> tuple[dict[str, str], int, bool] | Undecided:
        loose = self._loose_attributes(kind, position)
        if not isinstance(loose, Undecided) and "name" in loose[0]:
            if self.text[position : loose[1]] != _written(kind, loose[0]):
                self.repairs.append("R11")
            return loose
        exact = _EXACT[kind].match(self.text, position)
        if exact is not None:
            groups = exact.groups()
            attributes = {"name": groups[0]} | ({"string": groups[1]} if len(groups) > 1 else {})
            return attributes, exact.end(), False
        if loose is self.more:
            return loose
        # The exact form may still come, but only on this line. A tag without a name is none.
        return Undecided.TEXT if _LINE_END.search(self.text, position) else self.more

    def _loose_attributes(self, kind: TagKind, position: int) -> tuple[dict[str, str], int, bool] | Undecided:
        attributes: dict[str, str] = {}
        while True:
            begin = position
            position = _match_end(_WHITESPACE, self.text, position)
            following = self.at(position)
            if not following:
                return self.more
            if following == ">":
                return attributes, position + 1, False
            if following == "/":
                if position + 1 == len(self.text):
                    return self.more
                return (attributes, position + 2, True) if self.text[position + 1] == ">" else Undecided.TEXT
            if following == "<" and kind is TagKind.INVOKE and "\n" in self.text[begin:position]:
                return attributes, begin, False
            if position == begin:
                return Undecided.TEXT
            head = _ATTRIBUTE.match(self.text, position)
            if head is None or head.end() == len(self.text):
                return self.more if _ATTRIBUTE_START.match(self.text, position) else Undecided.TEXT
            value = self._attribute_value(head.end())
            if isinstance(value, Undecided):
                return value
            text, position = value
            attributes.setdefault(head.group(1), text)

    def _attribute_value(self, position: int) -> tuple[str, int] | Undecided:
        closers = _QUOTES.get(self.text[position])
        if closers is None:
            bare = _BARE_VALUE.match(self.text, position)
            if bare is None:
                return Undecided.TEXT
            return self.more if bare.end() == len(self.text) else (bare.group(), bare.end())
        end = re.compile(f"[{closers}{DSML_SYMBOL}]").search(self.text, position + 1)
        if end is None:
            return self.more
        if end.group() == DSML_SYMBOL:
            return Undecided.TEXT
        return self.text[position + 1 : end.start()], end.end()


def _written(kind: TagKind, attributes: dict[str, str]) -> str:
    name = f' name="{attributes["name"]}"'
    return f"{name}>" if kind is TagKind.INVOKE else f'{name} string="{attributes.get("string", "")}">'


def _match_end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()
