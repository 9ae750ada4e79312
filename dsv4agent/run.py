"""One run of a session: the operations that the agent loop is made of.

Each operation stores what it did before anyone is told of it, and leaves a transcript from which the loop can
go on. The loop itself stands in `agent.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from dsv4agent.backends.protocol import Backend, BackendSequence, GenerationRequest
from dsv4agent.budgets import Limits, Spending
from dsv4agent.context import tool_output_tokens
from dsv4agent.dialect import Dialect
from dsv4agent.errors import UsageError
from dsv4agent.progress import Phase, Progress, read_progress
from dsv4agent.repeats import KnownStates, redrawn
from dsv4agent.sandboxes import Sandbox
from dsv4agent.saves import WorkspaceSaves
from dsv4agent.toolbox import Toolbox, failure
from dsv4agent.tools import Status, ToolContext, ToolResult
from dsv4agent.transcript import (
    Event,
    Rewound,
    SessionWarning,
    StepFinished,
    StepStarted,
    StopReason,
    ToolCallFinished,
    ToolCallStarted,
    ToolOutput,
    Transcript,
    TurnDiscarded,
    UserMessage,
)
from dsv4agent.turns import Call, Closing, Turn, TurnReader, TurnWriter

MALFORMED_LIMIT = 3
"""Turns in a row without a usable call or answer, after which a run stops."""

_UNUSABLE = frozenset({"unknown_tool", "invalid_arguments", "malformed_call"})

T = TypeVar("T")


@dataclass
class Parts:
    """What a session is made of. `sequence` is opened by the first step that samples."""

    transcript: Transcript
    backend: Backend
    dialect: Dialect
    toolbox: Toolbox
    sandbox: Sandbox
    saves: WorkspaceSaves | None = None
    sequence: BackendSequence | None = None
    _closed_usage: tuple[int, int] = (0, 0)

    @property
    def progress(self) -> Progress:
        """Where the session stands."""
        return read_progress(self.transcript, self.dialect.eos_id)

    async def open_sequence(self) -> BackendSequence:
        """Return the model's sequence, which holds exactly the transcript's ids."""
        if self.sequence is None:
            self.sequence = await self.backend.open(self.transcript.tokens)
        return self.sequence

    async def append(self, ids: Sequence[int]) -> None:
        """Add ids to the model's sequence, if there is one yet."""
        if self.sequence is not None:
            await self.sequence.append(ids)

    def usage(self) -> tuple[int, int]:
        """Return positions computed and reused since the session was opened."""
        computed, reused = self._closed_usage
        if self.sequence is None:
            return computed, reused
        usage = self.sequence.usage
        return computed + usage.computed_tokens, reused + usage.reused_tokens

    async def close_sequence(self) -> None:
        """Let go of the model's state; the next step opens a sequence over the stored ids again."""
        if self.sequence is not None:
            self._closed_usage = self.usage()
            sequence, self.sequence = self.sequence, None
            await sequence.close()

    async def rewind(self, step: int) -> None:
        """Take back everything from this step on, save what the user said for it."""
        length = cut_to_step(self.transcript, step)
        if self.sequence is not None and length > 0:
            await self.sequence.rewind(length)
        else:
            await self.close_sequence()


def cut_to_step(transcript: Transcript, step: int) -> int:
    """Cut a transcript to where a step's new material began, and return that position.

    Raises:
        UsageError: The step was never begun.
    """
    for event in transcript.live_events():
        if isinstance(event, StepStarted) and event.step == step:
            position = event.position - event.new_tokens
            transcript.cut(position, Rewound(step=step, position=position), step=step)
            return position
    raise UsageError(f"There is no step {step} to go back to.")


class Run:
    """The state of one run: what it has spent, where its events go, and whether it was asked to stop."""

    def __init__(self, parts: Parts, limits: Limits, events: MemoryObjectSendStream[Event]) -> None:
        self.parts = parts
        self.spending = Spending(limits)
        self.computed_tokens = 0
        self.reused_tokens = 0
        self._events = events
        self._scope: anyio.CancelScope | None = None
        self._interrupted = False
        self._turn: Turn | None = None
        self._known = KnownStates()
        self._useless_turns = 0
        self._sampled_in_step = 0
        self._seconds_in_step = 0.0
        self._usage = parts.usage()

    @property
    def progress(self) -> Progress:
        """Where the session stands."""
        return self.parts.progress

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to stop."""
        return self._interrupted

    def interrupt(self) -> None:
        """Stop at the next token, or stop the running call."""
        self._interrupted = True
        if self._scope is not None:
            self._scope.cancel()

    def must_stop(self) -> StopReason | None:
        """Return what forbids another turn, if something does."""
        if self._interrupted:
            return StopReason.INTERRUPTED
        if self._useless_turns >= MALFORMED_LIMIT:
            return StopReason.MALFORMED
        return self.spending.exhausted()

    async def emit(self, *events: Event) -> None:
        """Store events, then show them."""
        for event in self.parts.transcript.commit(*events):
            await self.show(event)

    async def show(self, event: Event) -> None:
        """Hand an event to the reader of the run. A reader that has gone stops the run."""
        try:
            await self._events.send(event)
        except anyio.BrokenResourceError:
            self._interrupted = True

    async def start_step(self) -> bool:
        """Encode and append what waits, and open the next step. Returns False if the window has no room."""
        parts, progress = self.parts, self.progress
        spans = parts.dialect.encode(progress.pending, first=progress.step == 0)
        ids = [token for span in spans for token in span.ids]
        position = len(parts.transcript.tokens) + len(ids)
        if position >= parts.backend.record.context_window:
            return False
        # Stored before anything is awaited: a message that comes meanwhile belongs to the step after this.
        step = progress.step + 1
        started = StepStarted(step=step, position=position, new_tokens=len(ids))
        stored = parts.transcript.commit(started, spans=spans, step=step)
        await parts.append(ids)
        for event in stored:
            await self.show(event)
        return True

    async def sample(self) -> StopReason | None:
        """Sample the open turn to its end. Returns None when it is closed, else what keeps it open."""
        begin = anyio.current_time()
        try:
            return await self._sample()
        finally:
            self._seconds_in_step += anyio.current_time() - begin

    def turn(self) -> Turn:
        """Return the closed turn of the open step."""
        if self._turn is None:
            progress, transcript = self.progress, self.parts.transcript
            reader = self.parts.dialect.reader()
            reader.feed(transcript.tokens[progress.turn_start : -1])
            _, self._turn = reader.close(progress.step, Closing.of(transcript.spans[-1]))
        return self._turn

    async def discard_repeat(self, turn: Turn) -> bool:
        """Take a turn back whose edits give nothing new, to be drawn again. Returns whether it did."""
        parts, progress = self.parts, self.progress
        redraws = self.spending.limits.redraws
        redraws = parts.backend.defaults.redraws if redraws is None else redraws
        # What has begun to run, before a crash perhaps, cannot be taken back.
        if not redraws or progress.started or not turn.calls:
            return False
        step, start = progress.step, progress.turn_start
        planned: dict[str, str] = {}
        foreseen = [
            await parts.toolbox.foresee(call.name, call.arguments, self._context(step, call), planned)
            for call in turn.calls
            if call.problem is None
        ]
        if progress.draw >= redraws or not self._known.vain(foreseen):
            self._known.add(foreseen)
            return False
        discarded = TurnDiscarded(
            step=step,
            position=start,
            draw=progress.draw + 1,
            reason="repeats",
            calls=tuple((call.name, call.arguments) for call in turn.calls),
        )
        stored = parts.transcript.cut(start, discarded, step=step)
        self._turn = None
        if parts.sequence is not None:
            await parts.sequence.rewind(start)
        for event in stored:
            await self.show(event)
        return True

    async def call(self, call: Call) -> StopReason | None:
        """Run a call, or record why it does not run. Returns what stops the run, if something does."""
        progress = self.progress
        step = progress.step
        if call.call_id in progress.finished:
            return None
        if call.call_id in progress.started:
            note = "the runtime ended while this call ran; it was not repeated, so check what it has done"
            await self.emit(_finished(step, call, failure("interrupted", note)))
            return None
        if self._interrupted:
            return StopReason.INTERRUPTED
        if self.spending.time_is_over():
            return StopReason.TIME
        await self.emit(_started(step, call))
        if call.problem is not None:
            await self.emit(_finished(step, call, call.problem))
            return None
        if self.parts.saves is not None:
            await self._tell(step, await self.parts.saves.before(step))
        work = self.parts.toolbox.call(call.name, call.arguments, self._context(step, call))
        result = await self._until_stopped(work)
        if result is not None:
            await self.emit(_finished(step, call, result))
            return None
        if self._interrupted:
            stop, note = StopReason.INTERRUPTED, "the user stopped this call"
        else:
            stop, note = StopReason.TIME, "the time of the run was over while this call ran"
        await self.emit(_finished(step, call, failure("cancelled", note, Status.CANCELLED)))
        return stop

    async def finish_step(self, turn: Turn) -> None:
        """Close the step and say what it cost; a turn without use is answered with a note to the model."""
        progress = self.progress
        step = progress.step
        usable = any(result.code not in _UNUSABLE for result in progress.finished.values())
        self._useless_turns = 0 if usable or not (turn.calls or turn.note) else self._useless_turns + 1
        if self.parts.saves is not None:
            await self._tell(step, await self.parts.saves.after(step))
        before, self._usage = self._usage, self.parts.usage()
        finished = StepFinished(
            step=step,
            calls=len(turn.calls),
            computed_tokens=self._usage[0] - before[0],
            reused_tokens=self._usage[1] - before[1],
            sampled_tokens=self._sampled_in_step,
            seconds=self._seconds_in_step,
        )
        self.spending.steps += 1
        if turn.calls:
            self.spending.turns.append([(call.name, call.arguments) for call in turn.calls])
        self.computed_tokens += finished.computed_tokens
        self.reused_tokens += finished.reused_tokens
        self._turn, self._sampled_in_step, self._seconds_in_step = None, 0, 0.0
        notes = [UserMessage(step=step + 1, text=turn.note, origin="runtime")] if turn.note else []
        await self.emit(finished, *notes)

    async def _tell(self, step: int, trouble: str | None) -> None:
        if trouble is not None:
            await self.emit(SessionWarning(step=step, code="no_checkpoints", message=trouble))

    async def give_way(self) -> None:
        """Close the open step without running anything more, because the user has something to say."""
        if self.progress.phase is Phase.SAMPLING:
            progress, transcript = self.progress, self.parts.transcript
            reader = self.parts.dialect.reader()
            reader.feed(transcript.tokens[progress.turn_start :])
            await self._close_turn(TurnWriter(transcript, progress.step), reader, Closing.USER)
        if self.progress.phase is Phase.CALLING:
            turn, progress = self.turn(), self.progress
            for call in turn.calls:
                if call.call_id in progress.finished:
                    continue
                if call.call_id not in progress.started:
                    await self.emit(_started(progress.step, call))
                note = "the user spoke before this call was done"
                result = failure("interrupted", note, Status.CANCELLED)
                await self.emit(_finished(progress.step, call, result))
            await self.finish_step(replace(turn, note=None))

    async def _sample(self) -> StopReason | None:
        parts, progress = self.parts, self.progress
        reader = parts.dialect.reader()
        for piece in reader.feed(parts.transcript.tokens[progress.turn_start :]):
            await self.show(piece.model_copy(update={"step": progress.step}))
        writer = TurnWriter(parts.transcript, progress.step)
        sequence = await parts.open_sequence()
        room, limit = self._room(progress.turn_start)
        if room > 0:
            sampling = parts.transcript.header.sampling
            temperature, seed = redrawn(sampling.temperature, sampling.seed, progress.draw)
            sampling = sampling.model_copy(update={"temperature": temperature, "seed": seed})
            constraint = parts.dialect.constraint(parts.transcript.tokens[progress.turn_start :])
            request = GenerationRequest(sampling, room, parts.dialect.stop_ids, constraint)
            async with aclosing(sequence.generate(request)) as chunks:
                while (chunk := await self._until_stopped(anext(chunks, None))) is not None:
                    await self._take(chunk.ids, writer, reader)
                    if self._interrupted or self.spending.time_is_over():
                        break
        # What the engine sampled before it noticed the stop is part of its state, so it counts.
        await self._take(sequence.tokens[writer.position :], writer, reader)
        if writer.last == parts.dialect.eos_id:
            await self._close_turn(writer, reader, Closing.MODEL)
            return None
        if writer.last in parts.dialect.stop_ids:
            await sequence.rewind(writer.position - 1)
            await self._close_turn(writer, reader, Closing.ROLE)
            return None
        writer.flush()
        if self._interrupted:
            return StopReason.INTERRUPTED
        if self.spending.time_is_over():
            return StopReason.TIME
        if limit is StopReason.MALFORMED:
            await self._close_turn(writer, reader, Closing.CUT)
            return None
        return limit

    async def _take(self, ids: Sequence[int], writer: TurnWriter, reader: TurnReader) -> None:
        """Store new ids and show their text. A stop id is held back: it is stored with what the turn says."""
        if not ids:
            return
        self._sampled_in_step += len(ids)
        self.spending.new_tokens += len(ids)
        stopped = ids[-1] in self.parts.dialect.stop_ids
        writer.add(ids, hold=stopped)
        for piece in reader.feed(ids[:-1] if stopped else ids):
            await self.show(piece.model_copy(update={"step": writer.step}))

    async def _close_turn(self, writer: TurnWriter, reader: TurnReader, closing: Closing) -> None:
        eos = self.parts.dialect.eos_id
        pieces, self._turn = reader.close(writer.step, closing)
        writer.close(self._turn, closing, eos)
        if closing is not Closing.MODEL:
            await self.parts.append((eos,))
        for piece in pieces:
            await self.show(piece.model_copy(update={"step": writer.step}))

    def _room(self, turn_start: int) -> tuple[int, StopReason]:
        """Return how many ids may be sampled now, and what stops the sampling there."""
        length = len(self.parts.transcript.tokens)
        window = self.parts.backend.record.context_window
        turn_limit = self.spending.limits.turn_tokens or window // 4
        candidates: list[tuple[float, StopReason]] = [
            (window - length, StopReason.CONTEXT_FULL),
            (self.spending.tokens_left, StopReason.MAX_TOKENS),
            (turn_start + turn_limit - length, StopReason.MALFORMED),
        ]
        room, reason = min(candidates, key=lambda candidate: candidate[0])
        return int(room), reason

    async def _until_stopped(self, work: Awaitable[T]) -> T | None:
        """Await work until it is done, the run is interrupted, or its time is over."""
        with anyio.CancelScope(deadline=self.spending.deadline) as scope:
            self._scope = scope
            try:
                return await work
            finally:
                self._scope = None
        return None

    def _context(self, step: int, call: Call) -> ToolContext:
        async def show(call_id: str, text: str) -> None:
            await self.show(ToolOutput(step=step, call_id=call_id, text=text))

        return ToolContext(
            sandbox=self.parts.sandbox,
            count_tokens=self.parts.backend.tokenizer.count,
            max_output_tokens=tool_output_tokens(self.parts.backend.record.context_window),
            spill_dir=self.parts.transcript.spill_dir,
            on_output=partial(show, call.call_id),
        )


def _started(step: int, call: Call) -> ToolCallStarted:
    return ToolCallStarted(step=step, call_id=call.call_id, name=call.name, arguments=call.arguments)


def _finished(step: int, call: Call, result: ToolResult) -> ToolCallFinished:
    cut = result.truncated
    return ToolCallFinished(
        step=step,
        call_id=call.call_id,
        name=call.name,
        status=result.status.value,
        text=result.text,
        code=result.code,
        exit_code=result.exit_code,
        duration_ms=result.duration_ms,
        omitted_tokens=cut.total_tokens - cut.shown_tokens if cut else 0,
    )
