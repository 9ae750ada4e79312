"""The thread that owns the device.

Work reaches it through a queue; several sequences take turns, step by step. A step that others can share, the
next token of a sequence, is only asked for: when its turn comes round again, every other sequence has had one
too, and all that ask are served at once. So a long prefill and the decoding of others alternate.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import anyio
import torch

from dsv4agent.engine.errors import EngineClosed, EngineError, WorkerFailed

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Shared:
    """A step that is done together with those of others.

    Attributes:
        owner: Only steps of one owner are done together.
        who: Which sequence; one that asked lately is waited for, if `patience` allows.
        item: What `run` needs of this one.
        run: Does the steps of all items given.
        patience: Seconds to wait for those who asked lately, because together costs little more than alone.
    """

    owner: object
    who: int
    item: object
    run: Callable[[list[Any]], None]
    patience: float = 0.0


Steps = Generator[Shared | None, None, T]
"""A unit of work: yields between steps, where other work may run and cancellation is noticed.

What it yields is None after a step, or a step to share. Returns its result.
"""
_LATELY = 0.05
"""Seconds after which a sequence that asked is no longer expected to ask again."""


class Cancelled(EngineError):
    """Raised to the waiter of work that was cancelled between two steps."""


class Ticket(Generic[T]):
    """One unit of work in the queue, and its outcome."""

    def __init__(self, steps: Steps[T], *, urgent: bool, on_done: Callable[[], None]) -> None:
        self.steps = steps
        self.urgent = urgent
        self.cancelled = False
        self.shared: Shared | None = None
        self.failure: BaseException | None = None
        self._on_done = on_done
        self._result: T | None = None
        self._error: BaseException | None = None

    def advance(self) -> bool:
        """Run one step on the device thread, up to the next yield; return whether the work is over."""
        if self.cancelled:
            self.steps.close()
            return self._end(Cancelled("the work was cancelled"))
        try:
            if self.failure is None:
                self.shared = next(self.steps)
            else:
                failure, self.failure = self.failure, None
                self.shared = self.steps.throw(failure)
        except StopIteration as stop:
            self._result = cast("T", stop.value)
            return self._end()
        except EngineError as error:
            return self._end(error)
        except Exception as error:
            failed = WorkerFailed(f"the engine's thread met {type(error).__name__}: {error}")
            failed.__cause__ = error
            return self._end(failed)
        return False

    def abandon(self) -> None:
        """End the work because the engine closes."""
        self.steps.close()
        self._end(EngineClosed("the engine was closed while this work was waiting"))

    def _end(self, error: BaseException | None = None) -> bool:
        # Until other work comes, the thread still knows this ticket: what it asked for must not live as long.
        self.shared = None
        self._error = error
        self._on_done()
        return True

    def outcome(self) -> T:
        """Return the result or raise the error of finished work."""
        if self._error is not None:
            raise self._error
        return cast("T", self._result)


class Scheduler:
    """Runs tickets on one thread: urgent ones at once and whole, the others in turns."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._incoming: queue.SimpleQueue[Ticket[object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._asked: dict[int, float] = {}
        self._thread = threading.Thread(target=self._loop, name="dsv4agent-engine", daemon=True)
        self._thread.start()

    def run(self, steps: Steps[T], *, urgent: bool = False) -> T:
        """Run `steps` and wait for the result, blocking the calling thread."""
        done = threading.Event()
        ticket = Ticket(steps, urgent=urgent, on_done=done.set)
        self._put(cast("Ticket[object]", ticket))
        done.wait()
        return ticket.outcome()

    async def run_async(self, steps: Steps[T]) -> T:
        """Run `steps` and wait for the result. On cancellation, the work has ended when this returns."""
        done = anyio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:
                # The event loop is gone, and with it whoever waited.
                return

        ticket = Ticket(steps, urgent=False, on_done=wake)
        self._put(cast("Ticket[object]", ticket))
        try:
            await done.wait()
        except BaseException:
            ticket.cancelled = True
            with anyio.CancelScope(shield=True):
                await done.wait()
            raise
        return ticket.outcome()

    def close(self) -> None:
        """End the thread after the present step; waiting work fails with `EngineClosed`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._incoming.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, ticket: Ticket[object]) -> None:
        with self._lock:
            if self._closed:
                raise EngineClosed("the engine is closed; load it again.")
            self._incoming.put(ticket)

    def _loop(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        turns: deque[Ticket[object]] = deque()
        with torch.inference_mode():
            while self._admit(turns):
                ticket = turns.popleft()
                if ticket.shared is not None and not ticket.cancelled:
                    self._run_shared(ticket.shared, ticket, turns)
                if not ticket.advance():
                    turns.append(ticket)
        for ticket in turns:
            ticket.abandon()
        while not self._incoming.empty():
            waiting = self._incoming.get()
            if waiting is not None:
                waiting.abandon()

    def _run_shared(self, shared: Shared, first: Ticket[object], turns: deque[Ticket[object]]) -> None:
        """Do a shared step for all who wait for one of the same owner."""
        self._wait_for_others(shared, turns)
        group = [
            first,
            *(t for t in turns if t.shared and t.shared.owner is shared.owner and not t.cancelled),
        ]
        steps = [ticket.shared for ticket in group if ticket.shared is not None]
        for ticket in group:
            ticket.shared = None
        try:
            shared.run([step.item for step in steps])
        except Exception as error:  # Each of them learns of it, where it asked.
            for ticket in group:
                ticket.failure = error
        now = time.monotonic()
        self._asked = {who: at for who, at in self._asked.items() if now - at < _LATELY}
        self._asked.update((step.who, now) for step in steps)

    def _wait_for_others(self, shared: Shared, turns: deque[Ticket[object]]) -> None:
        """Let those who asked lately ask again, for a moment: they are about to."""
        now = time.monotonic()
        deadline = now + shared.patience
        lately = {who for who, at in self._asked.items() if now - at < _LATELY}
        while shared.patience:
            missing = lately - {shared.who} - {t.shared.who for t in turns if t.shared}
            left = deadline - time.monotonic()
            if not missing or left <= 0:
                return
            try:
                ticket = self._incoming.get(timeout=left)
            except queue.Empty:
                return
            if ticket is None:
                # Closing; the loop sees it next.
                self._incoming.put(None)
                return
            if ticket.urgent:
                _run_whole(ticket)
            elif not ticket.advance():
                turns.append(ticket)

    def _admit(self, turns: deque[Ticket[object]]) -> bool:
        """Take in new work, waiting if there is none; return False when the engine closes."""
        while not turns or not self._incoming.empty():
            ticket = self._incoming.get()
            if ticket is None:
                return False
            if ticket.urgent:
                _run_whole(ticket)
            else:
                turns.append(ticket)
        return True


def _run_whole(ticket: Ticket[object]) -> None:
    while not ticket.advance():
        pass


def at_once(call: Callable[[], T]) -> Steps[T]:
    """Return work that is a single step."""
    return call()
    yield
