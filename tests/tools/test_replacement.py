import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.tools.replacement import (
    LOOSE_BLANKS,
    LOOSE_INDENT,
    Ambiguity,
    Replacement,
    find_replacement,
    line_ending,
    nearest_region,
)

TEXTS = st.text(alphabet="ab \t\n\r.", max_size=60)


def apply(text: str, found: Replacement | Ambiguity | None) -> str:
    assert isinstance(found, Replacement), found
    return text[: found.start] + found.new + text[found.end :]


OLD = st.text(alphabet="xy \n", min_size=1, max_size=6).map(lambda text: f"x{text}")


@given(st.text(alphabet="ab \t\n"), OLD, st.text(alphabet="ab \t\n"), TEXTS)
def test_an_exact_unique_match_is_a_plain_replacement(before: str, old: str, after: str, new: str) -> None:
    text = before + old + after
    found = find_replacement(text, old, new)
    assert apply(text, found) == before + new + after
    assert isinstance(found, Replacement) and found.looseness == ""


@given(st.lists(st.text(alphabet="ab \t\n"), min_size=3, max_size=5), OLD)
def test_several_exact_matches_are_never_edited(pieces: list[str], old: str) -> None:
    text = old.join(pieces)
    starts = [start for start in range(len(text)) if text.startswith(old, start)]
    assert len(starts) >= 2
    assert find_replacement(text, old, "z") == Ambiguity(tuple(text[:s].count("\n") + 1 for s in starts))


@given(TEXTS, TEXTS.filter(bool), TEXTS)
def test_what_is_outside_the_match_stays(text: str, old: str, new: str) -> None:
    found = find_replacement(text, old, new)
    if isinstance(found, Replacement):
        after = apply(text, found)
        assert after.startswith(text[: found.start]) and after.endswith(text[found.end :])
        assert text[found.start : found.end].split() == old.split()


def test_overlapping_matches_are_ambiguous() -> None:
    assert find_replacement("aaa", "aa", "b") == Ambiguity((1, 1))


@pytest.mark.parametrize(
    ("text", "old", "new", "after"),
    [
        ("a = 1  \nb = 2\n", "a = 1\nb = 2", "a = 3\nb = 4", "a = 3\nb = 4\n"),
        ("a = 1\nb = 2\n", "a = 1 \nb = 2\t", "c", "c\n"),
        ("a\r\nb\r\nc\r\n", "a\nb\n", "x\ny\n", "x\r\ny\r\nc\r\n"),
        ("x\na  \n\t\nb\ny\n", "a\n\nb\n", "", "x\ny\n"),
    ],
)
def test_trailing_blanks_and_line_endings_are_ignored_second(
    text: str, old: str, new: str, after: str
) -> None:
    found = find_replacement(text, old, new)
    assert apply(text, found) == after
    assert isinstance(found, Replacement) and found.looseness == LOOSE_BLANKS


def test_a_claimed_trailing_blank_never_matches_inside_a_word() -> None:
    assert find_replacement("x = 10\n", "x = 1 ", "y") is None


@pytest.mark.parametrize(
    ("text", "old", "new", "after"),
    [
        (
            "class A:\n    def f(self):\n        return 1\n",
            "def f(self):\n    return 1\n",
            "def f(self):\n    if x:\n        return 2\n",
            "class A:\n    def f(self):\n        if x:\n            return 2\n",
        ),
        ("if a:\n\tb()\n\tc()\n", "    b()\n    c()", "    d()\n", "if a:\n\td()\n\n"),
        ("a:\n  b\n\n  c\n", "    b\n\n    c\n", "    e\n", "a:\n  e\n"),
        ("a:\n  b\n  c", "b\nc\n", "d\n", "a:\n  d"),
        ("a:\r\n  b\r\n  c\r\n", "b\nc\n", "d\ne\n", "a:\r\n  d\r\n  e\r\n"),
    ],
)
def test_whole_lines_match_at_another_indentation_third(text: str, old: str, new: str, after: str) -> None:
    found = find_replacement(text, old, new)
    assert apply(text, found) == after
    assert isinstance(found, Replacement) and found.looseness == LOOSE_INDENT


def test_indentation_must_differ_uniformly() -> None:
    assert find_replacement("  a\n    b\n", "a\nb\n", "c") is None


def test_looser_matches_must_be_unique_too() -> None:
    assert find_replacement("a \nb\na\t\nb\n", "a\nb\n", "c") == Ambiguity((1, 3))
    assert find_replacement(" a\n b\n  a\n  b\n", "a\nb\n", "c") == Ambiguity((1, 3))


def test_a_block_that_cannot_be_moved_left_is_not_edited() -> None:
    assert find_replacement("a\nb\n", "    a\n    b\n", "    a\nb\n") is None


def test_blank_text_matches_exactly_only() -> None:
    assert find_replacement("a\n\n\nb\n", "\n \n", "x") is None


@pytest.mark.parametrize(
    ("text", "ending"), [("a\r\nb\r\n", "\r\n"), ("a\r\nb\n", "\n"), ("a\nb\n", "\n"), ("a", "\n")]
)
def test_line_ending(text: str, ending: str) -> None:
    assert line_ending(text) == ending


def test_nearest_region_finds_the_line_that_was_meant() -> None:
    text = "".join(f"value_{n} = {n * 7}\n" for n in range(50)) + "total = sum(values)\nprint(total)\n"
    assert nearest_region(text, "total = sum(value)\nprint(totals)\n") == (51, 52)


def test_nearest_region_is_silent_about_strangers() -> None:
    assert nearest_region("alpha beta\ngamma\n", "import numpy as np") is None
    assert nearest_region("", "x") is None
