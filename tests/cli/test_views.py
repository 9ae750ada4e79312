import json

import pytest

from dsv4agent.cli.views import json_line, safe


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
