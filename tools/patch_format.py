"""Parses the patch envelope: `*** Begin Patch`, sections that change files each, `*** End Patch`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BEGIN = "*** Begin Patch"
END = "*** End Patch"
_ADD = "*** Add File:"
_DELETE = "*** Delete File:"
_UPDATE = "*** Update File:"
_MOVE = "*** Move to:"
_END_OF_FILE = "*** End of File"
_SECTIONS = (_ADD, _DELETE, _UPDATE)
_HEREDOC = re.compile(r"(?:apply_patch\s+)?<<-?\s*(['\"]?)(\w+)\1\s*")
_UNIFIED = re.compile(r"-\d+(?:,\d+)? \+\d+(?:,\d+)? @@ ?")


@dataclass(frozen=True)
class Chunk:
    """One change within a file.

    Attributes:
        line: 1-based number of the chunk's first line in the patch.
        headers: Texts after `@@`, outermost first; each is a line of the file above the change.
        lines: Kind (a blank for context, `-`, `+`) and text of each line.
        end_of_file: Whether the old lines are the last ones of the file.
    """

    line: int
    headers: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    end_of_file: bool = False

    @property
    def old(self) -> list[str]:
        """The lines that the file holds before the change."""
        return [text for kind, text in self.lines if kind != "+"]

    def count(self, kind: str) -> int:
        """Return the number of lines of a kind."""
        return sum(found == kind for found, _ in self.lines)


@dataclass(frozen=True)
class AddFile:
    """A new file with these lines."""

    line: int
    path: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class DeleteFile:
    """A file to remove."""

    line: int
    path: str


@dataclass(frozen=True)
class UpdateFile:
    """Changes to a file, in the order of the file, and its new path if it moves."""

    line: int
    path: str
    move_to: str | None
    chunks: tuple[Chunk, ...]


Section = AddFile | DeleteFile | UpdateFile


class PatchError(ValueError):
    """The text is no patch; `line` is the 1-based number of the line at fault."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def parse_patch(text: str) -> list[Section]:
    r"""Return the sections of a patch in their order.

    A heredoc around the envelope, blank lines around it, a missing last newline, a byte order mark and `\r\n`
    line endings are overlooked. Line numbers are those of the text as given.

    Raises:
        PatchError: The text does not follow the format.
    """
    return _Parser(_Lines.of(text)).sections()


@dataclass
class _Lines:
    """The lines of the envelope, and how many lines of the text stand before them."""

    lines: list[str]
    skipped: int
    position: int = 0

    @classmethod
    def of(cls, text: str) -> _Lines:
        lines = text.removeprefix("\ufeff").split("\n")
        first = next((index for index, line in enumerate(lines) if line.strip()), 0)
        last = len(lines)
        while last > first + 1 and not lines[last - 1].strip():
            last -= 1
        heredoc = _HEREDOC.fullmatch(lines[first])
        if heredoc is not None:
            first += 1
            if last > first and lines[last - 1].strip() == heredoc[2]:
                last -= 1
        lines = lines[first:last]
        if lines and lines[0].endswith("\r"):
            lines = [line.removesuffix("\r") for line in lines]
        return cls(lines, first)

    @property
    def number(self) -> int:
        """The number of the next line in the text as given."""
        return self.skipped + self.position + 1

    def peek(self) -> str | None:
        return self.lines[self.position] if self.position < len(self.lines) else None

    def take(self) -> str:
        self.position += 1
        return self.lines[self.position - 1]


@dataclass
class _Parser:
    source: _Lines
    _found: list[Section] = field(default_factory=list[Section])

    def sections(self) -> list[Section]:
        if (self.source.peek() or "").rstrip() != BEGIN:
            raise PatchError(self.source.number, f"a patch starts with {BEGIN!r}")
        self.source.take()
        while (line := self.source.peek()) is not None and line.rstrip() != END:
            if line.strip():
                self._found.append(self._section(line))
            else:
                self.source.take()
        if line is None:
            raise PatchError(self.source.number, f"{END!r} is missing; send the whole patch again")
        if not self._found:
            raise PatchError(self.source.number, "the patch changes no file")
        self.source.take()
        while (line := self.source.peek()) is not None:
            if line.strip():
                raise PatchError(self.source.number, f"text follows {END!r}")
            self.source.take()
        return self._found

    def _section(self, line: str) -> Section:
        number = self.source.number
        marker = next((marker for marker in _SECTIONS if line.startswith(marker)), None)
        if marker is None:
            raise PatchError(
                number, "expected '*** Add File: PATH', '*** Delete File: PATH' or '*** Update File: PATH'"
            )
        path = self._path(marker)
        if marker == _ADD:
            return AddFile(number, path, self._new_lines())
        if marker == _DELETE:
            return DeleteFile(number, path)
        move_to = None
        if (self.source.peek() or "").startswith(_MOVE):
            move_to = self._path(_MOVE)
        chunks = self._chunks()
        if not chunks and move_to is None:
            raise PatchError(number, f"the update of {path} has no changes")
        return UpdateFile(number, path, move_to, chunks)

    def _path(self, marker: str) -> str:
        number = self.source.number
        path = self.source.take().removeprefix(marker).strip()
        if not path:
            raise PatchError(number, f"'{marker}' needs a path")
        return path

    def _new_lines(self) -> tuple[str, ...]:
        lines: list[str] = []
        while (line := self.source.peek()) is not None and line.startswith("+"):
            lines.append(self.source.take()[1:])
        self._skip_blank_lines()
        line = self.source.peek()
        if line is not None and not line.startswith("*** "):
            raise PatchError(self.source.number, "each line of a new file begins with +")
        return tuple(lines)

    def _chunks(self) -> tuple[Chunk, ...]:
        chunks: list[Chunk] = []
        self._skip_blank_lines()
        while (line := self.source.peek()) is not None and not self._ends_section(line):
            if chunks and not _is_header(line):
                raise PatchError(self.source.number, "a further change in the file begins with @@")
            chunks.append(self._chunk())
        return tuple(chunks)

    def _ends_section(self, line: str) -> bool:
        return line.startswith(_SECTIONS) or line.rstrip() == END

    def _chunk(self) -> Chunk:
        number = self.source.number
        headers: list[str] = []
        while _is_header(self.source.peek() or ""):
            header = _UNIFIED.sub("", self.source.take().removeprefix("@@").strip(), count=1)
            if header:
                headers.append(header)
        lines = self._changed_lines()
        end_of_file = (self.source.peek() or "").rstrip() == _END_OF_FILE
        if end_of_file:
            self.source.take()
            self._skip_blank_lines()
        else:
            # Blank lines before the next marker are the patch's layout, not the file's.
            while lines and lines[-1] == ("", ""):
                lines.pop()
        chunk = Chunk(number, tuple(headers), tuple((kind or " ", text) for kind, text in lines), end_of_file)
        if not chunk.count("+") and not chunk.count("-"):
            raise PatchError(number, "a change needs at least one line that begins with + or -")
        return chunk

    def _changed_lines(self) -> list[tuple[str, str]]:
        """Take the lines up to the next marker; one without any character is a blank line of context."""
        lines: list[tuple[str, str]] = []
        while (line := self.source.peek()) is not None:
            # The file's own line endings are kept, so that the patch's do not count.
            line = line.removesuffix("\r")
            if _is_header(line) or line.startswith("***"):
                break
            if line and line[0] not in " -+":
                raise PatchError(
                    self.source.number, "each line of a change begins with a blank, - or +, or is a @@ header"
                )
            self.source.take()
            lines.append((line[:1], line[1:]))
        if line is not None and line.startswith("***"):
            known = self._ends_section(line) or line.rstrip() == _END_OF_FILE
            if not known:
                raise PatchError(self.source.number, f"{line.strip()!r} is not a line of the format here")
        return lines

    def _skip_blank_lines(self) -> None:
        while (line := self.source.peek()) is not None and not line.strip():
            self.source.take()


def _is_header(line: str) -> bool:
    return line.rstrip() == "@@" or line.startswith("@@ ")
