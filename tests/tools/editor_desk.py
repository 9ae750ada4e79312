"""An editor over files in memory, and a tokenizer made for tests."""

import re
from collections.abc import Mapping
from typing import Any

from dsv4agent.sandboxes import MemorySandbox
from dsv4agent.tools import StrReplaceEditor, ToolContext, ToolResult


def count_words(text: str) -> int:
    """A tokenizer of words, single blanks and single marks: exact, and never more tokens than bytes."""
    return len(re.findall(r"\w+|\s|[^\w\s]", text))


class EditorDesk:
    """An editor over files in memory; calls it with keyword arguments."""

    def __init__(self, files: Mapping[str, str | bytes], budget: int = 4000) -> None:
        contents = {
            f"/workspace/{name}": text.encode() if isinstance(text, str) else text
            for name, text in files.items()
        }
        self.sandbox = MemorySandbox(contents)
        self.context = ToolContext(self.sandbox, count_words, budget)
        self.editor = StrReplaceEditor()

    async def call(self, command: str, path: str, **arguments: Any) -> ToolResult:
        return await self.editor(self.context, {"command": command, "path": path, **arguments})

    def file(self, name: str) -> bytes:
        return self.sandbox.files[f"/workspace/{name}"]
