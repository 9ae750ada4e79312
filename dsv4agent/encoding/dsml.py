"""DSML, the markup of tool calls, as the encoder writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from dsv4agent.encoding.control_tokens import DSML
from dsv4agent.encoding.errors import EncodingError
from dsv4agent.encoding.namespaces import NamespaceConflict, qualified_name
from dsv4agent.encoding.revision import Revision, dsml_tags
from dsv4agent.encoding.segments import Segment, SegmentKind, content, control


@dataclass(frozen=True)
class Parameter:
    """One written parameter: `text` stands as it is, as a string or as JSON."""

    name: str
    is_string: bool
    text: str


@dataclass(frozen=True)
class WrittenCall:
    """One written invoke."""

    name: str
    parameters: tuple[Parameter, ...]


def call_block(
    calls: Sequence[WrittenCall], revision: Revision, provenance: str = "model", *, pad_empty: bool = True
) -> Iterator[Segment]:
    """Yield the segments of a whole block, with the two newlines before it and none after.

    Names, keys and values are foreign text and stand without any escaping, as the official encoder writes
    them.

    Args:
        calls: What to write.
        revision: Whose tag names to use.
        provenance: Label of names, keys and values.
        pad_empty: Whether an invoke without parameters holds a blank line, as the official encoder writes it.
    """
    tags = dsml_tags(revision)
    yield from _tag("\n\n<", f"{tags.block}>")
    for call in calls:
        yield from _tag("\n<", f'{tags.invoke} name="')
        yield content(call.name, provenance)
        yield _fixed('">\n')
        for number, parameter in enumerate(call.parameters):
            yield from _tag("\n<" if number else "<", f'{tags.parameter} name="')
            yield content(parameter.name, provenance)
            yield _fixed(f'" string="{"true" if parameter.is_string else "false"}">')
            yield content(parameter.text, provenance)
            yield from _tag("</", f"{tags.parameter}>")
        yield from _tag("\n</" if call.parameters or pad_empty else "</", f"{tags.invoke}>")
    yield from _tag("\n</", f"{tags.block}>")


def _fixed(text: str) -> Segment:
    return Segment(text, SegmentKind.TEMPLATE, "model")


def _tag(before: str, after: str) -> Iterator[Segment]:
    yield _fixed(before)
    yield control(DSML)
    yield _fixed(after)


def written_calls(tool_calls: Sequence[object], revision: Revision) -> list[WrittenCall]:
    """Return how calls in the OpenAI shape are written.

    Raises:
        EncodingError: `invalid_tool_call` or `invalid_namespace`.
    """
    return [_written_call(call, revision) for call in tool_calls]


def _written_call(call: object, revision: Revision) -> WrittenCall:
    function = cast("Mapping[str, Any]", call).get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise EncodingError(
            f"Tool call {call!r} has no function with a name; pass the OpenAI shape.",
            reason="invalid_tool_call",
        )
    typed = cast("Mapping[str, Any]", function)
    name = str(typed["name"])
    if revision is Revision.V4_1:
        try:
            name = qualified_name(
                name, cast("Mapping[str, Any]", call).get("namespace"), typed.get("namespace")
            )
        except NamespaceConflict as error:
            raise EncodingError(str(error), reason="invalid_namespace") from error
    return WrittenCall(name, tuple(written_parameters(typed.get("arguments", "{}"), revision)))


def written_parameters(arguments: object, revision: Revision) -> list[Parameter]:
    """Return the parameters that stand for a call's arguments.

    Arguments that are no JSON object become one parameter named `arguments`. V4 wraps an object that comes as
    an object, as the official encoder does; a JSON string that holds an object is opened in every revision
    (the official V4 encoder crashes there).
    """
    decoded = _decoded(arguments, revision)
    return parameters_of(decoded if decoded is not None else {"arguments": arguments})


def parameters_of(fields: Mapping[str, object]) -> list[Parameter]:
    """Return the parameters that write an object's fields: strings as they are, anything else as JSON."""
    return [
        Parameter(str(key), True, value)
        if isinstance(value, str)
        else Parameter(str(key), False, to_json(value))
        for key, value in fields.items()
    ]


def _decoded(arguments: object, revision: Revision) -> Mapping[str, Any] | None:
    value = arguments
    if not isinstance(value, str):
        allowed = revision is Revision.V4_1 and isinstance(value, Mapping)
        return cast("Mapping[str, Any]", value) if allowed else None
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = cast("object", json.loads(value))
        except (ValueError, RecursionError):
            return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def to_json(value: object) -> str:
    """Return JSON text in the protocol's style: spaces after separators, key order and non-ASCII text kept.

    Raises:
        EncodingError: `not_json`.
    """
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodingError(
            f"{type(value).__name__} value cannot be written as JSON: {error}", reason="not_json"
        ) from error
