"""Turns glob patterns into regular expressions.

Runs inside the sandbox, on the standard library alone.
"""

from __future__ import annotations

import re


class PatternError(Exception):
    """A pattern, glob or regular expression, that cannot be understood; the text says why."""


def path_filter(pattern: str) -> re.Pattern[str]:
    r"""Return the expression that matches the relative paths that a glob means, with `fullmatch`.

    `*` and `?` do not match `/`, `**` as a whole part matches any number of folders, `[a-z]` and `[!a-z]` one
    character, `{a,b}` either. A pattern without `/` is about the last part of a path, at any depth.

    Raises:
        PatternError: The pattern has an open bracket or brace.
    """
    expression = translate(pattern.removeprefix("./").removeprefix("/"), braces=True)
    return re.compile(expression if "/" in pattern else f"(?:.*/)?(?:{expression})", re.DOTALL)


def translate(pattern: str, *, braces: bool) -> str:
    """Return a glob as a regular expression, for `fullmatch` with DOTALL.

    Raises:
        PatternError: As for `path_filter`.
    """
    pieces: list[str] = []
    depth = position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            start = position - 1
            while pattern[position : position + 1] == "*":
                position += 1
            piece, position = _stars(pattern, start, position, braces)
        elif character == "?":
            piece = "[^/]"
        elif character == "[":
            piece, position = _bracket(pattern, position)
        elif character == "\\" and position < len(pattern):
            piece = re.escape(pattern[position])
            position += 1
        elif braces and character == "{":
            piece = "(?:"
            depth += 1
        elif depth and character == "}":
            piece = ")"
            depth -= 1
        elif depth and character == ",":
            piece = "|"
        else:
            piece = re.escape(character)
        pieces.append(piece)
    if depth:
        raise PatternError("a brace is not closed")
    return "".join(pieces)


def _stars(pattern: str, start: int, end: int, braces: bool) -> tuple[str, int]:
    """Return the expression of a run of stars and where to go on."""
    before = pattern[start - 1] if start else "/"
    after = pattern[end] if end < len(pattern) else "/"
    edges = "/{}," if braces else "/"
    if end - start != 2 or before not in edges or after not in edges:
        return "[^/]*", end
    if pattern[end : end + 1] == "/":
        return "(?:.*/)?", end + 1
    return ".+", end


def _bracket(pattern: str, position: int) -> tuple[str, int]:
    """Return the expression of the set that starts after `[` at a position, and where to go on."""
    start = position
    if pattern[position : position + 1] in {"!", "^"}:
        position += 1
    if pattern[position : position + 1] == "]":
        position += 1  # The first one stands for itself.
    while position < len(pattern) and pattern[position] != "]":
        position += 2 if pattern[position] == "\\" else 1
    if position >= len(pattern):
        raise PatternError("a bracket is not closed")
    body = pattern[start:position]
    negated = body[0] in "!^"
    items: list[str] = []
    characters = [match[1] or match[2] for match in _ITEMS.finditer(body[negated:])]
    while characters:
        first = characters.pop(0)
        if len(characters) >= 2 and characters[0] == "-":
            last = characters[1]
            del characters[:2]
            if first <= last:
                items.append(f"{re.escape(first)}-{re.escape(last)}")
        else:
            items.append(re.escape(first))
    if not items:
        return ("[^/]" if negated else "(?!)"), position + 1
    return f"(?!/)[{'^' if negated else ''}{''.join(items)}]", position + 1


_ITEMS = re.compile(r"\\(.)|(.)", re.DOTALL)
