"""Python functions as tools: the schema comes from the signature, the texts from the docstring."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_json

from dsv4agent.errors import ToolDefinitionError, ToolError
from dsv4agent.toolbox import failure
from dsv4agent.tools import Effects, ToolContext, ToolResult

Deps = TypeVar("Deps")
AnyFunction = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class RunContext(Generic[Deps]):
    """What a tool function gets as its first argument if it asks for it.

    Attributes:
        deps: The object given to the session.
        call: Sandbox, token counter and output stream of this call.
    """

    deps: Deps
    call: ToolContext


@dataclass(frozen=True)
class ToolFunction:
    """A function with its schema, not yet bound to a session; still callable as the function."""

    function: AnyFunction
    name: str
    description: str
    model: type[BaseModel]
    parameters: Mapping[str, Any]
    takes_context: bool
    effects: Effects

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def bind(self, deps: object) -> FunctionTool:
        """Return the tool for a session with these dependencies."""
        return FunctionTool(self, deps)


class FunctionTool:
    """A tool that calls a Python function. What it returns is shown as text, or else as JSON."""

    def __init__(self, source: ToolFunction, deps: object) -> None:
        self._source = source
        self._deps = deps

    @property
    def name(self) -> str:
        """The function's name."""
        return self._source.name

    @property
    def description(self) -> str:
        """The docstring up to its sections."""
        return self._source.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Schema of the parameters."""
        return self._source.parameters

    @property
    def effects(self) -> Effects:
        """As declared by the decorator."""
        return self._source.effects

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Call the function; a `ToolError` it raises becomes the result."""
        try:
            values = self._source.model.model_validate(args)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(part) for part in first["loc"]) or "$"
            return failure("invalid_arguments", f"{path}: {first['msg']}")
        arguments = {field: getattr(values, field) for field in type(values).model_fields}
        positional = (RunContext(self._deps, ctx),) if self._source.takes_context else ()
        try:
            value = await self._source.function(*positional, **arguments)
        except ToolError as error:
            return failure(error.code, error.message)
        return ToolResult(text=value if isinstance(value, str) else to_json(value).decode())

    async def aclose(self) -> None:
        """Hold nothing, so release nothing."""


def tool(
    function: AnyFunction, *, name: str | None = None, effects: Effects = Effects.EXTERNAL
) -> ToolFunction:
    """Make a tool of an async function with annotated parameters and a docstring.

    A first parameter annotated `RunContext[...]` is filled by the runtime. Google-style `Args:` become the
    descriptions of the parameters.

    Raises:
        ToolDefinitionError: The function is not async, lacks a docstring or an annotation.
    """
    label = name or getattr(function, "__name__", "")
    if not inspect.iscoroutinefunction(function):
        raise ToolDefinitionError(f"{label}: a tool must be an `async def` function.")
    summary, notes = _read_docstring(label, inspect.getdoc(function))
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and _is_context(hints.get(parameters[0].name))
    fields: dict[str, Any] = {}
    for parameter in parameters[1:] if takes_context else parameters:
        if parameter.name not in hints or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ToolDefinitionError(f"{label}: parameter {parameter.name!r} needs a plain annotation.")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (
            hints[parameter.name],
            Field(default, description=notes.get(parameter.name)),
        )
    model = create_model(label, __config__=ConfigDict(extra="forbid"), **fields)
    schema = cast("dict[str, Any]", _without_titles(model.model_json_schema()))
    schema = {"type": "object", "additionalProperties": False, **schema}
    schema.setdefault("properties", {})
    return ToolFunction(function, label, summary, model, schema, takes_context, effects)


def _is_context(hint: object) -> bool:
    return hint is RunContext or get_origin(hint) is RunContext


def _read_docstring(label: str, text: str | None) -> tuple[str, dict[str, str]]:
    if not text:
        raise ToolDefinitionError(f"{label}: a tool needs a docstring; the model reads it.")
    head, *sections = re.split(r"^(?=[A-Z][A-Za-z ]*:\s*$)", text, flags=re.MULTILINE)
    notes: dict[str, str] = {}
    for section in sections:
        if section.startswith("Args:"):
            for found in re.finditer(
                r"^ {4}(\w+)(?: \([^)]*\))?:\s*(.+(?:\n {8,}.+)*)", section, re.MULTILINE
            ):
                notes[found[1]] = " ".join(found[2].split())
    return head.strip(), notes


def _without_titles(schema: object) -> object:
    """Drop the titles that pydantic invents, which would cost prefix tokens; a property `title` stays."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, object] = {}
    for key, value in cast("dict[str, object]", schema).items():
        if key in {"properties", "$defs"} and isinstance(value, dict):
            named = cast("dict[str, object]", value)
            result[key] = {name: _without_titles(item) for name, item in named.items()}
        elif not (key == "title" and isinstance(value, str)):
            result[key] = _without_titles(value)
    return cast("dict[str, object]", json.loads(json.dumps(result)))
