"""Renders failures as pytest's `--tb=short` does, from traceback objects whose files are in memory.

pytest's own code makes the texts of exceptions and comparisons; only the walk over frames is done here,
because pytest would look for the files on disk.
"""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, cast

import pytest
from _pytest._code.code import ExceptionInfo
from _pytest.pathlib import bestrelpath

WIDTH = 80
"""Columns that pytest assumes without a terminal."""


def separator(sign: str, title: str) -> str:
    """Return a title centred in a line of signs."""
    fill = sign * max((WIDTH - len(title) - 2) // (2 * len(sign)), 1)
    line = f"{fill} {title} {fill}"
    return line + sign if len(line) + len(sign) <= WIDTH else line


def summary_line(word: str, node_id: str, message: str | None) -> str:
    """Return one line of the short summary, cut to the width of the screen."""
    line = f"{word} {node_id}"
    if message is None:
        return line
    message = message.split("\n", 1)[0]
    room = WIDTH - len(line) - 3
    if room < 3:
        return line
    if len(message) > room:
        message = message[: room - 3] + "..."
    return f"{line} - {message}"


class FailureRenderer:
    """Renders exceptions raised by code whose files are given as texts.

    Args:
        root: Absolute folder of the files; paths below it are printed relative to it.
        files: Texts by path relative to `root`.
    """

    def __init__(self, root: str, files: Mapping[str, str]) -> None:
        self._root = root
        self._files = files
        self._lines: dict[str, list[str] | None] = {}

    def render(self, error: BaseException, start: CodeType | None) -> tuple[list[str], str]:
        """Return the lines of a failure and its one-line message.

        Args:
            error: The exception, with its traceback.
            start: Code of the test function; frames before it are not shown. None for errors during import.
        """
        message = _message(error)
        if isinstance(error, pytest.fail.Exception) and not error.pytrace:
            return str(error).split("\n"), message
        blocks: list[list[str]] = []
        seen: set[int] = set()
        current: BaseException | None = error
        description: str | None = None
        while current is not None and id(current) not in seen:
            seen.add(id(current))
            block = self._block(current, start)
            if description is not None:
                block += ["", description]
            blocks.append(block)
            if current.__cause__ is not None:
                current = current.__cause__
                description = "The above exception was the direct cause of the following exception:"
            elif current.__context__ is not None and not current.__suppress_context__:
                current = current.__context__
                description = "During handling of the above exception, another exception occurred:"
            else:
                current = None
        return [line for block in reversed(blocks) for line in block], message

    def frames(self, error: BaseException, start: CodeType | None) -> list[tuple[str, int]]:
        """Return (path relative to the root, line from 1) of the shown frames that lie below the root."""
        shown: list[tuple[str, int]] = []
        for entry in self._entries(error, start):
            path = entry.tb_frame.f_code.co_filename
            if path.startswith(self._root + "/"):
                shown.append((path[len(self._root) + 1 :], entry.tb_lineno))
        return shown

    def _entries(self, error: BaseException, start: CodeType | None) -> list[TracebackType]:
        entries: list[TracebackType] = []
        entry = error.__traceback__
        while entry is not None:
            entries.append(entry)
            entry = entry.tb_next
        for i, candidate in enumerate(entries):
            if candidate.tb_frame.f_code is start:
                entries = entries[i:]
                break
        else:
            own = [e for e in entries if not _is_machinery(e.tb_frame)]
            entries = own or entries
        return [e for e in entries if not _is_hidden(e.tb_frame)]

    def _block(self, error: BaseException, start: CodeType | None) -> list[str]:
        if isinstance(error, RecursionError) or isinstance(error, BaseExceptionGroup):
            return self._block_by_pytest(cast(BaseException, error), start)
        lines: list[str] = []
        for entry in self._entries(error, start):
            lines += self._entry(entry)
        text = _info(error).exconly(tryshort=True) if error.__traceback__ else repr(error)
        return lines + ["E   " + line for line in text.split("\n")]

    def _block_by_pytest(self, error: BaseException, start: CodeType | None) -> list[str]:
        """Let pytest render what needs its comparison of frames (recursion); make the paths relative."""
        entries = self._entries(error, start)
        if entries:
            error = error.with_traceback(entries[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(_info(error).getrepr(style="short", chain=False))
        return re.sub(rf"^{re.escape(self._root)}/(?=\S+:\d+: in )", "", text, flags=re.M).split("\n")

    def _entry(self, entry: TracebackType) -> list[str]:
        code = entry.tb_frame.f_code
        head = f"{self._shown_path(code.co_filename)}:{entry.tb_lineno}: in {code.co_name}"
        source = self._source(code.co_filename)
        if source is None or entry.tb_lineno > len(source):
            return [head, "    ???"]
        raw = source[entry.tb_lineno - 1] + "\n"
        line = raw.strip()
        return [head, "    " + line, *_carets(entry, raw, line)]

    def _source(self, path: str) -> list[str] | None:
        if path not in self._lines:
            text: str | None = None
            if path.startswith(self._root + "/"):
                text = self._files.get(path[len(self._root) + 1 :])
            elif os.path.isfile(path):
                text = Path(path).read_text(encoding="utf-8", errors="replace")
            self._lines[path] = None if text is None else text.split("\n")
        return self._lines[path]

    def shown(self, line: str) -> str:
        """Return the first line of a frame with its absolute path as pytest shows it from the root."""
        return re.sub(r"^(/[^:]+)(?=:\d+: in )", lambda found: self._shown_path(found[1]), line)

    def _shown_path(self, path: str) -> str:
        if path.startswith(self._root + "/"):
            return path[len(self._root) + 1 :]
        if not path.startswith("/"):
            return path
        relative = bestrelpath(Path(self._root), Path(path))
        return relative if len(relative) < len(path) else path


def _info(error: BaseException) -> ExceptionInfo[BaseException]:
    make = cast(
        Callable[[BaseException], ExceptionInfo[BaseException]], cast(Any, ExceptionInfo).from_exception
    )
    return make(error)


def _message(error: BaseException) -> str:
    return _info(error).exconly(tryshort=True) if error.__traceback__ else repr(error)


def _carets(entry: TracebackType, raw: str, line: str) -> list[str]:
    positions = next(itertools.islice(entry.tb_frame.f_code.co_positions(), entry.tb_lasti // 2, None))
    lineno, end_lineno, start, end = positions
    if lineno is None or lineno != end_lineno or lineno != entry.tb_lineno or start is None or end is None:
        return []
    data = raw.encode()
    start, end = len(data[:start].decode(errors="replace")), len(data[:end].decode(errors="replace"))
    if end - start >= len(line):
        return []
    return ["    " + " " * (start - (len(raw) - len(line)) + 1) + "^" * (end - start)]


def _is_machinery(frame: FrameType) -> bool:
    """Tell whether a frame belongs to imports, pytest or this package, not to the code under test."""
    path = frame.f_code.co_filename
    return path.startswith("<frozen importlib") or "/_pytest/" in path or path.startswith(_HERE)


_HERE = os.path.dirname(os.path.abspath(__file__)) + "/"


def _is_hidden(frame: FrameType) -> bool:
    if frame.f_globals.get("__unittest"):
        return True
    hidden: Any = frame.f_locals.get("__tracebackhide__", frame.f_globals.get("__tracebackhide__", False))
    return bool(hidden)
