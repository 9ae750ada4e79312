"""Images and block lists of V4.1: every message leaves with string content, lists as typed blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from dsv4agent.encoding.control_tokens import IMAGE
from dsv4agent.encoding.errors import EncodingError


@dataclass(frozen=True)
class TextWithImages:
    """Text pieces and images (None), joined by blank lines. JSON cannot make one, so nobody can forge one."""

    pieces: tuple[str | None, ...]

    def __str__(self) -> str:
        """Return the text with the placeholder token for each image."""
        return "\n\n".join(IMAGE if piece is None else piece for piece in self.pieces)


_IMAGE_TYPES: Final = frozenset({"image", "image_url"})


def normalise_images(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the messages with image blocks turned into marked text blocks, and the image records in order.

    A list `content` becomes `content_blocks`; content that is no string becomes the text blocks, joined by a
    blank line.

    Raises:
        EncodingError: `image_token_in_text` (a literal placeholder in text) or `image_without_source`.
    """
    images: list[dict[str, Any]] = []
    return [_normalise(message, images) for message in messages], images


def _normalise(message: Mapping[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    result = dict(message)
    content = result.get("content")
    for value, where in (
        (content, "Message content"),
        (result.get("reasoning_content"), "reasoning_content"),
    ):
        if isinstance(value, str):
            _reject_placeholder(value, where)
    source = cast("list[object]", content) if isinstance(content, list) else result.get("content_blocks")
    if isinstance(source, list):
        blocks = [_block(item, images) for item in cast("list[object]", source)]
        result["content_blocks"] = blocks
        if not isinstance(content, str):
            result["content"] = _joined(
                block.get("text", "") for block in blocks if block.get("type") == "text"
            )
    return result


def _joined(texts: Iterable[object]) -> str | TextWithImages:
    pieces: list[str | None] = []
    for text in texts:
        pieces.extend(text.pieces if isinstance(text, TextWithImages) else (str(text),))
    joined = TextWithImages(tuple(pieces))
    return joined if None in pieces else str(joined)


def _block(item: object, images: list[dict[str, Any]]) -> dict[str, Any]:
    if isinstance(item, str):
        item = {"type": "text", "text": item}
    if not isinstance(item, Mapping):
        raise EncodingError(f"Content block {item!r} is not an object with a type.", reason="invalid_content")
    block = dict(cast("Mapping[str, Any]", item))
    kind = block.get("type")
    if kind in _IMAGE_TYPES:
        images.append(_image_record(block))
        return {"type": "text", "text": TextWithImages((None,))}
    if kind == "text" and isinstance(text := block.get("text"), str):
        _reject_placeholder(text, "Text block")
    if kind == "tool_result":
        inner = block.get("content")
        if isinstance(inner, list):
            block["content"] = [_block(part, images) for part in cast("list[object]", inner)]
        elif isinstance(inner, str):
            _reject_placeholder(inner, "Tool result")
    return block


def _image_record(block: Mapping[str, Any]) -> dict[str, Any]:
    url = block.get("image_url")
    if isinstance(url, Mapping):
        url = cast("Mapping[str, Any]", url).get("url")
    if isinstance(url, str) and url:
        return {"type": "image", "url": url}
    record = {key: block[key] for key in ("source", "url", "data") if block.get(key)}
    if not record:
        raise EncodingError(
            "Image block does not contain a valid source; give image_url, source, url or data.",
            reason="image_without_source",
        )
    return {"type": "image", **record}


def _reject_placeholder(text: str, where: str) -> None:
    if IMAGE in text:
        raise EncodingError(
            f"{where} contains the image token {IMAGE!r}; pass image blocks, or neutralise the text.",
            reason="image_token_in_text",
        )
