"""The streaming parser: a running model's output to events and, in the end, to a message.

Whatever the pieces it is fed in, the events say the same. Markup is never text, nothing is taken back, and
everything held back is given out or reported. A call counts only when it has closed and its arguments are
valid JSON; where ids are known, only control ids are markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from dsv4agent.encoding.arguments import declared_tools
from dsv4agent.encoding.block_parser import BlockParser
from dsv4agent.encoding.errors import CompletionParseError
from dsv4agent.encoding.events import Event, Malformed, ParsedMessage, ReasoningDelta, TextDelta, TurnEnd
from dsv4agent.encoding.lines import LineTracker
from dsv4agent.encoding.message_builder import MessageBuilder
from dsv4agent.encoding.opening import Opening
from dsv4agent.encoding.revision import as_revision
from dsv4agent.encoding.symbols import (
    DSML_SYMBOL,
    END,
    EOS_SYMBOL,
    THINK_CLOSE_SYMBOL,
    THINK_OPEN_SYMBOL,
    IdSource,
    TextSource,
    to_text,
)
from dsv4agent.encoding.tags import MAX_TAG, Markup, Tag, TagKind, Undecided, read_tag
from dsv4agent.encoding.tokenizer import Tokenizer

_SPECIAL: Final = re.compile(f"[<\r\n{THINK_OPEN_SYMBOL}{THINK_CLOSE_SYMBOL}]")
_SPECIAL_WITHOUT_TOOLS: Final = re.compile(f"[{THINK_OPEN_SYMBOL}{THINK_CLOSE_SYMBOL}]")
_NEWLINES: Final = re.compile(r"[\r\n]+")
_MAX_LONG_RETURNS: Final = 8
"""How often a long stretch may turn out to be no call after all, before lookalikes are only text: keeps the
work linear."""


class _State(Enum):
    START = "start"
    REASONING = "reasoning"
    CONTENT = "content"
    AFTER_CALLS = "after_calls"


class StreamParser:
    """Parses one completion as it is generated."""

    def __init__(
        self,
        revision: str,
        thinking_mode: str,
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        tokenizer: Tokenizer | None = None,
        starts_in_tool_calls: bool = False,
        strict: bool = False,
    ) -> None:
        """Begin right after the prompt.

        Args:
            revision: The revision the prompt was rendered with.
            thinking_mode: `thinking` if the prompt ends with an open `<think>`, otherwise `chat`.
            tools: Declared tools in the OpenAI shape; without any, nothing is taken for a call.
            tokenizer: Needed for `feed_ids`.
            starts_in_tool_calls: The prompt already ends inside a block of calls.
            strict: Raise where a repair would be needed.
        """
        self._revision = as_revision(revision)
        self._tools = declared_tools(tools)
        self._tokenizer = tokenizer
        self._source: TextSource | IdSource | None = None
        self._state = _State.START
        self._buffer = ""
        self._position: int = 0
        self._ended = False
        self._message = MessageBuilder(strict=strict)
        self._dropped: list[str] = []
        self._newlines: list[str] = []
        self._lines = LineTracker()
        self._reasoning_closed = thinking_mode != "thinking"
        self._opening = Opening(thinking=not self._reasoning_closed)
        self._block: BlockParser | None = None
        self._committed = False
        self._gated = False
        self._mark: int = 0
        self._raw: list[str] = []
        self._long_returns: int = 0
        self._opened_calls = 0
        if starts_in_tool_calls:
            self._reasoning_closed = True
            self._state = _State.CONTENT
            self._block = self._new_block(gated=False)
            self._committed = self._block.opened = True

    def feed_ids(self, ids: Iterable[int]) -> list[Event]:
        """Take generated ids and return what they complete.

        Raises:
            CompletionParseError: `no_tokenizer`, `mixed_input`, or in strict mode the id of a repair.
        """
        if self._source is None:
            if self._tokenizer is None:
                raise CompletionParseError(
                    "Ids need a tokenizer; pass one to StreamParser.", reason="no_tokenizer"
                )
            self._source = IdSource(self._tokenizer)
            if self._block is not None:
                self._block.by_text = False
        if not isinstance(self._source, IdSource):
            raise CompletionParseError(
                "This parser was fed text before; use a new one.", reason="mixed_input"
            )
        return self._push(self._source.push(ids))

    def feed_text(self, text: str) -> list[Event]:
        """Take generated text, as a backend without ids hands it out; errors as `feed_ids`."""
        if self._source is None:
            self._source = TextSource()
        if not isinstance(self._source, TextSource):
            raise CompletionParseError("This parser was fed ids before; use a new one.", reason="mixed_input")
        return self._push(self._source.push(text))

    def finish(self, finish_reason: str = "stop") -> list[Event]:
        """Take the end of the output and return what was held back.

        Args:
            finish_reason: Why generation ended; becomes the reason of `TurnEnd` unless the text itself ended
                the turn.

        Raises:
            CompletionParseError: In strict mode, with the id of a repair as reason.
        """
        if not self._ended:
            if self._source is not None:
                self._buffer += self._source.flush()
            self._end(finish_reason)
        return self._message.drain()

    @property
    def result(self) -> ParsedMessage:
        """The message so far; complete after `finish` or `TurnEnd`."""
        return self._message.message()

    # Input.

    def _push(self, symbols: str) -> list[Event]:
        if self._ended:
            return []
        end = END.search(symbols)
        self._buffer += symbols if end is None else symbols[: end.start()]
        if end is None:
            self._process(final=False)
        else:
            self._end("stop" if end.group() == EOS_SYMBOL else "turn_marker")
        return self._message.drain()

    def _end(self, reason: str) -> None:
        self._process(final=True)
        self._flush_newlines()
        if not self._reasoning_closed and not self._message.has_calls:
            self._message.repair("R3")
        if reason == "turn_marker":
            self._message.repair("R26")
            if self._message.has_calls:
                self._message.repair("R18")
        dropped = "".join(self._dropped)
        if dropped.strip():
            self._message.repair("R18")
            self._message.add(Malformed("text_after_calls", dropped))
        self._ended = True
        self._message.add(TurnEnd(reason))

    def _process(self, *, final: bool) -> None:
        while self._step(final):
            pass
        if self._block is not None and not self._committed:
            self._raw.append(self._buffer[self._mark : self._position])
            self._mark = 0
        self._buffer = self._buffer[self._position :]
        self._position = 0

    def _step(self, final: bool) -> bool:
        """Make some progress and return whether there may be more."""
        if self._block is not None:
            return self._step_block(self._block, final)
        if self._state is _State.START:
            return self._step_start(final)
        return self._step_text(final)

    def _step_start(self, final: bool) -> bool:
        opened = self._opening.push(self._buffer[self._position :], final=final)
        self._position = len(self._buffer)
        if opened is None:
            return False
        for rule in opened.repairs:
            self._message.repair(rule)
        if opened.thought:
            self._message.add(ReasoningDelta(opened.thought))
        self._state = _State.REASONING if opened.in_reasoning else _State.CONTENT
        self._buffer = opened.rest
        self._position = 0
        return True

    # Text.

    def _step_text(self, final: bool) -> bool:
        pattern = _SPECIAL if self._tools else _SPECIAL_WITHOUT_TOOLS
        special = pattern.search(self._buffer, self._position)
        if special is None:
            self._text(self._buffer[self._position :])
            self._position = len(self._buffer)
            return False
        self._text(self._buffer[self._position : special.start()])
        self._position = special.start()
        character = special.group()
        if character == "<":
            return self._step_tag(final)
        if character in "\r\n":
            run = _NEWLINES.match(self._buffer, self._position)
            newlines = run.group() if run else character
            self._newlines.append(newlines)
            self._lines.feed(newlines)
            self._position += len(newlines)
            return True
        self._position += 1
        if self._state is _State.REASONING and character == THINK_CLOSE_SYMBOL:
            self._flush_newlines()
            self._reasoning_closed = True
            self._state = _State.CONTENT
            self._lines = LineTracker()
        elif self._state is not _State.AFTER_CALLS:
            self._message.repair("R4")
        return True

    def _text(self, symbols: str) -> None:
        if not symbols:
            return
        self._flush_newlines()
        self._lines.feed(symbols)
        if not self._tools and DSML_SYMBOL in symbols:
            self._message.repair("R25")
        self._put(to_text(symbols))

    def _flush_newlines(self) -> None:
        if self._newlines:
            newlines = "".join(self._newlines)
            self._newlines = []
            self._put(newlines)

    def _put(self, text: str) -> None:
        if self._state is _State.AFTER_CALLS:
            self._dropped.append(text)
        elif self._state is _State.REASONING:
            self._message.add(ReasoningDelta(text))
        else:
            self._message.add(TextDelta(text))

    # Tags in text.

    def _step_tag(self, final: bool) -> bool:
        tag = read_tag(self._buffer, self._position, by_text=isinstance(self._source, TextSource))
        if isinstance(tag, Tag):
            self._meet(tag)
            return True
        if tag is not Undecided.TEXT:
            if not final:
                return False
            if tag is Undecided.MORE_GENUINE and self._state is not _State.REASONING:
                self._cut_tag()
                return True
        self._bracket_is_text()
        return True

    def _cut_tag(self) -> None:
        rest = self._buffer[self._position :]
        self._position = len(self._buffer)
        if rest.startswith("</"):
            self._message.repair("R24")
            return
        self._newlines = []
        self._truncate(None, rest)

    def _bracket_is_text(self) -> None:
        if self._buffer.startswith(DSML_SYMBOL, self._position + 1) and self._state is not _State.AFTER_CALLS:
            self._message.repair("R2b")
        self._text("<")
        self._position += 1

    def _meet(self, tag: Tag) -> None:
        if tag.closing:
            if tag.markup is Markup.GENUINE and self._state is not _State.REASONING:
                if self._state is _State.CONTENT:
                    self._message.repair("R24")
                self._position = tag.end
            else:
                self._bracket_is_text()
            return
        gated = tag.markup is not Markup.GENUINE or self._state is _State.REASONING
        if tag.kind is TagKind.PARAMETER or (gated and not self._may_be_call(tag)):
            self._bracket_is_text()
            return
        self._block = self._new_block(gated=gated)
        self._committed = False
        self._gated = gated
        self._mark = self._position
        self._raw = []
        self._block.start(tag, self._buffer[self._position : tag.end])
        self._position = tag.end

    def _may_be_call(self, tag: Tag) -> bool:
        if self._long_returns >= _MAX_LONG_RETURNS:
            return False
        if tag.kind is TagKind.INVOKE and to_text(tag.attributes["name"]) not in self._tools:
            return False
        if tag.markup is not Markup.PLAIN:
            return True
        return self._state is not _State.REASONING and self._lines.at_line_start and not self._lines.fenced

    # Calls.

    def _new_block(self, *, gated: bool) -> BlockParser:
        return BlockParser(
            self._tools,
            self._revision,
            by_text=not isinstance(self._source, IdSource),
            gated=gated,
            calls=self._opened_calls,
        )

    def _step_block(self, block: BlockParser, final: bool) -> bool:
        text = self._buffer
        cut = -1
        if self._state is _State.REASONING and not self._committed:
            # The end of the reasoning ends every attempt in it: no call reaches across.
            cut = text.find(THINK_CLOSE_SYMBOL, self._position)
            if cut >= 0:
                text = text[:cut]
        self._position = block.feed(text, self._position)
        if not self._committed:
            if block.failed:
                return self._return_to_text()
            if block.confirmed if self._gated else block.opened:
                self._commit(block)
            elif self._gated and (final or cut >= 0):
                return self._return_to_text()
            elif not final:
                return False
        if self._committed:
            self._take_events(block)
        if block.finished:
            self._leave(block)
            return True
        if cut >= 0:
            return True  # confirmed just before the end of the reasoning, which is now only dropped text
        if final:
            self._cut_block(block)
        return final

    def _commit(self, block: BlockParser) -> None:
        if self._state is _State.REASONING:
            self._message.repair("R2")
            self._reasoning_closed = True
        if self._state is _State.AFTER_CALLS:
            if block.wrapped:
                self._message.repair("R19")
        elif "".join(self._newlines) != "\n\n" and not block.plain:
            self._message.repair("R5")
        self._newlines = []
        self._raw = []
        self._committed = True
        self._state = _State.AFTER_CALLS

    def _take_events(self, block: BlockParser) -> None:
        for rule in block.repairs:
            self._message.repair(rule)
        for event in block.events:
            self._message.add(event)
        if block.dropped:
            self._dropped.append(to_text("".join(block.dropped)))
        block.repairs, block.events, block.dropped = [], [], []

    def _leave(self, block: BlockParser) -> None:
        self._opened_calls = block.calls
        self._state = _State.AFTER_CALLS
        self._block = None

    def _cut_block(self, block: BlockParser) -> None:
        rest = self._buffer[self._position :]
        before = "" if self._committed else "".join(self._raw) + self._buffer[self._mark : self._position]
        self._position = len(self._buffer)
        self._newlines = []
        cut = block.truncated(rest)
        if cut is not None:
            name, raw = cut
            # An uncommitted block has no invoke yet: all of it is the rest of a call that never came.
            self._truncate(name, before + raw)
        self._leave(block)

    def _truncate(self, name: str | None, raw: str) -> None:
        self._message.repair("R17")
        self._message.add(Malformed("truncated_call", to_text(raw), name))
        self._state = _State.AFTER_CALLS

    def _return_to_text(self) -> bool:
        """Give up the block: its first bracket is text, and what follows is looked at again."""
        taken = "".join(self._raw) + self._buffer[self._mark : self._position]
        if len(taken) > MAX_TAG:
            self._long_returns += 1
        self._buffer = taken + self._buffer[self._position :]
        self._position = 0
        self._mark = 0
        self._raw = []
        self._block = None
        self._bracket_is_text()
        return True
