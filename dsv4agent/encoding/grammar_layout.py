"""The layout of a block of calls: a Lark grammar, and the stretches of text between its control tokens.

Everything begins right behind the first DSML marker of the block. The encoder writes exactly this layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from dsv4agent.encoding.grammar_errors import GrammarError
from dsv4agent.encoding.grammar_values import ValueForms, value_forms
from dsv4agent.encoding.namespaces import NamespaceConflict, qualified_name
from dsv4agent.encoding.revision import DsmlTags, Revision

_MAX_ANY_ORDER: Final = 63
"""The parameters that a call has are bits of a 64-bit number. Tools with more take them in schema order."""

_MAX_LISTED: Final = 20_000
"""Characters of listed values of one parameter, above which they are not split beforehand."""

_ANY_NAME: Final = r"[^\"<>\x00-\x1f]{1,256}"


@dataclass(frozen=True)
class ParameterShape:
    """One declared parameter. `name` None stands for any name, of a tool that takes a map."""

    name: str | None
    forms: ValueForms
    required: bool


@dataclass(frozen=True)
class ToolShape:
    """What a call of one tool may hold; the required parameters come first, if any order will do."""

    name: str
    parameters: tuple[ParameterShape, ...]

    @property
    def required_count(self) -> int:
        """How many parameters every call has."""
        return sum(parameter.required for parameter in self.parameters)

    def relaxed(self) -> ToolShape:
        """Return the tool with the types of its parameters alone, for schemas too large to compile."""
        parameters = (replace(parameter, forms=parameter.forms.relaxed()) for parameter in self.parameters)
        return replace(self, parameters=tuple(parameters))


def tool_shape(function: Mapping[str, Any], revision: Revision) -> ToolShape:
    """Read a `function` object with `name` and `parameters`.

    Raises:
        GrammarError: `invalid_tool`.
    """
    name = function.get("name")
    schema = cast("object", function.get("parameters") or {})
    if not isinstance(name, str) or not name:
        raise GrammarError(f"A tool has no name: {function!r:.200}.", reason="invalid_tool")
    if not isinstance(schema, Mapping):
        raise GrammarError(f"The parameters of tool {name!r} are no JSON object.", reason="invalid_tool")
    try:
        if revision is Revision.V4_1:
            name = qualified_name(name, function.get("namespace"))
        json.dumps([name, schema], ensure_ascii=False).encode()
        return ToolShape(name, tuple(_parameters(cast("Mapping[str, Any]", schema))))
    except (NamespaceConflict, TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"Tool {name!r} cannot be used: {error}.", reason="invalid_tool") from error


def _parameters(schema: Mapping[str, Any]) -> list[ParameterShape]:
    properties: dict[str, object] = {}
    required: dict[str, None] = {}
    _collect(schema, properties, required, 0)
    extra = schema.get("additionalProperties")
    if not properties and extra:
        forms = value_forms("", {**schema, "properties": {"": extra}})
        return [ParameterShape(None, forms, required=False)]
    whole = {**schema, "properties": properties}
    shapes = [
        ParameterShape(name, value_forms(name, whole), name in required)
        for name, property_schema in properties.items()
        if property_schema is not False or name in required
    ]
    return sorted(shapes, key=lambda shape: not shape.required) if len(shapes) <= _MAX_ANY_ORDER else shapes


def _collect(
    schema: Mapping[str, Any], properties: dict[str, object], required: dict[str, None], depth: int
) -> None:
    """Gather properties from all over a schema; what only one alternative requires is not required."""
    if depth > 4:
        return
    found = schema.get("properties")
    for name, value in cast("Mapping[str, object]", found if isinstance(found, Mapping) else {}).items():
        properties.setdefault(name, value)
    listed = schema.get("required")
    for name in cast("list[object]", listed if isinstance(listed, list) else []):
        if isinstance(name, str):
            required[name] = None
    for keyword in ("allOf", "anyOf", "oneOf"):
        parts = schema.get(keyword)
        for part in cast("list[object]", parts if isinstance(parts, list) else []):
            if isinstance(part, Mapping):
                demanded = required if keyword == "allOf" else {}
                _collect(cast("Mapping[str, Any]", part), properties, demanded, depth + 1)
    for name in required:
        properties.setdefault(name, schema.get("additionalProperties") or True)


@dataclass(frozen=True)
class Stretch:
    """Text between two control tokens: up to a marker, the turn's end, or where anything may follow."""

    text: str
    end: str


MARKER: Final = "marker"
END_OF_TURN: Final = "end"
OPEN: Final = "open"


def frame_stretches(tools: Sequence[ToolShape], tags: DsmlTags) -> Iterator[Stretch]:
    """Yield every stretch that a block may hold outside of values."""
    yield Stretch(f"{tags.block}>\n<", MARKER)
    yield Stretch(f"{tags.block}>", END_OF_TURN)
    for tag in (tags.invoke, tags.parameter):
        yield Stretch(f"{tag}>\n<", MARKER)
        yield Stretch(f"{tag}>\n</", MARKER)
    for tool in tools:
        head = f'{tags.invoke} name="{tool.name}">\n'
        if tool.parameters:
            yield Stretch(f"{head}<", MARKER)
        if not tool.required_count:
            yield Stretch(f"{head}\n</", MARKER)


def value_stretches(tool: ToolShape, tags: DsmlTags) -> Iterator[Stretch]:
    """Yield the stretches with values of one tool; where values are not listed, what stands before them."""
    for parameter in tool.parameters:
        yield from _value_stretches(parameter, tags)


def _value_stretches(parameter: ParameterShape, tags: DsmlTags) -> Iterator[Stretch]:
    if parameter.name is None:
        yield Stretch(f'{tags.parameter} name="', OPEN)
        return
    forms = parameter.forms
    for is_string, exact, free in (
        (True, forms.strings, forms.texts),
        (False, forms.literals, forms.document),
    ):
        head = _parameter_head(parameter.name, is_string, tags)
        many = sum(map(len, exact)) > _MAX_LISTED
        for text in () if many else exact:
            yield Stretch(f"{head}{text}</", MARKER)
        if free or many:
            yield Stretch(head, OPEN)


def _parameter_head(name: str, is_string: bool, tags: DsmlTags) -> str:
    return f'{tags.parameter} name="{name}" string="{"true" if is_string else "false"}">'


def block_grammar(tools: Sequence[ToolShape], tags: DsmlTags, marker_id: int) -> str:
    """Return the Lark grammar of a block, from behind its first marker up to its last `>`."""
    return "\n".join(_Grammar(tags, f"<[{marker_id}]>").rules(tools)) + "\n"


class _Grammar:
    def __init__(self, tags: DsmlTags, marker: str) -> None:
        self.tags = tags
        self.marker = marker
        self.call_tail = f"{marker} {_quoted(f'{tags.invoke}>{_NEWLINE}')} next_call"
        self.end_of_call = f'"</" {self.call_tail}'

    def rules(self, tools: Sequence[ToolShape]) -> Iterator[str]:
        yield f"start: {_quoted(f'{self.tags.block}>{_NEWLINE}<')} {self.marker} call"
        yield f'next_call: "<" {self.marker} call | "</" {self.marker} {_quoted(f"{self.tags.block}>")}'
        yield "call: " + " | ".join(f"call_{number}" for number in range(len(tools)))
        for number, tool in enumerate(tools):
            yield from self.call(str(number), tool)

    def call(self, tag: str, tool: ToolShape) -> Iterator[str]:
        """Yield the rules of one tool's calls."""
        parameters = tool.parameters
        bodies: list[str] = []
        if parameters:
            first = f"any_{tag}::0x0" if self.in_any_order(tool) else f"from_{tag}_0"
            bodies.append(f'"<" {self.marker} {first}')
        if not tool.required_count:
            bodies.append(f'"{_ESCAPED_NEWLINE}</" {self.call_tail}')
        head = _quoted(f'{self.tags.invoke} name="{tool.name}">{_NEWLINE}')
        yield f"call_{tag}: {head} ({' | '.join(bodies)})"
        for number, parameter in enumerate(parameters):
            yield from self.parameter(f"{tag}_{number}", parameter)
        if not parameters:
            return
        if parameters[0].name is None:
            yield f"from_{tag}_0: parameter_{tag}_0 after_{tag}"
            yield f'after_{tag}: "<" {self.marker} from_{tag}_0 | {self.end_of_call}'
        elif self.in_any_order(tool):
            yield from self.any_order(tag, len(parameters), tool.required_count)
        else:
            yield from self.fixed_order(tag, parameters)

    @staticmethod
    def in_any_order(tool: ToolShape) -> bool:
        return tool.parameters[0].name is not None and len(tool.parameters) <= _MAX_ANY_ORDER

    def any_order(self, tag: str, count: int, required: int) -> Iterator[str]:
        """Yield rules whose 64-bit argument holds the parameters that are already there."""
        options = (
            f"parameter_{tag}_{bit} after_{tag}::set_bit({bit}) %if bit_clear({bit})" for bit in range(count)
        )
        yield f"any_{tag}::_: " + "\n  | ".join(options)
        more = [f'"<" {self.marker} any_{tag}::_ %if not(is_ones([0:{count}]))'] if count > 1 else []
        # A rule with an argument must use it, also where nothing is required and nothing can follow.
        condition = f" %if is_ones([0:{max(required, 1)}])" if required or count == 1 else ""
        yield f"after_{tag}::_: " + "\n  | ".join([*more, self.end_of_call + condition])

    def fixed_order(self, tag: str, parameters: Sequence[ParameterShape]) -> Iterator[str]:
        count = len(parameters)
        for number, parameter in enumerate(parameters):
            skip = f" | from_{tag}_{number + 1}" if not parameter.required and number + 1 < count else ""
            yield f"from_{tag}_{number}: parameter_{tag}_{number} after_{tag}_{number + 1}{skip}"
            options = [f'"<" {self.marker} from_{tag}_{number + 1}'] if number + 1 < count else []
            if not any(later.required for later in parameters[number + 1 :]):
                options.append(self.end_of_call)
            yield f"after_{tag}_{number + 1}: {' | '.join(options)}"

    def parameter(self, tag: str, parameter: ParameterShape) -> Iterator[str]:
        """Yield the rules of one parameter, from behind its marker to the line's end."""
        forms = parameter.forms
        options: list[str] = []
        for is_string, exact in ((True, forms.strings), (False, forms.literals)):
            options += [f"{self.head(parameter, is_string, f'{text}</')} {self.marker}" for text in exact]
        for number, text in enumerate(forms.texts):
            yield f"TEXT_{tag}_{number}: {text}"
            options.append(f"{self.head(parameter, True)} TEXT_{tag}_{number} {self.marker}")
        if forms.document is not None:
            yield f"json_{tag}: %json {forms.document}"
            options.append(f'{self.head(parameter, False)} json_{tag} "</" {self.marker}')
        yield f"value_{tag}: " + "\n  | ".join(options)
        yield f"parameter_{tag}: value_{tag} {_quoted(f'{self.tags.parameter}>{_NEWLINE}')}"

    def head(self, parameter: ParameterShape, is_string: bool, value: str = "") -> str:
        if parameter.name is not None:
            return _quoted(_parameter_head(parameter.name, is_string, self.tags) + value)
        rest = f'" string="{"true" if is_string else "false"}">{value}'
        return f"{_quoted(f'{self.tags.parameter} name={_QUOTE}')} /{_ANY_NAME}/ {_quoted(rest)}"


_NEWLINE: Final = "\n"
_ESCAPED_NEWLINE: Final = r"\n"
_QUOTE: Final = '"'


def _quoted(text: str) -> str:
    """Return a Lark literal."""
    return json.dumps(text, ensure_ascii=False)
