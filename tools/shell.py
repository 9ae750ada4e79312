"""A persistent bash in a sandbox: commands go in on stdin, completion comes back on a private descriptor."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from dsv4agent.sandboxes import Process, Sandbox, SandboxCrashed
from dsv4agent.tools.output import Captured, LiveText, new_output_file, save_output

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN = 0.1
"""Seconds spent on what is in the pipe after a kill; survivors may hold it open for ever."""
PIPE_BYTES = 1 << 20
"""The most that a pipe can hold, so the most that can be left to read after the end of a command."""
DISPLAY_PATIENCE = 1.0
"""Seconds that a live display may take for one piece."""
HELD_BYTES = 1 << 18
"""Output kept in memory from the start, and again from the end."""
SPILL_BYTES = 64 << 20
"""Output kept on disk."""

ENVIRONMENT = {
    "TERM": "dumb",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "MANPAGER": "cat",
    # Programs that buffer a piped stdout would print errors before the output that led to them.
    "PYTHONUNBUFFERED": "1",
}

# One line, so that line numbers in bash's messages count from the start of the command. Command and mark
# arrive NUL-terminated on stdin; the mark is read only after the command, so that no variable shows it to
# the command. Descriptor 3 is closed to the command. `$?` carries over; options that would end or trace
# this loop itself do not.
_LOOP = (
    '__status() { return "$1"; }; __code=0; '
    "while IFS= read -r -d '' __command; do "
    '__status "$__code"; eval "$__command" </dev/null 3>&-; '
    "{ __code=$?; set +evx; } 2>/dev/null; "
    "IFS= read -r -d '' __mark; "
    'builtin printf \'%s %d %s\\0\' "$__mark" "$__code" "$PWD" >&3; '
    "done"
)
_ARGV = ("bash", "--noprofile", "--norc", "-c", _LOOP, "bash")


@dataclass(frozen=True)
class ShellOutcome:
    """How a command ended.

    Attributes:
        exit_code: Exit status as the shell sees it (128 + signal for a signal), or None if it was stopped.
        directory: Working directory of the next call.
        timed_out: Whether it was stopped by the timeout.
        shell_ended: Whether the shell itself exited, so that exports are lost.
    """

    exit_code: int | None
    directory: str
    timed_out: bool = False
    shell_ended: bool = False


class Shell:
    """Runs commands in one bash process, and in a fresh one after that process ended."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._directory = sandbox.policy.workspace
        self._process: Process | None = None
        self._lock = anyio.Lock()

    async def run(self, script: bytes, output: CommandOutput, *, timeout: float) -> ShellOutcome:
        """Run a script to its end, the timeout or a cancellation.

        Cancellation ends the whole process tree before it propagates.

        Raises:
            SandboxError: No shell could be started.
        """
        async with self._lock:
            process = self._process or await self._start()
            outcome: ShellOutcome | None = None
            try:
                with anyio.move_on_after(timeout):
                    outcome = await self._converse(process, script, output)
            except BaseException:
                await self._stop()
                raise
            if outcome is None:
                await self._stop(output)
                outcome = ShellOutcome(None, await self._next_directory(), timed_out=True)
            return outcome

    async def aclose(self) -> None:
        """End the shell and all that it started."""
        await self._stop()

    async def _start(self) -> Process:
        self._directory = await self._next_directory()
        self._process = await self._sandbox.spawn(_ARGV, cwd=self._directory, env=ENVIRONMENT)
        return self._process

    async def _converse(self, process: Process, script: bytes, output: CommandOutput) -> ShellOutcome:
        mark = secrets.token_hex(16).encode()
        reply = b""
        async with anyio.create_task_group() as group:
            group.start_soon(_pump, process, output)
            group.start_soon(_send, process, script + b"\0" + mark + b"\0")
            while not reply.endswith(b"\0") and (data := await process.read_control()):
                reply += data
            if not reply.endswith(b"\0"):
                # The shell ended, or became another program (`exec make`), whose output is the command's too.
                await process.wait()
            group.cancel_scope.cancel()
        # What the command printed was in the pipe before the mark was.
        await _drain(process, output, 0.0)
        fields = reply.removesuffix(b"\0").split(b" ", 2)
        if len(fields) == 3 and fields[0] == mark:
            self._directory = os.fsdecode(fields[2])
            return ShellOutcome(int(fields[1]), self._directory)
        code = await process.wait()
        await self._stop()
        if reply and not reply.startswith(mark):
            # Before the program starts, the channel carries the sandbox's own complaints.
            raise SandboxCrashed(f"the shell did not start: {reply.decode('utf-8', 'replace').strip()}")
        exit_code = 128 - code if code < 0 else code
        return ShellOutcome(exit_code, await self._next_directory(), shell_ended=True)

    async def _stop(self, output: CommandOutput | None = None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            await process.kill(GRACE)
            if output is not None:
                await _drain(process, output, DRAIN)

    async def _next_directory(self) -> str:
        """Return the last known directory, or the workspace if that is gone."""
        try:
            if (await self._sandbox.stat(self._directory)).kind == "dir":
                return self._directory
        except OSError:
            pass
        return self._sandbox.policy.workspace


class CommandOutput:
    """Collects one command's output: start and end in memory, all of it on disk if too long for that."""

    def __init__(
        self, spill_dir: Path | None, on_output: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        self._spill_dir = spill_dir
        self._on_output = on_output
        self._live = LiveText()
        self._head = bytearray()
        self._tail = bytearray()
        self._omitted = 0
        self._path: Path | None = None
        self._descriptor = -1
        self._spilled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def feed(self, chunk: bytes) -> None:
        """Add a chunk and show it to the caller's display."""
        self.add(chunk)
        if self._on_output is not None:
            text = self._live.feed(chunk)
            if text:
                # The command's end must not cut a piece off; a display that hangs must not hold the command
                # up.
                with anyio.move_on_after(DISPLAY_PATIENCE, shield=True):
                    await self._on_output(text)

    def add(self, chunk: bytes) -> None:
        """Add a chunk."""
        room = HELD_BYTES - len(self._head)
        self._head += chunk[:room]
        rest = chunk[room:] if room < len(chunk) else b""
        if not rest:
            return
        self._spill(rest)
        self._tail += rest
        if len(self._tail) > 2 * HELD_BYTES:
            self._omitted += len(self._tail) - HELD_BYTES
            del self._tail[:-HELD_BYTES]

    def captured(self) -> Captured:
        """Return what is held."""
        if not self._omitted:
            return Captured(bytes(self._head + self._tail))
        return Captured(bytes(self._head), bytes(self._tail), self._omitted)

    def save(self) -> Path | None:
        """Keep the full output in the spill folder and return its path; None without such a folder."""
        if self._path is None and self._spill_dir is not None:
            self._path = save_output(self._spill_dir, "bash", bytes(self._head + self._tail))
        return self._path

    def _spill(self, rest: bytes) -> None:
        if self._spill_dir is None:
            return
        if self._descriptor < 0:
            self._path, self._descriptor = new_output_file(self._spill_dir, "bash")
            rest = bytes(self._head) + rest
        rest = rest[: max(SPILL_BYTES - self._spilled, 0)]
        self._spilled += len(rest)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


async def _pump(process: Process, output: CommandOutput) -> None:
    while data := await process.read():
        await output.feed(data)


async def _send(process: Process, data: bytes) -> None:
    try:
        await process.write(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # The shell is gone; the end of its control stream says so.


async def _drain(process: Process, output: CommandOutput, seconds: float) -> None:
    """Collect what is in the pipe, waiting at most so long in all and never for an end of the stream."""
    deadline = anyio.current_time() + seconds
    left = PIPE_BYTES
    while left > 0:
        data = b""
        with anyio.CancelScope(deadline=deadline):
            data = await process.read()
        if not data:
            return
        left -= len(data)
        await output.feed(data)
