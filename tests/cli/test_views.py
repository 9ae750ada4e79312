import json
from io import StringIO

import pytest
from rich.console import Console

from dsv4agent.cli.views import TextView, json_line, safe
from dsv4agent.transcript import TextDelta, TurnDiscarded


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "\x9b2J", "\x7f", "a\u202eb", "a\u2066b", "\u2028", "\U000e0041", "\ud800", "\r", "\b"],
)
def test_nothing_steers_the_terminal(text: str) -> None:
    assert "\N{REPLACEMENT CHARACTER}" in safe(text)
    line = json_line({"text": text})
    assert line.isascii()
    assert line.rstrip("\n").isprintable()
    assert json.loads(line) == {"text": text}


def test_ordinary_text_stays() -> None:
    text = "tab\tline\nпривет 你好 👩‍👩‍👧 ①"
    assert safe(text) == text


def test_a_discarded_turn_is_told_from_what_was_said() -> None:
    out = StringIO()
    view = TextView(Console(file=out, width=200))
    view.show(TextDelta(text="Try this"))
    view.show(TurnDiscarded(step=3, position=9, draw=1, reason="repeats", calls=(("bash", "{}"),)))
    assert out.getvalue().splitlines() == [
        "Try this",
        "  drawn again: these edits leave nothing new",
    ]
