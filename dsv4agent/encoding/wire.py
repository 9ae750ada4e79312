"""Request bodies of the two HTTP APIs, as far as they decide the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dsv4agent.encoding.errors import ApiRequestError

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Thinking(_Body):
    """The switch for reasoning; a token budget beside it has no effect."""

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"


class Block(_Body):
    """A content block of either API; which fields are set depends on `type`."""

    type: str
    text: str | None = None
    image_url: str | dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None


Content = str | list[Block] | None


class ChatFunction(_Body):
    """A declared function: the model is shown exactly these three fields."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        """Return the declaration in the OpenAI shape, with what is missing shown empty."""
        function = {
            "name": self.name,
            "description": self.description or "",
            "parameters": self.parameters or {},
        }
        return {"type": "function", "function": function}


class ChatTool(_Body):
    """A declared tool."""

    type: Literal["function"] = "function"
    function: ChatFunction


class CalledFunction(_Body):
    """Name and arguments of a call."""

    name: str
    arguments: str = "{}"


class ChatCall(_Body):
    """A call in an assistant message."""

    id: str
    function: CalledFunction


class ChatMessage(_Body):
    """A message of the chat completions API."""

    role: Literal["system", "user", "assistant", "tool", "latest_reminder"]
    content: Content = None
    reasoning_content: str | None = None
    tool_calls: list[ChatCall] | None = None
    tool_call_id: str | None = None
    prefix: bool = False


class JsonSchema(_Body):
    """A named schema; the wire calls the schema itself `schema`."""

    body: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Body):
    """What the reply must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChosenFunction(_Body):
    """The function a request forces."""

    name: str


class ChosenTool(_Body):
    """A tool choice that names a function."""

    type: Literal["function"]
    function: ChosenFunction


class ChatRequest(_Body):
    """A body of `/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[ChatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    thinking: Thinking | None = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None


class AnthropicMessage(_Body):
    """A message of the messages API."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(_Body):
    """A declared tool of the messages API."""

    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class AnthropicChoice(_Body):
    """A tool choice of the messages API."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class OutputConfig(_Body):
    """Where the messages API keeps the effort."""

    effort: Effort | None = None


class AnthropicRequest(_Body):
    """A body of `/v1/messages`."""

    messages: list[AnthropicMessage] = Field(min_length=1)
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


_Request = TypeVar("_Request", bound=BaseModel)


def read_body(model: type[_Request], body: Mapping[str, Any]) -> _Request:
    """Validate a request body.

    Raises:
        ApiRequestError: What is wrong, and where.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ApiRequestError(f"Invalid {place!r}: {first['msg']}.") from error
