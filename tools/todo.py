"""The `todo_write` tool: the model's own list of what is to be done, replaced whole by each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult

MAX_ITEMS = 50
MAX_LENGTH = 300
"""Characters of one item."""

TodoStatus = Literal["pending", "in_progress", "completed"]

_BOXES: Mapping[TodoStatus, str] = {"pending": "[ ]", "in_progress": "[>]", "completed": "[x]"}


@dataclass(frozen=True)
class TodoItem:
    """One thing to do."""

    content: str
    status: TodoStatus


class TodoWrite:
    """Keeps the list of one session.

    Attributes:
        items: The list as the last accepted call left it.
    """

    name = "todo_write"
    description = "Replace the list of steps of this task; keep one step in progress at a time."
    effects = Effects.NONE

    def __init__(self) -> None:
        self.items: tuple[TodoItem, ...] = ()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["items"],
            "properties": {
                "items": {
                    "type": "array",
                    "maxItems": MAX_ITEMS,
                    "description": "All steps in order, finished ones included.",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["content", "status"],
                        "properties": {
                            "content": {"type": "string", "maxLength": MAX_LENGTH},
                            "status": {"type": "string", "enum": list(get_args(TodoStatus))},
                        },
                    },
                }
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Replace the list and show it."""
        items = _items(args)
        active = [item.content for item in items if item.status == "in_progress"]
        if len(active) > 1:
            return _invalid(f"{len(active)} steps are in_progress ({', '.join(active)}); leave one so")
        if not all(item.content for item in items):
            return _invalid("a step has no content; say in a few words what it is")
        self.items = items
        return ToolResult(text=_shown(items))

    def restore(self, args: Mapping[str, Any]) -> None:
        """Take over the list of the arguments of an earlier session's last accepted call."""
        self.items = _items(args)

    async def aclose(self) -> None:
        """Do nothing: the list is only memory."""


def _items(args: Mapping[str, Any]) -> tuple[TodoItem, ...]:
    given = cast("list[dict[str, Any]]", args["items"])
    # One line each, whatever the model wrote.
    return tuple(TodoItem(" ".join(item["content"].split()), item["status"]) for item in given)


def _shown(items: tuple[TodoItem, ...]) -> str:
    if not items:
        return "The list is empty."
    done = sum(item.status == "completed" for item in items)
    return "\n".join(
        (f"{done} of {len(items)} done", *(f"{_BOXES[item.status]} {item.content}" for item in items))
    )


def _invalid(reason: str) -> ToolResult:
    return ToolResult(f"invalid_arguments: {reason}", Status.ERROR, "invalid_arguments")
