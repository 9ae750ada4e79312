"""Finds files, and lines in files, inside the sandbox; on the standard library and ripgrep, if it is there.

One JSON object comes on standard input and one goes to standard output, so that what crosses the border is
bounded whatever the files hold.
"""

from __future__ import annotations

import base64
import errno
import heapq
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dsv4agent.tools.gitignore import files_below
from dsv4agent.tools.globbing import PatternError, path_filter

LINE_CHARACTERS = 300
_COUNTED = 10_000
_ARGUMENT_BYTES = 100_000
_MOST_FILE_BYTES = 64 << 20
_RIPGREP = ("--no-config", "--no-messages", "--json", "--no-mmap", "--threads=1", "--crlf", "--no-pre")


@dataclass
class Line:
    """A line to show: `is_match` is False for context; `start` is where the match begins in the text."""

    number: int
    text: str
    is_match: bool
    start: int = 0


@dataclass
class FileLines:
    """What was found in one file: the number of matching lines, and the first of the lines to show."""

    path: str
    count: int = 0
    lines: list[Line] = field(default_factory=list[Line])


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return what a request asks for, or `{"errno": ..., "message": ...}`, or `{"invalid": ...}`."""
    root: str = request["root"]
    if ".." in root.split("/"):
        root = os.path.realpath(root)
    try:
        mode = os.stat(root).st_mode
    except OSError as error:
        return {"errno": error.errno, "message": error.strerror}
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        return {"errno": errno.EINVAL, "message": "not a regular file"}
    try:
        files = _files(root, request["top"], request["glob"], is_folder=stat.S_ISDIR(mode))
        if request["kind"] == "glob":
            return _newest(files, request["limit"])
        return _Grep(request).run(files)
    except PatternError as error:
        return {"invalid": str(error)}


def _files(root: str, top: str, glob: str | None, *, is_folder: bool) -> Iterator[str]:
    """Return the files that a search is about.

    Raises:
        PatternError: The glob cannot be understood.
    """
    wanted = None if glob is None else path_filter(glob)
    files = files_below(root, top) if is_folder else iter((root,))
    skip = len(os.path.join(root if is_folder else os.path.dirname(root), ""))
    return files if wanted is None else (path for path in files if wanted.fullmatch(path[skip:]))


def _newest(files: Iterable[str], limit: int) -> dict[str, Any]:
    total = 0

    def times() -> Iterator[tuple[int, str]]:
        nonlocal total
        for path in files:
            try:
                changed = os.lstat(path).st_mtime_ns
            except OSError:
                continue  # Gone meanwhile.
            total += 1
            yield -changed, path

    newest = heapq.nsmallest(limit, times())
    return {"paths": [path for _, path in newest], "total": total}


class _Grep:
    """One search for a pattern."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._pattern: str = request["pattern"]
        self._ignore_case: bool = request["ignore_case"]
        self._context: int = request["context"]
        self._limit: int = request["limit"]
        self._lines_wanted: bool = request["output"] == "lines"
        self._first_only: bool = request["output"] == "files"

    def run(self, files: Iterable[str]) -> dict[str, Any]:
        """Return the files found up to the limit, and the totals, which end 10,000 past the limit.

        Raises:
            PatternError: The pattern is no regular expression.
        """
        command = self._ripgrep_command()
        found = self._with_ripgrep(command, files) if command else self._with_python(files)
        shown: list[dict[str, Any]] = []
        matches = total = 0
        complete = True
        for file in found:
            total += 1
            room = self._limit - (matches if self._lines_wanted else len(shown))
            matches += file.count
            if room > 0:
                lines = [vars(line) for line in _first_matches(file.lines, room, self._context)]
                shown.append({"path": file.path, "count": file.count, "lines": lines})
            if (matches if self._lines_wanted else total) > self._limit + _COUNTED:
                complete = False
                break
        return {"files": shown, "matches": matches, "total": total, "complete": complete}

    def _ripgrep_command(self) -> list[str] | None:
        """Return ripgrep's command line without files, tried out on nothing; None if it does not run here.

        Raises:
            PatternError: It does not take the pattern.
        """
        program = shutil.which("rg")
        if program is None:
            return None
        case = "--ignore-case" if self._ignore_case else "--case-sensitive"
        command = [program, *_RIPGREP, case, f"--regexp={self._pattern}", f"--context={self._context}"]
        if self._first_only:
            command.append("--max-count=1")
        trial = _tried(command)
        if trial.returncode in {0, 1}:
            return command
        if _tried([program, *_RIPGREP, "--regexp=x"]).returncode == 1:
            raise PatternError(_explained(trial.stderr.decode("utf-8", "replace")))
        return None

    def _with_ripgrep(self, command: list[str], files: Iterable[str]) -> Iterator[FileLines]:
        for batch in _batched(files):
            process = subprocess.Popen(
                [*command, "--", *batch],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert process.stdout is not None
            try:
                yield from self._events(process.stdout)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()

    def _events(self, stream: Iterable[bytes]) -> Iterator[FileLines]:
        """Read ripgrep's events; a file in which it met a NUL is binary, whatever it found before."""
        file = FileLines("")
        for event in map(json.loads, stream):
            data = event["data"]
            if event["type"] == "begin":
                file = FileLines(_text(data["path"]))
            elif event["type"] == "end":
                if file.count and data["binary_offset"] is None:
                    yield file
            elif event["type"] in {"match", "context"}:
                is_match = event["type"] == "match"
                file.count += is_match
                if self._keeps(file):
                    raw = _bytes(data["lines"])
                    start = data["submatches"][0]["start"] if is_match and data["submatches"] else 0
                    text = raw.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
                    start = len(raw[:start].decode("utf-8", "replace"))
                    file.lines.append(_shortened(data["line_number"], text, is_match, start))

    def _with_python(self, files: Iterable[str]) -> Iterator[FileLines]:
        try:
            pattern = re.compile(self._pattern, re.IGNORECASE if self._ignore_case else 0)
        except re.error as error:
            where = "" if error.pos is None else f" at character {error.pos + 1}"
            raise PatternError(f"{error.msg}{where}") from None
        return self._matching(pattern, files)

    def _matching(self, pattern: re.Pattern[str], files: Iterable[str]) -> Iterator[FileLines]:
        for path in files:
            try:
                if os.lstat(path).st_size > _MOST_FILE_BYTES:
                    continue
                with open(path, "rb") as stream:
                    data = stream.read()
            except OSError:
                continue
            if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                text = data.decode("utf-16", "replace")
            elif b"\0" in data:
                continue
            else:
                text = data.decode("utf-8-sig", "replace")
            file = self._matching_lines(path, pattern, text)
            if file.count:
                yield file

    def _matching_lines(self, path: str, pattern: re.Pattern[str], text: str) -> FileLines:
        file = FileLines(path)
        before: deque[tuple[int, str]] = deque(maxlen=self._context)
        after = 0
        lines = text.split("\n")
        if lines[-1] == "":
            lines.pop()
        for number, line in enumerate(lines, 1):
            line = line.removesuffix("\r")
            match = pattern.search(line)
            if match is None:
                if after and self._keeps(file):
                    file.lines.append(_shortened(number, line, False, 0))
                elif not after:
                    before.append((number, line))
                after = max(after - 1, 0)
                continue
            file.count += 1
            if self._first_only:
                break
            if self._keeps(file):
                file.lines += [_shortened(*held, False, 0) for held in before]
                file.lines.append(_shortened(number, line, True, match.start()))
            before.clear()
            after = self._context
        return file

    def _keeps(self, file: FileLines) -> bool:
        return self._lines_wanted and len(file.lines) <= self._limit * (2 * self._context + 1)


def _tried(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run ripgrep on nothing: it ends with 1 unless something is wrong."""
    return subprocess.run([*command, "--quiet", "-"], stdin=subprocess.DEVNULL, capture_output=True)


def _first_matches(lines: list[Line], room: int, context: int) -> Iterator[Line]:
    """Yield lines up to the last match that has room, with the context below it."""
    last = 0
    for line in lines:
        if line.is_match:
            if not room:
                return
            room -= 1
            last = line.number
        elif not room and line.number > last + context:
            return
        yield line


def _shortened(number: int, text: str, is_match: bool, start: int) -> Line:
    """Return a line of at most 300 characters, those around the start of the match."""
    if len(text) <= LINE_CHARACTERS:
        return Line(number, text, is_match, start)
    room = LINE_CHARACTERS - 10
    begin = 0 if start < room // 2 else min(start - room // 3, len(text) - room)
    cut = text[begin : begin + room]
    return Line(
        number,
        f"{'[...]' if begin else ''}{cut}{'[...]' if begin + room < len(text) else ''}",
        is_match,
        start,
    )


def _batched(files: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in files:
        batch.append(path)
        size += len(os.fsencode(path)) + 9  # and a pointer to it
        if size > _ARGUMENT_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _explained(complaint: str) -> str:
    """Return ripgrep's reason in one line, with the place in the pattern that it marks below it."""
    lines = complaint.rstrip("\n").split("\n")
    reason = next((line for line in lines if line.startswith("error: ")), lines[0]).removeprefix("error: ")
    mark = next((line.index("^") - 3 for line in lines if re.fullmatch(r" {4,}\^+", line)), None)
    return reason if mark is None else f"{reason} at character {mark}"


def _text(value: dict[str, str]) -> str:
    return value["text"] if "text" in value else os.fsdecode(base64.b64decode(value["bytes"]))


def _bytes(value: dict[str, str]) -> bytes:
    return value["text"].encode() if "text" in value else base64.b64decode(value["bytes"])


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
