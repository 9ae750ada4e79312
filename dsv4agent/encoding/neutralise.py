"""History that text cannot represent, made harmless (recovery rule R-E).

Ids need none of this: there a spelt control token is ordinary text. A backend that takes only text would read
it as the token itself, so before rendering for such a backend a zero-width space goes behind the first
character of each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from dsv4agent.encoding.control_tokens import ALL

_BREAK: Final = "\u200b"
_CONTROL: Final = re.compile("|".join(re.escape(token) for token in ALL))
_FIELDS: Final = ("content", "reasoning_content", "content_blocks", "tool_calls")


@dataclass(frozen=True)
class Neutralised:
    """Messages that text can represent, and what had to change.

    Attributes:
        messages: Copies; unchanged parts are shared with the originals.
        changes: Paths of changed strings, as `2.tool_calls.0.function.arguments`.
    """

    messages: list[dict[str, Any]]
    changes: tuple[str, ...]


def neutralise_messages(messages: Sequence[Mapping[str, Any]]) -> Neutralised:
    """Break every spelt control token in the texts of a history, those inside JSON arguments included.

    A closing parameter tag holds the DSML marker, so it is broken as well.
    """
    changes: list[str] = []
    result: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        copy = dict(message)
        for field in _FIELDS:
            if field in copy:
                copy[field] = _neutral(copy[field], f"{index}.{field}", changes)
        result.append(copy)
    return Neutralised(result, tuple(changes))


def neutralise_text(text: str) -> str:
    """Return `text` with every spelt control token broken; honest text comes back as it is."""
    return _CONTROL.sub(lambda match: match.group()[0] + _BREAK + match.group()[1:], text)


def _neutral(value: object, path: str, changes: list[str]) -> object:
    if isinstance(value, str):
        changed = _neutral_arguments(value) if path.endswith(".arguments") else neutralise_text(value)
        if changed != value:
            changes.append(path)
        return changed
    if isinstance(value, Mapping):
        typed = cast("Mapping[str, object]", value)
        return {key: _neutral(item, f"{path}.{key}", changes) for key, item in typed.items()}
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_neutral(item, f"{path}.{number}", changes) for number, item in enumerate(items)]
    return value


def _neutral_arguments(text: str) -> str:
    # JSON may spell a token with escapes, so strings are broken after decoding. Clean ones keep their text.
    try:
        value = cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return neutralise_text(text)
    found: list[str] = []
    changed = _neutral_keys(value, found)
    return json.dumps(changed, ensure_ascii=False) if found else text


def _neutral_keys(value: object, found: list[str]) -> object:
    if isinstance(value, str):
        changed = neutralise_text(value)
        if changed != value:
            found.append(value)
        return changed
    if isinstance(value, dict):
        typed = cast("dict[str, object]", value)
        return {
            cast("str", _neutral_keys(key, found)): _neutral_keys(item, found) for key, item in typed.items()
        }
    if isinstance(value, list):
        return [_neutral_keys(item, found) for item in cast("list[object]", value)]
    return value
