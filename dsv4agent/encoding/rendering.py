"""From messages to a prompt: the official encoder's rules for all three revisions.

The result is a list of segments; `encode_messages` joins them to text, and `encode_tokens` turns them to ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, overload

from dsv4agent.encoding import conversation as conv
from dsv4agent.encoding import wording
from dsv4agent.encoding.control_tokens import (
    ASSISTANT,
    BOS,
    EOS,
    IMAGE,
    LATEST_REMINDER,
    SYSTEM,
    TASKS,
    THINK_CLOSE,
    THINK_OPEN,
    USER,
)
from dsv4agent.encoding.conversation import Message
from dsv4agent.encoding.dsml import call_block, to_json, written_calls
from dsv4agent.encoding.effort import effort_text
from dsv4agent.encoding.errors import EncodingError
from dsv4agent.encoding.images import TextWithImages, normalise_images
from dsv4agent.encoding.namespaces import NamespaceConflict, qualified_function
from dsv4agent.encoding.revision import DEFAULT_REVISION, Revision, as_revision, dsml_tags
from dsv4agent.encoding.segments import Segment, SegmentKind, content, control, join, template


@overload
def encode_messages(
    messages: Sequence[Message],
    thinking_mode: str,
    context: Sequence[Message] | None = None,
    drop_thinking: bool = True,
    add_default_bos_token: bool = True,
    reasoning_effort: str | int | None = None,
    *,
    revision: str = DEFAULT_REVISION,
    return_multi_modal_data: Literal[False] = False,
) -> str: ...


@overload
def encode_messages(
    messages: Sequence[Message],
    thinking_mode: str,
    context: Sequence[Message] | None = None,
    drop_thinking: bool = True,
    add_default_bos_token: bool = True,
    reasoning_effort: str | int | None = None,
    *,
    revision: str = DEFAULT_REVISION,
    return_multi_modal_data: Literal[True],
) -> tuple[str, dict[str, Any]]: ...


def encode_messages(
    messages: Sequence[Message],
    thinking_mode: str,
    context: Sequence[Message] | None = None,
    drop_thinking: bool = True,
    add_default_bos_token: bool = True,
    reasoning_effort: str | int | None = None,
    *,
    revision: str = DEFAULT_REVISION,
    return_multi_modal_data: bool = False,
) -> str | tuple[str, dict[str, Any]]:
    """Render a conversation to the prompt text, byte for byte as the official encoder does.

    Args:
        messages: OpenAI-shaped messages; not changed.
        thinking_mode: `chat` or `thinking`.
        context: Messages that are already rendered; the result is only what follows them.
        drop_thinking: Leave reasoning of earlier turns out. Never happens once any message declares tools.
        add_default_bos_token: Begin with BOS if there is no context.
        reasoning_effort: An effort name of the revision; with V4.1 also 1 to 100.
        revision: Which encoder to follow.
        return_multi_modal_data: With V4.1, return the pair of the prompt and `{"images": [...]}`.

    Raises:
        EncodingError: The messages cannot be rendered; `reason` says why.
    """
    rendered = render_segments(
        messages,
        thinking_mode,
        context,
        drop_thinking,
        add_default_bos_token,
        reasoning_effort,
        revision=revision,
    )
    text = join(rendered.segments)
    return (text, {"images": list(rendered.images)}) if return_multi_modal_data else text


@dataclass(frozen=True)
class Rendered:
    """Segments in order, and the records of the images whose placeholders stand in them."""

    segments: tuple[Segment, ...]
    images: tuple[dict[str, Any], ...]


def render_segments(
    messages: Sequence[Message],
    thinking_mode: str,
    context: Sequence[Message] | None = None,
    drop_thinking: bool = True,
    add_default_bos_token: bool = True,
    reasoning_effort: str | int | None = None,
    *,
    revision: str = DEFAULT_REVISION,
) -> Rendered:
    """Render a conversation to segments; arguments and errors as `encode_messages`."""
    rev = as_revision(revision)
    before: list[Message] = list(context or ())
    new: list[Message] = list(messages)
    for message in (*before, *new):
        if not isinstance(message, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers pass JSON
            raise EncodingError(f"Message {message!r} is not an object.", reason="invalid_message")
    images: list[dict[str, Any]] = []
    if rev is Revision.V4_1:
        before = list(normalise_images(before)[0])
        normalised, images = normalise_images(new)
        new = list(normalised)
    names: dict[str, str] = {}
    merged_before = conv.merge(before, rev, names)
    # Results are ordered by the calls of the raw context, as the official encoder does.
    new = conv.sort_results([*before, *conv.merge(new, rev, names)])[len(before) :]
    if before:
        before = conv.sort_results(merged_before)
    full = [*before, *new]
    drop = drop_thinking and not any(message.get("tools") for message in full)
    count = len(new)
    if thinking_mode == "thinking" and drop:
        full = conv.drop_reasoning(full, rev)
        count = len(full) - len(conv.drop_reasoning(before, rev))
    turns = _Turns(full, thinking_mode, drop, reasoning_effort, rev, conv.last_user_index(full, rev))
    segments: list[Segment] = [control(BOS)] if add_default_bos_token and not before else []
    for index in range(max(len(full) - max(count, 0), 0), len(full)):
        segments.extend(segment for segment in turns.render(index) if segment.text)
    return Rendered(tuple(segments), tuple(images))


@dataclass(frozen=True)
class _Turns:
    """A preprocessed conversation; renders its messages one at a time."""

    messages: list[Message]
    mode: str
    drop: bool
    effort: object
    revision: Revision
    last: int

    @property
    def thinking(self) -> bool:
        return self.mode == "thinking"

    @property
    def is_v41(self) -> bool:
        return self.revision is Revision.V4_1

    def render(self, index: int) -> Iterator[Segment]:
        if self.mode not in ("chat", "thinking"):
            raise EncodingError(
                f"Invalid thinking_mode {self.mode!r}; use 'chat' or 'thinking'.",
                reason="invalid_thinking_mode",
            )
        effort = effort_text(self.effort, self.revision)
        if index == 0:
            yield from self._prefix(effort if self.thinking else "")
        message = self.messages[index]
        yield from self._body(message, index)
        following = self.messages[index + 1].get("role") if index + 1 < len(self.messages) else None
        if index + 1 == len(self.messages) or following in ("assistant", "latest_reminder"):
            yield from self._transition(message, index)

    def _prefix(self, effort: str) -> Iterator[Segment]:
        if self.is_v41 and (effort or self.messages[0].get("role") == "system"):
            yield control(SYSTEM)
        yield Segment(effort, SegmentKind.TEMPLATE, "system")

    def _body(self, message: Message, index: int) -> Iterator[Segment]:
        role = message.get("role")
        own = str(message.get("provenance") or "")
        if role == "system":
            if self.is_v41 and index > 0:
                yield control(SYSTEM)
            yield from _mixed(message.get("content") or "", own or "system")
            yield from self._declarations(message)
        elif role == "developer" and not self.is_v41:
            text = message.get("content")
            if not text:
                raise EncodingError("A developer message needs content.", reason="empty_developer")
            yield control(USER)
            yield content(str(text), own or "system")
            yield from self._declarations(message)
        elif role == "user":
            yield control(USER)
            yield from _blocks(cast("list[Mapping[str, Any]]", message["content_blocks"]), own or "user")
        elif role == "latest_reminder":
            yield control(LATEST_REMINDER)
            yield from _mixed(message.get("content"), own or "system")
        elif role == "assistant":
            yield from self._assistant(message, index, own or "model")
        else:
            raise EncodingError(f"Unknown role: {role}", reason="unknown_role")

    def _declarations(self, message: Message) -> Iterator[Segment]:
        if tools := message.get("tools"):
            yield Segment("\n\n", SegmentKind.TEMPLATE, "system")
            yield from tools_block(cast("Sequence[object]", tools), self.revision)
        if schema := message.get("response_format"):
            yield Segment(f"\n\n{wording.RESPONSE_FORMAT}", SegmentKind.TEMPLATE, "system")
            yield content(to_json(schema), "system")

    def _assistant(self, message: Message, index: int, provenance: str) -> Iterator[Segment]:
        after_task = index > 0 and self.messages[index - 1].get("task") is not None
        if self.thinking and not after_task and (not self.drop or index > self.last):
            yield content(str(message.get("reasoning_content") or ""), provenance)
            yield control(THINK_CLOSE)
        yield from _mixed(message.get("content") or "", provenance)
        if calls := message.get("tool_calls"):
            if not isinstance(calls, Sequence) or isinstance(calls, str):
                raise EncodingError("tool_calls is not a list.", reason="invalid_tool_call")
            written = written_calls(cast("Sequence[object]", calls), self.revision)
            yield from call_block(written, self.revision, provenance)
        if not message.get("wo_eos"):
            yield control(EOS)

    def _transition(self, message: Message, index: int) -> Iterator[Segment]:
        task = message.get("task")
        if task is not None:
            token = TASKS.get(task) if isinstance(task, str) else None
            if token is None:
                raise EncodingError(
                    f"Invalid task {task!r}; use one of {', '.join(TASKS)}.", reason="invalid_task"
                )
            if task == "action":
                yield control(ASSISTANT)
                yield control(THINK_OPEN if self.thinking else THINK_CLOSE)
            yield control(token)
        elif conv.is_user_like(message.get("role"), index, self.revision):
            yield control(ASSISTANT)
            thinks = self.thinking and (not self.drop or index >= self.last)
            yield control(THINK_OPEN if thinks else THINK_CLOSE)


def tools_block(tools: Sequence[object], revision: Revision) -> Iterator[Segment]:
    """Yield the tools block: instructions, one JSON schema per line, the closing line.

    Raises:
        EncodingError: `invalid_tool` or `invalid_namespace`.
    """
    yield from template(wording.tools_preface(dsml_tags(revision)), "system")
    yield content("\n".join(to_json(_function(tool, revision)) for tool in tools), "system")
    yield Segment(wording.TOOLS_EPILOGUE, SegmentKind.TEMPLATE, "system")


def _function(tool: object, revision: Revision) -> Mapping[str, Any]:
    function = cast("Mapping[str, Any]", tool).get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise EncodingError(
            f"Tool {tool!r} has no function object; pass the OpenAI shape.", reason="invalid_tool"
        )
    typed = cast("Mapping[str, Any]", function)
    if revision is not Revision.V4_1:
        return typed
    try:
        return qualified_function(cast("Mapping[str, Any]", tool), typed)
    except NamespaceConflict as error:
        raise EncodingError(str(error), reason="invalid_namespace") from error


def _blocks(blocks: Sequence[Mapping[str, Any]], default: str) -> Iterator[Segment]:
    for number, block in enumerate(blocks):
        if number:
            yield _fixed("\n\n")
        provenance = str(block.get("provenance") or default)
        kind = block.get("type")
        if kind == "tool_result":
            yield _fixed(wording.TOOL_RESULT_OPEN)
            yield from _result(block.get("content", ""), provenance)
            yield _fixed(wording.TOOL_RESULT_CLOSE)
        else:
            yield from _text(block, provenance)


def _result(value: object, provenance: str) -> Iterator[Segment]:
    if not isinstance(value, list):
        yield from _mixed(value, provenance)
        return
    for number, part in enumerate(cast("list[object]", value)):
        if number:
            yield _fixed("\n\n")
        yield from _text(part, provenance)


def _text(block: object, provenance: str) -> Iterator[Segment]:
    text: object = cast("Mapping[str, Any]", block).get("text") if isinstance(block, Mapping) else None
    if isinstance(text, TextWithImages):
        yield from _mixed(text, provenance)
    else:
        yield content(conv.block_text(cast("object", block)), provenance)


def _mixed(value: object, provenance: str) -> Iterator[Segment]:
    if not isinstance(value, TextWithImages):
        yield content(str(value), provenance)
        return
    for number, piece in enumerate(value.pieces):
        if number:
            yield _fixed("\n\n")
        yield control(IMAGE) if piece is None else content(piece, provenance)


def _fixed(text: str) -> Segment:
    return Segment(text, SegmentKind.TEMPLATE, "control")
