"""A sequence: an append-only run of tokens with its decode state, and generation on top of it.

The ledger: a token is *pending* from the moment it joins `tokens` until the forward pass has processed it.
    Each is processed once. Sampling needs the logits after the last token, so `generate` first processes what
    is pending; the token it samples is pending until the next step, or, if it was the last, until the next
    `generate` or `flush`. Hence always `usage.computed_tokens + usage.reused_tokens == len(tokens) - pending`
    unless the sequence was rewound.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch import Tensor

from dsv4agent.engine.cache.prefix import Lineage
from dsv4agent.engine.compute import State
from dsv4agent.engine.constraint import Constraint
from dsv4agent.engine.errors import (
    ContextOverflow,
    EmptySequence,
    InvalidToken,
    SequenceBusy,
    SequenceClosed,
)
from dsv4agent.engine.sampling import Draw, SamplingParams, log_probability
from dsv4agent.engine.scheduler import Shared, Steps, at_once

if TYPE_CHECKING:
    from dsv4agent.engine.engine import Engine


@dataclass(frozen=True)
class Step:
    """Tokens that joined the sequence together: one sampled, or several forced by the constraint.

    `finish_reason` is None until the last step: then `stop` (a stop token, which is the last of `tokens`),
    `length` (max_tokens) or `context` (the context is full). `logprobs` has one value per token if asked for;
    forced tokens have 0.0.
    """

    tokens: tuple[int, ...]
    finish_reason: str | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Usage:
    """What a sequence has cost so far.

    Attributes:
        computed_tokens: Positions its forward passes processed, recomputation after `rewind` included.
        reused_tokens: Positions taken over from states of other sequences (attach, fork).
        generated_tokens: Tokens that `generate` added.
    """

    computed_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0


class Sequence:
    """Made by `Engine.open`. Its methods are for one caller at a time.

    Attributes:
        engine: The engine it runs on.
        lineage: Tokens and states; the device thread's business.
        generated: Tokens that generation added.
    """

    def __init__(self, engine: Engine, lineage: Lineage) -> None:
        self.engine = engine
        self.lineage = lineage
        self._borders: set[int] = set()
        self._attached = lineage.state is not None
        self._computed = self._reused = 0
        self.generated = 0
        self._busy = self._closed = False

    @property
    def tokens(self) -> tuple[int, ...]:
        """All token ids, prompt and generated, pending ones included."""
        return tuple(self.lineage.tokens)

    def __len__(self) -> int:
        return len(self.lineage.tokens)

    @property
    def pending(self) -> int:
        """How many of the last tokens the forward pass has not processed yet."""
        state = self.lineage.state
        return len(self.lineage.tokens) - (0 if state is None else state.position)

    @property
    def usage(self) -> Usage:
        """What the sequence has cost so far."""
        return Usage(self._computed, self._reused, self.generated)

    def append(self, tokens: Iterable[int]) -> None:
        """Add tokens; they are processed when next needed.

        Raises:
            InvalidToken: An id lies outside the vocabulary.
            ContextOverflow: The context cannot hold them; nothing was added.
        """
        self._check_free()
        new = [int(token) for token in tokens]
        vocabulary = self.engine.config.vocab_size
        for token in new:
            if not 0 <= token < vocabulary:
                raise InvalidToken(f"token id {token} lies outside the vocabulary of {vocabulary}.")
        length = len(self.lineage.tokens)
        if length + len(new) > self.engine.max_context:
            raise ContextOverflow(
                f"{length} + {len(new)} tokens exceed the context of {self.engine.max_context}; "
                "rewind, or start from a shorter transcript."
            )
        self.lineage.tokens.extend(new)
        self._borders.update((length, length + len(new)))

    async def generate(
        self, params: SamplingParams, constraint: Constraint | None = None
    ) -> AsyncGenerator[Step]:
        """Generate until a stop token, `max_tokens` or the end of the context; yield each step.

        A token joins `tokens` when its step is delivered. Leaving the loop or cancelling it leaves the
        sequence at the
        last delivered token: a token sampled but not delivered is dropped, and sampled again, identically, if
        generation continues with the same seed.

        Raises:
            EmptySequence: There is no token to continue from.
            ConstraintDeadEnd: The constraint allows nothing.
            SequenceBusy: The sequence was changed between two steps.
        """
        run = _Generation(self, params, constraint)
        while run.finish_reason is None:
            self._check_free()
            self._busy = True
            try:
                drawn = await self.engine.scheduler.run_async(run.draw())
            finally:
                self._busy = False
            yield run.accept(drawn)

    def stream(self, params: SamplingParams, constraint: Constraint | None = None) -> Iterator[Step]:
        """Do as `generate`, blocking the calling thread."""
        run = _Generation(self, params, constraint)
        while run.finish_reason is None:
            self._check_free()
            self._busy = True
            try:
                drawn = self.engine.scheduler.run(run.draw())
            finally:
                self._busy = False
            yield run.accept(drawn)

    async def flush(self) -> None:
        """Process all pending tokens now, for instance while a tool runs."""
        self._check_free()
        self._busy = True
        try:
            await self.engine.scheduler.run_async(self._advance())
        finally:
            self._busy = False

    def fork(self) -> Sequence:
        """Return a sequence with the same tokens that continues independently, without computing anything."""
        self._check_free()
        return self.engine.scheduler.run(at_once(self._fork), urgent=True)

    def rewind(self, length: int) -> None:
        """Drop the tokens from `length` on.

        The state moves to the nearest one kept at or below `length` (message borders and every 512 tokens);
        the rest becomes pending again and is recomputed exactly.
        """
        self._check_free()
        if not 0 <= length <= len(self.lineage.tokens):
            raise ValueError(
                f"cannot rewind to {length}; the sequence has {len(self.lineage.tokens)} tokens."
            )
        self.engine.scheduler.run(at_once(lambda: self.lineage.truncate(length)), urgent=True)
        self._borders = {border for border in self._borders if border <= length} | {length}

    def close(self) -> None:
        """End the sequence; its states stay among the engine's recent ones for a while."""
        if not self._closed:
            self._check_free()
            self._closed = True
            self.engine.retire(self.lineage)

    def _check_free(self) -> None:
        if self._closed:
            raise SequenceClosed("the sequence is closed; open another with its tokens.")
        if self._busy:
            raise SequenceBusy("another call is working on this sequence; wait for it or cancel it.")

    # What follows runs on the device thread.

    def _fork(self) -> Sequence:
        other = Sequence(self.engine, self.lineage.fork())
        other._attached = self._attached
        other._borders = set(self._borders)
        state = self.lineage.state
        other._reused = 0 if state is None else state.position
        self.engine.records.add(other.lineage)
        return other

    def _advance(self) -> Steps[None]:
        """Process all pending tokens, keeping states at message borders and at regular distances."""
        lineage, model = self.lineage, self.engine.model
        state = lineage.state
        if state is None:
            state = self.engine.records.attach(lineage.tokens) if not self._attached else None
            if state is None:
                state = cast("State", model.empty_state())
            else:
                # Of its own, so that a rewind need not go back to the start.
                lineage.keep(state)
            lineage.state = state
            self._reused += state.position
            self.engine.meter.reused += state.position
            self._attached = True
        stop = len(lineage.tokens)
        if state.position == stop:
            return
        interval = model.snapshot_interval
        grid = range(interval, stop, interval)
        cuts = {border for border in self._borders if state.position < border < stop}
        cuts.update(place for place in grid if place > state.position)
        for start, end in list(model.chunks(state.position, stop, cuts)):
            if end - start == 1:
                yield Shared(model, id(self), self, _process_one_each, model.patience)
                continue
            began = time.perf_counter()
            model.advance(state, lineage.tokens[start:end])
            self._note(end - start, time.perf_counter() - began)
            if end < stop:
                yield

    def _note(self, tokens: int, seconds: float) -> None:
        """Count a step, and keep the state if it stands at a place to come back to."""
        state = self.lineage.state
        assert state is not None
        self._computed += tokens
        self.engine.meter.count(tokens, seconds)
        if state.position in self._borders or state.position % self.engine.model.snapshot_interval == 0:
            self.lineage.keep(state)

    def next_logits(self) -> Steps[Tensor]:
        """Process what is pending and return the logits float32 [V] after the last token."""
        yield from self._advance()
        state = self.lineage.state
        assert state is not None
        return self.engine.model.last_logits(state)


def _process_one_each(sequences: list[Sequence]) -> None:
    """Process the next token of several sequences of one engine together."""
    began = time.perf_counter()
    states = [cast("State", sequence.lineage.state) for sequence in sequences]
    tokens = [
        sequence.lineage.tokens[state.position] for sequence, state in zip(sequences, states, strict=True)
    ]
    sequences[0].engine.model.advance_together(states, tokens)
    seconds = (time.perf_counter() - began) / len(sequences)
    for sequence in sequences:
        sequence._note(1, seconds)  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True)
class _Drawn:
    """What one step produced on the device thread, before it joins the sequence."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None


class _Generation:
    """One call of `generate`: draws steps on the device thread, lets them join on the caller's."""

    def __init__(self, sequence: Sequence, params: SamplingParams, constraint: Constraint | None) -> None:
        params.check()
        engine = sequence.engine
        if not sequence.lineage.tokens:
            raise EmptySequence("there is no token to continue from; append the prompt first.")
        self.finish_reason: str | None = None
        self._sequence = sequence
        self._params = params
        self._constraint = constraint
        self._seed = int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed
        stops = params.stop_token_ids
        self._stops = frozenset((engine.config.eos_token_id,) if stops is None else stops)
        self._length = len(sequence.lineage.tokens)
        room = engine.max_context - self._length
        if room <= 0:
            raise ContextOverflow(f"the context of {engine.max_context} tokens is full; rewind first.")
        self._by_context = params.max_tokens is None or room < params.max_tokens
        self._left = room if params.max_tokens is None else min(room, params.max_tokens)

    def draw(self) -> Steps[_Drawn]:
        """Return the next tokens: those the constraint forces, or one sampled."""
        sequence, constraint, params = self._sequence, self._constraint, self._params
        if len(sequence.lineage.tokens) != self._length:
            raise SequenceBusy("the sequence was changed while it was generating; start a new generate.")
        forced = tuple(constraint.forced()) if constraint is not None else ()
        if forced:
            return _Drawn(self._within_limits(forced), (0.0,) * len(forced) if params.logprobs else None)
        logits = yield from sequence.next_logits()
        allowed = None if constraint is None else constraint.mask(logits.to("cpu"))
        draw = Draw(self._seed, self._length, allowed)
        token = sequence.engine.model.choose(logits, params, draw)
        return _Drawn((token,), (log_probability(logits, token),) if params.logprobs else None)

    def accept(self, drawn: _Drawn) -> Step:
        """Let drawn tokens join the sequence and return their step."""
        sequence = self._sequence
        sequence.lineage.tokens.extend(drawn.tokens)
        sequence.generated += len(drawn.tokens)
        sequence.engine.meter.generated += len(drawn.tokens)
        self._length += len(drawn.tokens)
        self._left -= len(drawn.tokens)
        if self._constraint is not None:
            self._constraint.commit(drawn.tokens)
        if drawn.tokens[-1] in self._stops:
            self.finish_reason = "stop"
        elif self._left == 0:
            self.finish_reason = "context" if self._by_context else "length"
        logprobs = None if drawn.logprobs is None else drawn.logprobs[: len(drawn.tokens)]
        return Step(drawn.tokens, self.finish_reason, logprobs)

    def _within_limits(self, forced: tuple[int, ...]) -> tuple[int, ...]:
        """Cut forced tokens at the budget and behind the first stop token."""
        kept = forced[: self._left]
        for index, token in enumerate(kept):
            if token in self._stops:
                return kept[: index + 1]
        return kept
