"""The `ask_user` tool: a question to the person at the other end, if there is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.output import fits, keep_start

Ask = Callable[[str, Sequence[str]], Awaitable[str]]
"""Puts a question, with the answers to choose from (none: any), to the user and returns the answer."""

MAX_OPTIONS = 8
_DECIDE = "decide yourself and say what you assumed"


class AskUser:
    """Asks the user one question and waits for the answer.

    Args:
        ask: Puts the question to the user; None if nobody is there.
        timeout: Seconds to wait for an answer; None to wait for ever.
    """

    name = "ask_user"
    description = "Ask the user a question that only they can answer, and wait for the answer."
    effects = Effects.NONE

    def __init__(self, ask: Ask | None = None, *, timeout: float | None = None) -> None:
        self._ask = ask
        self._timeout = timeout
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["question"],
            "properties": {
                "question": {"type": "string", "description": "One clear question."},
                "options": {
                    "type": "array",
                    "items": {"type": "string"},
                    "maxItems": MAX_OPTIONS,
                    "description": "Answers to choose from.",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Return the answer, cut to the token budget."""
        if self._ask is None:
            return _unanswered("no_user", "nobody is there to ask")
        options: list[str] = args.get("options") or []
        answer: str | None = None
        with anyio.move_on_after(self._timeout):
            answer = await self._ask(args["question"], options)
        if answer is None:
            return _unanswered("no_answer", f"nobody answered within {self._timeout:g} s")
        answer = answer.strip()
        if not answer:
            return _unanswered("no_answer", "the user answered nothing")
        if not fits(answer, ctx.max_output_tokens, ctx.count_tokens):
            marker = "\n[the rest of the answer is too long to show]"
            budget = max(ctx.max_output_tokens - ctx.count_tokens(marker), 0)
            answer = keep_start(answer, budget, ctx.count_tokens).rstrip() + marker
        return ToolResult(text=answer)

    async def aclose(self) -> None:
        """Do nothing: the callback belongs to the caller."""


def _unanswered(code: str, reason: str) -> ToolResult:
    return ToolResult(f"{code}: {reason}; {_DECIDE}", Status.ERROR, code)
