"""The Anthropic messages API: body to prompt."""

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
from dsv4agent.encoding.dsml import WrittenCall, parameters_of
from dsv4agent.encoding.errors import ApiRequestError
from dsv4agent.encoding.revision import Revision, as_revision
from dsv4agent.encoding.wire import (
    AnthropicChoice,
    AnthropicMessage,
    AnthropicRequest,
    AnthropicTool,
    Block,
    ChatFunction,
    read_body,
)


def render_anthropic_messages(body: Mapping[str, Any], revision: str) -> RenderedRequest:
    """Render a body of `/v1/messages`.

    Raises:
        ApiRequestError: The server would answer with status 400.
    """
    request = read_body(AnthropicRequest, body)
    rev = as_revision(revision)
    effort = request.output_config.effort if request.output_config is not None else None
    thinking = effort != "none" and not (request.thinking is not None and request.thinking.type == "disabled")
    choice = request.tool_choice
    forced = choice is not None and choice.type == "tool"
    if forced and thinking:
        raise ApiRequestError("Thinking mode does not support this tool_choice")
    names = {tool.name for tool in request.tools or ()}
    if choice is not None and forced and choice.name not in names:
        raise ApiRequestError(f"tool_choice names {choice.name!r}, which is not among the tools")
    _check_results(request.messages)
    conversation = Conversation(
        turns=tuple(_turns(request, rev)),
        thinking=thinking,
        effort=effort,
        tools=tuple(_tool(tool) for tool in request.tools or () if _is_offered(tool, choice)),
        forces_call=forced,
    )
    return render_conversation(conversation, rev)


def _is_offered(tool: AnthropicTool, choice: AnthropicChoice | None) -> bool:
    if choice is None or choice.type in ("auto", "any"):
        return True
    return choice.type == "tool" and choice.name == tool.name


def _tool(tool: AnthropicTool) -> Mapping[str, Any]:
    return ChatFunction(name=tool.name, description=tool.description, parameters=tool.input_schema).shown()


def _blocks(content: str | Sequence[Block] | None) -> list[Block]:
    if content is None:
        return []
    return [Block(type="text", text=content)] if isinstance(content, str) else list(content)


def _check_results(messages: Sequence[AnthropicMessage]) -> None:
    waiting: list[str] = []
    for index, message in enumerate(messages):
        blocks = _blocks(message.content)
        leading = 0
        while leading < len(blocks) and blocks[leading].type == "tool_result":
            leading += 1
        answered = (
            {block.tool_use_id for block in blocks[:leading]} if message.role == "user" else set[str | None]()
        )
        if missing := [call_id for call_id in waiting if call_id not in answered]:
            raise ApiRequestError(
                f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately "
                f"after: {', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` "
                "block in the next message."
            )
        results = [block for block in blocks if block.type == "tool_result"]
        if any(block.tool_use_id not in waiting for block in results) or len(results) > leading:
            raise ApiRequestError(
                f"messages.{index}: a `tool_result` block must stand before any text and answer a `tool_use` "
                "block of the previous message."
            )
        waiting = [block.id or "" for block in blocks if block.type == "tool_use"]
        if waiting and message.role != "assistant":
            raise ApiRequestError(f"messages.{index}: only an assistant message can hold `tool_use` blocks.")
    if waiting:
        raise ApiRequestError(f"`tool_use` ids without `tool_result` blocks: {', '.join(waiting)}.")


def _turns(request: AnthropicRequest, revision: Revision) -> list[Turn]:
    turns: list[Turn] = []
    if request.system is not None:
        turns.append(Turn("system", (_texts(_blocks(request.system), "system"),)))
    names = {
        block.id or "": block.name or ""
        for message in request.messages
        for block in _blocks(message.content)
        if block.type == "tool_use"
    }
    reminder = ""
    for message in request.messages:
        blocks = _blocks(message.content)
        if message.role == "assistant":
            turns.append(_assistant(blocks))
        elif message.role == "user":
            turns.append(_user(blocks, names, reminder))
            reminder = ""
        elif revision is Revision.V4_1:
            turns.append(Turn("system", (_texts(blocks, "system"),)))
        else:
            text = "\n\n".join(part.text for part in _texts(blocks, "system"))
            reminder += f"<system-reminder>\n{text}\n</system-reminder>\n\n"
    if reminder:
        turns.append(Turn("user", ((Part(reminder, "system"),),)))
    return turns


def _assistant(blocks: Sequence[Block]) -> Turn:
    reasoning: list[str] = []
    parts: list[Part] = []
    calls: list[tuple[str, WrittenCall]] = []
    for block in blocks:
        if block.type == "thinking":
            reasoning.append(block.thinking or "")
        elif block.type == "text":
            parts.append(Part(block.text or "", "model"))
        elif block.type == "tool_use":
            call = WrittenCall(block.name or "", tuple(parameters_of(block.input or {})))
            calls.append((block.id or "", call))
        else:
            raise ApiRequestError(f"Block of type {block.type!r} is not supported in an assistant message")
    if not parts and not calls:
        raise ApiRequestError("Invalid assistant message: content or tool_calls must be set")
    return Turn("assistant", (tuple(parts),) if parts else (), "\n\n".join(reasoning), tuple(calls))


def _user(blocks: Sequence[Block], names: Mapping[str, str], reminder: str) -> Turn:
    results: list[tuple[Part, ...] | Result] = []
    texts: list[Block] = []
    for block in blocks:
        if block.type == "tool_result":
            call_id = block.tool_use_id or ""
            parts = _texts(_blocks(block.content), f"tool:{names.get(call_id, '')}")
            results.append(Result(call_id, parts))
        else:
            texts.append(block)
    parts = list(_texts(texts, "user"))
    if reminder and parts and not parts[0].image:
        # One text with the user's own, as the server writes it.
        parts[0] = Part(reminder + parts[0].text, parts[0].provenance)
    elif reminder:
        parts.insert(0, Part(reminder, "system"))
    return Turn("user", (*results, tuple(parts)) if parts else tuple(results))


def _texts(blocks: Sequence[Block], provenance: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    for block in blocks:
        if block.type == "text":
            parts.append(Part(block.text or "", provenance))
        elif block.type == "image":
            parts.append(Part("", provenance, image=True))
        else:
            raise ApiRequestError(f"Block of type {block.type!r} is not supported here")
    return tuple(parts)
