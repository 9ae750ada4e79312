"""Tools, tokenizers and turns that the grammar's tests share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from dsv4agent.encoding import Tokenizer, encode_tokens
from dsv4agent.encoding.control_tokens import ALL, DSML, THINK_CLOSE
from dsv4agent.encoding.grammar import ToolCallGrammar, TurnConstraint
from tests.golden.tokenizers import tokenizer_for

SMALL = "small"


def function(name: str, properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    """Return a closed `function` object."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }
    return {"name": name, "description": f"Does {name}.", "parameters": schema}


FUNCTIONS: list[dict[str, Any]] = [
    function(
        "bash",
        {
            "command": {"type": "string"},
            "timeout": {"type": "integer", "minimum": 1, "maximum": 600},
            "restart": {"type": "boolean"},
        },
        "command",
    ),
    function(
        "str_replace_editor",
        {
            "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
            "path": {"type": "string"},
            "old_str": {"type": "string"},
            "insert_line": {"type": "integer", "minimum": 0},
            "view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        },
        "command",
        "path",
    ),
    function(
        "record",
        {
            "title": {"anyOf": [{"type": "string", "maxLength": 12}, {"type": "null"}]},
            "score": {"type": ["number", "null"]},
            "level": {"enum": ["low", "high", 3, None]},
            "entry": {"$ref": "#/$defs/Entry"},
            "code": {"type": "string", "pattern": "^[a-z]{2}[0-9]+$"},
        },
        "entry",
        **{
            "$defs": {
                "Entry": {
                    "type": "object",
                    "properties": {
                        "key": {"type": "string"},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/Entry"}, "maxItems": 2},
                    },
                    "required": ["key"],
                    "additionalProperties": False,
                }
            }
        },
    ),
    function("now", {}),
]
SCHEMAS: dict[str, dict[str, Any]] = {item["name"]: item["parameters"] for item in FUNCTIONS}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": item} for item in FUNCTIONS]


@cache
def small_tokenizer() -> Tokenizer:
    """Return a byte-level BPE tokenizer of some 700 ids, trained on the layout of calls."""
    library = LibraryTokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    texts = [
        f'tool_calls>\n< invoke name="{name}">\n< parameter name="command" string="true">ls -la</'
        for name in SCHEMAS
    ]
    texts += [
        'parameter name="path" string="false">{"key": "value", "children": []}</',
        "Well.\n\n<",
        "\n\n<",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    library.train_from_iterator(texts * 4, trainer)
    controls = [AddedToken(text, special=False, normalized=False) for text in ALL]
    library.add_tokens(controls)  # pyright: ignore[reportUnknownMemberType] - the library's types are incomplete
    return Tokenizer(library.to_str())


def tokenizer_named(name: str) -> Tokenizer:
    """Return the small tokenizer, or the official one of a revision."""
    return small_tokenizer() if name == SMALL else tokenizer_for(name)


def grammar(name: str = SMALL, mode: str = "thinking", revision: str | None = None) -> ToolCallGrammar:
    """Return the grammar of `FUNCTIONS` over a tokenizer."""
    return ToolCallGrammar(FUNCTIONS, tokenizer_named(name), revision or revision_of(name), mode)


def revision_of(name: str) -> str:
    """Return the revision to use with a tokenizer."""
    return "v4-preview" if name == SMALL else name


def ids_of(tokenizer: Tokenizer, *parts: str) -> list[int]:
    """Return the ids of texts; a part that is exactly a control token becomes its id."""
    return [
        token
        for part in parts
        for token in ([tokenizer.control_id(part)] if part in ALL else tokenizer.encode_text(part))
    ]


def block_ids(tokenizer: Tokenizer, text: str, *, before: str = "\n\n<") -> list[int]:
    """Return the ids of a chat turn with a block; `text` begins behind the first marker, `|` is a marker."""
    parts = [piece for run in text.split("|") for piece in (run, DSML)][:-1]
    return ids_of(tokenizer, before, DSML, *(part for part in parts if part))


def turn_ids(message: dict[str, Any], name: str, mode: str) -> list[int]:
    """Return the ids of an assistant message as the encoder writes it, behind its header."""
    revision = revision_of(name)
    opening: dict[str, Any] = {"role": "user", "content": "Go.", "tools": TOOLS}
    if revision != "v4.1":
        opening = {"role": "system", "content": "", "tools": TOOLS}
    messages = [opening, {"role": "user", "content": "Go."}]

    def ids(conversation: list[dict[str, Any]]) -> list[int]:
        return list(
            encode_tokens(
                conversation,
                tokenizer_named(name),
                thinking_mode=mode,
                revision=revision,
                drop_thinking=False,
            ).ids
        )

    return ids([*messages, message])[len(ids(messages)) :]


def allowed(constraint: TurnConstraint, token: int) -> bool:
    """Whether the mask allows a token."""
    return bool(constraint.mask()[token])


def accepted(constraint: TurnConstraint, ids: Sequence[int]) -> int:
    """Return how many ids the mask allows, advancing over them."""
    for number, token in enumerate(ids):
        if not allowed(constraint, token):
            return number
        constraint.commit([token])
    return len(ids)


_characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(
    st.text(_characters, max_size=12),
    st.lists(
        st.sampled_from(
            [
                f"</{DSML}parameter>",
                THINK_CLOSE,
                "\n\n<",
                "</",
                "<",
                '">',
                "\n",
                " ",
                "a",
                ".\n\n",
                "中",
                "🧪",
                "é",
            ]
        ),
        max_size=6,
    ).map("".join),
)
# The grammar engine writes U+007F inside JSON only as an escape, the encoder writes it raw.
json_texts = texts.map(lambda text: text.replace("\x7f", ""))
# Properties of nested objects stand in the schema's order.
entries = st.recursive(
    json_texts.map(lambda key: {"key": key}),
    lambda inner: st.tuples(json_texts, st.lists(inner, max_size=2)).map(
        lambda pair: {"key": pair[0], "children": pair[1]}
    ),
    max_leaves=4,
)
_values: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "bash": {"command": texts, "timeout": st.integers(1, 600), "restart": st.booleans()},
    "str_replace_editor": {
        "command": st.sampled_from(["view", "create", "str_replace", "insert"]),
        "path": texts,
        "old_str": texts,
        "insert_line": st.integers(0),
        "view_range": st.lists(st.integers(), min_size=2, max_size=2),
    },
    "record": {
        "title": st.none() | texts.filter(lambda text: len(text) <= 12),
        "score": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "level": st.sampled_from(["low", "high", 3, None]),
        "entry": entries,
        "code": st.from_regex("[a-z]{2}[0-9]+", fullmatch=True),
    },
    "now": {},
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid call with its parameters in any order."""
    name = draw(st.sampled_from(sorted(_values)))
    required = SCHEMAS[name]["required"]
    optional = [key for key in _values[name] if key not in required]
    chosen = draw(st.lists(st.sampled_from(optional), unique=True)) if optional else []
    order = draw(st.permutations([*required, *chosen]))
    arguments = {key: draw(_values[name][key]) for key in order}
    return {
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }


@st.composite
def turns(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an assistant message."""
    return {
        "role": "assistant",
        "reasoning_content": draw(texts),
        "content": draw(texts),
        "tool_calls": draw(st.lists(calls(), max_size=3)),
    }


_ENDINGS = (b"<", b"</", b"\n\n", b'"', b"}", b"]", b"\n", b">")


class RandomModel:
    """Random weights over the last id, leaning towards ids that end things, so that turns come to an end."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        size = tokenizer.vocab_size
        self._weights = torch.randn(16, size, generator=self._generator)
        lean = torch.zeros(size)
        for token in range(size):
            piece = tokenizer.id_bytes(token)
            if tokenizer.is_control(token) or piece in _ENDINGS:
                lean[token] = 2 * math.log(size)  # at temperature 2, each as likely as all others together
        self._weights += lean

    def sample(self, last: int, mask: torch.Tensor, temperature: float) -> int:
        """Return one id under the mask."""
        logits = (self._weights[last % 16] / temperature).masked_fill(~mask, -torch.inf)
        uniform = torch.rand(logits.shape, generator=self._generator)
        return int((logits - (-uniform.clamp_min(1e-20).log()).log()).argmax())
