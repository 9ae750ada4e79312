"""Every tool has a page that states its real declaration and cost, and the grammar takes all declarations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dsv4agent.backends.checkpoint import Checkpoint
from dsv4agent.context import system_message, tool_functions
from dsv4agent.encoding import Tokenizer, encode_messages, encode_tokens
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.tools import (
    Profile,
    Tool,
    ToolSettings,
    minimal_profile,
    profile_tools,
    search_provider_from_environment,
    shell_tools,
)
from tests.golden.tokenizers import v4_tokenizer
from tests.test_docs import blocks, table

PAGES = Path(__file__).parent.parent.parent / "docs" / "tools"


SEARCH = search_provider_from_environment({"SEARXNG_URL": "https://search.example.org"})
"""Configured, so that there is a tool to describe."""


def every_tool() -> dict[str, Tool]:
    settings = ToolSettings(search=SEARCH)
    tools = [
        *profile_tools(Profile.RESEARCH, settings),
        *profile_tools(Profile.FULL, settings),
        *profile_tools(Profile.MINIMAL, settings),
    ]
    return {tool.name: tool for tool in tools}


TOOLS = every_tool()
SHARED_PAGES = {"bash_output", "bash_kill"}
COMPANIONS: dict[str, list[Tool]] = {
    "bash": minimal_profile(),
    "str_replace_editor": minimal_profile(),
    "browser": [*minimal_profile(), TOOLS["browser"]],
    "web_fetch": [TOOLS["web_fetch"], TOOLS["web_search"]],
    "web_search": [TOOLS["web_fetch"], TOOLS["web_search"]],
}
"""What the third column of a page's table is about, where there is one."""


def tokenizers() -> dict[str, Tokenizer]:
    mini = Tokenizer.from_checkpoint(Checkpoint.find("mini").path)
    return {"official V4": v4_tokenizer(), "bundled mini": mini}


def declaration(tool: Tool) -> str:
    """Return the line of the prompt that declares a tool."""
    prompt = encode_messages([system_message(tool_functions([tool]))], "chat")
    (line,) = [line for line in prompt.split("\n") if line.startswith(f'{{"name": "{tool.name}"')]
    return line


def prompt_growth(tokenizer: Tokenizer, tools: list[Tool]) -> int:
    """Return the tokens that the system message grows by with these tools."""

    def size(message: dict[str, Any]) -> int:
        return len(encode_tokens([{**message, "content": "x"}], tokenizer, thinking_mode="chat").ids)

    return size(system_message(tool_functions(tools))) - size({"role": "system"})


@pytest.mark.parametrize("name", sorted(TOOLS.keys() - SHARED_PAGES))
def test_pages_state_the_real_cost_and_declaration(name: str) -> None:
    page, tool = PAGES / f"{name}.md", TOOLS[name]
    sets = [[tool], *([COMPANIONS[name]] if name in COMPANIONS else [])]
    stated = {row[0]: [int(cell) for cell in row[1:]] for row in table(page, "| tokenizer |")}
    assert stated == {
        label: [tokenizer.count(declaration(tool)), *(prompt_growth(tokenizer, tools) for tools in sets)]
        for label, tokenizer in tokenizers().items()
    }
    assert [json.loads(source) for _, source in blocks(page, "json")] == [json.loads(declaration(tool))]


def test_the_page_of_bash_states_the_cost_of_the_full_surface() -> None:
    tools = shell_tools()
    measured = {tool.name: [t.count(declaration(tool)) for t in tokenizers().values()] for tool in tools}
    together = [prompt_growth(tokenizer, tools) for tokenizer in tokenizers().values()]
    stated = {
        row[0]: [int(cell) for cell in row[1:]]
        for row in table(PAGES / "bash.md", "| declaration | official V4 | bundled mini |")
    }
    assert stated == {**measured, "all three, with the fixed instructions": together}


def test_the_page_of_bash_lists_the_parameters_of_the_full_surface() -> None:
    rows = table(PAGES / "bash.md", "| tool | parameter | what the model reads |")
    assert [tuple(row) for row in rows] == [
        (tool.name, name, schema["description"])
        for tool in shell_tools()
        for name, schema in tool.parameters["properties"].items()
    ]


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_declarations_are_closed_and_short(name: str) -> None:
    tool = TOOLS[name]
    Draft202012Validator.check_schema(tool.parameters)
    assert tool.parameters["additionalProperties"] is False
    assert re.fullmatch(r"[a-z_]+", name)
    properties: dict[str, Any] = tool.parameters["properties"]
    assert len(properties.keys() - set(tool.parameters["required"])) <= 8
    for text in (tool.description, *(schema["description"] for schema in properties.values())):
        assert text.endswith(".") and len(text) <= 110, text


@pytest.mark.parametrize("profile", list(Profile))
def test_the_grammar_takes_the_declarations_of_a_profile(profile: Profile) -> None:
    tools = profile_tools(profile, ToolSettings(search=SEARCH))
    ToolCallGrammar(tool_functions(tools), tokenizers()["bundled mini"])
