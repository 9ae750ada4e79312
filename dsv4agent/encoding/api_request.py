"""API requests to prompts, as DeepSeek's own server maps them (`deepseek-recipe` 0.2.0).

The server's format is the encoder's but for a few points: every assistant turn has its own header, V4 gathers
all system texts at the front, the effort is `high` unless the request says otherwise, and reasoning of
earlier turns stays only with tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dsv4agent.encoding import wording
from dsv4agent.encoding.control_tokens import (
    ASSISTANT,
    BOS,
    DSML,
    EOS,
    LATEST_REMINDER,
    SYSTEM,
    THINK_CLOSE,
    THINK_OPEN,
    USER,
)
from dsv4agent.encoding.dsml import WrittenCall, call_block, to_json
from dsv4agent.encoding.effort import effort_text
from dsv4agent.encoding.rendering import tools_block
from dsv4agent.encoding.revision import Revision, dsml_tags
from dsv4agent.encoding.segments import Segment, SegmentKind, content, control, join

API_IMAGE: Final = "<｜image｜>"
UNSUPPORTED_IMAGE: Final = "[Unsupported Image]"

_EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "high",
    "max": "max",
    "ultra": "max",
}
# While only the preview was served, the tiers were two.
_PREVIEW_EFFORTS: Final = _EFFORTS | {"minimal": "high", "low": "high", "xhigh": "max"}


@dataclass(frozen=True)
class Part:
    """A part of a turn's text; `image` stands for a placeholder token."""

    text: str
    provenance: str
    image: bool = False


@dataclass(frozen=True)
class Result:
    """A tool's result."""

    call_id: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Turn:
    """One turn of the conversation, in neither API's shape.

    Attributes:
        role: `system`, `user`, `assistant` or `latest_reminder`.
        blocks: Texts (tuples of parts) and results of a user turn; one text for the others.
        reasoning: Reasoning of an assistant.
        calls: Calls of an assistant, with their ids.
        is_open: The assistant turn is to be continued.
    """

    role: str
    blocks: tuple[tuple[Part, ...] | Result, ...] = ()
    reasoning: str = ""
    calls: tuple[tuple[str, WrittenCall], ...] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Conversation:
    """A request in neither API's shape."""

    turns: tuple[Turn, ...]
    thinking: bool
    effort: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    response_schema: object = None
    json_object: bool = False
    forces_call: bool = False


@dataclass(frozen=True)
class RenderedRequest:
    """A prompt and how to read what follows it.

    Attributes:
        segments: The prompt in segments; `encode_segments` turns them to ids.
        parse_tool_calls: Whether tools are declared, so that markup means calls.
        starts_in_tool_calls: The prompt ends inside a block of calls.
        starts_in_reasoning: The prompt ends inside reasoning.
        tools: The declared tools in the OpenAI shape.
    """

    segments: tuple[Segment, ...]
    parse_tool_calls: bool
    starts_in_tool_calls: bool
    starts_in_reasoning: bool
    tools: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def prompt(self) -> str:
        """The prompt text."""
        return join(self.segments)

    @property
    def special_ranges(self) -> tuple[tuple[int, int], ...]:
        """Character ranges of the genuine control tokens in the prompt."""
        ranges: list[tuple[int, int]] = []
        position = 0
        for segment in self.segments:
            end = position + len(segment.text)
            if segment.is_control:
                ranges.append((position, end))
            position = end
        return tuple(ranges)


def render_conversation(conversation: Conversation, revision: Revision) -> RenderedRequest:
    """Render a request that has passed its API's checks."""
    segments = tuple(segment for segment in _Renderer(conversation, revision).render() if segment.text)
    last = conversation.turns[-1] if conversation.turns else None
    is_open = last is not None and last.is_open
    return RenderedRequest(
        segments=segments,
        parse_tool_calls=bool(conversation.tools),
        starts_in_tool_calls=conversation.forces_call,
        starts_in_reasoning=conversation.thinking
        and not (is_open and last is not None and bool(last.blocks)),
        tools=conversation.tools,
    )


@dataclass(frozen=True)
class _Renderer:
    conversation: Conversation
    revision: Revision

    @property
    def is_v41(self) -> bool:
        return self.revision is Revision.V4_1

    def render(self) -> Iterator[Segment]:
        conversation = self.conversation
        turns = list(conversation.turns if self.is_v41 else _systems_first(conversation.turns))
        front = turns.pop(0) if turns and turns[0].role == "system" else None
        if front is None and (conversation.tools or self._has_format()):
            front = Turn("system")
        yield control(BOS)
        effort = ""
        if conversation.thinking:
            efforts = _PREVIEW_EFFORTS if self.revision is Revision.V4_PREVIEW else _EFFORTS
            effort = effort_text(efforts[conversation.effort or "high"], self.revision)
        if self.is_v41 and (effort or front is not None):
            yield control(SYSTEM)
        yield Segment(effort, SegmentKind.TEMPLATE, "system")
        if front is not None:
            yield from self._blocks(front)
            yield from self._declarations()
        for turn in _merged(turns):
            yield from self._turn(turn)
        if not (turns and turns[-1].is_open):
            yield control(ASSISTANT)
            yield control(THINK_OPEN if conversation.thinking else THINK_CLOSE)
        if conversation.forces_call:
            yield from self._block_opening()

    def _has_format(self) -> bool:
        return self.conversation.json_object or self.conversation.response_schema is not None

    def _declarations(self) -> Iterator[Segment]:
        if self.conversation.tools:
            yield _fixed("\n\n", "system")
            yield from tools_block(self.conversation.tools, self.revision)
        schema = self.conversation.response_schema
        if self.conversation.json_object and not self.is_v41:
            yield _fixed(f"\n\n{wording.RESPONSE_FORMAT_JSON_OBJECT}", "system")
        elif self._has_format():
            yield _fixed(f"\n\n{wording.RESPONSE_FORMAT}", "system")
            yield content(
                to_json({"type": "json_object"} if self.conversation.json_object else schema), "system"
            )

    def _turn(self, turn: Turn) -> Iterator[Segment]:
        if turn.role == "assistant":
            yield from self._assistant(turn)
            return
        yield control({"user": USER, "system": SYSTEM, "latest_reminder": LATEST_REMINDER}[turn.role])
        yield from self._blocks(turn)

    def _assistant(self, turn: Turn) -> Iterator[Segment]:
        yield control(ASSISTANT)
        thinks = self.conversation.thinking and (bool(self.conversation.tools) or turn.is_open)
        if thinks:
            yield control(THINK_OPEN)
            yield content(turn.reasoning, "model")
            if turn.is_open and not turn.blocks:
                return  # the reasoning itself goes on
        yield control(THINK_CLOSE)
        yield from self._blocks(turn)
        if turn.calls:
            calls = [call for _, call in turn.calls]
            yield from call_block(calls, self.revision, pad_empty=self.is_v41)
        if not turn.is_open:
            yield control(EOS)

    def _blocks(self, turn: Turn) -> Iterator[Segment]:
        for number, block in enumerate(turn.blocks):
            if number:
                yield _fixed("\n\n")
            if isinstance(block, Result):
                yield _fixed(wording.TOOL_RESULT_OPEN)
                yield from self._parts(block.parts)
                yield _fixed(wording.TOOL_RESULT_CLOSE)
            else:
                yield from self._parts(block)

    def _parts(self, parts: Sequence[Part]) -> Iterator[Segment]:
        for number, part in enumerate(parts):
            if number:
                yield _fixed("\n\n")
            if not part.image:
                yield content(part.text, part.provenance)
            elif self.is_v41:
                yield control(API_IMAGE)
            else:
                yield _fixed(UNSUPPORTED_IMAGE)

    def _block_opening(self) -> Iterator[Segment]:
        yield _fixed("\n\n<", "model")
        yield control(DSML)
        yield _fixed(f"{dsml_tags(self.revision).block}>\n", "model")


def _fixed(text: str, provenance: str = "control") -> Segment:
    return Segment(text, SegmentKind.TEMPLATE, provenance)


def _systems_first(turns: Sequence[Turn]) -> list[Turn]:
    systems = [turn for turn in turns if turn.role == "system"]
    others = [turn for turn in turns if turn.role != "system"]
    if not systems:
        return others
    return [Turn("system", tuple(block for turn in systems for block in turn.blocks)), *others]


def _merged(turns: Sequence[Turn]) -> list[Turn]:
    """Join neighbouring user turns, and order their results by the calls they answer."""
    merged: list[Turn] = []
    order: dict[str, int] = {}
    for turn in turns:
        if turn.role == "user" and merged and merged[-1].role == "user":
            merged[-1] = replace(merged[-1], blocks=merged[-1].blocks + turn.blocks)
        else:
            merged.append(turn)
    for index, turn in enumerate(merged):
        if turn.calls:
            order = {call_id: place for place, (call_id, _) in enumerate(turn.calls)}
        elif turn.role == "user":
            results = sorted(
                (block for block in turn.blocks if isinstance(block, Result)),
                key=lambda result: order.get(result.call_id, 0),
            )
            ranked = iter(results)
            blocks = tuple(next(ranked) if isinstance(block, Result) else block for block in turn.blocks)
            merged[index] = replace(turn, blocks=blocks)
    return merged
