"""Where in Markdown the text stands: at the start of a line, and inside a code fence or not."""

from __future__ import annotations

import re
from typing import Final

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_KEPT: Final = 256


class LineTracker:
    """Follows text that comes in pieces. Memory and work per character are constant."""

    def __init__(self) -> None:
        self._line = ""
        self._fence: str | None = None

    @property
    def at_line_start(self) -> bool:
        """Whether the next character begins a line."""
        return not self._line

    @property
    def fenced(self) -> bool:
        """Whether the next line is inside a code fence."""
        return self._fence is not None

    def feed(self, text: str) -> None:
        """Take more text."""
        *ended, last = text.split("\n")
        for piece in ended:
            self._end_line((self._line + piece)[:_KEPT])
            self._line = ""
        self._line = (self._line + last)[:_KEPT]

    def _end_line(self, line: str) -> None:
        match = _FENCE.match(line.rstrip("\r"))
        if match is None:
            return
        mark, rest = match.groups()
        if self._fence is None:
            self._fence = mark if mark[0] == "~" or "`" not in rest else None
        elif mark[0] == self._fence[0] and len(mark) >= len(self._fence) and not rest.strip():
            self._fence = None
