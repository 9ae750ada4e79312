"""API requests beyond the golden vectors."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4agent.encoding import (
    ApiRequestError,
    RenderedRequest,
    StreamParser,
    encode_segments,
    render_anthropic_messages,
    render_chat_completions,
)
from tests.golden.tokenizers import v4_tokenizer

USER = {"role": "user", "content": "q"}
TOOL = {"type": "function", "function": {"name": "f"}}
OFF = {"thinking": {"type": "disabled"}}


def chat(body: dict[str, Any], revision: str = "v4-0731") -> RenderedRequest:
    return render_chat_completions(body, revision)


BAD_CHATS: list[dict[str, Any]] = [
    {},
    {"messages": []},
    {"messages": "q"},
    {"messages": [{"role": "critic", "content": "x"}]},
    {"messages": [USER], "reasoning_effort": "extreme"},
    {"messages": [USER], "thinking": {"type": "sometimes"}},
    {"messages": [USER], "tool_choice": "required", **OFF},
    {
        "messages": [USER],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
        **OFF,
    },
    {"messages": [{"role": "assistant", "content": "x", "prefix": True}, USER]},
    {"messages": [{"role": "user", "content": "x", "prefix": True}]},
    {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
    {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f\n"}}]},
]


@pytest.mark.parametrize("body", BAD_CHATS)
def test_bad_chat_requests_answer_400(body: dict[str, Any]) -> None:
    with pytest.raises(ApiRequestError) as caught:
        chat(body)
    assert caught.value.status == 400
    assert caught.value.body() == {
        "error": {
            "message": str(caught.value),
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_request_error",
        }
    }


RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
USE: dict[str, Any] = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
}
BAD_MESSAGES: list[dict[str, Any]] = [
    {"messages": []},
    {"messages": [{"role": "user", "content": [RESULT]}]},
    {"messages": [USE]},
    {"messages": [USE, USER]},
    {"messages": [USE, {"role": "user", "content": [RESULT, {"type": "text", "text": "x"}, RESULT]}]},
    {"messages": [{"role": "user", "content": USE["content"]}]},
    {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking"}]}]},
    {"messages": [{"role": "assistant", "content": []}]},
    {"messages": [USER], "tools": [{"name": "f"}], "tool_choice": {"type": "tool", "name": "f"}},
    {"messages": [USER], "tools": [{"name": "f"}], "tool_choice": {"type": "tool", "name": "g"}, **OFF},
    {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
]


@pytest.mark.parametrize("body", BAD_MESSAGES)
def test_bad_anthropic_requests_answer_400(body: dict[str, Any]) -> None:
    with pytest.raises(ApiRequestError):
        render_anthropic_messages(body, "v4-0731")


@pytest.mark.parametrize(
    ("effort", "revision", "text"),
    [
        ("low", "v4-preview", ""),
        ("medium", "v4-preview", ""),
        ("xhigh", "v4-preview", "Absolute"),
        ("xhigh", "v4-0731", "Absolute"),
        ("max", "v4-0731", "Beyond"),
        ("low", "v4-0731", ""),
        ("medium", "v4.1", "Effort: 75"),
    ],
)
def test_efforts(effort: str, revision: str, text: str) -> None:
    prompt = chat({"messages": [USER], "reasoning_effort": effort}, revision).prompt
    assert text in prompt
    assert ("Reasoning Effort" in prompt) == bool(text)


def test_a_forced_tool_starts_inside_its_block() -> None:
    tools = [TOOL, {"type": "function", "function": {"name": "g"}}]
    choice = {"type": "function", "function": {"name": "g"}}
    request = chat({"messages": [USER], "tools": tools, "tool_choice": choice, **OFF})
    assert request.starts_in_tool_calls
    assert [tool["function"]["name"] for tool in request.tools] == ["g"]
    parser = StreamParser("v4-0731", "chat", request.tools, starts_in_tool_calls=True)
    parser.feed_text('<｜DSML｜invoke name="g">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>')
    parser.finish()
    assert [call.name for call in parser.result.tool_calls] == ["g"]
    body = {"messages": [USER], "tools": [{"name": "g"}], "tool_choice": {"type": "tool", "name": "g"}, **OFF}
    assert render_anthropic_messages(body, "v4-0731").prompt == request.prompt
    either = render_anthropic_messages({**body, "tool_choice": {"type": "any"}}, "v4-0731")
    assert not either.starts_in_tool_calls


def test_a_schema_stands_bare() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    wrapped = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    prompt = chat({"messages": [USER], "response_format": wrapped}).prompt
    assert 'schema to reply:\n{"type": "object", "properties": {}}<｜User｜>q' in prompt


def test_systems_between_turns() -> None:
    messages = [USER, {"role": "assistant", "content": "a"}, {"role": "system", "content": "Be brief."}, USER]
    v4 = render_anthropic_messages({"messages": messages, **OFF}, "v4-0731").prompt
    assert "<｜User｜><system-reminder>\nBe brief.\n</system-reminder>\n\nq<｜Assistant｜></think>" in v4
    v41 = render_anthropic_messages({"messages": messages, **OFF}, "v4.1").prompt
    assert "<｜System｜>Be brief.<｜User｜>q" in v41
    assert chat({"messages": messages, **OFF}).prompt.startswith(
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>q"
    )


def test_arguments_that_are_no_object_are_one_string() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    assert 'name="arguments" string="true">{broken</' in chat({"messages": messages, "tools": [TOOL]}).prompt


def test_ranges_are_the_control_ids() -> None:
    body = {"messages": [{"role": "user", "content": "<｜User｜>"}], "tools": [TOOL]}
    request = chat(body)
    tokenizer = v4_tokenizer()
    spans = encode_segments(request.segments, tokenizer)
    ids = [token for span in spans for token in span.ids]
    assert tokenizer.decode(ids) == request.prompt
    named = [request.prompt[start:end] for start, end in request.special_ranges]
    assert named == [tokenizer.control_text(token) for token in ids if tokenizer.is_control(token)]
    assert named.count("<｜User｜>") == 1
