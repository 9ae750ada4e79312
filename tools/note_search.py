"""Ranked search over notes: SQLite's full-text index, in memory, by paragraph."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

MAX_MATCHES = 10
EXCERPT_TOKENS = 40
"""Words of a paragraph that are shown around a match."""

PROVENANCE = re.compile(r"<!-- (\d{4}-\d\d-\d\d) .*-->")
"""The line above a text that says when it was written and by whom."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Match:
    """A paragraph that matches.

    Attributes:
        name: The note's name.
        line: Number of the paragraph's first line, from 1.
        excerpt: Its words around the match, on one line.
    """

    name: str
    line: int
    excerpt: str


def search_notes(texts: Mapping[str, str], query: str) -> list[Match]:
    """Return the paragraphs that share a word or a word's beginning with the query, best first.

    Names of notes count as words of each of their paragraphs. Ranked by BM25; paragraphs with all words come
    before those with some.

    Args:
        texts: Notes by name.
        query: Words; everything else in it is ignored.
    """
    words = _WORD.findall(query)[:20]
    if not words:
        return []
    terms = [f'"{word}"*' for word in words]  # quoted: nothing in it is an operator
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute("CREATE VIRTUAL TABLE paragraph USING fts5(name, body, line UNINDEXED)")
        rows = ((name, body, line) for name, text in texts.items() for line, body in _paragraphs(text))
        index.executemany("INSERT INTO paragraph VALUES (?, ?, ?)", rows)
        matches: dict[tuple[str, int], Match] = {}
        for joint in (" AND ", " OR "):
            found = index.execute(
                "SELECT name, line, snippet(paragraph, 1, '', '', '...', ?) FROM paragraph "
                "WHERE paragraph MATCH ? ORDER BY bm25(paragraph, 2.0, 1.0), name, line LIMIT ?",
                (EXCERPT_TOKENS, joint.join(terms), MAX_MATCHES),
            )
            for name, line, excerpt in found:
                matches.setdefault((name, line), Match(name, line, " ".join(excerpt.split())))
    return list(matches.values())[:MAX_MATCHES]


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield paragraphs, without the lines that say when they were written, and their first line's number."""
    start, lines = 0, list[str]()
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if PROVENANCE.fullmatch(line):
            continue
        if line.strip():
            if not lines:
                start = number
            lines.append(line)
        elif lines:
            yield start, "\n".join(lines)
            lines = []
