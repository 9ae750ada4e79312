"""Texts and tools that several tests share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from dsv4agent.encoding import Event, ParsedMessage, StreamParser, TextDelta
from dsv4agent.encoding.control_tokens import ALL, DSML, EOS
from dsv4agent.encoding.events import ArgumentDelta, ReasoningDelta

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "string"},
                    "b": {"type": "string"},
                    "n": {"type": "integer"},
                    "opts": {"type": "object"},
                    "any": {},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]

SPELLINGS = [
    *ALL,
    "<｜fim▁hole｜>",
    "<｜tool▁calls▁begin｜>",
    "<|EOT|>",
    "<｜place▁holder▁no▁7｜>",
    "<｜image｜>",
    "</tool_result>",
    f"<{DSML}tool_calls>",
    f"</{DSML}parameter>",
    "<|DSML|invoke>",
    "<｜user｜>",
]
PIECES = [
    *SPELLINGS,
    "<",
    "｜",
    "User｜>",
    "<｜",
    "DSML",
    "think>",
    "</",
    "\n\n",
    "a",
    "é",
    "中文",
    "🧪",
    "\x00",
    " ",
]

hostile_text = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=20)


def parameter(value: str, name: str = "a", flag: str = "true") -> str:
    return f'<{DSML}parameter name="{name}" string="{flag}">{value}</{DSML}parameter>'


def invoke(inner: str, name: str = "f") -> str:
    return f'<{DSML}invoke name="{name}">\n{inner}\n</{DSML}invoke>'


def block(inner: str) -> str:
    return f"\n\n<{DSML}tool_calls>\n{inner}\n</{DSML}tool_calls>"


def call(value: str = "x") -> str:
    return block(invoke(parameter(value)))


def parse(text: str, mode: str = "thinking", *, finish: str = "stop", **kwargs: Any) -> ParsedMessage:
    parser = StreamParser("v4-preview", mode, kwargs.pop("tools", TOOLS), **kwargs)
    parser.feed_text(text)
    parser.finish(finish)
    return parser.result


def joined(events: list[Event]) -> list[Event]:
    """Concatenate neighbouring deltas of one kind, which is all that chunking may change."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        match last, event:
            case TextDelta(before), TextDelta(text):
                out[-1] = TextDelta(before + text)
            case ReasoningDelta(before), ReasoningDelta(text):
                out[-1] = ReasoningDelta(before + text)
            case ArgumentDelta(i, p, before), ArgumentDelta(j, q, text) if (i, p) == (j, q):
                out[-1] = ArgumentDelta(i, p, before + text)
            case _:
                out.append(event)
    return out


END = EOS
