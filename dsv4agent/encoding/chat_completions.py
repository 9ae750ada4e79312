"""The chat completions API: body to prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsv4agent.encoding.api_request import (
    Conversation,
    Part,
    RenderedRequest,
    Result,
    Turn,
    render_conversation,
)
from dsv4agent.encoding.arguments import json_object
from dsv4agent.encoding.dsml import Parameter, WrittenCall, parameters_of
from dsv4agent.encoding.errors import ApiRequestError
from dsv4agent.encoding.revision import as_revision
from dsv4agent.encoding.wire import ChatMessage, ChatRequest, ChosenTool, Content, read_body


def render_chat_completions(body: Mapping[str, Any], revision: str) -> RenderedRequest:
    """Render a body of `/chat/completions`.

    Raises:
        ApiRequestError: The server would answer with status 400.
    """
    request = read_body(ChatRequest, body)
    messages = request.messages
    _check_calls(messages)
    thinking = not (request.thinking is not None and request.thinking.type == "disabled")
    thinking = thinking and request.reasoning_effort != "none"
    forced = _forces_call(request, thinking)
    choice = request.tool_choice
    shown = [
        tool.function.shown()
        for tool in request.tools or ()
        if not isinstance(choice, ChosenTool) or tool.function.name == choice.function.name
    ]
    tools = () if choice == "none" else tuple(shown)
    names = {call.id: call.function.name for message in messages for call in message.tool_calls or ()}
    turns = tuple(_turn(message, index + 1 == len(messages), names) for index, message in enumerate(messages))
    response = request.response_format
    conversation = Conversation(
        turns=turns,
        thinking=thinking,
        effort=request.reasoning_effort,
        tools=tools,
        response_schema=response.json_schema.body if response and response.json_schema else None,
        json_object=response is not None and response.type == "json_object",
        forces_call=forced,
    )
    return render_conversation(conversation, as_revision(revision))


def _forces_call(request: ChatRequest, thinking: bool) -> bool:
    choice = request.tool_choice
    if choice is None or choice in ("none", "auto"):
        return False
    if thinking:
        raise ApiRequestError("Thinking mode does not support this tool_choice")
    names = [tool.function.name for tool in request.tools or ()]
    if not names:
        raise ApiRequestError("This tool_choice needs tools")
    if isinstance(choice, ChosenTool) and choice.function.name not in names:
        raise ApiRequestError(f"tool_choice names {choice.function.name!r}, which is not among the tools")
    return True


def _check_calls(messages: Sequence[ChatMessage]) -> None:
    open_calls: set[str] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise ApiRequestError(
                    "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
                )
            open_calls.discard(message.tool_call_id)
            continue
        _require_results(open_calls)
        if message.prefix and (message.role != "assistant" or message is not messages[-1]):
            raise ApiRequestError("Only the last message can be a prefix, and it must be an assistant's")
        if message.role == "assistant":
            if message.content is None and not message.tool_calls and not message.prefix:
                raise ApiRequestError("Invalid assistant message: content or tool_calls must be set")
            open_calls = {call.id for call in message.tool_calls or ()}
    _require_results(open_calls)


def _require_results(open_calls: set[str]) -> None:
    if open_calls:
        raise ApiRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. (insufficient tool messages following tool_calls message)"
        )


def _turn(message: ChatMessage, is_last: bool, names: Mapping[str, str]) -> Turn:
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        parts = _parts(message.content, f"tool:{names.get(call_id, '')}")
        return Turn("user", (Result(call_id, parts),))
    if message.role != "assistant":
        return Turn(message.role, (_parts(message.content, "user" if message.role == "user" else "system"),))
    parts = tuple(part for part in _parts(message.content, "model") if part.text)
    return Turn(
        "assistant",
        (parts,) if parts else (),
        reasoning=message.reasoning_content or "",
        calls=tuple(
            (call.id, _call(call.function.name, call.function.arguments)) for call in message.tool_calls or ()
        ),
        is_open=message.prefix and is_last,
    )


def _parts(content: Content, provenance: str) -> tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return (Part(content or "", provenance),)
    parts: list[Part] = []
    for block in content:
        if block.type == "text" and block.text is not None:
            parts.append(Part(block.text, provenance))
        elif block.type == "image_url":
            parts.append(Part("", provenance, image=True))
        else:
            raise ApiRequestError(f"Content block of type {block.type!r} is not supported")
    return tuple(parts)


def _call(name: str, arguments: str) -> WrittenCall:
    fields = json_object(arguments)
    if fields is None:
        return WrittenCall(name, (Parameter("arguments", True, arguments),))
    return WrittenCall(name, tuple(parameters_of(fields)))
