"""The thread that owns the device.

Work reaches it through a queue; several sequences take turns, step by step.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar, cast

import anyio
import torch

from dsv4agent.engine.errors import EngineClosed, EngineError, WorkerFailed

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A unit of work: yields between steps, where other work may run and cancellation is noticed.

Returns its result.
"""


class Cancelled(EngineError):
    """Raised to the waiter of work that was cancelled between two steps."""


class Ticket(Generic[T]):
    """One unit of work in the queue, and its outcome."""

    def __init__(self, steps: Steps[T], *, urgent: bool, on_done: Callable[[], None]) -> None:
        self.steps = steps
        self.urgent = urgent
        self.cancelled = False
        self._on_done = on_done
        self._result: T | None = None
        self._error: BaseException | None = None

    def advance(self) -> bool:
        """Run one step on the device thread; return whether the work is over."""
        try:
            if self.cancelled:
                self.steps.close()
                raise Cancelled("the work was cancelled")
            next(self.steps)
        except StopIteration as stop:
            self._result = cast("T", stop.value)
        except EngineError as error:
            self._error = error
        except Exception as error:
            self._error = WorkerFailed(f"the engine's thread met {type(error).__name__}: {error}")
            self._error.__cause__ = error
        else:
            return False
        self._on_done()
        return True

    def abandon(self) -> None:
        """End the work because the engine closes."""
        self.steps.close()
        self._error = EngineClosed("the engine was closed while this work was waiting")
        self._on_done()

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
                if not ticket.advance():
                    turns.append(ticket)
        for ticket in turns:
            ticket.abandon()
        while not self._incoming.empty():
            waiting = self._incoming.get()
            if waiting is not None:
                waiting.abandon()

    def _admit(self, turns: deque[Ticket[object]]) -> bool:
        """Take in new work, waiting if there is none; return False when the engine closes."""
        while not turns or not self._incoming.empty():
            ticket = self._incoming.get()
            if ticket is None:
                return False
            if ticket.urgent:
                while not ticket.advance():
                    pass
            else:
                turns.append(ticket)
        return True


def at_once(call: Callable[[], T]) -> Steps[T]:
    """Return work that is a single step."""
    return call()
    yield
