"""A scripted model: a backend whose sequences yield prepared ids, made by the real encoder.

What it says next is a function of the ids so far alone, as with a real model and a fixed seed: so it goes
on in the middle of a turn, in another process, after a rewind.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer

from dsv4agent import Event, Limits, Session
from dsv4agent.backends import Chunk, Defaults, GenerationRequest, Usage
from dsv4agent.encoding import Revision, Tokenizer, encode_tokens
from dsv4agent.encoding.control_tokens import ALL, ASSISTANT, EOS
from dsv4agent.encoding.modes import encoder_mode
from dsv4agent.transcript import ModelRecord, Sampling
from dsv4agent.transcript.events import EventBase

Turn = dict[str, Any] | str | list[int] | tuple["Turn", ...]
"""An assistant message, or raw text whose control tokens are meant, or ids with their end token.

A tuple holds what it is at the first seed that asks for it, at the second, and so on."""


@cache
def tiny_definition() -> str:
    """Return a `tokenizer.json` of single bytes, with the official control tokens as its first ids."""
    vocab = {text: number for number, text in enumerate([*ALL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    library = LibraryTokenizer(models.BPE(vocab=vocab, merges=[]))
    library.add_tokens(  # pyright: ignore[reportUnknownMemberType]
        [AddedToken(text, special=False, normalized=False) for text in ALL]
    )
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    return library.to_str()


def says(text: str) -> dict[str, Any]:
    """Return an assistant message of text alone."""
    return {"role": "assistant", "content": text}


def calls(*pairs: tuple[str, dict[str, Any]], text: str = "") -> dict[str, Any]:
    """Return an assistant message with calls, given as (tool, arguments)."""
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(args)},
            }
            for number, (name, args) in enumerate(pairs)
        ],
    }


class ScriptedBackend:
    """Answers the n-th turn of any session with the n-th turn of the script.

    Args:
        turns: The script. Past its end the model says "done".
        delay: Seconds before each id.
        window: Context window in tokens.
        chunk: Ids per chunk.
    """

    def __init__(
        self,
        turns: Sequence[Turn],
        *,
        mode: str = "non-think",
        delay: float = 0.0,
        window: int = 1 << 20,
        chunk: int = 1,
        max_steps: int = 500,
        redraws: int = 0,
        fingerprint: str = "scripted",
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.turns = list(turns)
        self.delay = delay
        self.chunk = chunk
        self.tokenizer = tokenizer or Tokenizer(tiny_definition())
        self.defaults = Defaults(mode=mode, max_steps=max_steps, redraws=redraws)
        self.vocab_size = None
        self.record = ModelRecord(
            name="scripted",
            path="scripted",
            fingerprint=fingerprint,
            revision=Revision.V4_PREVIEW.value,
            context_window=window,
        )
        self.sequences: list[ScriptedSequence] = []
        self.samplings: list[Sampling] = []
        self._seeds: dict[int, list[int]] = {}

    async def open(self, tokens: Sequence[int]) -> ScriptedSequence:
        sequence = ScriptedSequence(self, tokens)
        self.sequences.append(sequence)
        return sequence

    async def aclose(self) -> None:
        pass

    def turn_ids(self, number: int, seed: int = 0) -> list[int]:
        """Return the ids of a turn, end token included."""
        turn = self.turns[number] if number < len(self.turns) else says("done")
        if isinstance(turn, tuple):
            seeds = self._seeds.setdefault(number, [])
            if seed not in seeds:
                seeds.append(seed)
            turn = turn[seeds.index(seed)]
        assert not isinstance(turn, tuple)
        if isinstance(turn, list):
            return turn
        eos = self.tokenizer.control_id(EOS)
        if isinstance(turn, str):
            return [*self.control_ids(turn), eos]
        mode = encoder_mode(self.defaults.mode, Revision.V4_PREVIEW)
        prompt = encode_tokens(
            [turn],
            self.tokenizer,
            thinking_mode=mode.thinking_mode,
            context=[{"role": "system", "tools": [{"type": "function", "function": {}}]}, {"role": "user"}],
            drop_thinking=False,
            reasoning_effort=mode.reasoning_effort,
        )
        assert prompt.ids[-1] == eos
        return list(prompt.ids)

    def control_ids(self, text: str) -> list[int]:
        """Encode text in which control tokens are meant."""
        return LibraryTokenizer.from_str(tiny_definition()).encode(text, add_special_tokens=False).ids


class ScriptedSequence:
    """A sequence that counts like an engine: an id is computed when the next one is wanted."""

    def __init__(self, backend: ScriptedBackend, tokens: Sequence[int]) -> None:
        self._backend = backend
        self._tokens = list(tokens)
        self._computed = 0
        self._length = 0

    @property
    def tokens(self) -> Sequence[int]:
        return tuple(self._tokens)

    @property
    def usage(self) -> Usage:
        return Usage(self._computed, 0)

    @property
    def pending(self) -> int:
        return len(self._tokens) - self._length

    async def append(self, ids: Sequence[int]) -> None:
        self._tokens += ids

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        tokenizer = self._backend.tokenizer
        header = tokenizer.control_id(ASSISTANT)
        number = self._tokens.count(header) - 1
        # The header is followed by one think tag; what comes after that was said already.
        begin = len(self._tokens) - self._tokens[::-1].index(header) + 1
        self._backend.samplings.append(request.sampling)
        ids = self._backend.turn_ids(number, request.sampling.seed)[len(self._tokens) - begin :][
            : request.max_tokens
        ]
        while ids:
            await anyio.sleep(self._backend.delay)
            chunk, ids = ids[: self._backend.chunk], ids[self._backend.chunk :]
            self._computed += self.pending
            self._length = len(self._tokens)
            self._tokens += chunk
            yield Chunk(tuple(chunk))
            if chunk[-1] in request.stop_ids:
                return

    async def rewind(self, length: int) -> None:
        del self._tokens[length:]
        self._length = min(self._length, length)

    async def close(self) -> None:
        pass


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the sessions of a test in its own folder."""
    folder = tmp_path / "home"
    monkeypatch.setenv("DSV4AGENT_HOME", str(folder))
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a workspace with one small file."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "a.txt").write_text("hello\nworld\n")
    return folder


async def collect(session: Session, task: str | None = None, limits: Limits | None = None) -> list[Event]:
    """Run to the end and return the events."""
    return [event async for event in session.run(task, limits=limits)]


E = TypeVar("E", bound=EventBase)


def only(events: Sequence[Event], kind: type[E]) -> list[E]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def assert_exact(session: Session, backend: ScriptedBackend) -> None:
    """Assert that the transcript equals the conversation rendered at once, and what the model holds."""
    mode = encoder_mode(session.transcript.header.mode, Revision.V4_PREVIEW)
    full = encode_tokens(
        session.messages(),
        backend.tokenizer,
        thinking_mode=mode.thinking_mode,
        drop_thinking=False,
        reasoning_effort=mode.reasoning_effort,
    )
    assert list(full.ids) == session.transcript.tokens
    assert tuple(session.transcript.tokens) == backend.sequences[-1].tokens
