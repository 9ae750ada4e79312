"""The pages of the file tools state the declaration and its cost as they are."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dsv4agent.backends.checkpoint import Checkpoint
from dsv4agent.context import system_message, tool_functions
from dsv4agent.encoding import Tokenizer, encode_messages, encode_tokens
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.tools import Tool
from dsv4agent.tools.apply_patch import ApplyPatchTool
from dsv4agent.tools.glob import GlobTool
from dsv4agent.tools.grep import GrepTool
from tests.golden.tokenizers import v4_tokenizer

PAGES = Path(__file__).parent.parent / "docs" / "tools"
TOOLS: list[Tool] = [ApplyPatchTool(), GrepTool(), GlobTool()]


def declaration(tool: Tool) -> str:
    """Return the line of the prompt that declares a tool."""
    prompt = encode_messages([system_message(tool_functions([tool]))], "chat")
    (line,) = [line for line in prompt.split("\n") if line.startswith(f'{{"name": "{tool.name}"')]
    return line


def cost(tokenizer: Tokenizer, tool: Tool) -> list[int]:
    """Return the tokens of the declaration, and what the system message grows by with this tool alone."""
    bare = encode_tokens([{"role": "system", "content": "x"}], tokenizer, thinking_mode="chat")
    message = {**system_message(tool_functions([tool])), "content": "x"}
    grown = encode_tokens([message], tokenizer, thinking_mode="chat")
    return [tokenizer.count(declaration(tool)), len(grown.ids) - len(bare.ids)]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_the_page_states_the_cost_and_the_declaration(tool: Tool) -> None:
    page = (PAGES / f"{tool.name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (official V4|bundled mini) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    stated = {name: [int(alone), int(grown)] for name, alone, grown in rows}
    mini = Tokenizer.from_checkpoint(Checkpoint.find("mini").path)
    assert stated == {"official V4": cost(v4_tokenizer(), tool), "bundled mini": cost(mini, tool)}
    blocks = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert [json.loads(block) for block in blocks] == [json.loads(declaration(tool))]


def test_declarations_are_closed_short_and_compile_to_a_grammar() -> None:
    for tool in TOOLS:
        Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["additionalProperties"] is False
        for text in (tool.description, *(p["description"] for p in tool.parameters["properties"].values())):
            assert text.endswith(".") and len(text) <= 110
    ToolCallGrammar(tool_functions(TOOLS), Tokenizer.from_checkpoint(Checkpoint.find("mini").path))
