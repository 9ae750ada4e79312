"""A session: one transcript, the model's state over it, one sandbox, and the tools that act in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from dsv4agent.budgets import Limits
from dsv4agent.context import storable, task_message
from dsv4agent.errors import BackendError, SessionClosed, UsageError
from dsv4agent.groups import single_error
from dsv4agent.progress import Message, Phase, messages
from dsv4agent.run import Parts, Run, cut_to_step
from dsv4agent.sandboxes import Sandbox, SandboxError
from dsv4agent.tools import Restored
from dsv4agent.transcript import (
    Event,
    Parent,
    RunFinished,
    StopReason,
    Transcript,
    UserMessage,
    new_session_id,
    sessions_dir,
)

EventStream = MemoryObjectReceiveStream[Event]
Loop = Callable[[Run], Awaitable[StopReason]]
Assemble = Callable[[AsyncExitStack], Awaitable[tuple[Parts, list[Event]]]]

_EXPLANATIONS = {
    StopReason.FINISHED: "the model gave its final answer",
    StopReason.MAX_STEPS: "the limit of steps was reached",
    StopReason.MAX_TOKENS: "the limit of new tokens was reached",
    StopReason.TIME: "the limit of time was reached",
    StopReason.CONTEXT_FULL: "the context window is full; go back some steps or start a new session",
    StopReason.INTERRUPTED: "the run was interrupted",
    StopReason.MALFORMED: "several turns in a row had no usable call or answer",
    StopReason.REPEATING: "the model made the same calls again and again",
}


@dataclass(frozen=True)
class Ledger:
    """Tokens since the session was opened: the engine's own counters.

    Attributes:
        computed_tokens: Positions that the model computed.
        cached_tokens: Positions that came from cached state.
        pending_tokens: Positions at the end that the model has not been fed yet.
        total_tokens: Length of the transcript. If nothing was rewound it is the sum of the three.
    """

    computed_tokens: int
    cached_tokens: int
    pending_tokens: int
    total_tokens: int


class Events:
    """The events of one run, to be iterated over once. Closing or dropping it early interrupts the run."""

    def __init__(self, begin: Callable[[], Awaitable[tuple[Run, EventStream]]]) -> None:
        self._begin = begin
        self._open: tuple[Run, EventStream] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; the first one starts the run."""
        if self._open is None:
            self._open = await self._begin()
        try:
            return await self._open[1].receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._close()
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Stop the run, if it is not over."""
        self._close()

    def __del__(self) -> None:
        # An iteration that was left with `break` says so only by dropping this object.
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            run, stream = self._open
            run.interrupt()
            stream.close()


class Session:
    """An open conversation of one agent in one workspace, made by `Agent.session` and used with `async with`.

    All of it is stored as it happens: after any end, `Agent.session(resume=...)` goes on where it stood.
    """

    def __init__(
        self, assemble: Assemble, loop: Loop, reopen: Callable[[str], Session], limits: Limits | None
    ) -> None:
        self._assemble = assemble
        self._loop = loop
        self._reopen = reopen
        self._limits = limits
        self._stack = AsyncExitStack()
        self._open: Parts | None = None
        self._tasks: TaskGroup | None = None
        self._unseen: list[Event] = []
        self._run: Run | None = None
        self._run_done = anyio.Event()

    @property
    def id(self) -> str:
        """The session's id, which `Agent.session(resume=...)` takes."""
        return self._parts.transcript.header.session_id

    @property
    def transcript(self) -> Transcript:
        """The token log with its spans and events; read it, do not write to it."""
        return self._parts.transcript

    @property
    def sandbox(self) -> Sandbox:
        """The one object through which the session's tools act."""
        return self._parts.sandbox

    @property
    def ledger(self) -> Ledger:
        """What the engine computed and reused so far."""
        parts = self._parts
        computed, cached = parts.usage()
        total = len(parts.transcript.tokens)
        pending = parts.sequence.pending if parts.sequence is not None else total - computed - cached
        return Ledger(computed, cached, pending, total)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the user speaks."""
        return self._parts.progress.idle

    def messages(self) -> list[Message]:
        """Return the conversation as messages in the OpenAI shape: a view, never encoded again."""
        return messages(self._parts.transcript)

    def run(self, task: str | None = None, *, limits: Limits | None = None) -> Events:
        """Work until the model is done or a limit is reached; iterate over the result to see what happens.

        The last event is `RunFinished`. Leaving the iteration early interrupts the run; the session stays
        usable.

        Args:
            task: What the user says. None goes on with what is open: a run that a limit, an interruption
                or a crash ended.
            limits: Limits of this run instead of the agent's.

        Raises:
            UsageError: At the first event: another run of this session is still being read.
            SessionClosed: At the first event: the session is not open.
        """
        return Events(lambda: self._begin(task, limits))

    def interrupt(self) -> None:
        """Stop the run at the next token, or stop the running call. Does nothing without a run."""
        if self._run is not None:
            self._run.interrupt()

    async def steer(self, text: str) -> None:
        """Say something while a run goes on. It is stored now and read by the model at its next step."""
        parts = self._parts
        message = UserMessage(step=parts.progress.step + 1, text=storable(text))
        if self._run is not None:
            await self._run.emit(message)
        else:
            self._unseen += parts.transcript.commit(message)

    async def rewind(self, steps: int = 1, *, files: bool = False) -> None:
        """Take back the last steps. What the user and the tools said before them is kept and read again.

        Args:
            steps: How many.
            files: Whether the agent's changes to files go back too (see `restore`); else these are left as
                they are.

        Raises:
            UsageError: A run goes on, there are not that many steps, or the files cannot go back; nothing is
                taken back then.
        """
        self._require_no_run()
        if not 1 <= steps <= self._parts.progress.step:
            raise UsageError(f"There are {self._parts.progress.step} steps; {steps} cannot be taken back.")
        first = self._parts.progress.step - steps + 1
        if files:
            await self.restore(step=first)
        await self._parts.rewind(first)

    async def restore(self, *, step: int = 1) -> Restored | None:
        """Take the agent's changes to files since before a step back; the conversation stays.

        Files that the user changed are never touched. The state right before is saved first, so that this can
        be undone.

        Returns:
            What was done; None if no step since then called a tool.

        Raises:
            UsageError: A run goes on, the session saves no files (`Agent(checkpoints=True)`), or they cannot
                go back: HEAD moved, or the user changed the same files.
        """
        self._require_no_run()
        if self._parts.saves is None:
            raise UsageError("This session saves no files. Make the agent with checkpoints=True.")
        return await self._parts.saves.restore(step)

    async def fork(self, *, at_step: int | None = None) -> Session:
        """Return a new session, to be entered, that begins with this one's transcript.

        It works in the same workspace. The engine shares the prefix, so nothing of it is computed again.

        Args:
            at_step: Keep only so many steps; None keeps all.

        Raises:
            UsageError: A run goes on, or there is no such step.
        """
        self._require_no_run()
        source = self._parts.transcript
        parent = Parent(session_id=self.id, position=len(source.tokens))
        header = source.header.model_copy(update={"session_id": new_session_id(), "parent": parent})
        branch = source.fork(sessions_dir() / header.session_id, header)
        try:
            if at_step is not None and at_step < self._parts.progress.step:
                cut_to_step(branch, at_step + 1)
        finally:
            branch.close()
        return self._reopen(header.session_id)

    async def __aenter__(self) -> Self:
        """Load what is needed, open or make the transcript, and start the sandbox."""
        try:
            self._open, self._unseen = await self._assemble(self._stack)
            self._tasks = await anyio.create_task_group().__aenter__()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop what runs and release everything; the transcript stays."""
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            with single_error():
                await self._tasks.__aexit__(exc_type, exc, tb)
        finally:
            self._open, self._tasks = None, None
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()

    @property
    def _parts(self) -> Parts:
        if self._open is None:
            raise SessionClosed("The session is not open. Use it inside `async with agent.session(...)`.")
        return self._open

    def _require_no_run(self) -> None:
        if self._run is not None:
            raise UsageError("The session is running. Read that run to its end, or interrupt it first.")

    async def _begin(self, task: str | None, limits: Limits | None) -> tuple[Run, EventStream]:
        parts, tasks = self._parts, self._tasks
        assert tasks is not None
        while self._run is not None:
            if not self._run.interrupted:
                self._require_no_run()
            await self._run_done.wait()
        send, receive = anyio.create_memory_object_stream[Event](0)
        chosen = limits or self._limits or Limits(steps=parts.backend.defaults.max_steps)
        run = self._run = Run(parts, chosen, send)
        self._run_done = anyio.Event()
        tasks.start_soon(self._work, run, send, task)
        return run, receive

    async def _work(self, run: Run, send: MemoryObjectSendStream[Event], task: str | None) -> None:
        try:
            with send:
                unseen, self._unseen = self._unseen, []
                for event in unseen:
                    await run.show(event)
                try:
                    if task is not None:
                        await self._say(run, task)
                    stop = await self._loop(run)
                    explanation = _EXPLANATIONS[stop]
                except (SandboxError, BackendError) as error:
                    # The model's state may be ahead of what is stored; the next run opens it anew.
                    await run.parts.close_sequence()
                    stop, explanation = StopReason.ERROR, str(error)
                await run.emit(
                    RunFinished(
                        step=run.progress.step,
                        stop_reason=stop,
                        message=explanation,
                        steps=run.spending.steps,
                        computed_tokens=run.computed_tokens,
                        reused_tokens=run.reused_tokens,
                        sampled_tokens=run.spending.new_tokens,
                        seconds=run.spending.seconds,
                    )
                )
        finally:
            self._run = None
            self._run_done.set()

    async def _say(self, run: Run, task: str) -> None:
        if run.progress.phase is not Phase.BETWEEN:
            await run.give_way()
        progress, header = run.progress, self.transcript.header
        text = storable(task)
        if progress.step == 0 and not progress.pending:
            text = task_message(text, header.workspace)
        await run.emit(UserMessage(step=progress.step + 1, text=text))
