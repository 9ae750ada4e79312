"""What happens to messages before rendering: merging, ordering of results, dropping of reasoning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from dsv4agent.encoding.revision import Revision

Message = Mapping[str, Any]

_KEPT_ROLES: Final = frozenset({"user", "system", "tool", "latest_reminder", "direct_search_results"})
_USER_FIELDS_V4: Final = ("task", "wo_eos", "mask")


def merge(messages: Sequence[Message], revision: Revision, tool_names: dict[str, str]) -> list[Message]:
    """Fold tool results and consecutive user messages into user turns made of blocks.

    A user with a task takes further results but no further text. V4 keeps only task, `wo_eos` and mask of a
    user message; V4.1 keeps all its fields and honours blocks that the caller made.

    Args:
        messages: The messages; they are not changed.
        revision: Decides which fields of a user message survive.
        tool_names: Names by call id, from calls seen so far; extended here. They only label provenance.
    """
    merged: list[Message] = []
    for message in messages:
        role = message.get("role")
        if role not in ("user", "tool"):
            if role == "assistant":
                _remember_calls(message, tool_names)
            merged.append(message)
            continue
        previous = merged[-1] if merged and merged[-1].get("role") == "user" else None
        if role == "tool":
            blocks = [_result_block(message, tool_names)]
        else:
            blocks = _user_blocks(message, revision)
            if previous is not None and previous.get("task") is not None:
                previous = None
        if previous is not None:
            merged[-1] = {**previous, "content_blocks": [*previous["content_blocks"], *blocks]}
            continue
        kept: dict[str, Any] = {}
        if role == "user":
            fields = message if revision is Revision.V4_1 else [f for f in _USER_FIELDS_V4 if f in message]
            kept = {name: message[name] for name in fields}
        merged.append({**kept, "role": "user", "content_blocks": blocks})
    return merged


def _user_blocks(message: Message, revision: Revision) -> list[dict[str, Any]]:
    provenance = str(message.get("provenance") or "user")
    given = message.get("content_blocks")
    if revision is Revision.V4_1 and isinstance(given, list):
        return [{"provenance": provenance, **block} for block in cast("list[dict[str, Any]]", given)]
    return [{"type": "text", "text": plain_text(message.get("content", "")), "provenance": provenance}]


def _result_block(message: Message, tool_names: Mapping[str, str]) -> dict[str, Any]:
    call_id = message.get("tool_call_id", "")
    name = message.get("name") or tool_names.get(str(call_id))
    return {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": message.get("content", ""),
        "provenance": str(message.get("provenance") or (f"tool:{name}" if name else "tool")),
    }


def plain_text(content: object) -> str:
    """Return content of any JSON shape as text: None is nothing, block lists are their texts."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n\n".join(block_text(block) for block in cast("list[object]", content))
    return json.dumps(content, ensure_ascii=False, default=str)


def block_text(block: object) -> str:
    """Return the text of one text block; anything else is named as unsupported."""
    if isinstance(block, str):
        return block
    if isinstance(block, Mapping):
        typed = cast("Mapping[str, Any]", block)
        if typed.get("type") == "text":
            return str(typed.get("text", ""))
        return f"[Unsupported {typed.get('type')}]"
    return f"[Unsupported {type(block).__name__}]"


def _calls(message: Message) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    items = cast("list[object]", calls) if isinstance(calls, list) else []
    return [cast("Mapping[str, Any]", call) for call in items if isinstance(call, Mapping)]


def _call_id(call: Mapping[str, Any]) -> str | None:
    function = call.get("function")
    inner = cast("Mapping[str, Any]", function).get("id") if isinstance(function, Mapping) else None
    found = call.get("id") or inner
    return None if found is None else str(found)


def _remember_calls(message: Message, tool_names: dict[str, str]) -> None:
    for call in _calls(message):
        function = call.get("function")
        if (call_id := _call_id(call)) and isinstance(function, Mapping):
            tool_names[call_id] = str(cast("Mapping[str, Any]", function).get("name") or "")


def sort_results(messages: Sequence[Message]) -> list[Message]:
    """Put the tool results of each user turn into the order of the calls they answer; text stays where it is.

    Results with an unknown id count as answering the first call, which is what the official encoder does.
    """
    order: dict[str, int] = {}
    result: list[Message] = []
    for message in messages:
        role = message.get("role")
        if role == "assistant" and (calls := _calls(message)):
            order = {call_id: index for index, call in enumerate(calls) if (call_id := _call_id(call))}
        elif role == "user" and order and isinstance(message.get("content_blocks"), list):
            blocks = cast("list[Mapping[str, Any]]", message["content_blocks"])
            places = [index for index, block in enumerate(blocks) if block.get("type") == "tool_result"]
            if len(places) > 1:
                ranked = sorted(
                    (blocks[index] for index in places),
                    key=lambda block: order.get(str(block.get("tool_use_id") or ""), 0),
                )
                placed = dict(zip(places, ranked, strict=True))
                message = {
                    **message,
                    "content_blocks": [placed.get(i, block) for i, block in enumerate(blocks)],
                }
        result.append(message)
    return result


def last_user_index(messages: Sequence[Message], revision: Revision) -> int:
    """Return the index of the last message that a reply answers, or -1."""
    for index in range(len(messages) - 1, -1, -1):
        if is_user_like(messages[index].get("role"), index, revision):
            return index
    return -1


def is_user_like(role: object, index: int, revision: Revision) -> bool:
    """Whether a reply follows this message: users, V4's developers, V4.1's later system messages."""
    if role == "user":
        return True
    return index > 0 and role == "system" if revision is Revision.V4_1 else role == "developer"


def drop_reasoning(messages: Sequence[Message], revision: Revision) -> list[Message]:
    """Remove reasoning of replies before the last user turn, and developer messages there."""
    last = last_user_index(messages, revision)
    kept: list[Message] = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if index >= last or role in _KEPT_ROLES:
            kept.append(message)
        elif role == "assistant":
            kept.append({key: value for key, value in message.items() if key != "reasoning_content"})
    return kept
