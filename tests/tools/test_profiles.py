import json
import re

from jsonschema import Draft202012Validator

from dsv4agent.tools import minimal_profile


def test_minimal_profile_is_the_shell_and_the_editor_in_this_order() -> None:
    assert [tool.name for tool in minimal_profile()] == ["bash", "str_replace_editor"]


def test_each_call_makes_new_tools() -> None:
    first, second = minimal_profile(), minimal_profile()
    assert all(a is not b for a, b in zip(first, second, strict=True))


def test_schemas_are_valid_closed_objects_with_short_descriptions() -> None:
    for tool in minimal_profile():
        Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["additionalProperties"] is False
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", tool.name)
        for text in (tool.description, *(p["description"] for p in tool.parameters["properties"].values())):
            assert text.endswith(".") and len(text) <= 110


def test_texts_are_frozen_because_they_are_prefix_tokens() -> None:
    bash, editor = minimal_profile()
    assert bash.description == (
        "Run a command in a persistent bash shell; the working directory and exports last between calls."
    )
    assert json.dumps(bash.parameters) == (
        '{"type": "object", "additionalProperties": false, "required": ["command"], '
        '"properties": {"command": {"type": "string", '
        '"description": "Command to run, written raw, without XML escaping."}}}'
    )
    assert editor.description == "View, create and edit text files."
    assert json.dumps(editor.parameters) == (
        '{"type": "object", "additionalProperties": false, "required": ["command", "path"], '
        '"properties": {"command": {"type": "string", '
        '"enum": ["view", "create", "str_replace", "insert"], "description": "What to do."}, '
        '"path": {"type": "string", '
        '"description": "Path of the file, absolute or relative to the workspace."}, '
        '"file_text": {"type": "string", "description": "Whole new text, for create."}, '
        '"old_str": {"type": "string", '
        '"description": "Text to replace, which must occur exactly once, for str_replace."}, '
        '"new_str": {"type": "string", "description": "New text, for str_replace and insert."}, '
        '"insert_line": {"type": "integer", "minimum": 0, '
        '"description": "Line after which to insert, 0 for the start."}, '
        '"view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2, '
        '"description": "First and last line to view, -1 for the end."}}}'
    )
