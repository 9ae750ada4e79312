from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from dsv4agent import Agent, RunContext, ToolCallFinished, ToolDefinitionError, tool
from dsv4agent.tools import Effects, StrReplaceEditor
from tests.scripted import ScriptedBackend, calls, collect, only


@dataclass
class Deps:
    rows: dict[str, int]


async def query(
    ctx: RunContext[Deps], name: str, limit: int = 100, order: Literal["up", "down"] = "up"
) -> str:
    """Run a query.

    It is read-only.

    Args:
        name: Whose number
            is wanted.
        limit: Most that is returned.
        order: Unused.
    """
    return str(min(ctx.deps.rows[name], limit))


def test_the_schema_comes_from_signature_and_docstring() -> None:
    made = tool(query)
    assert made.name == "query"
    assert made.description == "Run a query.\n\nIt is read-only."
    assert made.effects is Effects.EXTERNAL
    assert made.parameters == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "description": "Whose number is wanted."},
            "limit": {"type": "integer", "default": 100, "description": "Most that is returned."},
            "order": {"type": "string", "enum": ["up", "down"], "default": "up", "description": "Unused."},
        },
        "required": ["name"],
    }


def test_a_parameter_named_title_keeps_its_name() -> None:
    async def file(title: str) -> str:
        """File something."""
        return title

    assert tool(file).parameters["properties"] == {"title": {"type": "string"}}


@pytest.mark.parametrize("defect", ["sync", "undocumented", "unannotated", "variadic"])
def test_functions_that_cannot_be_shown_are_refused(defect: str) -> None:
    def sync(a: int) -> int:
        """Be sync."""
        return a

    async def undocumented(a: int) -> int:
        return a

    async def unannotated(a) -> int:  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
        """Lack an annotation."""
        return int(a)  # pyright: ignore[reportUnknownArgumentType]

    async def variadic(*a: int) -> int:
        """Take many."""
        return sum(a)

    functions: dict[str, Any] = {
        "sync": sync,
        "undocumented": undocumented,
        "unannotated": unannotated,
        "variadic": variadic,
    }
    with pytest.raises(ToolDefinitionError, match=defect):
        tool(functions[defect])


@pytest.mark.anyio
async def test_dependencies_reach_the_function(workspace: Path) -> None:
    backend = ScriptedBackend([calls(("query", {"name": "a"}), ("query", {"name": "a", "limit": 3}))])
    agent: Agent[Deps] = Agent(backend, tools=[StrReplaceEditor, tool(query)])
    async with agent.session(workspace, sandbox="none", deps=Deps({"a": 7})) as session:
        events = await collect(session, "go")
        assert session.transcript.header.tools[1]["name"] == "query"
    assert [result.text for result in only(events, ToolCallFinished)] == ["7", "3"]


@pytest.mark.anyio
async def test_names_must_be_unique_and_plain(workspace: Path) -> None:
    async def bad(a: int) -> int:
        """Have a bad name."""
        return a

    for tools in ([tool(query), tool(query)], [tool(bad, name="a b")]):
        agent: Agent[Deps] = Agent(ScriptedBackend([]), tools=tools)
        with pytest.raises(ToolDefinitionError):
            async with agent.session(workspace, sandbox="none"):
                pass
