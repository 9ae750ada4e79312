"""The streaming parser: recovery rules, invariants of streaming, and linear time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsv4agent.encoding import (
    ArgumentDelta,
    CallClosed,
    CallOpened,
    CompletionParseError,
    Event,
    Malformed,
    ParsedCall,
    ReasoningDelta,
    StreamParser,
    TextDelta,
    TurnEnd,
    encode_tokens,
    parse_message_from_completion_text,
)
from dsv4agent.encoding.control_tokens import DSML, EOS, USER
from tests.encoding.corpus import TOOLS, block, call, hostile_text, invoke, joined, parameter, parse
from tests.golden.tokenizers import v4_1_tokenizer, v4_tokenizer

X = parameter("x")

# Rules

CALLS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("R2", "plan" + call() + EOS, [("f", '{"a": "x"}')]),
    ("R6", "r</think>" + "\n\n" + invoke(X) + EOS, [("f", '{"a": "x"}')]),
    ("R7", "r</think>" + call().replace("tool_calls", "function_calls") + EOS, [("f", '{"a": "x"}')]),
    ("R11", "r</think>" + call().replace('"', "'") + EOS, [("f", '{"a": "x"}')]),
    ("R11", "r</think>" + call().replace("string=", 'type="t" string=') + EOS, [("f", '{"a": "x"}')]),
    ("R11", "r</think>" + call().replace('"true"', '"yes"') + EOS, [("f", '{"a": "x"}')]),
    ("R12", "r</think>" + block(invoke(parameter("{'k': None}", "opts", "false"))),
     [("f", '{"opts": {"k": null}}')]),
    ("R12", "r</think>" + block(invoke(parameter("NaN", "any", "false"))), [("f", '{"any": "NaN"}')]),
    ("R13", "r</think>" + block(invoke(parameter("7", "n"))), [("f", '{"n": 7}')]),
    ("R14", "r</think>" + block(invoke(X + "\n" + X)) + EOS, [("f", '{"a": "x"}')]),
    ("R15", "r</think>" + block(invoke(X.replace("</｜DSML｜parameter>", "\n") + parameter("y", "b"))),
     [("f", '{"a": "x", "b": "y"}')]),
    ("R16", "r</think>" + block(invoke(X).removesuffix(f"</{DSML}invoke>")), [("f", '{"a": "x"}')]),
    ("R16", "r</think>" + block(invoke(X).removesuffix(f"</{DSML}invoke>") + invoke("", "now")),
     [("f", '{"a": "x"}'), ("now", "{}")]),
    ("R19", "r</think>" + call() + call("y"), [("f", '{"a": "x"}'), ("f", '{"a": "y"}')]),
    ("R21", "r</think>" + block(invoke(parameter('{"a": "x"}', "arguments"))), [("f", '{"a": "x"}')]),
    ("R22", "r</think>" + block(invoke('{"a": "<b> </invoke>"}')), [("f", '{"a": "<b> </invoke>"}')]),
    ("R27", "r</think>" + call("<![CDATA[a < b]]>"), [("f", '{"a": "a < b"}')]),
    ("R9", "r</think>" + call().replace(DSML, "｜DSML|"), [("f", '{"a": "x"}')]),
    ("R9", "r</think>" + call().replace(f"</{DSML}", "</|DSML|"), [("f", '{"a": "x"}')]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text", "expected"), CALLS)
def test_repaired_calls(rule: str, text: str, expected: list[tuple[str, str]]) -> None:
    result = parse(text)
    assert [(item.name, item.arguments) for item in result.tool_calls] == expected
    assert rule in result.repairs
    assert result.content == ""
    assert result.truncated_call is None
    assert result.invalid_tool_calls == ()


TEXTS: list[tuple[str, str, str]] = [
    ("R4 lone close in chat", "</think>hello" + EOS, "hello"),
    ("R1 open without close in chat", "<think>only text" + EOS, "only text"),
    ("R2b mention", f"Write `<{DSML}tool_calls>` first." + EOS, f"Write `<{DSML}tool_calls>` first."),
    ("R2b marker alone", f"The {DSML} marker" + EOS, f"The {DSML} marker"),
    ("R24 stray closer", f"a</{DSML}parameter>b" + EOS, "ab"),
    ("R26 other turns", f"a{USER}b", "a"),
    ("partial marker at the end", "a\n\n<｜DS", "a\n\n<｜DS"),
    ("partial tag at the end", "a\n<tool_ca", "a\n<tool_ca"),
    ("R9 unknown tool", call().replace(DSML, "|DSML|").replace('"f"', '"zzz"'),
     call().replace(DSML, "|DSML|").replace('"f"', '"zzz"')),
    ("R9 unclosed", '<|DSML|invoke name="f">\n<|DSML|parameter name="a">x',
     '<|DSML|invoke name="f">\n<|DSML|parameter name="a">x'),
    ("R9 prose", '<|DSML|invoke name="f"> runs f </|DSML|invoke>',
     '<|DSML|invoke name="f"> runs f </|DSML|invoke>'),
    ("R10 in a fence", '```\n<invoke name="f">\n</invoke>\n```', '```\n<invoke name="f">\n</invoke>\n```'),
    ("R10 inside a line", 'see <invoke name="f"></invoke>', 'see <invoke name="f"></invoke>'),
    ("R10 two mentions", '<invoke name="f">\n<invoke name="now">', '<invoke name="f">\n<invoke name="now">'),
    ("R10 JSON of no tool", '<tool_call>{"name": "zzz", "arguments": {}}</tool_call>',
     '<tool_call>{"name": "zzz", "arguments": {}}</tool_call>'),
    ("R10 no JSON", "<tool_call>f(x)</tool_call>", "<tool_call>f(x)</tool_call>"),
    ("trailing newlines", "a\n\n\n" + EOS, "a\n\n\n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "content"), TEXTS)
def test_what_is_text_stays_text(name: str, text: str, content: str) -> None:
    result = parse(text, "chat")
    assert result.content == content, name
    assert result.tool_calls == ()
    assert result.invalid_tool_calls == ()
    assert result.truncated_call is None
    assert result.reasoning_content == ""


REASONINGS = [
    f"I could write <{DSML}tool_calls> now",
    f'use <{DSML}invoke name="f"> or <{DSML}invoke name="now"> tags',
    "unknown" + call().replace('"f"', '"zzz"'),
    f'draft <{DSML}invoke name="f">\n{X}\nand on',
    '\n<invoke name="f">\n</invoke>\n',
]


@pytest.mark.parametrize("reasoning", REASONINGS)
def test_mentions_in_reasoning_are_no_calls(reasoning: str) -> None:
    result = parse(f"{reasoning}</think>answer{call('y')}{EOS}")
    assert result.reasoning_content == reasoning
    assert result.content == "answer"
    assert [item.arguments for item in result.tool_calls] == ['{"a": "y"}']


INVALID = [
    (block(invoke(X, "zzz")), "zzz", "unknown_tool"),
    (block(invoke(X + "\n" + parameter("y"))), "f", "duplicate_parameter"),
    (
        block(invoke(parameter("1", "any", "false") + parameter("true", "any", "false"))),
        "f",
        "duplicate_parameter",
    ),
    (block(invoke(parameter("three", "n", "false"))), "f", "invalid_value"),
    (block(invoke(X + "\nand so on")), "f", "unexpected_text"),
    (block(invoke(parameter(f"x</{DSML}parameter>y"))), "f", "unexpected_text"),
    (block(invoke(f'<{DSML}parameter name="a" string="true"/>')), "f", "malformed_tag"),
]


@pytest.mark.parametrize(("text", "name", "reason"), INVALID)
def test_invalid_calls_are_reported_and_never_calls(text: str, name: str, reason: str) -> None:
    result = parse("r</think>" + text + EOS)
    assert result.tool_calls == ()
    assert [(item.name, item.reason) for item in result.invalid_tool_calls] == [(name, reason)]
    assert f'<{DSML}invoke name="{name}">' in result.invalid_tool_calls[0].raw


@pytest.mark.parametrize("end", [EOS, ""])
def test_no_cut_call_is_a_call(end: str) -> None:
    text = call()
    # Everything up to the character before the invoke's closing tag is complete.
    for length in range(len("\n\n<") + len(DSML), text.index(f"</{DSML}invoke>") + len(f"</{DSML}invoke")):
        result = parse("r</think>c" + text[:length] + end, finish="length")
        assert result.tool_calls == (), length
        assert result.truncated_call is not None, length
        assert result.content == "c"
        assert result.truncated_call.raw in text


def test_calls_before_a_cut_one_stand() -> None:
    whole = "r</think>" + block(invoke(X) + "\n" + invoke(parameter("y")))
    result = parse(whole[: whole.index(">y<") + 2], finish="length")
    assert [item.arguments for item in result.tool_calls] == ['{"a": "x"}']
    assert result.truncated_call is not None
    assert result.truncated_call.name == "f"


def test_without_tools_nothing_is_a_call() -> None:
    result = parse("r</think>c" + call() + EOS, tools=[])
    assert result.content == "c" + call()
    assert result.tool_calls == ()
    assert result.repairs == ("R25",)


def test_text_after_the_calls_is_reported() -> None:
    parser = StreamParser("v4-preview", "chat", TOOLS)
    events = parser.feed_text(call() + "\n\nThe result is 5." + EOS)
    assert Malformed("text_after_calls", "\n\nThe result is 5.") in events
    assert parser.result.content == ""


def test_text_between_the_calls_is_reported() -> None:
    parser = StreamParser("v4-preview", "chat", TOOLS)
    events = parser.feed_text(block(invoke(X) + "\nthen\n" + invoke(X)) + EOS)
    assert Malformed("text_after_calls", "then") in events
    assert len(parser.result.tool_calls) == 2


def test_reasoning_without_an_end_is_all_reasoning() -> None:
    result = parse("only thoughts" + EOS)
    assert (result.reasoning_content, result.content, result.repairs) == ("only thoughts", "", ("R3",))


# Streaming

FRAGMENTS = [
    *(
        "<think>",
        "</think>",
        EOS,
        USER,
        DSML,
        f"<{DSML}",
        f"</{DSML}",
        "<",
        "</",
        ">",
        "\n",
        "\n\n",
        " ",
        "```\n",
    ),
    *(f"<{DSML}tool_calls>", f"</{DSML}tool_calls>", f'<{DSML}invoke name="f">', f"</{DSML}invoke>"),
    *(
        f'<{DSML}invoke name="zzz">',
        parameter("x"),
        parameter("7", "n"),
        f'<{DSML}parameter name="b" string="true">',
    ),
    *(f"</{DSML}parameter>", call(), call().replace(DSML, "|DSML|"), '<invoke name="f">', "</invoke>"),
    *(
        '<parameter name="a">',
        "</parameter>",
        "</|DSML|parameter>",
        "</|DSML|invoke>",
        "<tool_call>",
        "</tool_call>",
    ),
    *('{"name": "f", "arguments": {}}', "<tool_calls>", "</tool_calls>", "text", '"', "'", "é", "<div>"),
]
outputs = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)


def events_of(pieces: list[str], mode: str, tools: list[dict[str, Any]]) -> tuple[list[Event], StreamParser]:
    parser = StreamParser("v4-preview", mode, tools)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed_text(piece)
    events += parser.finish("length")
    return joined(events), parser


@settings(deadline=None, max_examples=300)
@given(outputs, st.sampled_from(["thinking", "chat"]), st.sampled_from([TOOLS, []]), st.data())
@example("<think>" + call(), "chat", TOOLS, None)
@example("r" + call().removesuffix(f"</{DSML}tool_calls>") + "</think>" + invoke(X), "thinking", TOOLS, None)
@example(call().replace(DSML, "|DSML|")[:-3], "thinking", TOOLS, None)
def test_chunking_changes_nothing(text: str, mode: str, tools: list[dict[str, Any]], data: Any) -> None:
    whole, parser = events_of([text], mode, tools)
    single, other = events_of(list(text), mode, tools)
    assert single == whole
    assert other.result == parser.result
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert events_of(pieces, mode, tools)[0] == whole
    check_agreement(whole, parser)


def check_agreement(events: list[Event], parser: StreamParser) -> None:
    """Events and message say the same, and every promise of the events holds."""
    result = parser.result
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == result.content
    assert (
        "".join(event.text for event in events if isinstance(event, ReasoningDelta))
        == result.reasoning_content
    )
    assert [event.call for event in events if isinstance(event, CallClosed)] == list(result.tool_calls)
    assert [type(event) for event in events].count(TurnEnd) == 1
    assert isinstance(events[-1], TurnEnd)
    for item in result.tool_calls:
        assert isinstance(json.loads(item.arguments), dict)
    opened = [event.index for event in events if isinstance(event, CallOpened)]
    closed = [event.index for event in events if isinstance(event, CallClosed)]
    assert len(set(opened)) == len(opened)
    assert set(closed) <= set(opened)


@given(st.text("ab<>/é\n `｜DSMLthink", max_size=60))
def test_without_tools_text_is_untouched(text: str) -> None:
    expected = text.replace("<think>", "").replace("</think>", "")
    if expected == text:
        assert parse(text, "chat", tools=[]).content == text


def test_events_come_early_and_in_order() -> None:
    parser = StreamParser("v4-preview", "thinking", TOOLS)
    text = "why</think>ok" + call("hello world") + EOS
    seen: list[Event] = []
    for character in text:
        seen += parser.feed_text(character)
    kinds = [type(event) for event in joined(seen)]
    assert kinds == [ReasoningDelta, TextDelta, CallOpened, ArgumentDelta, CallClosed, TurnEnd]
    assert joined(seen)[3] == ArgumentDelta(0, "a", "hello world")
    assert joined(seen)[4] == CallClosed(0, ParsedCall("f", '{"a": "hello world"}'))
    assert parser.finish("stop") == []
    assert parser.feed_text("more") == []
    early = StreamParser("v4-preview", "thinking", TOOLS)
    before_close = early.feed_text(text[: text.index("world")])
    assert ArgumentDelta(0, "a", "hello ") in before_close


def test_turn_ends_say_why() -> None:
    for text, reason in ((EOS, "stop"), (USER, "turn_marker"), ("", "length")):
        parser = StreamParser("v4-preview", "chat")
        events = parser.feed_text("a" + text) + parser.finish("length")
        assert [event for event in events if isinstance(event, TurnEnd)] == [TurnEnd(reason)]


def test_strict_raises_where_a_repair_would_be_needed() -> None:
    assert parse("r</think>c" + call() + EOS, strict=True).repairs == ()
    with pytest.raises(CompletionParseError) as caught:
        parse("r</think>c\n" + invoke(X) + EOS, strict=True)
    assert caught.value.reason in ("R5", "R6")


# Ids


def ids_of(message: dict[str, Any], revision: str = "v4-preview") -> list[int]:
    tokenizer = v4_1_tokenizer() if revision == "v4.1" else v4_tokenizer()
    context = [{"role": "system", "content": "", "tools": TOOLS}, {"role": "user", "content": "q"}]
    prompt = encode_tokens([message], tokenizer, thinking_mode="thinking", context=context, revision=revision)
    return list(prompt.ids)


def message_of(reasoning: str, content: str, value: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": json.dumps({"a": value, "n": 7})}
    return {
        "role": "assistant",
        "content": content,
        "reasoning_content": reasoning,
        "tool_calls": [{"type": "function", "function": function}],
    }


@settings(deadline=None)
@given(hostile_text, hostile_text, hostile_text, st.integers(1, 5), st.sampled_from(["v4-preview", "v4.1"]))
@example("<think>", f"a{call()}", f"x</{DSML}parameter>\n</{DSML}invoke>", 1, "v4-preview")
def test_ids_round_trip_whatever_the_text_spells(
    reasoning: str, content: str, value: str, size: int, revision: str
) -> None:
    if "<｜deepseek_image｜>" in reasoning + content and revision == "v4.1":
        return
    content = content.rstrip("\r\n")
    ids = ids_of(message_of(reasoning, content, value), revision)
    tokenizer = v4_1_tokenizer() if revision == "v4.1" else v4_tokenizer()
    parser = StreamParser(revision, "thinking", TOOLS, tokenizer=tokenizer)
    events: list[Event] = []
    for start in range(0, len(ids), size):
        events += parser.feed_ids(ids[start : start + size])
    events += parser.finish()
    result = parser.result
    assert (result.reasoning_content, result.content) == (reasoning, content)
    assert [json.loads(item.arguments) for item in result.tool_calls] == [{"a": value, "n": 7}]
    assert result.repairs == ()
    check_agreement(joined(events), parser)


@given(
    st.text(max_size=30),
    st.text(max_size=30),
    st.dictionaries(st.text("abc_", min_size=1), st.text(), max_size=3),
)
def test_clean_text_parses_as_the_strict_parser_does(
    reasoning: str, content: str, fields: dict[str, str]
) -> None:
    if "<" in reasoning + content + "".join(fields.values()):
        return
    content = content.rstrip("\r\n")
    written = "\n".join(parameter(value, key) for key, value in fields.items())
    text = f"{reasoning}</think>{content}{block(invoke(written, 'now'))}{EOS}"
    reasoning_is_blank = not reasoning.strip() and reasoning
    strict = parse_message_from_completion_text(text, "thinking")
    lenient = parse(text)
    assert lenient.as_message() == strict, reasoning_is_blank
    assert lenient.repairs == ()


def test_literal_markers_from_ordinary_ids_are_text() -> None:
    tokenizer = v4_tokenizer()
    text = "</think>" + call() + EOS + call().replace(DSML, "|DSML|") + '\n<invoke name="f">\n</invoke>'
    parser = StreamParser("v4-preview", "chat", TOOLS, tokenizer=tokenizer)
    parser.feed_ids(tokenizer.encode_text(text))
    parser.finish()
    assert parser.result.content == text
    assert parser.result.tool_calls == ()


def test_a_block_the_prompt_opened() -> None:
    inside = call("y").removeprefix(f"\n\n<{DSML}tool_calls>\n") + EOS
    by_text = StreamParser("v4-preview", "chat", TOOLS, starts_in_tool_calls=True)
    by_text.feed_text(inside)
    tokenizer = v4_tokenizer()
    by_ids = StreamParser("v4-preview", "chat", TOOLS, tokenizer=tokenizer, starts_in_tool_calls=True)
    by_ids.feed_ids(tokenizer.encode_trusted(inside))
    for parser in (by_text, by_ids):
        assert [item.arguments for item in parser.result.tool_calls] == ['{"a": "y"}']
    cut = StreamParser("v4-preview", "chat", TOOLS, starts_in_tool_calls=True)
    cut.finish("length")
    assert cut.result.truncated_call is not None


def test_namespaces_are_split_in_v41() -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": "find", "parameters": {}}, "namespace": "web"}
    ]
    parser = StreamParser("v4.1", "chat", tools)
    parser.feed_text(
        f'\n\n<{DSML} calls>\n<{DSML} invoke name="web::find">\n\n</{DSML} invoke>\n</{DSML} calls>{EOS}'
    )
    assert parser.result.tool_calls == (ParsedCall("find", "{}", "web"),)
    assert parser.result.repairs == ()
    assert parser.result.as_message()["tool_calls"][0]["namespace"] == "web"


def test_wrong_feeding_is_a_typed_error() -> None:
    with pytest.raises(CompletionParseError) as caught:
        StreamParser("v4-preview", "chat").feed_ids([1])
    assert caught.value.reason == "no_tokenizer"
    parser = StreamParser("v4-preview", "chat", tokenizer=v4_tokenizer())
    parser.feed_ids([5])
    with pytest.raises(CompletionParseError) as caught:
        parser.feed_text("a")
    assert caught.value.reason == "mixed_input"


# Time

LONG = {
    "text": "word < x <div> " * 7000,
    "newlines": "\n" * 100_000,
    "value": call("if a < b:\n    x\n" * 6500),
    "calls": block("\n".join([invoke(X)] * 1000)),
    "unclosed lookalikes": '<|DSML|invoke name="f"><|DSML|parameter name="a" string="true">' * 1600,
    "unclosed plain": '<tool_calls>\n<invoke name="f">\n<parameter name="a">x\n' * 1900,
    "openers": f"<{DSML}tool_calls> " * 5000,
    "attributes": '\n<invoke name="' * 7000,
    "brackets": "<" * 100_000,
    "indented value": call(("\n" + " " * 300) * 330),
}


@pytest.mark.parametrize("name", LONG)
def test_time_is_linear(name: str) -> None:
    text = LONG[name]

    def seconds(characters: str) -> float:
        best = 1e9
        for _ in range(2):
            parser = StreamParser("v4-preview", "chat", TOOLS)
            start = time.process_time()
            for position in range(0, len(characters), 4):
                parser.feed_text(characters[position : position + 4])
            parser.finish()
            best = min(best, time.process_time() - start)
        return best

    # Eight times the text may take eight times as long, and twice that for noise; quadratic takes sixty-four.
    assert seconds(text) < 16 * seconds(text[: len(text) // 8]) + 0.05


@settings(max_examples=150)
@given(outputs, st.integers(1, 9))
def test_chunking_of_ids_changes_nothing(text: str, size: int) -> None:
    tokenizer = v4_tokenizer()
    ids = tokenizer.encode_trusted(text)
    parsers = [StreamParser("v4-preview", "thinking", TOOLS, tokenizer=tokenizer) for _ in range(2)]
    whole = parsers[0].feed_ids(ids) + parsers[0].finish("length")
    pieces: list[Event] = []
    for start in range(0, len(ids), size):
        pieces += parsers[1].feed_ids(ids[start : start + size])
    pieces += parsers[1].finish("length")
    assert joined(pieces) == joined(whole)
    assert parsers[1].result == parsers[0].result
    check_agreement(joined(whole), parsers[0])
