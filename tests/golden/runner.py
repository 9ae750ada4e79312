"""Reads golden vectors and compares each with what the encoding does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dsv4agent.encoding import (
    ApiRequestError,
    CompletionParseError,
    EncodedPrompt,
    EncodingError,
    ParsedMessage,
    SegmentKind,
    StreamParser,
    Tokenizer,
    encode_messages,
    encode_tokens,
    parse_message_from_completion_text,
    render_anthropic_messages,
    render_chat_completions,
)
from tests.golden.tokenizers import tokenizer_for

Vector = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    name: str
    why: str


@dataclass(frozen=True)
class Report:
    """What became of one file."""

    name: str
    count: int
    failures: tuple[Failure, ...]


def run_directory(directory: Path) -> list[Report]:
    """Run all vector files of a folder; the beginning of a file's name says what its lines are."""
    return [run_file(path) for path in sorted(directory.glob("*.jsonl")) if kind_of(path) is not None]


def kind_of(path: Path) -> str | None:
    return next((kind for kind in CHECKS if path.name.startswith(kind)), None)


def read_vectors(path: Path) -> Iterator[Vector]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            yield cast("Vector", json.loads(line))


def run_file(path: Path) -> Report:
    kind = kind_of(path)
    if kind is None:
        raise ValueError(f"{path.name} begins with none of {', '.join(CHECKS)}")
    failures: list[Failure] = []
    vectors = list(read_vectors(path))
    for vector in vectors:
        for revision in _revisions(vector):
            why = _outcome(CHECKS[kind], vector, revision)
            if why is not None:
                failures.append(Failure(f"{vector.get('name')} [{revision}]", why))
    return Report(path.name, len(vectors), tuple(failures))


def _revisions(vector: Vector) -> tuple[str, ...]:
    revision = str(vector.get("revision") or vector.get("tokenizer") or "")
    return ("v4-preview", "v4-0731") if revision == "v4" else (revision,)


def _outcome(check: Callable[[Vector, str], str | None], vector: Vector, revision: str) -> str | None:
    try:
        return check(vector, revision)
    except Exception as error:  # whatever goes wrong is the vector's outcome
        return f"raised {error!r}"


def _differs(what: str, got: object, expected: object) -> str | None:
    if got == expected:
        return None
    if isinstance(got, str) and isinstance(expected, str):
        pairs = enumerate(zip(got, expected, strict=False))
        same = next((index for index, (a, b) in pairs if a != b), min(len(got), len(expected)))
        found, wanted = got[same : same + 60], expected[same : same + 60]
        return f"{what} differs at {same}: got {found!r}, expected {wanted!r}"
    return f"{what}: got {got!r:.300}, expected {expected!r:.300}"


def check_encode(vector: Vector, revision: str) -> str | None:
    kwargs = cast("dict[str, Any]", vector["kwargs"])
    try:
        got = encode_messages(vector["messages"], revision=revision, **kwargs)
    except EncodingError as error:
        return None if "error" in vector else f"refused: {error}"
    if "error" in vector:
        return None if vector.get("error_class") == "crash" else "accepted, but must fail"
    text, media = got if isinstance(got, tuple) else (got, None)
    media_differs = _differs("media", media, vector["expected_media"]) if "expected_media" in vector else None
    return (
        _differs("prompt", text, vector["expected"]) or media_differs or _check_tokens_form(vector, revision)
    )


def _check_tokens_form(vector: Vector, revision: str) -> str | None:
    tokenizer = tokenizer_for(revision)
    kwargs = {key: value for key, value in vector["kwargs"].items() if key != "return_multi_modal_data"}
    prompt = encode_tokens(vector["messages"], tokenizer, revision=revision, **kwargs)
    return (
        _differs("joined spans", prompt.text, vector["expected"])
        or _differs("decoded ids", tokenizer.decode(prompt.ids), vector["expected"])
        or forged_control_ids(prompt, tokenizer)
    )


def forged_control_ids(prompt: EncodedPrompt, tokenizer: Tokenizer) -> str | None:
    """Return what is wrong if a control id stands anywhere but alone in a span the encoder wrote as one."""
    for span in prompt.spans:
        if span.kind is SegmentKind.CONTROL:
            if span.ids != (tokenizer.control_id(span.text),):
                return f"control span {span.text!r} has ids {span.ids}"
        elif forged := [token for token in span.ids if tokenizer.is_control(token)]:
            return f"control ids {forged} in {span.kind.value} {span.text[:60]!r}"
    return None


def check_parse(vector: Vector, revision: str) -> str | None:
    try:
        got = parse_message_from_completion_text(vector["text"], vector["thinking_mode"], revision=revision)
    except CompletionParseError as error:
        return None if "error" in vector else f"refused: {error}"
    return "accepted, but must fail" if "error" in vector else _differs("message", got, vector["expected"])


def check_recover(vector: Vector, revision: str) -> str | None:
    text = str(vector["text"])
    whole = _recovered(vector, revision, [text])
    for size in (1, 3, 17):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        if (
            why := _differs(f"fed {size} at a time", _recovered(vector, revision, pieces), whole)
        ) is not None:
            return why
    expected = {"invalid_tool_calls": [], **vector["recommended"]}
    expected.pop("repairs", None)
    got = {
        "content": whole.content,
        "reasoning_content": whole.reasoning_content,
        "tool_calls": [{"name": c.name, "arguments": json.loads(c.arguments)} for c in whole.tool_calls],
        "truncated_call": whole.truncated_call is not None,
        "invalid_tool_calls": [{"name": c.name, "reason": c.reason} for c in whole.invalid_tool_calls],
    }
    for call in expected["tool_calls"]:
        if isinstance(call["arguments"], str):
            call["arguments"] = json.loads(call["arguments"])
    return next((why for key in expected if (why := _differs(key, got.get(key), expected[key]))), None)


def _recovered(vector: Vector, revision: str, pieces: list[str]) -> ParsedMessage:
    parser = StreamParser(
        revision,
        vector["thinking_mode"],
        vector.get("tools") or (),
        starts_in_tool_calls=bool(vector.get("starts_in_tool_calls")),
    )
    for piece in pieces:
        parser.feed_text(piece)
    parser.finish(str(vector.get("finish", "stop")))
    return parser.result


def check_api_render(vector: Vector, revision: str) -> str | None:
    is_chat = vector["api"] == "chat_completions"
    render = render_chat_completions if is_chat else render_anthropic_messages
    try:
        got = render(vector["body"], revision)
    except ApiRequestError as error:
        return None if "error" in vector else f"refused: {error}"
    if "error" in vector:
        return "accepted, but must fail"
    flags = ("parse_tool_calls", "starts_in_tool_calls", "starts_in_reasoning")
    return (
        _differs("prompt", got.prompt, vector["expected_prompt"])
        or _differs("ranges", [list(item) for item in got.special_ranges], vector["special_ranges"])
        or next((why for flag in flags if (why := _differs(flag, getattr(got, flag), vector[flag]))), None)
    )


def check_tokens(vector: Vector, revision: str) -> str | None:
    tokenizer = tokenizer_for(revision)
    ids = tokenizer.encode_trusted(vector["text"])
    return _differs("ids", ids, vector["ids"]) or _differs("text", tokenizer.decode(ids), vector["text"])


CHECKS: dict[str, Callable[[Vector, str], str | None]] = {
    "encode": check_encode,
    "parse": check_parse,
    "recover": check_recover,
    "api_render": check_api_render,
    "tokens": check_tokens,
}
