"""The strict parser's reason codes, and its time."""

from __future__ import annotations

import time

import pytest

from dsv4agent.encoding import CompletionParseError, EncodingError, parse_message_from_completion_text
from dsv4agent.encoding.control_tokens import DSML, EOS
from tests.encoding.corpus import block, call, invoke, parameter

REASONS = [
    ("r" + EOS, "missing_think_close"),
    ("r</think>c", "missing_eos"),
    ("r</think>c" + EOS + "x", "text_after_eos"),
    ("r</think>a<think>b" + EOS, "control_token_in_text"),
    ("r</think>c" + call() + "\nmore" + EOS, "text_after_calls"),
    ("r</think>" + call().replace("tool_calls>", "tool_calls >", 1) + EOS, "malformed_block"),
    ("r</think>" + call().replace('"f">', "f>") + EOS, "malformed_invoke"),
    ("r</think>" + call().replace('"true"', '"yes"') + EOS, "malformed_parameter"),
    ("r</think>" + block(invoke(parameter("1") + "\n" + parameter("2"))) + EOS, "duplicate_parameter"),
]


@pytest.mark.parametrize(("text", "reason"), REASONS)
def test_reasons(text: str, reason: str) -> None:
    with pytest.raises(CompletionParseError) as caught:
        parse_message_from_completion_text(text, "thinking")
    assert caught.value.reason == reason


def test_names_of_v41_have_one_namespace() -> None:
    text = call().replace('"f"', '"a::b::c"')
    for name in ("tool_calls", "invoke", "parameter"):
        text = text.replace(DSML + name, DSML + " " + name.removeprefix("tool_"))
    with pytest.raises(CompletionParseError) as caught:
        parse_message_from_completion_text("</think>" + text + EOS, "thinking", revision="v4.1")
    assert caught.value.reason == "invalid_name"
    one = text.replace("a::b::c", "a::b")
    parsed = parse_message_from_completion_text("</think>" + one + EOS, "thinking", revision="v4.1")
    assert parsed["tool_calls"][0]["namespace"] == "a"


def test_an_unknown_revision_is_a_typed_error() -> None:
    with pytest.raises(EncodingError):
        parse_message_from_completion_text(EOS, "chat", revision="v9")


def test_many_calls_take_linear_time() -> None:
    text = "</think>" + block("\n".join([invoke(parameter("x" * 50))] * 4000)) + EOS
    start = time.process_time()
    message = parse_message_from_completion_text(text, "thinking")
    assert len(message["tool_calls"]) == 4000
    assert time.process_time() - start < 2.0
