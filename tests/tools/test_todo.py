import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dsv4agent.sandboxes import MemorySandbox
from dsv4agent.tools import Status, ToolContext, ToolResult
from dsv4agent.tools.todo import MAX_ITEMS, TodoItem, TodoWrite
from tests.tools.editor_desk import count_words

pytestmark = pytest.mark.anyio


async def write(tool: TodoWrite, *items: tuple[str, str]) -> ToolResult:
    args = {"items": [{"content": content, "status": status} for content, status in items]}
    Draft202012Validator(dict(tool.parameters)).validate(args)  # pyright: ignore[reportUnknownMemberType]
    return await tool(ToolContext(MemorySandbox(), count_words, 4000), args)


async def test_a_call_replaces_the_list_and_shows_it() -> None:
    tool = TodoWrite()
    await write(tool, ("old", "pending"))
    result = await write(tool, ("read", "completed"), ("fix", "in_progress"), ("test\nagain", "pending"))
    assert result.text == "1 of 3 done\n[x] read\n[>] fix\n[ ] test again"
    assert result.status is Status.OK
    assert tool.items[1] == TodoItem("fix", "in_progress")
    assert (await write(tool)).text == "The list is empty."
    assert tool.items == ()


async def test_two_steps_in_progress_are_refused_and_change_nothing() -> None:
    tool = TodoWrite()
    await write(tool, ("a", "pending"))
    refused = await write(tool, ("a", "in_progress"), ("b", "in_progress"))
    assert refused.text == "invalid_arguments: 2 steps are in_progress (a, b); leave one so"
    assert (await write(tool, (" ", "pending"))).code == "invalid_arguments"
    assert tool.items == (TodoItem("a", "pending"),)


def test_the_schema_bounds_the_list() -> None:
    validator = Draft202012Validator(dict(TodoWrite().parameters))
    item = {"content": "a", "status": "pending"}
    good: list[Any] = [[], [item], [item] * MAX_ITEMS]
    bad: list[Any] = [[item] * (MAX_ITEMS + 1), [{"content": "a"}], [{**item, "status": "done"}], ["a"]]
    assert all(validator.is_valid({"items": items}) for items in good)  # pyright: ignore[reportUnknownMemberType]
    assert not any(validator.is_valid({"items": items}) for items in bad)  # pyright: ignore[reportUnknownMemberType]


@given(st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["pending", "completed"])), max_size=9))
async def test_a_list_is_restored_from_the_arguments_of_its_last_call(items: list[tuple[str, str]]) -> None:
    tool, restored = TodoWrite(), TodoWrite()
    args = {"items": [{"content": f"{content}.", "status": status} for content, status in items]}
    await tool(ToolContext(MemorySandbox(), count_words, 4000), args)
    restored.restore(json.loads(json.dumps(args)))
    assert restored.items == tool.items and len(tool.items) == len(items)
