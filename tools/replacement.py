"""Finding the text an edit means: exactly, then by looser rules, each of which must match exactly once."""

from __future__ import annotations

import difflib
import heapq
import itertools
import re
from dataclasses import dataclass

NEAREST_RATIO = 0.6
"""Least similarity (difflib ratio) of a region worth showing."""
_CANDIDATES = 8
"""Regions compared character by character; chosen by shared words, which is cheap."""
_COMPARED = 4000
"""Characters from which on a region is too long to compare: the cost grows with the square."""
_SEARCHED = 1_000_000
"""Characters from which on a file is not searched for a near miss."""
_COUNTED = 100
"""Places of an ambiguous text that are counted."""

LOOSE_BLANKS = "matched ignoring trailing blanks and line endings"
LOOSE_INDENT = "matched at another indentation, re-indented"


@dataclass(frozen=True)
class Replacement:
    """Replace `text[start:end]` by `new`.

    `looseness` names the rule that matched and is empty for an exact match.
    """

    start: int
    end: int
    new: str
    looseness: str = ""


@dataclass(frozen=True)
class Ambiguity:
    """The text occurs at several places.

    Attributes:
        lines: 1-based numbers of the lines where it starts, of the first 100 places.
        more: Whether there are further places.
    """

    lines: tuple[int, ...]
    more: bool = False


def find_replacement(text: str, old: str, new: str) -> Replacement | Ambiguity | None:
    """Return where and with what to replace `old` in `text`; None if nothing matches.

    Rules, in order: (1) exact; (2) with line endings and trailing blanks ignored; (3) whole lines at a
    different uniform indentation, with `new` re-indented likewise. The first rule that matches anywhere
    decides.
    """
    starts = _occurrences(text, old)
    if len(starts) == 1:
        return Replacement(starts[0], starts[0] + len(old), with_line_ending(new, line_ending(text)))
    if starts:
        return _ambiguity(text, starts)
    if not old.strip():
        return None
    return _ignoring_blanks(text, old, new) or _at_another_indentation(text, old, new)


def nearest_region(text: str, old: str) -> tuple[int, int] | None:
    """Return first and last line (1-based) of the region most like `old`, if alike enough.

    Regions of more than some thousand characters are not compared, and files of more than a million not at
    all: the search would take longer than a look at the file.
    """
    if len(old) > _COMPARED or len(text) > _SEARCHED:
        return None
    lines = text.split("\n")
    size = min(len(old.rstrip("\n").split("\n")), len(lines))
    words = set(re.findall(r"\w+", old))
    scores = [len(words.intersection(re.findall(r"\w+", line))) for line in lines]
    window = sum(scores[:size])
    ranked = [(-window, 0)]
    for start in range(1, len(lines) - size + 1):
        window += scores[start + size - 1] - scores[start - 1]
        ranked.append((-window, start))
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(old.strip())
    best, best_start = NEAREST_RATIO, -1
    for _, start in heapq.nsmallest(_CANDIDATES, ranked):
        region = "\n".join(lines[start : start + size]).strip()
        if len(region) > 2 * _COMPARED:
            continue
        matcher.set_seq1(region)
        if matcher.real_quick_ratio() >= best and matcher.quick_ratio() >= best:
            ratio = matcher.ratio()
            if ratio > best or (ratio == best and best_start < 0):
                best, best_start = ratio, start
    return None if best_start < 0 else (best_start + 1, best_start + size)


def line_number(text: str, offset: int) -> int:
    """Return the 1-based number of the line that holds an offset."""
    return text.count("\n", 0, offset) + 1


def line_ending(text: str) -> str:
    r"""Return the line ending of a file: `\r\n` if every line has it, else `\n`."""
    crlf = text.count("\r\n")
    return "\r\n" if crlf and crlf == text.count("\n") else "\n"


def with_line_ending(text: str, ending: str) -> str:
    r"""Return new text fit for a file with this line ending; texts for `\n` files stay as they are."""
    return text.replace("\r\n", "\n").replace("\n", ending) if ending == "\r\n" else text


def _ambiguity(text: str, starts: list[int]) -> Ambiguity:
    lines: list[int] = []
    line, counted = 1, 0
    for start in starts[:_COUNTED]:
        line += text.count("\n", counted, start)
        counted = start
        lines.append(line)
    return Ambiguity(tuple(lines), len(starts) > _COUNTED)


def _occurrences(text: str, old: str) -> list[int]:
    """Return the first starts, overlapping ones included: "exactly once" must not depend on the scan."""
    starts: list[int] = []
    start = text.find(old)
    while start >= 0 and len(starts) <= _COUNTED:
        starts.append(start)
        start = text.find(old, start + 1)
    return starts


def _ignoring_blanks(text: str, old: str, new: str) -> Replacement | Ambiguity | None:
    lines = old.replace("\r\n", "\n").split("\n")
    pattern = r"[ \t]*\r?\n".join(re.escape(line.rstrip(" \t\r")) for line in lines)
    if lines[-1] != lines[-1].rstrip(" \t\r"):
        # The blanks that `old` claims after its last line stand for the end of that line.
        pattern += r"[ \t]*(?=\r?\n|\Z)"
    if not lines[0].strip(" \t\r"):
        # One run of blanks before a line end is one place, and is looked through once.
        pattern = r"(?<![ \t])" + pattern
    matches = itertools.islice(re.finditer(f"(?=({pattern}))", text), _COUNTED + 1)
    spans = [match.span(1) for match in matches]
    if len(spans) > 1:
        return _ambiguity(text, [start for start, _ in spans])
    if not spans:
        return None
    return Replacement(*spans[0], with_line_ending(new, line_ending(text)), LOOSE_BLANKS)


def _at_another_indentation(text: str, old: str, new: str) -> Replacement | Ambiguity | None:
    old_lines = _content_lines(old)
    lines = text.split("\n")
    size = len(old_lines)
    old_indent = _common_indent(old_lines)
    wanted = [line[len(old_indent) :] for line in old_lines]
    first = next(index for index, line in enumerate(wanted) if line)
    found: list[int] = []
    for start in range(len(lines) - size + 1):
        # The last words of a line do not depend on its indentation: a cheap test first.
        if lines[start + first].rstrip(" \t\r").endswith(wanted[first]):
            block = _stripped(lines[start : start + size])
            indent = _common_indent(block)
            if [line[len(indent) :] for line in block] == wanted:
                found.append(start)
    if not found:
        return None
    if len(found) > 1:
        return Ambiguity(tuple(start + 1 for start in found[:_COUNTED]), len(found) > _COUNTED)
    begin = found[0]
    indent = _common_indent(_stripped(lines[begin : begin + size]))
    reindented = _reindent(new, old_indent, indent)
    if reindented is None:
        return None
    start = sum(len(line) + 1 for line in lines[:begin])
    last = lines[begin + size - 1]
    end = start + sum(len(line) + 1 for line in lines[begin : begin + size - 1]) + len(last.rstrip("\r"))
    if old.endswith("\n"):
        if begin + size < len(lines):
            end = start + sum(len(line) + 1 for line in lines[begin : begin + size])
        else:
            reindented = reindented.removesuffix("\n")
    return Replacement(start, end, with_line_ending(reindented, line_ending(text)), LOOSE_INDENT)


def _content_lines(block: str) -> list[str]:
    return _stripped(block.replace("\r\n", "\n").removesuffix("\n").split("\n"))


def _stripped(lines: list[str]) -> list[str]:
    return [line.rstrip(" \t\r") for line in lines]


def _common_indent(lines: list[str]) -> str:
    """Return the whitespace that all non-blank lines start with."""
    indents = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines if line]
    if not indents:
        return ""
    shortest, longest = min(indents), max(indents)
    size = next((i for i, (a, b) in enumerate(zip(shortest, longest, strict=False)) if a != b), None)
    return shortest[: min(len(shortest), len(longest)) if size is None else size]


def _reindent(block: str, old_indent: str, indent: str) -> str | None:
    """Move a block from one indentation to another; None if a line would move beyond the left margin."""
    moved: list[str] = []
    for line in block.replace("\r\n", "\n").split("\n"):
        content = line.lstrip(" \t")
        if not content:
            moved.append("")
        elif line.startswith(old_indent):
            moved.append(indent + line[len(old_indent) :])
        else:
            width = len(line) - len(content) + len(indent) - len(old_indent)
            if width < 0:
                return None
            moved.append(indent[:width] + content)
    return "\n".join(moved)
