"""The `grep` tool: finds lines by a regular expression, inside the session's sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsv4agent.tools.base import Effects, ToolContext, ToolResult
from dsv4agent.tools.file_view import cut_start
from dsv4agent.tools.refusal import Refusal
from dsv4agent.tools.search import DEFAULT_TIMEOUT, search, shown_path

DEFAULT_LIMIT = 100
MAX_LIMIT = 250
MAX_CONTEXT = 5


class GrepTool:
    """Searches files with ripgrep, or with Python's expressions where ripgrep is not installed.

    Args:
        timeout: Seconds that a search may take.
    """

    name = "grep"
    description = "Find lines by a regular expression in the files that .gitignore does not exclude."
    effects = Effects.NONE

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["pattern"],
            "properties": {
                "pattern": {"type": "string", "description": "Regular expression, matched line by line."},
                "path": {
                    "type": "string",
                    "description": "Folder or file to search (default: the workspace).",
                },
                "glob": {"type": "string", "description": "Only files like this, such as *.py or src/**."},
                "output": {
                    "type": "string",
                    "enum": ["lines", "files", "count"],
                    "description": "Show lines (default), names of files, or matches per file.",
                },
                "ignore_case": {"type": "boolean", "description": "Whether case does not matter."},
                "context": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": MAX_CONTEXT,
                    "description": "Lines to show around each match.",
                },
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_LIMIT,
                    "description": f"Most matches or files to show (default {DEFAULT_LIMIT}).",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Search for `args["pattern"]`; whatever the model can mend is a result with a code.

        Raises:
            SandboxError: The sandbox could not run the search.
        """
        output: str = args.get("output") or "lines"
        request: dict[str, Any] = {
            "kind": "grep",
            "pattern": args["pattern"],
            "glob": args.get("glob"),
            "output": output,
            "ignore_case": bool(args.get("ignore_case")),
            "context": (args.get("context") or 0) if output == "lines" else 0,
            "limit": args.get("limit") or DEFAULT_LIMIT,
        }
        try:
            _require_pattern(request["pattern"])
            reply = await search(ctx, args.get("path") or ".", request, timeout=self._timeout)
        except Refusal as refusal:
            return refusal.result()
        return ToolResult(text=_Page(ctx, request, reply).text())

    async def aclose(self) -> None:
        """Hold nothing."""


class _Page:
    """What the model reads of a search."""

    def __init__(self, ctx: ToolContext, request: dict[str, Any], reply: dict[str, Any]) -> None:
        self._ctx = ctx
        self._output: str = request["output"]
        self._context: int = request["context"]
        self._files: list[dict[str, Any]] = reply["files"]
        lines_wanted = self._output == "lines"
        self._total: int = reply["matches"] if lines_wanted else reply["total"]
        self._noun = "matching lines" if lines_wanted else "files"
        self._complete: bool = reply["complete"]

    def text(self) -> str:
        """Return the rows that fit, and how many are missing."""
        rows = list(self._lines() if self._output == "lines" else self._names())
        if not rows:
            return "(no matches)"
        whole = "\n".join(text for text, _ in rows)
        shown = cut_start(self._ctx, whole)
        if shown is not whole:
            rows = rows[: shown.count("\n") + 1]
        missing = self._total - sum(is_counted for _, is_counted in rows)
        if not missing:
            return shown
        count = f"{missing} of {self._total}" if self._complete else f"more than {missing}"
        return f"{shown}\n[... {count} {self._noun} not shown; narrow the search]"

    def _names(self) -> Iterator[tuple[str, bool]]:
        for file in self._files:
            path = shown_path(self._ctx, file["path"])
            yield (path if self._output == "files" else f"{path}:{file['count']}"), True

    def _lines(self) -> Iterator[tuple[str, bool]]:
        """Yield each row, and whether it is a match."""
        first = True
        for file in self._files:
            path = shown_path(self._ctx, file["path"])
            last: int | None = None
            for line in file["lines"]:
                number: int = line["number"]
                if self._context and not first and number - 1 != last:
                    yield "--", False
                mark = ":" if line["is_match"] else "-"
                yield f"{path}{mark}{number}{mark}{line['text']}", line["is_match"]
                first, last = False, number


def _require_pattern(pattern: str) -> None:
    if not pattern:
        raise Refusal("invalid_arguments", "pattern is empty; use glob to list files")
    if "\n" in pattern or "\0" in pattern:
        raise Refusal("invalid_arguments", "pattern holds a line end or NUL; a match lies within one line")
