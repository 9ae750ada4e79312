"""The tools of one session: what the model is shown, and the way from a call to its result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import (
    SchemaError,
    ValidationError,
    best_match,  # pyright: ignore[reportUnknownVariableType]
)

from dsv4agent.context import storable, tool_functions
from dsv4agent.errors import ToolDefinitionError
from dsv4agent.sandboxes import SandboxError
from dsv4agent.tools import Foreseeing, Foresight, Status, Tool, ToolContext, ToolResult

_NAME = re.compile(r"[a-zA-Z0-9_-]+")


class Toolbox:
    """Tools by name, with a validator for each schema."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        self._validators: dict[str, Draft202012Validator] = {}
        for tool in tools:
            self._add(tool)

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The `function` objects, in order."""
        return tool_functions(self._tools.values())

    async def call(self, name: str, arguments: str, ctx: ToolContext) -> ToolResult:
        """Run one call. Whatever goes wrong with it is a result that the model can act on.

        Args:
            name: The tool's name as the model wrote it.
            arguments: JSON text of the arguments.
            ctx: What the runtime lends to the call.

        Raises:
            SandboxError: The sandbox itself failed, so that no further call can be trusted.
        """
        tool = self._tools.get(name)
        if tool is None:
            available = ", ".join(self._tools) or "none"
            return failure("unknown_tool", f"{name}; available: {available}")
        args, problem = self._parse(name, arguments)
        if problem is not None:
            return failure("invalid_arguments", problem)
        begin = perf_counter()
        try:
            result = await tool(ctx, args)
        except SandboxError:
            raise
        except Exception as error:  # the border of foreign code: a defect of a tool must not end the session
            result = failure("tool_crashed", f"{type(error).__name__}: {error}; try another way")
        text = storable(result.text) or "(no output)"
        return replace(result, text=text, duration_ms=(perf_counter() - begin) * 1000)

    async def foresee(
        self, name: str, arguments: str, ctx: ToolContext, planned: dict[str, str]
    ) -> Foresight | None:
        """Return what a call would do, if its tool can tell and would run it.

        Arguments as in `call`, and `planned` as in `Foreseeing.foresee`.

        Raises:
            SandboxError: The sandbox itself failed.
        """
        tool = self._tools.get(name)
        if not isinstance(tool, Foreseeing):
            return None
        args, problem = self._parse(name, arguments)
        if problem is not None:
            return None
        try:
            return await tool.foresee(ctx, args, planned)
        except SandboxError:
            raise
        except Exception:  # as in `call`; what the tool cannot say is not known
            return None

    async def aclose(self) -> None:
        """Release what the tools hold."""
        for tool in self._tools.values():
            await tool.aclose()

    def _add(self, tool: Tool) -> None:
        if not _NAME.fullmatch(tool.name):
            raise ToolDefinitionError(f"Tool name {tool.name!r} may only have letters, digits, '_' and '-'.")
        if tool.name in self._tools:
            raise ToolDefinitionError(f"Two tools have the name {tool.name!r}; rename one of them.")
        schema = dict(tool.parameters)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ToolDefinitionError(f"The schema of {tool.name!r} is invalid: {error.message}.") from error
        if schema.get("type") != "object":
            raise ToolDefinitionError(f'The schema of {tool.name!r} must have "type": "object".')
        self._tools[tool.name] = tool
        self._validators[tool.name] = Draft202012Validator(schema)

    def _parse(self, name: str, arguments: str) -> tuple[Mapping[str, Any], str | None]:
        try:
            args: object = json.loads(arguments)
        except ValueError as error:
            return {}, f"$: not JSON ({error}); expected one JSON object"
        validator = self._validators[name]
        error = _worst(validator, args)
        if error is not None:
            return {}, _explain(error)
        return cast("Mapping[str, Any]", args), None


def failure(code: str, message: str, status: Status = Status.ERROR) -> ToolResult:
    """Return the result of an expected failure: the code, a colon, and what to do."""
    return ToolResult(text=f"{code}: {message}", status=status, code=code)


def _worst(validator: Draft202012Validator, args: object) -> ValidationError | None:
    # The library leaves its results untyped.
    errors = cast("Iterable[ValidationError]", validator.iter_errors(cast("Any", args)))  # pyright: ignore[reportUnknownMemberType]
    return cast("ValidationError | None", best_match(errors))


def _explain(error: ValidationError) -> str:
    """Return `PATH: WHAT; expected ...` for the error that says most."""
    path = ".".join(str(part) for part in error.absolute_path)
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    instance = cast("object", error.instance)
    properties = cast("Mapping[str, Any]", schema.get("properties") or {})
    if error.validator == "required" and isinstance(instance, Mapping):
        present = cast("Mapping[str, Any]", instance)
        missing = [key for key in cast("list[str]", schema["required"]) if key not in present]
        where = ".".join(part for part in (path, missing[0]) if part)
        return f"{where}: missing; expected {_expected(properties.get(missing[0]))}"
    if error.validator == "additionalProperties" and isinstance(instance, Mapping):
        extra = [key for key in cast("Mapping[str, Any]", instance) if key not in properties]
        where = ".".join(part for part in (path, extra[0] if extra else "") if part)
        return f"{where}: no such argument; expected only {', '.join(properties) or 'none'}"
    return f"{path or '$'}: {_short(error.message)}; expected {_expected(schema)}"


def _expected(schema: object) -> str:
    if not isinstance(schema, Mapping):
        return "a value"
    fields = cast("Mapping[str, Any]", schema)
    if "enum" in fields:
        return "one of " + ", ".join(json.dumps(value) for value in fields["enum"])
    return _short(json.dumps({key: value for key, value in fields.items() if key != "description"}))


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
