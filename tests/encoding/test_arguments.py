"""Written parameters to JSON, guided by schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4agent.encoding.arguments import (
    DeclaredTool,
    InvalidArguments,
    WrittenParameter,
    build_arguments,
    declared_tools,
    json_object,
)


def value_of(schema: Any, is_string: bool | None, text: str) -> Any:
    tool = DeclaredTool(
        "f",
        {
            "properties": {"p": schema},
            "$defs": {"name": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}},
        },
    )
    arguments, _ = build_arguments(tool, [WrittenParameter("p", is_string, text)], "")
    return json.loads(arguments)["p"]


@pytest.mark.parametrize(
    ("schema", "is_string", "text", "expected"),
    [
        ({"type": "string"}, True, "7", "7"),
        ({"type": "integer"}, True, "7", 7),
        ({"type": "integer"}, True, "7.5", "7.5"),
        ({"type": "integer"}, True, "7.0", 7.0),
        ({"type": "number"}, True, "7", 7),
        ({"type": "boolean"}, True, "true", True),
        ({"type": "boolean"}, True, "1", "1"),
        ({"type": ["string", "null"]}, True, "null", "null"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, True, "null", None),
        ({"anyOf": [{"type": "integer"}, {}]}, True, "1", "1"),
        ({"enum": [1, 2]}, True, "1", 1),
        ({"enum": ["a", 2]}, True, "2", "2"),
        ({"const": True}, True, "true", True),
        ({"$ref": "#/$defs/name"}, False, "5", "5"),
        ({"$ref": "#/$defs/loop"}, True, "5", "5"),
        ({"$ref": "#/nowhere/name"}, True, "5", "5"),
        ({"allOf": [{"type": ["string", "integer"]}, {"type": "integer"}]}, True, "5", 5),
        ({}, True, "5", "5"),
        ({}, None, "5", 5),
        ({"type": "string"}, None, "5", "5"),
        ({}, None, "x y", "x y"),
        ({}, False, " [1, 2] ", [1, 2]),
        ({"type": "string"}, False, '"quoted"', "quoted"),
        ({"type": "string"}, False, "5", "5"),
        ({"type": "boolean"}, False, "True", True),
        ({"type": "string"}, False, "True", "True"),
        ({"type": "object"}, False, "{'a': (1, None)}", {"a": [1, None]}),
        ({}, False, "hello", "hello"),
        ({}, False, "'\\d'", "\\d"),
        ({}, False, "[" * 5000, "[" * 5000),
    ],
)
def test_values(schema: Any, is_string: bool | None, text: str, expected: Any) -> None:
    got = value_of(schema, is_string, text)
    assert got == expected
    assert type(got) is type(expected)


def test_a_value_of_no_allowed_type_is_invalid() -> None:
    with pytest.raises(InvalidArguments) as caught:
        value_of({"type": "integer"}, False, "three")
    assert caught.value.reason == "invalid_value"


def test_wrappers_open_only_when_all_keys_are_the_tool_s() -> None:
    tool = DeclaredTool("f", {"properties": {"path": {"type": "string"}}})
    for name in ("arguments", "input", "params"):
        written = WrittenParameter(name, True, '{"path": "/"}')
        assert json.loads(build_arguments(tool, [written], "")[0]) == {"path": "/"}
    other = WrittenParameter("arguments", False, '{"other": 1}')
    assert json.loads(build_arguments(tool, [other], "")[0]) == {"arguments": {"other": 1}}
    owner = DeclaredTool("f", {"properties": {"arguments": {}, "path": {}}})
    same = WrittenParameter("arguments", False, '{"path": "/"}')
    assert json.loads(build_arguments(owner, [same], "")[0]) == {"arguments": {"path": "/"}}


def test_clean_json_keeps_its_text() -> None:
    text = '{"b":1,  "a":[1E5, 12345678901234567890123]}'
    arguments, repairs = build_arguments(DeclaredTool("f"), [WrittenParameter("o", False, text)], "")
    assert arguments == '{"o": ' + text + "}"
    assert repairs == []


def test_json_object_is_strict() -> None:
    assert json_object('{"a": NaN}') is None
    assert json_object("[1]") is None
    assert json_object('{"a": ' * 100_000) is None
    assert json_object('{"a": 1}') == {"a": 1}


@given(st.lists(st.tuples(st.text(), st.sampled_from([True, False, None]), st.text()), max_size=4), st.text())
def test_arguments_are_always_valid_json(parameters: list[tuple[str, bool | None, str]], body: str) -> None:
    written = [WrittenParameter(*item) for item in parameters]
    try:
        arguments, _ = build_arguments(
            DeclaredTool("f", {"properties": {"a": {"type": "integer"}}}), written, body
        )
    except InvalidArguments:
        return
    assert isinstance(json.loads(arguments), dict)


def test_declared_tools_go_by_the_name_a_model_writes() -> None:
    tools: list[dict[str, Any]] = [
        {"function": {"name": "a", "parameters": {"properties": {"x": {}}}}},
        {"function": {"name": "b"}, "namespace": "web"},
        {"function": {"name": "x::y::z"}},
        {"nothing": 1},
    ]
    table = declared_tools(tools)
    assert list(table) == ["a", "web::b", "x::y::z"]
    assert list(table["a"].properties) == ["x"]
    assert table["web::b"].properties == {}
