import stat
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.tools.output import (
    Captured,
    LiveText,
    clean_output,
    fits,
    keep_end,
    keep_start,
    render_output,
    save_output,
    truncate_output,
)
from tests.tools.editor_desk import count_words


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\n", "plain\n"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b(Bascii\x1b=", "ascii"),
        (b"10%\r50%\r100%\n", "100%\n"),
        (b"10%\r100%\r\nnext\r\n", "100%\nnext\n"),
        (b"kept\r", "kept"),
        (b"a\0b", "ab"),
        (b"caf\xc3\xa9 \xff", "café �"),
        (b"tab\tstays", "tab\tstays"),
        ("<｜User｜> 日本".encode(), "<｜User｜> 日本"),
        (b"", ""),
    ],
)
def test_clean_output(raw: bytes, text: str) -> None:
    assert clean_output(raw) == text


def test_an_unfinished_title_does_not_swallow_the_lines_after_it() -> None:
    assert clean_output(b"\x1b]0;title\nkept") == "\nkept"


@pytest.mark.parametrize(
    ("raw", "exit_code", "text"),
    [
        (b"out\n\n", 0, "out"),
        (b"", 0, "(no output)"),
        (b"\n", 0, "(no output)"),
        (b"", 1, "[exit code: 1]"),
        (b"out\n", 2, "out\n[exit code: 2]"),
        (b"out", None, "out"),
        (b"  indented\n", 0, "  indented"),
    ],
)
def test_render_output(raw: bytes, exit_code: int | None, text: str) -> None:
    assert render_output(raw, exit_code) == text


def test_a_note_stands_before_the_exit_code() -> None:
    assert render_output(b"out\n", 3, note="the shell ended") == "out\n[the shell ended]\n[exit code: 3]"


@given(st.binary(max_size=200))
def test_clean_output_has_no_controls_that_a_terminal_would_obey(raw: bytes) -> None:
    text = clean_output(raw)
    assert not {"\x1b", "\0", "\r"} & set(text)
    assert clean_output(text.encode()) == text


@given(st.text(max_size=300), st.integers(0, 100))
def test_kept_start_and_end_are_within_budget(text: str, budget: int) -> None:
    start, end = keep_start(text, budget, count_words), keep_end(text, budget, count_words)
    assert text.startswith(start) and text.endswith(end)
    assert count_words(start) <= budget and count_words(end) <= budget
    if count_words(text) <= budget:
        assert start == text == end


@given(st.text(alphabet="ab .", max_size=400), st.integers(1, 100))
def test_a_budget_is_nearly_spent(text: str, budget: int) -> None:
    kept = count_words(keep_start(text, budget, count_words))
    assert kept == count_words(text) or kept >= 0.98 * budget - 1


def test_cuts_fall_on_line_boundaries_if_lines_are_short() -> None:
    text = "".join(f"line {n}\n" for n in range(100))
    assert keep_start(text, 41, count_words).endswith("\n")
    assert keep_end(text, 41, count_words).startswith("line")


def test_a_line_longer_than_the_budget_is_cut_inside() -> None:
    assert 49 <= count_words(keep_start("word " * 1000, 50, count_words)) <= 50


@pytest.mark.parametrize("budget", [100, 300, 1000])
def test_truncation_keeps_head_and_tail_within_the_budget(budget: int, tmp_path: Path) -> None:
    raw = "".join(f"line {n}\n" for n in range(1000)).encode()
    text, truncation = truncate_output(
        Captured(raw), budget=budget, count_tokens=count_words, save=lambda: save_output(tmp_path, "o", raw)
    )
    assert truncation is not None and truncation.path is not None
    assert truncation.path == tmp_path / "o-1.txt"
    assert count_words(text) <= budget
    head, marker, tail = text.partition("\n[... ")[0], *text.partition("\n[... ")[2].split("\n", 1)
    assert head.startswith("line 0\n") and tail.endswith("line 999")
    total = count_words(clean_output(raw).rstrip("\n"))
    assert truncation.total_tokens == total
    omitted = total - truncation.shown_tokens
    assert marker == f"{omitted} of {total} tokens omitted; full output: {truncation.path}]"
    assert count_words(tail) > count_words(head) > 10
    if budget >= 300:
        assert 1.3 < count_words(tail) / count_words(head) < 1.7
    assert truncation.path.read_bytes() == raw


def test_short_output_is_never_saved() -> None:
    def save() -> Path | None:
        pytest.fail("saved")

    assert truncate_output(Captured(b"ok\n"), budget=5, count_tokens=count_words, save=save) == ("ok", None)


def test_an_output_with_a_middle_that_is_not_held_says_about() -> None:
    captured = Captured(b"a\n" * 500, b"b\n" * 500, omitted=2000)
    text, truncation = truncate_output(captured, budget=60, count_tokens=count_words, save=lambda: None)
    assert truncation is not None and truncation.path is None
    assert "of 4000" not in text and "[... about " in text and truncation.total_tokens == 3998
    assert text.startswith("a\na\n") and text.endswith("\nb\nb")


@given(st.text(max_size=50), st.integers(0, 60))
def test_fits_agrees_with_the_count(text: str, budget: int) -> None:
    assert fits(text, budget, count_words) == (count_words(text) <= budget)


@given(st.text(max_size=40), st.lists(st.integers(0, 80), max_size=5))
def test_live_text_shows_all_text_however_it_is_cut(text: str, cuts: list[int]) -> None:
    raw = text.replace("\x1b", "").encode()
    live = LiveText()
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    shown = "".join(live.feed(raw[a:b]) for a, b in pairwise(places))
    assert shown == raw.decode().replace("\0", "")


def test_live_text_holds_back_half_an_escape_sequence() -> None:
    live = LiveText()
    assert live.feed(b"a\x1b[3") == "a"
    assert live.feed(b"1mred\x1b[0m\n") == "red\n"


def test_saved_outputs_are_private_and_never_overwrite(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    paths = [save_output(folder, "bash", data) for data in (b"one", b"two")]
    assert [path.name for path in paths] == ["bash-1.txt", "bash-2.txt"]
    assert [path.read_bytes() for path in paths] == [b"one", b"two"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_redrawn_lines_take_linear_time() -> None:
    """Half a megabyte would take minutes if the last of many returns were searched for again and again."""
    assert clean_output(b"\r\n" + b"x" * 500_000) == "\n" + "x" * 500_000
    assert clean_output(b"a\rb\r\rc\r\r\nd\r" + b"\r" * 500_000) == "c\nd"
