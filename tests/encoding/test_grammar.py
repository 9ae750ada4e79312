"""The grammar of tool calls: what is sampled under it is a valid turn, and every honest turn is possible."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dsv4agent.encoding import StreamParser, parse_message_from_completion_text
from dsv4agent.encoding.control_tokens import ALL, BOS, DSML, EOS, THINK_CLOSE, THINK_OPEN, USER
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.encoding.grammar_errors import GrammarError
from dsv4agent.engine.constraint import Constraint
from tests.encoding.grammar_corpus import (
    FUNCTIONS,
    SCHEMAS,
    SMALL,
    TOOLS,
    RandomModel,
    accepted,
    allowed,
    block_ids,
    function,
    grammar,
    ids_of,
    revision_of,
    small_tokenizer,
    tokenizer_named,
    turn_ids,
    turns,
)


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


EDITOR = 'tool_calls>\n<|invoke name="str_replace_editor">\n<|parameter name="command" string="true">'
BASH = 'tool_calls>\n<|invoke name="bash">\n<|parameter name="'


def assert_sampled_turns_are_valid(name: str, mode: str, seeds: range) -> int:
    """Sample turns at temperature 2, half of them from inside a block on; return how many had calls."""
    tokenizer, revision = tokenizer_named(name), revision_of(name)
    rules = grammar(name, mode)
    model = RandomModel(tokenizer, seeds.start)
    with_calls = 0
    for seed in seeds:
        thought = ids_of(tokenizer, THINK_CLOSE) if mode == "thinking" else []
        ids = [*thought, *ids_of(tokenizer, "Well.\n\n<", DSML)] if seed % 2 else []
        constraint = rules.constraint(ids)
        while not constraint.finished:
            new = list(constraint.forced()) or [
                model.sample(ids[-1] if ids else 0, constraint.mask(), temperature=2.0)
            ]
            constraint.commit(new)
            ids += new
            assert len(ids) < 20_000
        message = parse_message_from_completion_text(tokenizer.decode(ids), mode, revision=revision)
        for call in message["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            schema = SCHEMAS[call["function"]["name"]]
            jsonschema.validate(arguments, schema, Draft202012Validator)
        parser = StreamParser(revision, mode, TOOLS, tokenizer=tokenizer, strict=True)
        parser.feed_ids(ids)
        parser.finish("stop")
        assert [(call.name, call.arguments) for call in parser.result.tool_calls] == [
            (call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]
        ]
        with_calls += bool(message["tool_calls"])
    return with_calls


@pytest.mark.parametrize("mode", ["thinking", "chat"])
def test_random_turns_parse_strictly_and_validate(mode: str) -> None:
    assert assert_sampled_turns_are_valid(SMALL, mode, range(0, 160)) >= 80


@pytest.mark.parametrize("name", ["v4-0731", "v4.1"])
def test_random_turns_of_the_official_vocabulary_validate(name: str) -> None:
    assert assert_sampled_turns_are_valid(name, "thinking", range(500, 508)) >= 4


@pytest.mark.parametrize("name", [SMALL, "v4-preview", "v4.1"])
@pytest.mark.parametrize("mode", ["thinking", "chat"])
def test_every_turn_that_the_encoder_writes_is_accepted_and_forced_ids_are_its_own(
    name: str, mode: str
) -> None:
    rules = grammar(name, mode)

    @examples(60 if name == SMALL else 25)
    @given(turns())
    def check(message: dict[str, Any]) -> None:
        ids = turn_ids(message, name, mode)
        constraint = rules.constraint()
        for position, token in enumerate(ids):
            forced = list(constraint.forced())
            assert forced == ids[position : position + len(forced)]
            mask = constraint.mask()
            assert mask[token], tokenizer_named(name).decode(ids[: position + 1])
            assert all(mask[certain] for certain in forced[:1])
            constraint.commit([token])
        assert constraint.finished

    check()


def test_more_than_half_of_an_official_block_is_forced() -> None:
    arguments = {"command": "view", "path": "/src/app.py", "view_range": [1, 40]}
    calls = [("str_replace_editor", arguments), ("bash", {"command": "git status", "timeout": 30})]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": name, "arguments": json.dumps(value)}}
            for name, value in calls
        ],
    }
    ids = turn_ids(message, "v4-0731", "chat")
    constraint = grammar("v4-0731", "chat").constraint()
    forced = position = 0
    while not constraint.finished:
        certain = list(constraint.forced())
        forced += len(certain)
        constraint.commit(certain or ids[position : position + 1])
        position += len(certain) or 1
    assert forced / len(ids) > 0.6


WRONG = {
    "marker typo": ("", "toolcalls>"),
    "missing wrapper": ("", 'invoke name="bash">'),
    "unknown tool": ('tool_calls>\n<|invoke name="', "zsh"),
    "undeclared parameter": (BASH, "zzz"),
    "wrong type": (f'{BASH}timeout" string="false">', '"soon"'),
    "string flag of an integer": (f'{BASH}timeout" string="', "true"),
    "JSON flag of a string": (f'{BASH}command" string="', "false"),
    "Python literal": (f'{BASH}restart" string="false">', "True"),
    "out of range": (f'{BASH}timeout" string="false">60', "1"),
    "bad enum": (EDITOR, "delete"),
    "enum with a tail": (f"{EDITOR}view", "er"),
    "missing required": (f"{EDITOR}view</|parameter>\n", "</"),
    "missing all": ('tool_calls>\n<|invoke name="bash">\n', "\n"),
    "duplicate parameter": (f'{BASH}command" string="true">ls</|parameter>\n<|parameter name="', "command"),
    "missing closer": (f'{BASH}timeout" string="false">3', "\n"),
    "text between calls": ('tool_calls>\n<|invoke name="now">\n\n</|invoke>\n', "Next"),
    "second wrapper": ('tool_calls>\n<|invoke name="now">\n\n</|invoke>\n</|tool_calls>', "\n"),
    "short array": (f'{EDITOR}view</|parameter>\n<|parameter name="view_range" string="false">[1', "]"),
}


@pytest.mark.parametrize("name", [SMALL, "v4-preview"])
@pytest.mark.parametrize("case", WRONG)
def test_an_error_is_rejected_at_its_first_wrong_token(name: str, case: str) -> None:
    good, bad = WRONG[case]
    tokenizer = tokenizer_named(name)
    constraint = grammar(name, "chat").constraint()
    start = block_ids(tokenizer, good)
    assert accepted(constraint, start) == len(start)
    wrong = tokenizer.encode_text(bad)
    rest = accepted(constraint, wrong)
    assert rest < len(wrong)
    # Ids that a right and the wrong text share may stand, for instance `tool` of `toolcalls`.
    assert not tokenizer.decode(wrong[:rest]).strip() or case in {
        "marker typo",
        "wrong type",
        "bad enum",
        "undeclared parameter",
        "unknown tool",
        "Python literal",
    }
    with pytest.raises(GrammarError) as error:
        constraint.commit([wrong[rest]])
    assert error.value.reason == "rejected_token"


def control_ids_allowed(constraint: Any, name: str) -> set[str]:
    tokenizer = tokenizer_named(name)
    mask = constraint.mask()
    return {str(tokenizer.control_text(token)) for token in tokenizer.control_ids if mask[token]}


@pytest.mark.parametrize("name", [SMALL, "v4-preview"])
def test_control_ids_stand_only_in_their_places(name: str) -> None:
    tokenizer = tokenizer_named(name)
    constraint = grammar(name).constraint()

    def after(*parts: str) -> set[str]:
        constraint.commit(ids_of(tokenizer, *parts))
        return control_ids_allowed(constraint, name)

    assert after() == {THINK_CLOSE}
    assert after("Hm\n\n<") == {THINK_CLOSE}
    assert after(THINK_CLOSE) == {EOS}
    assert after("\n<") == {EOS}
    assert after("\n\n") == {EOS}
    assert after("<") == {EOS, DSML}
    assert after("x") == {EOS}
    assert after("\n\n\n<") == {EOS, DSML}
    assert after(DSML) == set()
    assert after("tool_calls>\n<") == {DSML}
    assert after(DSML, 'invoke name="bash">\n<', DSML, 'parameter name="command" string="true">a') == set()
    assert after("</") == {DSML}
    assert after("b") == set()
    assert after("</", DSML, "parameter>\n</", DSML, "invoke>\n</", DSML, "tool_calls") == set()
    assert after(">") == {EOS}
    assert after(EOS) == set()
    assert not constraint.mask().any()


def test_spelt_control_tokens_are_text_everywhere() -> None:
    tokenizer = tokenizer_named("v4-preview")
    spelt = tokenizer.encode_text("".join(ALL) + f"\n\n<{DSML}tool_calls>")
    start = ids_of(tokenizer, THINK_CLOSE, "\n\n<", DSML, "tool_calls>\n<", DSML, 'invoke name="bash">\n<')
    start += ids_of(tokenizer, DSML, 'parameter name="command" string="true">')
    for before in ([], ids_of(tokenizer, THINK_CLOSE), start):
        constraint = grammar("v4-preview").constraint(before)
        assert accepted(constraint, spelt) == len(spelt)


def test_without_tools_there_is_no_block() -> None:
    tokenizer = small_tokenizer()
    constraint = ToolCallGrammar([], tokenizer, "v4-preview", "chat").constraint()
    constraint.commit(tokenizer.encode_text("\n\n<"))
    assert control_ids_allowed(constraint, SMALL) == {EOS}
    assert not allowed(constraint, tokenizer.control_id(DSML))
    with pytest.raises(GrammarError, match="DSML"):
        constraint.commit([tokenizer.control_id(DSML)])


@examples(40)
@given(turns(), st.sampled_from(["thinking", "chat"]), st.data())
def test_rollback_and_fork_are_exact(message: dict[str, Any], mode: str, data: st.DataObject) -> None:
    ids = turn_ids(message, SMALL, mode)
    rules = grammar(SMALL, mode)
    masks: list[torch.Tensor] = []
    certain: list[list[int]] = []
    constraint = rules.constraint()
    for token in [*ids, None]:
        masks.append(constraint.mask())
        certain.append(list(constraint.forced()))
        if token is not None:
            constraint.commit([token])
    place = len(ids)
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            other, constraint = constraint, constraint.fork()
            other.rollback(data.draw(st.integers(0, place)))  # must not show in the copy
        target = data.draw(st.integers(0, len(ids)))
        if target < place:
            constraint.rollback(place - target)
        else:
            constraint.commit(ids[place:target])
        place = target
        assert torch.equal(constraint.mask(), masks[place])
        assert list(constraint.forced()) == certain[place]


def test_a_rejected_commit_changes_nothing() -> None:
    tokenizer = small_tokenizer()
    constraint = grammar(SMALL, "chat").constraint(block_ids(tokenizer, 'tool_calls>\n<|invoke name="'))
    before = constraint.mask()
    with pytest.raises(GrammarError):
        constraint.commit([*tokenizer.encode_text('bash">\n<'), tokenizer.eos_id])
    assert torch.equal(constraint.mask(), before)
    for token in (-1, tokenizer.vocab_size, tokenizer.control_id(BOS), tokenizer.control_id(THINK_OPEN)):
        with pytest.raises(GrammarError):
            constraint.commit([token])
    with pytest.raises(GrammarError) as error:
        constraint.rollback(10_000)
    assert error.value.reason == "rollback_too_far"
    assert torch.equal(constraint.mask(), before)


def test_nothing_follows_the_end_of_a_turn() -> None:
    tokenizer = small_tokenizer()
    constraint = grammar(SMALL, "chat").constraint(ids_of(tokenizer, "Done.", EOS))
    assert constraint.finished and not constraint.in_block
    assert list(constraint.forced()) == []
    for token in (tokenizer.eos_id, tokenizer.control_id(USER), tokenizer.encode_text("x")[0]):
        with pytest.raises(GrammarError):
            constraint.commit([token])
    constraint.rollback(1)
    assert not constraint.finished


def test_a_turn_can_be_taken_up_where_it_was_left() -> None:
    tokenizer = small_tokenizer()
    written = ids_of(
        tokenizer, "Hm", THINK_CLOSE, "Look:\n\n<", DSML, "tool_calls>\n<", DSML, 'invoke name="now'
    )
    constraint = grammar().constraint(written)
    assert constraint.in_block
    constraint.commit(ids_of(tokenizer, '">\n\n</', DSML, "invoke>\n</", DSML, "tool_calls>", EOS))
    with pytest.raises(GrammarError):
        grammar().constraint(ids_of(tokenizer, "Hm", EOS))


def test_masks_have_the_length_of_the_logits() -> None:
    tokenizer = small_tokenizer()
    size = tokenizer.vocab_size + 37
    rules = ToolCallGrammar(FUNCTIONS, tokenizer, "v4-preview", "chat", vocab_size=size)
    constraint: Constraint = rules.constraint()
    for token in block_ids(tokenizer, "tool_calls>\n<"):
        mask = constraint.mask(torch.zeros(size))
        assert isinstance(mask, torch.Tensor)
        assert mask.dtype == torch.bool and mask.shape == (size,) and not mask[tokenizer.vocab_size :].any()
        constraint.commit([token])


def test_any_order_of_many_optional_parameters() -> None:
    tokenizer = small_tokenizer()
    names = [f"p{number}" for number in range(30)]
    rules = ToolCallGrammar(
        [function("many", {name: {"type": "boolean"} for name in names}, "p7")],
        tokenizer,
        "v4-preview",
        "chat",
    )
    lines = [f'parameter name="{name}" string="false">true</|parameter>\n' for name in reversed(names)]
    head = 'tool_calls>\n<|invoke name="many">\n<|'
    whole = block_ids(tokenizer, head + "<|".join(lines) + "</|invoke>\n</|tool_calls>")
    assert accepted(rules.constraint(), whole) == len(whole)
    early = block_ids(tokenizer, head + "<|".join(lines[:3]) + "</")
    assert accepted(rules.constraint(), early) < len(early)


def test_schema_order_above_63_parameters() -> None:
    tokenizer = small_tokenizer()
    names = [f"p{number}" for number in range(80)]
    rules = ToolCallGrammar(
        [function("many", {name: {"type": "null"} for name in names}, "p40")], tokenizer, "v4-preview", "chat"
    )

    def takes(*chosen: str) -> bool:
        lines = [f'parameter name="{name}" string="false">null</|parameter>\n' for name in chosen]
        text = 'tool_calls>\n<|invoke name="many">\n<|' + "<|".join(lines) + "</|invoke>\n</|tool_calls>"
        constraint = rules.constraint()
        ids = [*block_ids(tokenizer, text), tokenizer.eos_id]
        return accepted(constraint, ids) == len(ids)

    assert takes("p40") and takes("p3", "p40", "p41", "p79") and takes(*names)
    assert not takes("p41") and not takes("p40", "p3") and not takes("p40", "p40") and not takes("p3")


def test_a_tool_that_takes_a_map_takes_any_names() -> None:
    tokenizer = small_tokenizer()
    tool = {
        "name": "set",
        "parameters": {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    }
    text = (
        'tool_calls>\n<|invoke name="set">\n<|parameter name="a.b" string="false">3</|parameter>\n'
        '<|parameter name="clé" string="true">x</|parameter>\n</|invoke>\n</|tool_calls>'
    )
    whole = block_ids(tokenizer, text)
    constraint = ToolCallGrammar([tool], tokenizer, "v4-preview", "chat").constraint()
    assert accepted(constraint, whole) == len(whole)


UNUSABLE: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"parameters": {}}], "invalid_tool", "no name"),
    ([{"name": "f", "parameters": "x"}], "invalid_tool", "'f'"),
    ([{"name": "f", "parameters": {"properties": {"\ud800": {}}}}], "invalid_tool", "'f'"),
    ([{"name": "f"}, {"name": "f"}], "duplicate_tool", "'f'"),
]


@pytest.mark.parametrize(("functions", "reason", "named"), UNUSABLE)
def test_a_tool_that_cannot_be_used_is_named(
    functions: list[dict[str, Any]], reason: str, named: str
) -> None:
    with pytest.raises(GrammarError, match=named) as error:
        ToolCallGrammar(functions, small_tokenizer())
    assert error.value.reason == reason


def test_names_may_hold_anything() -> None:
    tokenizer = small_tokenizer()
    names = ['a"b', "ns::x", "back\\slash", "ü/{}%"]
    functions = [function(name, {f"{name}-é": {"type": "string", "enum": [name, ""]}}) for name in names]
    rules = ToolCallGrammar(functions, tokenizer, "v4-preview", "chat")
    for name in names:
        for value in (name, ""):
            head = f'tool_calls>\n<|invoke name="{name}">\n<|parameter name="{name}-é" string="true">'
            ids = block_ids(tokenizer, f"{head}{value}</|parameter>\n</|invoke>\n</|tool_calls>")
            assert accepted(rules.constraint(), ids) == len(ids)
