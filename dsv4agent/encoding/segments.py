"""Segments: a rendered prompt before it is text or ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dsv4agent.encoding.control_tokens import ALL


class SegmentKind(StrEnum):
    """Who wrote a segment, and whether it may become a control id."""

    CONTROL = "control"
    TEMPLATE = "template"
    CONTENT = "content"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the prompt.

    Attributes:
        text: The characters, joined over all segments the exact prompt.
        kind: `control` (exactly one control token), `template` (fixed text of the protocol) or `content`
            (foreign text).
        provenance: `control`, `system`, `user`, `model`, `file`, `web`, or `tool:<name>`.
    """

    text: str
    kind: SegmentKind
    provenance: str

    @property
    def is_control(self) -> bool:
        """Whether this segment becomes one control id."""
        return self.kind is SegmentKind.CONTROL


def control(token: str) -> Segment:
    """Return the segment of one control token."""
    return Segment(token, SegmentKind.CONTROL, "control")


def content(text: str, provenance: str) -> Segment:
    """Return foreign text, in which nothing is a control token however it is spelt."""
    return Segment(text, SegmentKind.CONTENT, provenance)


_CONTROL_PATTERN: Final = re.compile("(" + "|".join(re.escape(token) for token in ALL) + ")")


def template(text: str, provenance: str = "control") -> Iterator[Segment]:
    """Yield the segments of a fixed protocol text, in which control tokens are meant.

    Never pass foreign text: this is the one place where characters turn into control tokens.
    """
    for number, piece in enumerate(_CONTROL_PATTERN.split(text)):
        if piece:
            yield control(piece) if number % 2 else Segment(piece, SegmentKind.TEMPLATE, provenance)


def join(segments: Iterable[Segment]) -> str:
    """Return the prompt text."""
    return "".join(segment.text for segment in segments)
