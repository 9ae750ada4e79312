"""How a snapshot becomes text within a budget; no browser is needed for that."""

from pathlib import Path
from typing import Any

import pytest

from dsv4agent.tools.browser_view import SnapshotLine, describe, fit_text, fit_view, read_lines, subtree
from tests.tools.editor_desk import count_words

ANSWER: dict[str, Any] = {
    "url": "http://127.0.0.1/",
    "title": "A page",
    "status": 200,
    "tab": 1,
    "tabs": [[1, "http://127.0.0.1/", "A page"]],
    "events": [],
    "errors": 0,
    "dialog": None,
    "part": [0, 720, 720],
}


def rows(count: int, first: int = 0, last: int | None = None) -> list[SnapshotLine]:
    """Return a list of rows of two lines each, of which those from `first` to `last` are in view."""
    lines = [SnapshotLine(0, "list [ref=e1]", "e1", True)]
    for number in range(count):
        in_view = first <= number < (count if last is None else last)
        lines.append(SnapshotLine(1, f"listitem [ref=r{number}]:", f"r{number}", in_view))
        lines.append(SnapshotLine(2, f"text: row {number}", None, in_view))
    return lines


def fitted(lines: list[SnapshotLine], budget: int, spill: Path | None = None) -> str:
    text, _ = fit_view("url: x", lines, budget=budget, count_tokens=count_words, spill_dir=spill)
    assert count_words(text) <= budget
    return text


def test_what_fits_is_shown_whole() -> None:
    text, truncation = fit_view("url: x", rows(2), budget=1000, count_tokens=count_words, spill_dir=None)
    assert truncation is None
    assert text == (
        "url: x\n- list [ref=e1]\n  - listitem [ref=r0]:\n    - text: row 0\n"
        "  - listitem [ref=r1]:\n    - text: row 1"
    )


def test_what_is_in_view_comes_first(tmp_path: Path) -> None:
    text = fitted(rows(1000, 500, 505), 300, tmp_path)
    assert text.startswith("url: x\n- list [ref=e1]\n  [... 1000 lines in e1]\n  - listitem [ref=r500]:\n")
    assert "row 504" in text
    assert "row 505" in text
    assert "row 499" not in text
    shown = text.count("- ")
    assert text.endswith(
        f"[{2001 - shown} of 2001 lines left out: scroll, take a snapshot of a ref, "
        f"or read {tmp_path}/browser-1.txt]"
    )
    assert "row 999" in (tmp_path / "browser-1.txt").read_text()


def test_a_gap_names_what_encloses_all_of_it() -> None:
    lines = [
        SnapshotLine(0, "generic [ref=e1]", "e1", True),
        SnapshotLine(1, "main [ref=e2]", "e2", True),
        *(SnapshotLine(2, f"paragraph: {'word ' * 20}", None, n == 0) for n in range(50)),
        SnapshotLine(1, "button [ref=e9]", "e9", False),
    ]
    text = fitted(lines, 300)
    assert "\n  [... 4" in text
    assert text.split("\n")[-2].endswith(" lines in e1]")


@pytest.mark.parametrize("budget", [20, 60, 200, 1000])
def test_one_endless_line(budget: int) -> None:
    text = fitted([SnapshotLine(0, "text: " + "word " * 5000, None, True)], budget)
    assert text.startswith("url: x\n")


def test_a_long_line_uses_what_room_there_is() -> None:
    text = fitted([SnapshotLine(0, "text: " + "word " * 5000, None, True)], 4000)
    assert text.count("word") > 500
    assert "more characters]" in text


def test_subtree() -> None:
    assert [(line.depth, line.text) for line in subtree(rows(3, 3), "r1")] == [
        (0, "listitem [ref=r1]:"),
        (1, "text: row 1"),
    ]
    assert all(line.in_view for line in subtree(rows(3, 3), "r1"))
    assert subtree(rows(3), "e77") == []


def test_lines_are_cleaned() -> None:
    lines = [[0, "text: a\x1b[31mb\0c\nd \ud800", None, True], [0, "/url: " + "x" * 500, None, True]]
    first, second = read_lines({"lines": lines})
    assert first.text == "text: abc d ?"
    assert len(second.text) == 203


def test_opening() -> None:
    assert describe(ANSWER, []) == "url: http://127.0.0.1/\ntitle: A page"
    busy = {
        **ANSWER,
        "status": 404,
        "tabs": [*ANSWER["tabs"], [4, "about:blank", ""]],
        "events": ["a", "a", "b\n* c"],
        "errors": 2,
        "part": [720, 720, 3000],
        "dialog": 'confirm "Sure?"',
    }
    assert describe(busy, ["note"]) == (
        "url: http://127.0.0.1/\ntitle: A page\ntab: 1 of tabs 1, 4\nview: 720-1440 of 3000 px\n"
        "status: HTTP 404\n* note\n* a (2 times)\n* b * c\n* errors on the page: 2; see console\n"
        '* open dialog: confirm "Sure?"; answer it with accept or dismiss'
    )
    many = describe({**ANSWER, "events": [str(n) for n in range(50)]}, [])
    assert many.endswith("* 19\n* 30 more such events")


def test_long_messages_keep_their_end() -> None:
    body = "\n".join(f"log: message {n}" for n in range(500))
    text = fit_text("url: x", body, budget=100, count_tokens=count_words)
    assert count_words(text) <= 100
    assert text.startswith("url: x\n[... earlier lines left out]\n")
    assert text.endswith("log: message 499")
