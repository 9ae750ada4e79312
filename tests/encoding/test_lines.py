"""Line starts and code fences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.encoding.lines import LineTracker


@pytest.mark.parametrize(
    ("text", "at_start", "fenced"),
    [
        ("", True, False),
        ("a", False, False),
        ("a\n", True, False),
        ("```\n", True, True),
        ("  ```python\n", True, True),
        ("    ```\n", True, False),
        ("```\ncode\n```\n", True, False),
        ("````\n```\n", True, True),
        ("```\n~~~\n", True, True),
        ("~~~\n~~~\n", True, False),
        ("```\n``` no closer\n", True, True),
        ("``` inline ``` code\n", True, False),
    ],
)
def test_where(text: str, at_start: bool, fenced: bool) -> None:
    tracker = LineTracker()
    tracker.feed(text)
    assert (tracker.at_line_start, tracker.fenced) == (at_start, fenced)


@given(st.text("`~ a\n\r", max_size=40))
def test_pieces_change_nothing(text: str) -> None:
    whole, pieces = LineTracker(), LineTracker()
    whole.feed(text)
    for character in text:
        pieces.feed(character)
    assert (whole.at_line_start, whole.fenced) == (pieces.at_line_start, pieces.fenced)
