"""The first messages of a session, and how tools are shown to the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsv4agent.context.prompts import PERSONA
from dsv4agent.tools import Tool


def tool_functions(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the `function` objects of tools, keys in the order of the prompt."""
    return [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        for tool in tools
    ]


def system_message(functions: Sequence[Mapping[str, Any]], instructions: str = PERSONA) -> dict[str, Any]:
    """Return the system message. It declares the tools, which also keeps all reasoning in the transcript."""
    return {
        "role": "system",
        "content": instructions,
        "tools": [{"type": "function", "function": dict(function)} for function in functions],
    }


def tool_output_tokens(context_window: int) -> int:
    """Return how many tokens of a tool's output are shown: 4,000, or about a seventh of a small window."""
    return max(256, min(4000, context_window * 1200 // 8192))


def storable(text: str) -> str:
    """Return text without lone surrogates, which UTF-8 cannot hold; each becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
