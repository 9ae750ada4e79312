"""The pages of the tools state the real declarations and costs, and the grammar takes all declarations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsv4agent.backends.checkpoint import Checkpoint
from dsv4agent.context import system_message, tool_functions
from dsv4agent.encoding import Tokenizer, encode_messages, encode_tokens
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.tools import Tool
from dsv4agent.tools.ask_user import AskUser
from dsv4agent.tools.bash_jobs import shell_tools
from dsv4agent.tools.notes import Notes
from dsv4agent.tools.python import PythonTool
from dsv4agent.tools.todo import TodoWrite
from tests.golden.tokenizers import v4_tokenizer
from tests.test_docs import blocks, table

PAGES = Path(__file__).parent.parent.parent / "docs" / "tools"
TOOLS: dict[str, Tool] = {tool.name: tool for tool in (PythonTool(), TodoWrite(), Notes(), AskUser())}


def tokenizers() -> dict[str, Tokenizer]:
    mini = Tokenizer.from_checkpoint(Checkpoint.find("mini").path)
    return {"official V4": v4_tokenizer(), "bundled mini": mini}


def declaration(tool: Tool) -> str:
    """Return the line of the prompt that declares a tool."""
    prompt = encode_messages([system_message(tool_functions([tool]))], "chat")
    lines = [line for line in prompt.split("\n") if line.startswith(f'{{"name": "{tool.name}"')]
    assert len(lines) == 1
    return lines[0]


def prompt_growth(tokenizer: Tokenizer, tools: list[Tool]) -> int:
    """Return the tokens that the system message grows by with these tools."""

    def size(functions: list[dict[str, object]]) -> int:
        message = system_message(functions) if functions else {"role": "system", "content": "x"}
        return len(encode_tokens([{**message, "content": "x"}], tokenizer, thinking_mode="chat").ids)

    return size(tool_functions(tools)) - size([])


@pytest.mark.parametrize("name", list(TOOLS))
def test_pages_state_the_real_cost_and_schema(name: str) -> None:
    page, tool = PAGES / f"{name}.md", TOOLS[name]
    stated = {row[0]: [int(cell) for cell in row[1:]] for row in table(page, "| tokenizer |")}
    assert stated == {
        label: [tokenizer.count(declaration(tool)), prompt_growth(tokenizer, [tool])]
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


def test_the_grammar_takes_all_declarations() -> None:
    tools = [*shell_tools(), *TOOLS.values()]
    ToolCallGrammar(tool_functions(tools), tokenizers()["bundled mini"])
