"""A tiny world for tests of rollouts: one file with a bug, an editor and a shell in a few lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dsv4agent.tools import Foresight

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Run a command.",
            "parameters": {
                "type": "object",
                "required": ["command"],
                "properties": {"command": {"type": "string"}},
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "str_replace_editor",
            "description": "Edit a file.",
            "parameters": {
                "type": "object",
                "required": ["command", "path"],
                "properties": {
                    "command": {"type": "string"},
                    "path": {"type": "string"},
                    "old_str": {"type": "string"},
                    "new_str": {"type": "string"},
                },
            },
        },
    },
]


class OneLineWorld:
    """The file holds `return a - b`; the tests want `return a + b`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.family = "arithmetic"
        self.text = "def add(a, b):\n    return a - b\n"

    def bug_lines(self) -> tuple[str, str]:
        return "    return a - b", "    return a + b"

    def opening(self) -> list[dict[str, Any]]:
        return [
            {"role": "system", "content": "Work.", "tools": TOOLS},
            {"role": "user", "content": f"Fix {self.name}."},
        ]

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        if name == "bash":
            return "1 passed" if self.solved() else "1 failed"
        old = arguments["old_str"]
        if self.text.count(old) != 1:
            return "not_found: no such text"
        self.text = self.text.replace(old, arguments["new_str"])
        return "edited"

    def foresee(self, name: str, arguments: Mapping[str, Any], planned: dict[str, str]) -> Foresight | None:
        if name != "str_replace_editor":
            return None
        text = planned.get("add.py", self.text)
        old, new = arguments["old_str"], arguments["new_str"]
        planned["add.py"] = after = text.replace(old, new) if text.count(old) == 1 else text
        return Foresight("add.py", text, after)

    def solved(self) -> bool:
        return "return a + b" in self.text

    def tests_untouched(self) -> bool:
        return True

    def repair_calls(self) -> list[tuple[str, dict[str, Any]]] | None:
        old = self.text.splitlines()[1]
        edit = {"command": "str_replace", "path": "add.py", "old_str": old, "new_str": "    return a + b"}
        return [("str_replace_editor", edit), ("bash", {"command": "pytest"})]

    def closing(self) -> str:
        return "Fixed `add` in add.py; all tests pass."


def sleeping(collection: str, index: int) -> OneLineWorld:
    time.sleep(60)
    return OneLineWorld("never")


def broken(collection: str, index: int) -> OneLineWorld:
    raise RuntimeError("No world can be made.")


def world(collection: str, index: int) -> OneLineWorld:
    if collection == "broken":
        raise RuntimeError("This world cannot be made.")
    return OneLineWorld(f"{collection}-{index}")
