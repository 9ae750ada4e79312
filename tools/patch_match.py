"""Finds where the chunks of a patch belong in a file, and makes the changed text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from dsv4agent.tools.patch_format import Chunk
from dsv4agent.tools.replacement import line_ending

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_QUOTES = {"'": "\u2018\u2019\u201a\u201b", '"': "\u201c\u201d\u201e\u201f"}
_SPACES = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys(_DASHES, "-"),
        **dict.fromkeys(_SPACES, " "),
        **{mark: plain for plain, marks in _QUOTES.items() for mark in marks},
    }
)


@dataclass(frozen=True)
class Patched:
    """The changed text, and the numbers of the chunks that did not match exactly, each with its rule."""

    text: str
    loose: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Mismatch:
    """A chunk that does not fit.

    Attributes:
        chunk: 1-based number of the chunk in its section.
        wanted: The lines that are not there: the chunk's old lines, or one header.
        header: Whether `wanted` is a header.
        after: Number of file lines that the search had passed.
        earlier: 1-based number of a line before that where they are, or None.
    """

    chunk: int
    wanted: tuple[str, ...]
    header: bool
    after: int
    earlier: int | None


def apply_chunks(text: str, chunks: Sequence[Chunk]) -> Patched | Mismatch:
    """Return the text with all chunks applied, or the first chunk that does not fit.

    The search for a chunk starts where the one before it ended. Each header moves it behind the first line
    that equals it; then the chunk's old lines belong at the first place where they all match, or at the end
    of the file if the chunk says so. They may start with the last header's own line. Four rules are tried one
    after the other, each over the whole rest of the file: exactly; ignoring trailing blanks; ignoring leading
    and trailing blanks; and with typographic dashes, quotes and spaces taken as plain ones.

    A chunk that only adds lines adds them below its last header, or at the end of the file if it has none.
    Context keeps the file's bytes. A new line ends as the file's line before it does.
    """
    file = _File.of(text)
    spans: list[tuple[int, int, list[str]]] = []
    loose: list[tuple[int, str]] = []
    position = 0
    for number, chunk in enumerate(chunks, 1):
        rule = 0
        for header in chunk.headers:
            found = file.find([header], position)
            if found is None:
                return file.mismatch(number, [header], position, header=True)
            position, rule = found[0] + 1, max(rule, found[1])
        old = chunk.old
        if old:
            repeated = bool(chunk.headers) and old[0].strip() == chunk.headers[-1]
            found = file.find(old, position - repeated, at_end=chunk.end_of_file)
            if found is None:
                return file.mismatch(number, old, position, header=False)
            start, rule = found[0], max(rule, found[1])
        else:
            start = position if chunk.headers and not chunk.end_of_file else len(file.lines)
        position = start + len(old)
        spans.append((start, position, file.changed(chunk, start)))
        if rule:
            loose.append((number, _RULES[rule][0]))
    return Patched(file.rebuilt(spans), tuple(loose))


def _same(line: str) -> str:
    return line


def _without_trailing_blanks(line: str) -> str:
    return line.rstrip()


def _without_blanks(line: str) -> str:
    return line.strip()


def _plain(line: str) -> str:
    return line.translate(_PUNCTUATION).strip()


_RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("exactly", _same),
    ("ignoring trailing blanks", _without_trailing_blanks),
    ("ignoring leading and trailing blanks", _without_blanks),
    ("ignoring blanks and typographic punctuation", _plain),
)


@dataclass
class _File:
    """The lines of a file without their endings, the endings, and the lines as each rule sees them."""

    mark: str
    lines: list[str]
    endings: list[str]
    usual: str
    _views: dict[int, tuple[str, list[int]]] = field(default_factory=dict[int, tuple[str, list[int]]])

    @classmethod
    def of(cls, text: str) -> _File:
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        pieces = text.removeprefix(mark).split("\n")
        last = pieces.pop()
        lines = [piece.removesuffix("\r") for piece in pieces]
        endings = ["\r\n" if piece.endswith("\r") else "\n" for piece in pieces]
        if last:
            lines.append(last)
            endings.append("")
        return cls(mark, lines, endings, line_ending(text))

    def find(self, wanted: list[str], start: int, *, at_end: bool = False) -> tuple[int, int] | None:
        """Return the first place from `start` on where lines match, and the number of the rule."""
        if at_end:
            start = max(start, len(self.lines) - len(wanted))
        for rule, (_, seen) in enumerate(_RULES):
            text, offsets = self._view(rule)
            offset = text.find(_joined(map(seen, wanted)), offsets[start])
            if offset >= 0:
                return bisect_left(offsets, offset), rule
        return None

    def mismatch(self, chunk: int, wanted: list[str], after: int, *, header: bool) -> Mismatch:
        earlier = self.find(wanted, 0)
        return Mismatch(chunk, tuple(wanted), header, after, None if earlier is None else earlier[0] + 1)

    def changed(self, chunk: Chunk, start: int) -> list[str]:
        """Return the new lines of a chunk with their endings, in place of its old lines from `start` on."""
        place = start
        changed: list[str] = []
        for kind, text in chunk.lines:
            if kind == "+":
                changed.append(text + self._ending_at(place))
                continue
            if kind == " ":
                changed.append(self.lines[place] + self.endings[place])
            place += 1
        return changed

    def rebuilt(self, spans: list[tuple[int, int, list[str]]]) -> str:
        pieces: list[str] = []
        done = 0
        for start, end, lines in spans:
            pieces += map(str.__add__, self.lines[done:start], self.endings[done:start])
            pieces += lines
            done = end
        pieces += map(str.__add__, self.lines[done:], self.endings[done:])
        if self.endings and not self.endings[-1] and pieces:
            pieces = self._without_last_ending(pieces)
        return self.mark + "".join(pieces)

    def _without_last_ending(self, pieces: list[str]) -> list[str]:
        """Keep a missing newline at the end of the file missing, and only there."""
        usual = self.usual
        *before, last = pieces
        return [
            *(piece if piece.endswith("\n") else piece + usual for piece in before),
            last.removesuffix("\n").removesuffix("\r") if last.endswith("\n") else last,
        ]

    def _ending_at(self, place: int) -> str:
        """Return the ending of the line before a place, else of the line there, else the usual one."""
        around = (self.endings[index] for index in (place - 1, place) if 0 <= index < len(self.endings))
        return next((ending for ending in around if ending), self.usual)

    def _view(self, rule: int) -> tuple[str, list[int]]:
        """Return the lines as a rule sees them, in one text that is fast to search, and their offsets."""
        if rule not in self._views:
            lines = [_RULES[rule][1](line) for line in self.lines]
            offsets = list(accumulate((len(line) + 1 for line in lines), initial=0))
            self._views[rule] = _joined(lines), offsets
        return self._views[rule]


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"\n{line}" for line in lines) + "\n"
