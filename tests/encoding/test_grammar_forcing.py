"""Forced ids: certain, and the tokenizer's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsv4agent.encoding import Tokenizer
from dsv4agent.encoding.control_tokens import DSML
from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.encoding.grammar_vocabulary import vocabulary
from tests.encoding.grammar_corpus import (
    SMALL,
    accepted,
    block_ids,
    function,
    grammar,
    small_tokenizer,
    texts,
    tokenizer_named,
)

HEADS = [
    'parameter name="command" string="true">',
    ' parameter name="view_range" string="false">',
    'parameter name="x_1" string="true">',
    'parameter name="',
    "tool_calls>\n",
]


@pytest.mark.parametrize("name", [SMALL, "v4-preview"])
@pytest.mark.parametrize("head", HEADS)
def test_stable_ids_begin_every_longer_text(name: str, head: str) -> None:
    tokenizer = tokenizer_named(name)
    stable = vocabulary(tokenizer).stable_ids(head)
    assert stable
    assert stable == tokenizer.encode_text(head)[: len(stable)]

    @settings(max_examples=150, deadline=None)
    @given(st.one_of(texts, st.text(st.characters(codec="ascii"), max_size=8)))
    def check(rest: str) -> None:
        assert tokenizer.encode_text(head + rest)[: len(stable)] == stable

    check()


def forced_text(tokenizer: Tokenizer, rules: ToolCallGrammar, text: str) -> str:
    """Return what is forced behind the beginning of a block, markers written as `|`."""
    constraint = rules.constraint()
    ids = block_ids(tokenizer, text)
    assert accepted(constraint, ids) == len(ids)
    return tokenizer.decode(constraint.forced()).replace(DSML, "|")


@pytest.mark.parametrize("name", [SMALL, "v4-preview"])
def test_forced_text(name: str) -> None:
    tokenizer = tokenizer_named(name)
    rules = grammar(name, "chat")
    head = 'tool_calls>\n<|invoke name="'
    end = "<｜end▁of▁sentence｜>"
    assert forced_text(tokenizer, rules, "").startswith(head)
    assert forced_text(tokenizer, rules, f"{head}now") == '">\n\n</|invoke>\n'
    assert forced_text(tokenizer, rules, f'{head}now">\n\n</|invoke>\n</') == f"|tool_calls>{end}"
    editor = f'{head}str_replace_editor">\n<|parameter name="'
    assert (
        forced_text(tokenizer, rules, f'{editor}command" string="true">view')
        == '</|parameter>\n<|parameter name="'
    )
    # The same parameter of another tool is free text, of which nothing is certain.
    assert forced_text(tokenizer, rules, f'{head}bash">\n<|parameter name="command" string="true">view') == ""


def test_a_split_of_its_own_ends_forcing_until_the_next_marker() -> None:
    tokenizer = small_tokenizer()
    rules = ToolCallGrammar([function("only", {})], tokenizer, "v4-preview", "chat")
    letters = [tokenizer.encode_text(letter)[0] for letter in "tool_calls>\n<"]
    start = block_ids(tokenizer, "")
    assert list(rules.constraint(start).forced())
    assert list(rules.constraint([*start, *letters[:3]]).forced()) == []
    again = rules.constraint([*start, *letters, tokenizer.control_id(DSML)]).forced()
    assert tokenizer.decode(again).startswith('invoke name="only">\n\n</')


def test_a_block_of_one_tool_without_parameters_is_forced_to_its_end_but_for_another_call() -> None:
    tokenizer = tokenizer_named("v4-preview")
    rules = ToolCallGrammar([function("only", {})], tokenizer, "v4-preview", "chat")
    forced = forced_text(tokenizer, rules, "")
    assert forced == 'tool_calls>\n<|invoke name="only">\n\n</|invoke>\n'
