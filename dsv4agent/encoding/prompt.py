"""Messages to ids: the form in which control tokens cannot be forged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

from dsv4agent.encoding.conversation import Message
from dsv4agent.encoding.rendering import render_segments
from dsv4agent.encoding.revision import DEFAULT_REVISION
from dsv4agent.encoding.segments import Segment, SegmentKind
from dsv4agent.encoding.tokenizer import Tokenizer


@dataclass(frozen=True)
class EncodedSpan:
    """Consecutive ids of one origin.

    Attributes:
        ids: Token ids.
        kind: `control` (one control id), `template` (fixed text of the protocol) or `content` (foreign text).
        provenance: `control`, `system`, `user`, `model`, `file`, `web`, `tool:<name>`, or what the message
            says.
        text: The characters the ids decode to.
    """

    ids: tuple[int, ...]
    kind: SegmentKind
    provenance: str
    text: str


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as spans. Joined ids decode to exactly the text `encode_messages` returns.

    Attributes:
        spans: In order, without gaps.
        images: Records of the images whose placeholder ids stand in the prompt, in order.
    """

    spans: tuple[EncodedSpan, ...]
    images: tuple[dict[str, Any], ...] = field(default=())

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """All ids."""
        return tuple(token for span in self.spans for token in span.ids)

    @property
    def text(self) -> str:
        """The prompt text."""
        return "".join(span.text for span in self.spans)


def encode_tokens(
    messages: Sequence[Message],
    tokenizer: Tokenizer,
    *,
    thinking_mode: str,
    revision: str = DEFAULT_REVISION,
    context: Sequence[Message] | None = None,
    drop_thinking: bool = True,
    add_default_bos_token: bool = True,
    reasoning_effort: str | int | None = None,
) -> EncodedPrompt:
    """Render a conversation to ids; the arguments are those of `encode_messages`.

    A message may carry `provenance`, which then labels its content instead of the role's default.

    Raises:
        EncodingError: As `encode_messages`.
        TokenizerError: `missing_control_token` or `not_unicode`.
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
    return EncodedPrompt(encode_segments(rendered.segments, tokenizer), rendered.images)


def encode_segments(segments: Sequence[Segment], tokenizer: Tokenizer) -> tuple[EncodedSpan, ...]:
    """Turn segments into spans of ids.

    Everything between two control tokens is tokenised as one run, because merges cross the borders of
    segments: so honest text gets the ids that the official tokenizer gives the whole prompt. The ids of a run
    are then dealt out to the segments: a border inside a token, or inside a character, moves on to the next
    token border between two characters. So a token that belongs to two segments counts as the first one's.

    Raises:
        TokenizerError: `missing_control_token` or `not_unicode`.
    """
    spans: list[EncodedSpan] = []
    for is_control, group in groupby(segments, key=lambda segment: segment.is_control):
        if is_control:
            spans.extend(
                EncodedSpan(
                    (tokenizer.control_id(segment.text),), segment.kind, segment.provenance, segment.text
                )
                for segment in group
            )
        else:
            spans.extend(_encode_run(_joined_neighbours(group), tokenizer))
    return tuple(spans)


def _joined_neighbours(group: Iterator[Segment]) -> list[Segment]:
    return [
        Segment("".join(segment.text for segment in same), kind, provenance)
        for (kind, provenance), same in groupby(group, key=lambda segment: (segment.kind, segment.provenance))
    ]


def _encode_run(run: list[Segment], tokenizer: Tokenizer) -> Iterator[EncodedSpan]:
    ids = tokenizer.encode_text("".join(segment.text for segment in run))
    if len(run) == 1:
        yield EncodedSpan(tuple(ids), run[0].kind, run[0].provenance, run[0].text)
        return
    start = 0
    position = 0  # bytes of ids[:cursor]
    cursor = 0
    border = 0
    for segment in run:
        border += len(segment.text.encode())
        while cursor < len(ids) and (position < border or _starts_inside_character(tokenizer, ids[cursor])):
            position += len(tokenizer.id_bytes(ids[cursor]))
            cursor += 1
        if cursor > start:
            taken = ids[start:cursor]
            yield EncodedSpan(tuple(taken), segment.kind, segment.provenance, tokenizer.decode(taken))
        start = cursor


def _starts_inside_character(tokenizer: Tokenizer, token_id: int) -> bool:
    return (tokenizer.id_bytes(token_id)[0] & 0xC0) == 0x80
