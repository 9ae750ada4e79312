"""Prompts as ids: the same text, no forged control id, and spans that say where each id comes from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.encoding import Revision, SegmentKind, TokenizerError, encode_messages, encode_tokens
from tests.encoding.corpus import TOOLS, hostile_text
from tests.golden.runner import forged_control_ids
from tests.golden.tokenizers import tokenizer_for, v4_tokenizer

CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "x"}'}}


def conversation(*texts: str) -> list[dict[str, Any]]:
    system, user, reasoning, answer, result, reminder = texts
    return [
        {"role": "system", "content": system, "tools": TOOLS},
        {"role": "user", "content": user},
        {"role": "assistant", "content": answer, "reasoning_content": reasoning, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
        {"role": "user", "content": user},
        {"role": "latest_reminder", "content": reminder},
    ]


@settings(deadline=None)
@given(st.tuples(*[hostile_text] * 6), st.sampled_from(list(Revision)))
def test_no_text_forges_a_control_id(texts: tuple[str, ...], revision: Revision) -> None:
    tokenizer = tokenizer_for(revision)
    texts = tuple(text.replace("<｜deepseek_image｜>", "") for text in texts)
    messages = conversation(*texts)
    prompt = encode_tokens(messages, tokenizer, thinking_mode="thinking", revision=revision)
    assert forged_control_ids(prompt, tokenizer) is None
    honest = encode_tokens(conversation(*["x"] * 6), tokenizer, thinking_mode="thinking", revision=revision)
    controls = [token for token in prompt.ids if tokenizer.is_control(token)]
    assert controls == [token for token in honest.ids if tokenizer.is_control(token)]
    text = encode_messages(messages, "thinking", revision=revision)
    assert prompt.text == text
    assert tokenizer.decode(prompt.ids) == text


@settings(deadline=None)
@given(st.lists(st.text("ab \n.,<>é中🧪", max_size=30), min_size=6, max_size=6))
def test_honest_text_has_the_official_ids(texts: list[str]) -> None:
    tokenizer = v4_tokenizer()
    messages = conversation(*texts)
    prompt = encode_tokens(messages, tokenizer, thinking_mode="thinking")
    assert list(prompt.ids) == tokenizer.encode_trusted(encode_messages(messages, "thinking"))


def test_a_text_cannot_complete_a_control_token_with_what_follows() -> None:
    tokenizer = v4_tokenizer()
    for text in ("<｜", "<｜User", "<", "</think", "<｜end▁of▁sentence"):
        prompt = encode_tokens([{"role": "user", "content": text}], tokenizer, thinking_mode="chat")
        assert [token for token in prompt.ids if tokenizer.is_control(token)] == [0, 128803, 128804, 128822]
    prompt = encode_tokens(
        [{"role": "user", "content": "<｜Us"}, {"role": "user", "content": "er｜>"}],
        tokenizer,
        thinking_mode="chat",
    )
    assert [token for token in prompt.ids if tokenizer.is_control(token)] == [0, 128803, 128804, 128822]


def test_spans_name_their_origin() -> None:
    messages = conversation("You are kind.", "Go.", "I plan.", "On it.", "the result", "now")
    messages[4]["provenance"] = "file"
    prompt = encode_tokens(messages, v4_tokenizer(), thinking_mode="thinking")
    found = {
        (span.provenance, span.text.strip()) for span in prompt.spans if span.kind is SegmentKind.CONTENT
    }
    assert ("user", "Go.") in found
    assert ("model", "I plan.") in found
    assert ("model", "On it.") in found
    assert ("file", "Go.") in found
    assert ("system", "now") in found
    assert any(origin == "tool:f" and "the result" in text for origin, text in found)
    assert any(origin == "system" and "You are kind." in text for origin, text in found)
    assert {span.provenance for span in prompt.spans if span.kind is SegmentKind.CONTROL} == {"control"}
    assert all(len(span.ids) == 1 for span in prompt.spans if span.kind is SegmentKind.CONTROL)
    assert all(span.ids and span.text for span in prompt.spans)


def test_a_border_inside_a_token_moves_behind_it() -> None:
    tokenizer = v4_tokenizer()
    messages = [{"role": "user", "content": "a."}, {"role": "user", "content": "b", "provenance": "web"}]
    prompt = encode_tokens(messages, tokenizer, thinking_mode="chat")
    spans = [(span.text, span.provenance) for span in prompt.spans if span.kind is not SegmentKind.CONTROL]
    # ".\n\n" is one id: it begins in the user's text, so it is the user's.
    assert spans == [("a.\n\n", "user"), ("b", "web")]


def test_context_gives_only_what_is_new() -> None:
    tokenizer = v4_tokenizer()
    before = conversation("s", "u", "r", "a", "t", "n")[:2]
    after = conversation("s", "u", "r", "a", "t", "n")[2:4]
    whole = encode_tokens([*before, *after], tokenizer, thinking_mode="thinking")
    first = encode_tokens(before, tokenizer, thinking_mode="thinking")
    second = encode_tokens(after, tokenizer, thinking_mode="thinking", context=before)
    assert first.ids + second.ids == whole.ids


def test_images_are_control_ids_only_when_they_are_images() -> None:
    tokenizer = tokenizer_for("v4.1")
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    for role, content in (
        ("system", [{"type": "text", "text": "see"}, image]),
        ("user", [image, {"type": "text", "text": "see"}]),
        ("tool", [{"type": "text", "text": "shot"}, image]),
    ):
        prompt = encode_tokens(
            [{"role": role, "content": content}], tokenizer, thinking_mode="chat", revision="v4.1"
        )
        assert prompt.ids.count(129264) == 1
        assert prompt.images == ({"type": "image", "url": "https://example.org/a.png"},)
        assert forged_control_ids(prompt, tokenizer) is None
    lookalike = [{"type": "text", "text": "x", "image": True, "pieces": [None]}]
    for revision in Revision:
        tokenizer = tokenizer_for(revision)
        messages = [{"role": "tool", "content": lookalike}]
        prompt = encode_tokens(messages, tokenizer, thinking_mode="chat", revision=revision)
        assert 129264 not in prompt.ids


def test_a_token_the_tokenizer_lacks_is_a_typed_error() -> None:
    with pytest.raises(TokenizerError) as caught:
        encode_tokens(
            [{"role": "system", "content": "s"}], v4_tokenizer(), thinking_mode="chat", revision="v4.1"
        )
    assert caught.value.reason == "missing_control_token"
