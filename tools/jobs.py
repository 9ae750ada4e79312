"""Background jobs of a session: programs that go on between calls, and what they printed since last asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Process, Sandbox
from dsv4agent.tools.command_output import DRAIN, CommandOutput, pump
from dsv4agent.tools.shell import BASH, ENVIRONMENT, GRACE, ShellState

MAX_RUNNING = 8
"""Jobs of a session that run at one time."""
MAX_REMEMBERED = 32
"""Ended jobs whose state and unread output are kept; older ones are forgotten."""

# Definitions and command arrive NUL-terminated on stdin: no limit of length, and nothing for `ps` to show.
_RUN = (
    "IFS= read -r -d '' __definitions; IFS= read -r -d '' __command; exec </dev/null 3>&-; "
    'eval "$__definitions" 2>/dev/null; unset __definitions; eval "$__command"'
)


class TooManyJobs(Exception):
    """Raised when a job is started while as many run as may."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        exit_code: As the shell would see it (128 + signal for a signal); None if it was stopped.
        reason: Why it was stopped: `bash_kill`, a time limit, a limit of the sandbox.
    """

    exit_code: int | None
    reason: str | None = None

    def __str__(self) -> str:
        return f"stopped: {self.reason}" if self.reason else f"finished: exit code {self.exit_code}"


class Jobs:
    """Owns the background jobs of one session; the tools that start, read and end them share it."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._started = 0

    @property
    def all(self) -> Sequence[Job]:
        """The known jobs, in the order in which they were started."""
        return tuple(self._jobs.values())

    def get(self, job_id: str) -> Job | None:
        """Return a job by its id."""
        return self._jobs.get(job_id)

    async def start(
        self,
        sandbox: Sandbox,
        command: bytes,
        state: ShellState,
        *,
        spill_dir: Path | None,
        limit: float | None = None,
    ) -> Job:
        """Start a command in a bash of its own with the directory, exports and functions of another shell.

        Args:
            sandbox: Where it runs.
            command: Script without NUL.
            state: Where it starts, and with what.
            spill_dir: Folder for output too long to hold.
            limit: Seconds after which it is stopped; None for none.

        Raises:
            TooManyJobs: `MAX_RUNNING` jobs run.
            SandboxError: The sandbox could not start it.
        """
        if sum(job.end is None for job in self._jobs.values()) >= MAX_RUNNING:
            raise TooManyJobs
        script = state.definitions + b"\0" + command + b"\0"
        # A cancellation must not come between a process and its owner.
        with anyio.CancelScope(shield=True):
            process = await sandbox.spawn((*BASH, _RUN, "bash"), cwd=state.directory, env=ENVIRONMENT)
            return self._adopt(process, script, spill_dir, limit)
        raise AssertionError("a shielded scope is not left early")

    def _adopt(self, process: Process, script: bytes, spill_dir: Path | None, limit: float | None) -> Job:
        self._started += 1
        job = Job(f"job-{self._started}", process, spill_dir, limit)
        self._jobs[job.job_id] = job
        # A task of the event loop itself: a job outlives the call that started it, so that no task group of
        # that call may own it.
        watcher = asyncio.get_running_loop().create_task(job.watch(script), name=job.job_id)
        self._watchers[job.job_id] = watcher
        watcher.add_done_callback(lambda _: self._watchers.pop(job.job_id, None))
        self._forget_old()
        return job

    def pending_announcements(self) -> list[str]:
        """Return `job-2 finished: exit code 0` for each job whose end was not told yet, and once only."""
        ended = [job for job in self._jobs.values() if job.end is not None and not job.announced]
        for job in ended:
            job.announced = True
        return [f"{job.job_id} {job.end}" for job in ended]

    async def aclose(self) -> None:
        """End all jobs and forget them."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                for job in self._jobs.values():
                    group.start_soon(job.stop, "the session ended")
            await asyncio.gather(*self._watchers.values())
        for job in self._jobs.values():
            job.forget()
        self._jobs.clear()

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.end is not None]
        for job in ended[: max(len(ended) - MAX_REMEMBERED, 0)]:
            job.forget()
            del self._jobs[job.job_id]


class Job:
    """One background command. Made by `Jobs.start`.

    Attributes:
        job_id: `job-1` and so on.
        end: How it ended, or None while it runs.
        announced: Whether a result said that it ended.
    """

    def __init__(self, job_id: str, process: Process, spill_dir: Path | None, limit: float | None) -> None:
        self.job_id = job_id
        self.end: JobEnd | None = None
        self.announced = False
        self._process = process
        self._spill_dir = spill_dir
        self._limit = limit
        # Left when the job ends by itself, cancelled to end it: only one task may wait for a process.
        self._life = anyio.CancelScope()
        self._reason: str | None = None
        self._unread = self._new_output()
        self._ended = anyio.Event()

    def take_output(self) -> CommandOutput:
        """Return what was printed since the last call; the caller closes it."""
        taken, self._unread = self._unread, self._new_output()
        return taken

    async def wait(self, seconds: float) -> None:
        """Wait until the job ended, at most so long."""
        with anyio.move_on_after(seconds):
            await self._ended.wait()

    async def stop(self, reason: str) -> None:
        """End the job's process tree and wait until it is gone."""
        if self.end is None:
            self._reason = self._reason or reason
            self._life.cancel()
            with anyio.CancelScope(shield=True):
                await self._ended.wait()

    async def watch(self, command: bytes) -> None:
        """Feed the job its command, collect its output, and note its end."""
        try:
            await self._watch(command)
        except* (anyio.ClosedResourceError, OSError, ValueError):
            self._reason = self._reason or "the sandbox was closed"  # and with it the job's pipes
            self.end = JobEnd(None, self._reason)
        finally:
            self.end = self.end or JobEnd(None, self._reason or "the session ended")
            self._ended.set()

    async def feed(self, chunk: bytes) -> None:
        """Collect a piece of output."""
        self._unread.add(chunk)

    def forget(self) -> None:
        """Close the file that holds unread output."""
        self._unread.close()

    async def _watch(self, command: bytes) -> None:
        code: int | None = None
        if self._limit is not None:
            self._life.deadline = anyio.current_time() + self._limit
        async with anyio.create_task_group() as group:
            group.start_soon(self._send, command)
            async with anyio.create_task_group() as readers:
                readers.start_soon(pump, self._process, self)
                readers.start_soon(self._hear_complaints)
                with self._life:
                    code = await self._process.wait()
                if code is None:
                    self._reason = self._reason or f"time limit of {self._limit:g} s"
                    await self._process.kill(GRACE)
                readers.cancel_scope.deadline = anyio.current_time() + DRAIN
            group.cancel_scope.cancel()
        reason = self._reason if code is None else self._process.limit_hit
        exit_code = 128 - code if code is not None and code < 0 else code
        self.end = JobEnd(None if reason else exit_code, reason)

    async def _send(self, command: bytes) -> None:
        try:
            await self._process.write(command)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The job is gone; its end says so.

    async def _hear_complaints(self) -> None:
        """Collect what the sandbox says if it cannot start the program, which itself says nothing here."""
        while data := await self._process.read_control():
            self._unread.add(data)

    def _new_output(self) -> CommandOutput:
        return CommandOutput(self._spill_dir, name="job")
