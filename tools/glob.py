"""The `glob` tool: finds files by their names, inside the session's sandbox."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from dsv4agent.tools.base import Effects, ToolContext, ToolResult
from dsv4agent.tools.file_view import cut_start
from dsv4agent.tools.refusal import Refusal
from dsv4agent.tools.search import DEFAULT_TIMEOUT, search, shown_path

MOST_PATHS = 100


class GlobTool:
    """Lists the files that a pattern means, those changed last first.

    Args:
        timeout: Seconds that a search may take.
    """

    name = "glob"
    description = "Find files by name, newest first, without those that .gitignore excludes."
    effects = Effects.NONE

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["pattern"],
            "properties": {
                "pattern": {
                    "type": "string",
                    "description": "Such as *.py (at any depth), src/**/*.ts or {a,b}.txt.",
                },
                "path": {"type": "string", "description": "Folder to search (default: the workspace)."},
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """List the files that `args["pattern"]` means; whatever the model can mend is a result with a code.

        Raises:
            SandboxError: The sandbox could not run the search.
        """
        shown = args.get("path") or "."
        try:
            pattern = _relative_pattern(args["pattern"], posixpath.join(ctx.sandbox.policy.workspace, shown))
            request = {"kind": "glob", "glob": pattern, "limit": MOST_PATHS}
            reply = await search(ctx, shown, request, timeout=self._timeout)
        except Refusal as refusal:
            return refusal.result()
        paths = [shown_path(ctx, path) for path in reply["paths"]]
        if not paths:
            return ToolResult(text="(no files match)")
        text = cut_start(ctx, "\n".join(paths))
        missing = reply["total"] - text.count("\n") - 1
        note = f"\n[... {missing} of {reply['total']} files not shown; narrow the pattern or path]"
        return ToolResult(text=text + note if missing else text)

    async def aclose(self) -> None:
        """Hold nothing."""


def _relative_pattern(pattern: str, folder: str) -> str:
    """Return a pattern relative to the folder, also if it was given with the folder's absolute path."""
    if not pattern or "\0" in pattern:
        raise Refusal("invalid_arguments", "pattern is empty or holds a NUL character")
    below = posixpath.join(posixpath.normpath(folder), "")
    if pattern.startswith(below):
        return "/" + pattern[len(below) :]
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise Refusal("invalid_arguments", f"pattern {pattern} leaves {folder}; give the folder as path")
    return pattern
