"""Schemas of single parameters: what may be written, and what may not."""

from __future__ import annotations

from typing import Any

import pytest

from dsv4agent.encoding.grammar import ToolCallGrammar
from dsv4agent.encoding.grammar_errors import GrammarError
from dsv4agent.encoding.grammar_layout import block_grammar, tool_shape
from dsv4agent.encoding.grammar_values import ANY_TEXT, value_forms
from dsv4agent.encoding.grammar_vocabulary import vocabulary
from dsv4agent.encoding.revision import Revision, dsml_tags
from tests.encoding.grammar_corpus import accepted, block_ids, function, small_tokenizer

ROOT: dict[str, Any] = {
    "$defs": {
        "Colour": {"enum": ["red", "green"], "type": "string"},
        "Tree": {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/Tree"}},
            "additionalProperties": False,
        },
        "a/b": {"type": "integer"},
        "Loop": {"$ref": "#/$defs/Loop"},
    }
}
TEXT, JSON = "true", "false"

CASES: list[tuple[str, object, list[tuple[str, str]], list[tuple[str, str]]]] = [
    ("anything", True, [(TEXT, "x"), (JSON, "1"), (JSON, '{"a": [null]}')], [(JSON, '"x"'), (JSON, "x")]),
    ("unknown type", {"type": "file"}, [(TEXT, "x"), (JSON, "[1, 2]")], [(JSON, "[1,2]")]),
    ("string", {"type": "string"}, [(TEXT, ""), (TEXT, "</p>\n</"), (TEXT, "1")], [(JSON, '"x"')]),
    (
        "lengths",
        {"type": "string", "minLength": 2, "maxLength": 3},
        [(TEXT, "éé")],
        [(TEXT, "a"), (TEXT, "abcd")],
    ),
    ("long lengths", {"type": "string", "maxLength": 10**9}, [(TEXT, "x" * 50)], [(JSON, "null")]),
    ("pattern", {"type": "string", "pattern": "[0-9]/"}, [(TEXT, "a1/b")], [(TEXT, "a1b")]),
    ("anchored", {"type": "string", "pattern": "^a+$"}, [(TEXT, "aa")], [(TEXT, "ab"), (TEXT, "")]),
    ("anchor and choice", {"type": "string", "pattern": "^a|b$"}, [(TEXT, "zzb"), (TEXT, "zz")], []),
    ("look-around", {"type": "string", "pattern": "(?=x)y"}, [(TEXT, "z")], [(JSON, "1")]),
    ("broken pattern", {"type": "string", "pattern": "["}, [(TEXT, "z")], []),
    ("format", {"type": "string", "format": "date"}, [(TEXT, "tomorrow")], []),
    (
        "enum",
        {"enum": ["a", "", 2, None]},
        [(TEXT, "a"), (TEXT, ""), (JSON, "2"), (JSON, "null")],
        [(TEXT, "2")],
    ),
    ("enum of a type", {"enum": ["a", 2], "type": "string"}, [(TEXT, "a")], [(JSON, "2")]),
    ("const", {"const": {"k": 1}}, [(JSON, '{"k": 1}')], [(JSON, '{"k": 2}'), (TEXT, "a")]),
    ("boolean", {"type": "boolean"}, [(JSON, "true"), (JSON, "false")], [(JSON, "True"), (JSON, "null")]),
    ("nullable", {"type": ["string", "null"]}, [(TEXT, "null"), (JSON, "null")], [(JSON, "1")]),
    (
        "optional",
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        [(JSON, "-7"), (JSON, "null")],
        [(TEXT, "x")],
    ),
    (
        "union",
        {"oneOf": [{"$ref": "#/$defs/Colour"}, {"type": "array", "items": {"type": "integer"}}]},
        [(TEXT, "red"), (JSON, "[1, 2]")],
        [(TEXT, "blue"), (JSON, '"red"'), (JSON, '["red"]')],
    ),
    (
        "union with free text",
        {"anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "string"}]},
        [(TEXT, "blue")],
        [],
    ),
    ("reference", {"$ref": "#/$defs/Colour"}, [(TEXT, "green")], [(TEXT, "blue"), (JSON, "1")]),
    ("escaped reference", {"$ref": "#/$defs/a~1b"}, [(JSON, "3")], [(JSON, "true")]),
    ("recursive", {"$ref": "#/$defs/Tree"}, [(JSON, '{"x": {"x": {}}}')], [(JSON, '{"x": 1}')]),
    ("circular", {"$ref": "#/$defs/Loop"}, [(TEXT, "x")], []),
    ("remote", {"$ref": "https://example.org/s", "type": "integer"}, [(JSON, "3")], [(TEXT, "3")]),
    ("all of", {"allOf": [{"$ref": "#/$defs/Colour"}], "default": "red"}, [(TEXT, "red")], [(TEXT, "blue")]),
    (
        "range",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5},
        [(JSON, "1.5")],
        [(JSON, "0"), (JSON, "2")],
    ),
    (
        "empty range",
        {"type": "integer", "minimum": 2, "maximum": 1},
        [(JSON, "3")],
        [(TEXT, "3"), (JSON, "[]")],
    ),
    ("unsupported keyword", {"type": "integer", "not": {"const": 3}}, [(JSON, "4")], [(JSON, "null")]),
    ("refused", False, [(TEXT, "x"), (JSON, "1")], []),
    (
        "nested",
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]},
        [(JSON, '{"a": "\\n\\u0001é"}'), (JSON, '{"a": "", "b": 1e-07}')],
        [(JSON, "{}"), (JSON, '{"a": 1}'), (JSON, '{"a":"x"}'), (JSON, '{ "a": "x"}')],
    ),
]


@pytest.mark.parametrize(
    ("schema", "good", "bad"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_values(schema: object, good: list[tuple[str, str]], bad: list[tuple[str, str]]) -> None:
    tokenizer = small_tokenizer()
    rules = ToolCallGrammar([function("f", {"v": schema}, "v", **ROOT)], tokenizer, "v4-preview", "chat")
    for options, expected in ((good, True), (bad, False)):
        for is_string, text in options:
            ids = block_ids(
                tokenizer,
                f'tool_calls>\n<|invoke name="f">\n<|parameter name="v" string="{is_string}">{text}</|'
                "parameter>\n</|invoke>\n</|tool_calls>",
            )
            assert (accepted(rules.constraint(), ids) == len(ids)) is expected, (is_string, text)


def test_a_raw_string_has_no_second_form() -> None:
    forms = value_forms("v", {"properties": {"v": {"type": "string"}}})
    assert forms.texts == (ANY_TEXT,) and not forms.strings and not forms.literals and forms.document is None


def test_parameters_of_composed_schemas_are_found() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"own": {"type": "integer"}, "never": False},
        "allOf": [{"properties": {"base": {"type": "string"}}, "required": ["base"]}],
        "anyOf": [{"properties": {"left": {}}, "required": ["left"]}, {"properties": {"right": {}}}],
        "required": ["own", "undeclared"],
    }
    shape = tool_shape({"name": "f", "parameters": schema}, Revision.V4_PREVIEW)
    assert {item.name: item.required for item in shape.parameters} == {
        "own": True,
        "undeclared": True,
        "base": True,
        "left": False,
        "right": False,
    }


def test_namespaces_belong_to_v4_1() -> None:
    declared = {"name": "f", "namespace": "ns"}
    assert tool_shape(declared, Revision.V4_1).name == "ns::f"
    assert tool_shape(declared, Revision.V4_0731).name == "f"


def test_a_schema_too_large_to_compile_keeps_types_and_listed_values() -> None:
    properties: dict[str, Any] = {
        "n": {"type": "integer", "maximum": 3},
        "o": {"type": ["object", "string"], "properties": {"a": {"type": "integer"}}, "maxLength": 3},
        "e": {"enum": ["x", "y"]},
    }
    tool = tool_shape(function("f", properties, "n"), Revision.V4_PREVIEW)
    relaxed = tool.relaxed()
    assert [(item.name, item.required) for item in relaxed.parameters] == [
        (item.name, item.required) for item in tool.parameters
    ]
    tokenizer = small_tokenizer()
    words = vocabulary(tokenizer)
    matcher = words.matcher(block_grammar([relaxed], dsml_tags(Revision.V4_PREVIEW), words.marker_id))
    assert not matcher.is_error()
    for value, expected in (("7", True), ('"7"', False)):
        text = f'tool_calls>\n<|invoke name="f">\n<|parameter name="n" string="false">{value}</|'
        ids = block_ids(tokenizer, text)[len(block_ids(tokenizer, "")) :]
        assert (matcher.validate_tokens(ids) == len(ids)) is expected


def test_a_value_that_outgrows_the_engine_says_so() -> None:
    names = {f"p{'x' * 3000}{number}": {"type": "null"} for number in range(300)}
    tool = function("f", {"v": {"type": "object", "properties": names, "additionalProperties": False}})
    rules = ToolCallGrammar([tool], small_tokenizer(), "v4-preview", "chat")
    text = 'tool_calls>\n<|invoke name="f">\n<|parameter name="v" string="false">{"p'
    constraint = rules.constraint()
    with pytest.raises(GrammarError, match="simplify its schema") as error:
        accepted(constraint, block_ids(small_tokenizer(), text))
    assert error.value.reason == "grammar_exhausted"
