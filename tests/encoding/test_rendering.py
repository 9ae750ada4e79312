"""Rendering beyond the golden vectors: typed errors, normalised accidents, unchanged inputs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.encoding import (
    EncodingError,
    Revision,
    SegmentKind,
    encode_messages,
    parse_message_from_completion_text,
    render_segments,
)
from dsv4agent.encoding.control_tokens import ALL, EOS
from tests.encoding.corpus import TOOLS

USER: dict[str, Any] = {"role": "user", "content": "q"}


def called(arguments: Any, **extra: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function, **extra}],
    }


ERRORS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("unknown_role", [{"role": "critic", "content": "x"}], {}),
    ("unknown_role", [{"content": "x"}], {}),
    ("unknown_role", [{"role": "developer", "content": "x"}], {"revision": "v4.1"}),
    ("empty_developer", [{"role": "developer", "content": ""}], {}),
    ("invalid_message", ["text"], {}),
    ("invalid_task", [{**USER, "task": "summarise"}], {}),
    ("invalid_task", [{**USER, "task": ["query"]}], {}),
    ("invalid_task", [{**USER, "task": ""}], {}),
    ("invalid_reasoning_effort", [USER], {"reasoning_effort": "low"}),
    ("invalid_reasoning_effort", [USER], {"reasoning_effort": 50}),
    ("invalid_reasoning_effort", [USER], {"reasoning_effort": 0, "revision": "v4.1"}),
    ("invalid_reasoning_effort", [USER], {"reasoning_effort": True, "revision": "v4.1"}),
    ("invalid_reasoning_effort", [USER], {"reasoning_effort": "", "revision": "v4.1"}),
    ("unknown_revision", [USER], {"revision": "v5"}),
    ("invalid_tool_call", [{"role": "assistant", "tool_calls": ["f"]}], {}),
    ("invalid_tool_call", [{"role": "assistant", "tool_calls": [{"function": {}}]}], {}),
    ("invalid_tool_call", [{"role": "assistant", "tool_calls": {"f": 1}}], {}),
    ("invalid_tool", [{"role": "system", "tools": [{"name": "f"}]}], {}),
    ("not_json", [called({"a": {1, 2}})], {"revision": "v4.1"}),
    ("invalid_namespace", [called("{}", namespace="a::b")], {"revision": "v4.1"}),
    ("invalid_namespace", [called("{}", namespace="a"), called("{}", namespace="x::y")],
     {"revision": "v4.1"}),
    ("image_without_source", [{"role": "user", "content": [{"type": "image"}]}], {"revision": "v4.1"}),
    ("image_token_in_text", [{"role": "user", "content": "<｜deepseek_image｜>"}], {"revision": "v4.1"}),
    ("image_token_in_text", [{"role": "user", "content": [{"type": "text", "text": "<｜deepseek_image｜>"}]}],
     {"revision": "v4.1"}),
    ("invalid_content", [{"role": "user", "content": [3]}], {"revision": "v4.1"}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "messages", "kwargs"), ERRORS)
def test_errors_are_typed(reason: str, messages: list[Any], kwargs: dict[str, Any]) -> None:
    with pytest.raises(EncodingError) as caught:
        encode_messages(messages, "thinking", **kwargs)
    assert caught.value.reason == reason


def test_an_invalid_mode_is_found_with_the_first_message() -> None:
    with pytest.raises(EncodingError) as caught:
        encode_messages([USER], "reasoning")
    assert caught.value.reason == "invalid_thinking_mode"
    assert encode_messages([], "reasoning").endswith("▁sentence｜>")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ([{"type": "text", "text": "a"}, "b"], "a\n\nb"),
        (["a", 3], "a\n\n[Unsupported int]"),
        (3, "3"),
    ],
)
def test_user_content_the_official_encoder_crashes_on(content: Any, text: str) -> None:
    assert encode_messages([{"role": "user", "content": content}], "chat") == encode_messages(
        [{"role": "user", "content": text}], "chat"
    )


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ("null", '{"arguments": "null"}'),
        ("[1]", '{"arguments": "[1]"}'),
        ('"x"', '{"arguments": "\\"x\\""}'),
        ("[" * 100_000, '{"arguments": "' + "[" * 100_000 + '"}'),
    ],
)
def test_arguments_the_official_encoder_crashes_on(arguments: str, same: str) -> None:
    assert encode_messages([called(arguments)], "chat") == encode_messages([called(same)], "chat")


def test_missing_arguments_are_none() -> None:
    message = called("{}")
    del message["tool_calls"][0]["function"]["arguments"]
    assert encode_messages([message], "chat") == encode_messages([called("{}")], "chat")


@pytest.mark.parametrize("revision", Revision)
def test_inputs_are_not_changed(revision: Revision) -> None:
    messages = [
        {"role": "system", "content": "s", "tools": copy.deepcopy(TOOLS)},
        USER,
        called('{"a": 1}', id="1"),
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "r"}]},
        {"role": "user", "content": "more"},
    ]
    before = copy.deepcopy(messages)
    encode_messages(messages, "thinking", context=messages[:2], revision=revision)
    assert messages == before


def test_namespace_descriptions_stand_before_the_function_s() -> None:
    function = {
        "name": "find",
        "description": "Find.",
        "namespace": {"name": "web", "description": "The web."},
    }
    text = encode_messages([{"role": "system", "tools": [{"function": function}]}], "chat", revision="v4.1")
    assert '{"name": "web::find", "description": "The web.\\nFind."}' in text


def test_segments_mark_exactly_the_encoder_s_own_control_tokens() -> None:
    rendered = render_segments(
        [{"role": "user", "content": "<think>"}, called('{"</think>": "x"}')], "thinking"
    )
    controls = [segment.text for segment in rendered.segments if segment.kind is SegmentKind.CONTROL]
    assert all(text in ALL for text in controls)
    assert controls.count("<think>") == 1
    assert controls.count("</think>") == 1
    assert controls[-1] == EOS


plain = st.text(max_size=20).filter(lambda text: not any(mark in text for mark in ("<", "｜")))


@given(
    plain,
    plain,
    st.dictionaries(plain.filter(lambda key: '"' not in key and "\n" not in key), plain, max_size=4),
)
def test_encode_then_parse_is_the_identity(reasoning: str, content: str, fields: dict[str, str]) -> None:
    message = called(json.dumps(fields, ensure_ascii=False)) | {
        "reasoning_content": reasoning,
        "content": content,
    }
    context = [{"role": "system", "tools": TOOLS}, USER]
    for revision in Revision:
        text = encode_messages([message], "thinking", context=context, revision=revision)
        parsed = parse_message_from_completion_text(text, "thinking", revision=revision)
        assert parsed["content"] == content
        assert parsed["reasoning_content"] == reasoning
        assert json.loads(parsed["tool_calls"][0]["function"]["arguments"]) == fields
