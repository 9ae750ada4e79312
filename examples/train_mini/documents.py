"""From episodes to training documents: ids by the product's own encoder, and a loss weight for each."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsv4agent.context.prompts import PERSONA, task_message
from dsv4agent.encoding import EncodedSpan, Tokenizer, encode_tokens
from dsv4agent.encoding.control_tokens import ASSISTANT, BOS, DSML, EOS, THINK_CLOSE, USER
from dsv4agent.tools import minimal_profile
from examples.train_mini.teacher import Episode

REVISION: Final = "v4-preview"
THINKING_MODE: Final = "chat"
NONE, ENVIRONMENT, ASSISTANT_TEXT = 0, 1, 2
"""Weights: no loss, text that the agent reads, text that the agent should write."""

_MASKED_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "bash": ("command",),
    "str_replace_editor": ("old_str", "new_str"),
}


@dataclass(frozen=True)
class Document:
    """One training sequence.

    Attributes:
        ids: Token ids, uint16, from BOS on.
        weight: uint8 of the same length: how the id counts as a target (`NONE`, `ENVIRONMENT`,
            `ASSISTANT_TEXT`).
    """

    ids: NDArray[np.uint16]
    weight: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)


class CachingTokenizer(Tokenizer):
    """A tokenizer that remembers short texts; the frame of a conversation repeats in every document."""

    @functools.lru_cache(maxsize=1 << 15)  # noqa: B019  (lives as long as the process)
    def _cached(self, text: str) -> tuple[int, ...]:
        return tuple(super().encode_text(text))

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of foreign text."""
        return (
            list(self._cached(text))
            if len(text) < 40 or text.startswith("tool_calls>")
            else super().encode_text(text)
        )


@functools.cache
def tool_schemas() -> list[dict[str, Any]]:
    """Return the function declarations of the minimal profile."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
        }
        for t in minimal_profile()
    ]


def opening_messages(task: str, workspace: str) -> list[dict[str, Any]]:
    """Return the system message and the first user message of a session."""
    return [
        {"role": "system", "content": PERSONA, "tools": tool_schemas()},
        {"role": "user", "content": task_message(task, workspace)},
    ]


def messages_of(episode: Episode) -> list[dict[str, Any]]:
    """Return the episode as chat messages."""
    messages = opening_messages(episode.task, episode.repository.workspace)
    for turn in episode.turns:
        message: dict[str, Any] = {"role": "assistant", "content": turn.content}
        if turn.calls:
            message["tool_calls"] = [
                {
                    "type": "function",
                    "function": {"name": c.name, "arguments": json.dumps(dict(c.args), ensure_ascii=False)},
                }
                for c in turn.calls
            ]
        messages.append(message)
        messages += [{"role": "tool", "content": call.result} for call in turn.calls]
    return messages


class DocumentEncoder:
    """Encodes episodes and plain code.

    Args:
        tokenizer: The mini model's tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        frame = self._spans(opening_messages("", ""))
        end = next(i for i, span in enumerate(frame) if span.text == USER)
        self._system = [token for span in frame[:end] for token in span.ids]

    @classmethod
    def from_file(cls, path: str | Path) -> DocumentEncoder:
        """Build from a `tokenizer.json`."""
        return cls(CachingTokenizer.from_file(path))

    def episode(self, episode: Episode, *, system: bool = True) -> Document:
        """Return the episode as a document.

        Args:
            episode: The transcript.
            system: Whether the document has the system prompt with the tools. It is the same in every
                session and takes a third of an average episode, so most of training can do without.

        What the assistant writes counts fully, but for the texts of calls that are wrong on purpose; the
        system prompt, the task and the results of tools count as environment.
        """
        messages = messages_of(episode)
        # The tools stand in the system message only, whose ids are known; the rest renders as in the
        # whole conversation.
        spans = self._spans([{"role": "system", "content": ""}, *messages[1:]])
        start = next(i for i, span in enumerate(spans) if span.text == USER)
        ids = list(self._system) if system else [self.tokenizer.control_id(BOS)]
        weights = [ENVIRONMENT] * len(ids)
        for span, weight in zip(spans[start:], _weights(spans[start:], episode), strict=True):
            ids += span.ids
            weights += [weight] * len(span.ids)
        weights[0] = NONE
        return Document(np.array(ids, np.uint16), np.array(weights, np.uint8))

    def reference_ids(self, episode: Episode) -> list[int]:
        """Return the ids of the whole conversation as one rendering, for checking `episode`."""
        return [token for span in self._spans(messages_of(episode)) for token in span.ids]

    def code(self, text: str) -> Document:
        """Return plain source text as a document, all of it environment."""
        tokenizer = self.tokenizer
        ids = [tokenizer.control_id(BOS), *tokenizer.encode_text(text), tokenizer.control_id(EOS)]
        weights = np.full(len(ids), ENVIRONMENT, np.uint8)
        weights[0] = NONE
        return Document(np.array(ids, np.uint16), weights)

    def _spans(self, messages: Sequence[Mapping[str, Any]]) -> tuple[EncodedSpan, ...]:
        return encode_tokens(
            [dict(m) for m in messages], self.tokenizer, thinking_mode=THINKING_MODE, revision=REVISION
        ).spans


def _weights(spans: Sequence[EncodedSpan], episode: Episode) -> Iterator[int]:
    """Yield the weight of each span, from the first user token on."""
    turns = iter(episode.turns)
    calls = iter(())
    turn = None
    call = None
    parameter = ""
    masked = False
    speaking = False
    for i, span in enumerate(spans):
        if span.text == ASSISTANT:
            turn = next(turns)
            calls = iter(turn.calls)
            # What is said before a wrong edit is as wrong as the edit.
            masked = any(not call.trained for call in turn.calls)
            yield ENVIRONMENT
            continue
        if span.text == THINK_CLOSE and spans[i - 1].text == ASSISTANT:
            speaking = True
            yield ENVIRONMENT
            continue
        if not speaking:
            yield ENVIRONMENT
            continue
        if span.text == EOS:
            speaking = False
            yield ASSISTANT_TEXT
            continue
        if span.text.startswith("invoke name="):
            call = next(calls)
            masked = False
        elif span.text.startswith("parameter name="):
            parameter = (
                spans[i + 1].text
                if '"' not in span.text[len('parameter name="') :]
                else span.text.split('"')[1]
            )
        elif span.text == DSML:
            masked = False
        yield NONE if masked else ASSISTANT_TEXT
        if call is not None and not call.trained and ' string="' in span.text:
            masked = parameter.strip('"') in _MASKED_PARAMETERS[call.name]
