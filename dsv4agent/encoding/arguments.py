"""From written parameters to valid JSON, guided by the schema (rules R11 to R14, R21, R22, R27)."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from dsv4agent.encoding.namespaces import NamespaceConflict, qualified_name

_WRAPPER_NAMES: Final = frozenset({"arguments", "input", "params"})
_ONLY_STRING: Final = frozenset({"string"})
_CDATA_OPEN: Final = "<![CDATA["
_CDATA_CLOSE: Final = "]]>"
_MISSING: Final = object()


class InvalidArguments(ValueError):
    """Raised when written parameters do not make arguments; `reason` is a code of `Malformed`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class WrittenParameter:
    """A parameter as it stands in the text: `is_string` is None where the flag is missing or unreadable."""

    name: str
    is_string: bool | None
    text: str


@dataclass(frozen=True)
class DeclaredTool:
    """A tool's name and the schemas of its parameters."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def properties(self) -> Mapping[str, Any]:
        """Schemas by parameter name."""
        found = self.schema.get("properties")
        return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}

    def types(self, parameter: str) -> frozenset[str] | None:
        """Return the JSON types a parameter may have; None if the schema does not say."""
        return _types(self.properties.get(parameter), self.schema, 0)


def declared_tools(tools: Iterable[Mapping[str, Any]]) -> dict[str, DeclaredTool]:
    """Return tools by the name a model writes, from a list in the OpenAI shape."""
    table: dict[str, DeclaredTool] = {}
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, Mapping):
            continue
        typed = cast("Mapping[str, Any]", function)
        name = str(typed.get("name", ""))
        schema = typed.get("parameters")
        try:
            name = qualified_name(name, tool.get("namespace"), typed.get("namespace"))
        except NamespaceConflict:
            pass  # V4 knows no namespaces: such a name is only a name
        table[name] = DeclaredTool(
            name, cast("Mapping[str, Any]", schema) if isinstance(schema, Mapping) else {}
        )
    return table


def build_arguments(
    tool: DeclaredTool, parameters: Sequence[WrittenParameter], body: str
) -> tuple[str, list[str]]:
    """Return the arguments as JSON text and the recovery rules that were needed.

    Args:
        tool: The declared tool.
        parameters: In the order written.
        body: Text of the invoke outside of parameters.

    Raises:
        InvalidArguments: `unexpected_text`, `duplicate_parameter` or `invalid_value`.
    """
    repairs: list[str] = []
    if body.strip():
        return _from_body(body, parameters)
    fields: dict[str, str] = {}
    for parameter in parameters:
        text = _value(tool, parameter, repairs)
        if parameter.name in fields:
            if _canonical(fields[parameter.name]) != _canonical(text):
                raise InvalidArguments("duplicate_parameter")
            repairs.append("R14")
            continue
        fields[parameter.name] = text
    if len(fields) == 1:
        ((name, text),) = fields.items()
        if name in _WRAPPER_NAMES and name not in tool.properties and (inner := _object(text)) is not None:
            if all(key in tool.properties for key in inner):
                repairs.append("R21")
                return json.dumps(inner, ensure_ascii=False), repairs
    joined = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {text}" for name, text in fields.items())
    return "{" + joined + "}", repairs


def json_object(text: str) -> dict[str, Any] | None:
    """Return the object that `text` holds as strict JSON, or None."""
    value = _decode(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _from_body(body: str, parameters: Sequence[WrittenParameter]) -> tuple[str, list[str]]:
    text = _without_cdata(body.strip())
    if parameters or json_object(text) is None:
        raise InvalidArguments("unexpected_text")
    return text, ["R22"]


def _value(tool: DeclaredTool, parameter: WrittenParameter, repairs: list[str]) -> str:
    text = _without_cdata(parameter.text)
    if text is not parameter.text:
        repairs.append("R27")
    types = tool.types(parameter.name)
    quoted = json.dumps(text, ensure_ascii=False)
    if parameter.is_string is True:
        if types is not None and "string" not in types:
            value = _decode(text)
            if value is not _MISSING and _type_names(value) & types:
                repairs.append("R13")
                return text.strip()
        return quoted
    if parameter.is_string is None:
        repairs.append("R11")
        if types == _ONLY_STRING or _decode(text) is _MISSING:
            return quoted
        return text.strip()
    return _unquoted_value(text, quoted, types, repairs)


def _unquoted_value(text: str, quoted: str, types: frozenset[str] | None, repairs: list[str]) -> str:
    value = _decode(text)
    if value is not _MISSING:
        if types == _ONLY_STRING and not isinstance(value, str):
            repairs.append("R12")
            return quoted
        return text.strip()
    repairs.append("R12")
    literal = _python_literal(text)
    if literal is not None and (types is None or _type_names(_decode(literal)) & types):
        return literal
    if types is None or "string" in types:
        return quoted
    if literal is not None:
        return literal
    raise InvalidArguments("invalid_value")


def _without_cdata(text: str) -> str:
    whole = text.startswith(_CDATA_OPEN) and text.endswith(_CDATA_CLOSE)
    if whole and text.find(_CDATA_CLOSE) == len(text) - len(_CDATA_CLOSE):
        return text[len(_CDATA_OPEN) : -len(_CDATA_CLOSE)]
    return text


def _decode(text: str) -> object:
    try:
        return cast("object", json.loads(text, parse_constant=_reject_constant))
    except (ValueError, RecursionError):
        return _MISSING


def _canonical(text: str) -> str:
    # Not the decoded values themselves: to Python 1, 1.0 and True are equal.
    return json.dumps(_decode(text), sort_keys=True)


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _object(text: str) -> dict[str, Any] | None:
    value = _decode(text)
    if isinstance(value, str):
        value = _decode(value)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _python_literal(text: str) -> str | None:
    """Return a Python literal (`True`, `None`, `{'a': 1}`) as JSON text, or None if it is none."""
    if len(text) > 100_000:  # the compiler's recursion is not bounded by ours
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler warns about escapes in what is not our code
            value = cast("object", ast.literal_eval(text.strip()))
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return written


def _type_names(value: object) -> frozenset[str]:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number", "integer"} if value.is_integer() else {"number"})
        case str():
            return frozenset({"string"})
        case dict():
            return frozenset({"object"})
        case _:
            return frozenset({"array"})


def _types(schema: object, root: Mapping[str, Any], depth: int) -> frozenset[str] | None:
    if not isinstance(schema, Mapping) or depth > 16:
        return None
    typed = cast("Mapping[str, Any]", schema)
    found: frozenset[str] | None = None
    declared = typed.get("type")
    if isinstance(declared, str):
        found = frozenset({declared})
    elif isinstance(declared, list):
        found = frozenset(str(item) for item in cast("list[object]", declared))
    elif "const" in typed:
        found = _type_names(typed["const"])
    elif isinstance(typed.get("enum"), list):
        found = frozenset[str]().union(*(_type_names(item) for item in cast("list[object]", typed["enum"])))
    elif isinstance(reference := typed.get("$ref"), str):
        found = _types(_resolve(reference, root), root, depth + 1)
    else:
        for keyword in ("anyOf", "oneOf"):
            if isinstance(options := typed.get(keyword), list):
                each = [_types(option, root, depth + 1) for option in cast("list[object]", options)]
                known = [item for item in each if item is not None]
                found = frozenset[str]().union(*known) if len(known) == len(each) else None
                break
    if isinstance(parts := typed.get("allOf"), list):
        for part in cast("list[object]", parts):
            types = _types(part, root, depth + 1)
            if types is not None:
                found = types if found is None else found & types
    return found


def _resolve(reference: str, root: Mapping[str, Any]) -> object:
    node: object = root
    for key in reference.removeprefix("#").strip("/").split("/"):
        if not isinstance(node, Mapping):
            return None
        children = cast("Mapping[str, object]", node)
        node = children.get(key.replace("~1", "/").replace("~0", "~"))
    return node
