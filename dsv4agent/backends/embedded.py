"""The engine in the same process, as a backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from dsv4agent.backends.checkpoint import Checkpoint
from dsv4agent.backends.protocol import Chunk, Defaults, GenerationRequest, Usage
from dsv4agent.encoding import Tokenizer
from dsv4agent.errors import BackendError
from dsv4agent.transcript import ModelRecord

# The engine is imported where it is used: it brings torch, which takes seconds that `sessions list` need not
# spend.
if TYPE_CHECKING:
    from dsv4agent.engine import Constraint, Engine
    from dsv4agent.engine import Sequence as EngineSequence

    Constrain = Callable[[Sequence[int]], Constraint | None]


class EmbeddedBackend:
    """A checkpoint, loaded into the engine of this process."""

    def __init__(self, engine: Engine, *, constrain: Constrain | None = None) -> None:
        """Stand on an engine that is already loaded.

        Args:
            engine: The engine; it stays open until `aclose`.
            constrain: Called before each generation with the ids so far; its result takes the place of the
                session's grammar.

        Raises:
            ModelNotFound: The engine's checkpoint has no tokenizer or configuration any more.
            TokenizerError: The tokenizer cannot be used.
        """
        self._checkpoint = Checkpoint.find(engine.settings.path)
        self._engine = engine
        self._tokenizer = Tokenizer.from_checkpoint(self._checkpoint.path)
        self._constrain = constrain
        record = self._checkpoint.record()
        window = min(record.context_window, engine.max_context)
        self._record = record.model_copy(update={"context_window": window})

    @classmethod
    async def load(cls, model: str | Path) -> EmbeddedBackend:
        """Load a bundled model or a checkpoint folder.

        Raises:
            ModelNotFound: There is none.
            BackendError: The engine cannot load it; says why.
        """
        return await anyio.to_thread.run_sync(cls._load, Checkpoint.find(model))

    @classmethod
    def _load(cls, checkpoint: Checkpoint) -> EmbeddedBackend:
        from dsv4agent.engine import Engine

        with _translated_errors():
            return cls(Engine.load(checkpoint.path))

    @property
    def engine(self) -> Engine:
        """The engine itself."""
        return self._engine

    @property
    def record(self) -> ModelRecord:
        """Which checkpoint this is."""
        return self._record

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer."""
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Length of the logits."""
        return self._engine.config.vocab_size

    @property
    def defaults(self) -> Defaults:
        """What the checkpoint recommends."""
        return self._checkpoint.defaults

    async def open(self, tokens: Sequence[int]) -> EmbeddedSequence:
        """Start a sequence on the longest prefix whose state the engine still has."""
        with _translated_errors():
            return EmbeddedSequence(self._engine.open(tokens), self._constrain)

    async def aclose(self) -> None:
        """Close the engine."""
        await anyio.to_thread.run_sync(self._engine.close)


class EmbeddedSequence:
    """A sequence of the engine."""

    def __init__(self, sequence: EngineSequence, constrain: Constrain | None) -> None:
        self._sequence = sequence
        self._constrain = constrain

    @property
    def tokens(self) -> Sequence[int]:
        """All ids, appended and sampled."""
        return self._sequence.tokens

    @property
    def usage(self) -> Usage:
        """The engine's own counters."""
        usage = self._sequence.usage
        return Usage(usage.computed_tokens, usage.reused_tokens)

    @property
    def pending(self) -> int:
        """Ids at the end that the engine has not computed yet."""
        return self._sequence.pending

    async def append(self, ids: Sequence[int]) -> None:
        """Add ids; the engine computes them with the next generation."""
        with _translated_errors():
            self._sequence.append(ids)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Sample until a stop id or the number of ids that was asked for."""
        from dsv4agent.engine import SamplingParams

        params = SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            seed=request.sampling.seed,
            max_tokens=request.max_tokens,
            stop_token_ids=tuple(sorted(request.stop_ids)),
        )
        constraint = request.constraint
        if self._constrain is not None:
            constraint = self._constrain(self._sequence.tokens)
        with _translated_errors():
            async with aclosing(self._sequence.generate(params, constraint)) as steps:
                async for step in steps:
                    yield Chunk(tuple(step.tokens))

    async def rewind(self, length: int) -> None:
        """Drop all ids from `length` on."""
        with _translated_errors():
            await anyio.to_thread.run_sync(self._sequence.rewind, length)

    async def close(self) -> None:
        """Release the state; the engine may keep the prefix cached."""
        from dsv4agent.engine.errors import EngineClosed

        # A closed engine has released everything already.
        with _translated_errors(), suppress(EngineClosed):
            self._sequence.close()


@contextmanager
def _translated_errors() -> Generator[None]:
    from dsv4agent.engine.errors import EngineError

    try:
        yield
    except EngineError as error:
        raise BackendError(str(error)) from error
