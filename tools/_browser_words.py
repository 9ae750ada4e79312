"""A page's own words, made fit to stand in one line of a report."""

from __future__ import annotations

_LONG_TEXT = 500


def quoted(text: str) -> str:
    """Return a page's text on one line in quotes."""
    return '"' + clipped(text).replace('"', "'") + '"'


def clipped(text: str) -> str:
    """Return a page's text on one line, cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONG_TEXT else line[:_LONG_TEXT] + "..."
