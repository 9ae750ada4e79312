"""From the JSON Schema of one parameter to the ways in which its value may be written.

A string stands raw, everything else as JSON. What the grammar cannot express (look-around in a pattern,
`not`, remote references, ...) is left out: it is then wider than the schema, and validation stands behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from llguidance import LLMatcher, regex_to_lark

from dsv4agent.encoding.arguments import DeclaredTool

ANY_TEXT: Final = r"/(?s:.*)<\//"
"""Lark terminal of raw text with the first two characters of the closing tag; a control token follows."""

JSON_STYLE: Final[Mapping[str, object]] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
"""The encoder's own JSON: one space behind separators and no other. Unknown keywords are skipped."""

_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_MAX_COUNTED: Final = 10_000
_MAX_DEPTH: Final = 16


@dataclass(frozen=True)
class ValueForms:
    """How a value may be written; at least one form is there.

    Attributes:
        strings: Exact texts of strings.
        texts: Lark terminals of raw strings, each with the `</` that follows the string.
        literals: Exact JSON texts.
        document: JSON text of a schema for other values, which never admits a string on top; or None.
    """

    strings: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()
    document: str | None = None

    def relaxed(self) -> ValueForms:
        """Return forms that keep the types and the listed values only."""
        document = None if self.document is None else _any_json(frozenset(json.loads(self.document)["type"]))
        return ValueForms(self.strings, (ANY_TEXT,) if self.texts else (), self.literals, document)


def value_forms(name: str, parameters: Mapping[str, Any]) -> ValueForms:
    """Return the forms of the parameter `name` of a tool whose parameters have this schema."""
    tool = DeclaredTool("", parameters)
    schema = cast("object", tool.properties.get(name, True))
    if schema is False:  # demanded and refused at once: any value is as wrong as another
        schema = True
    found = tool.types(name)
    types = ((found or frozenset()) & _TYPES) or _TYPES - {"integer"}
    strings = _strings(schema, parameters, 0) if "string" in types else _NO_STRINGS
    values = _enumerated(schema, parameters)
    if values is not None:
        literals = tuple(_json(value) for value in values if not isinstance(value, str))
        document = None
    else:
        literals, document = _json_forms(schema, parameters, types - {"string"})
    if not (strings.literals or strings.texts or literals or document):
        return ValueForms(texts=(ANY_TEXT,), document=_any_json(_TYPES - {"string"}))
    return ValueForms(strings.literals, strings.texts, literals, document)


@dataclass(frozen=True)
class _Strings:
    literals: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


_NO_STRINGS: Final = _Strings()
_FREE: Final = _Strings(texts=(ANY_TEXT,))


def _strings(schema: object, root: Mapping[str, Any], depth: int) -> _Strings:
    """Return the strings that a schema admits."""
    if schema is False:
        return _NO_STRINGS
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return _FREE
    typed = _resolved(cast("Mapping[str, Any]", schema), root)
    declared = _declared_types(typed)
    if declared is not None and "string" not in declared:
        return _NO_STRINGS
    values = _listed(typed)
    if values is not None:
        return _Strings(literals=tuple(dict.fromkeys(value for value in values if isinstance(value, str))))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(options := typed.get(keyword), list):
            return _union(_strings(option, root, depth + 1) for option in cast("list[object]", options))
    if isinstance(parts := typed.get("allOf"), list):
        return _intersection([_strings(part, root, depth + 1) for part in cast("list[object]", parts)])
    return _Strings(texts=(_terminal(typed),))


def _declared_types(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the names in `type`; None if it is not there or not well formed."""
    declared = schema.get("type")
    names = frozenset(map(str, cast("list[object]", declared) if isinstance(declared, list) else [declared]))
    return names if names and names <= _TYPES else None


def _union(options: Iterable[_Strings]) -> _Strings:
    literals: dict[str, None] = {}
    texts: dict[str, None] = {}
    for option in options:
        literals |= dict.fromkeys(option.literals)
        texts |= dict.fromkeys(option.texts)
    return _FREE if ANY_TEXT in texts else _Strings(tuple(literals), tuple(texts))


def _intersection(parts: list[_Strings]) -> _Strings:
    """Return what all parts admit, or more: of several terminals the first one that says something."""
    if not all(part.literals or part.texts for part in parts):
        return _NO_STRINGS
    listed = [part for part in parts if not part.texts]
    if listed:
        common = (text for text in listed[0].literals if all(text in part.literals for part in listed))
        return _Strings(literals=tuple(common))
    telling = [part for part in parts if ANY_TEXT not in part.texts]
    return telling[0] if telling else _FREE


def _terminal(schema: Mapping[str, Any]) -> str:
    """Return the terminal of raw strings with this `minLength`, `maxLength` and `pattern`."""
    low, high = _count(schema.get("minLength")) or 0, _count(schema.get("maxLength"))
    parts: list[str] = []
    if low or high is not None:
        parts.append(f"/(?s:.{{{low},{'' if high is None else high}}})/")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (regex := _search_regex(pattern)) is not None:
        parts.append(f"/{regex}/")
    if not parts:
        return ANY_TEXT
    terminal = f'({" & ".join(parts)}) "</"'
    return terminal if _compiles(f'start: "x" TEXT\nTEXT: {terminal}\n') else ANY_TEXT


def _count(value: object) -> int | None:
    """Return a length that can be counted; longer ones are left to validation."""
    counted = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNTED
    return cast("int", value) if counted else None


def _search_regex(pattern: str) -> str | None:
    """Return a regex of whole strings in which the pattern is found; None if anchors and alternatives mix."""
    begins = pattern.startswith("^")
    ends = pattern.endswith("$") and not pattern.endswith("\\$")
    body = pattern[begins : len(pattern) - ends]
    if (begins or ends) and _has_top_level_alternative(body):
        return None
    return f"{'' if begins else '(?s:.*)'}({regex_to_lark(body, 'dw')}){'' if ends else '(?s:.*)'}"


def _has_top_level_alternative(pattern: str) -> bool:
    depth, in_class, escaped = 0, False, False
    for character in pattern:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif in_class:
            in_class = character != "]"
        elif character == "|" and depth == 0:
            return True
        else:
            in_class = character == "["
            depth += (character == "(") - (character == ")")
    return False


def _json_forms(
    schema: object, root: Mapping[str, Any], types: frozenset[str]
) -> tuple[tuple[str, ...], str | None]:
    """Return literals and document of the values that are no strings."""
    if not types:
        return (), None
    if types <= {"boolean", "null"}:
        words = {"true": "boolean", "false": "boolean", "null": "null"}
        return tuple(word for word, name in words.items() if name in types), None
    fields = dict(cast("Mapping[str, Any]", schema)) if isinstance(schema, Mapping) else {}
    if '"$ref"' in (written := _json(fields)):
        fields = cast("dict[str, Any]", _rebased(json.loads(written)))
        fields["$defs"] = {"root": _rebased(root)}
    fields["type"] = sorted(types)
    fields["x-guidance"] = JSON_STYLE
    document = _json(fields)
    fits = _compiles(f'start: "x" value\nvalue: %json {document}\n')
    return (), document if fits else _any_json(types)


def _any_json(types: frozenset[str]) -> str:
    return _json({"type": sorted(types), "x-guidance": JSON_STYLE})


def _enumerated(schema: object, root: Mapping[str, Any]) -> list[object] | None:
    if not isinstance(schema, Mapping):
        return None
    return _listed(_resolved(cast("Mapping[str, Any]", schema), root))


def _listed(schema: Mapping[str, Any]) -> list[object] | None:
    """Return the values of `enum` or `const` that fit the `type` beside it; None without either."""
    if "const" in schema:
        values = [cast("object", schema["const"])]
    elif isinstance(schema.get("enum"), list):
        values = cast("list[object]", schema["enum"])
    else:
        return None
    declared = _declared_types(schema)
    return values if declared is None else [value for value in values if _type_names(value) & declared]


def _type_names(value: object) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}
        case str():
            return {"string"}
        case list():
            return {"array"}
        case _:
            return {"object"}


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow local references; keywords beside a reference win over those behind it."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target = _target(reference, root)
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**target, **beside} if target is not None else beside
    return {}


def _target(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not reference.startswith("#"):
        return None
    node: object = root
    for key in filter(None, reference[1:].split("/")):
        name = key.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name) < len(cast("list[object]", node)):
            node = cast("list[object]", node)[int(name)]
        elif isinstance(node, Mapping):
            node = cast("Mapping[str, object]", node).get(name)
        else:
            return None
    return cast("Mapping[str, Any]", node) if isinstance(node, Mapping) else None


def _rebased(schema: object) -> object:
    """Return a copy whose local references lead into `#/$defs/root`."""
    if isinstance(schema, list):
        return [_rebased(item) for item in cast("list[object]", schema)]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: f"#/$defs/root{value[1:]}"
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _rebased(value)
        for key, value in cast("Mapping[str, object]", schema).items()
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=1024)
def _compiles(grammar: str) -> bool:
    is_error, _ = LLMatcher.validate_grammar_with_warnings(grammar)
    return not is_error
