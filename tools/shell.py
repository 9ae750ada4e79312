"""A persistent bash in a sandbox: commands go in on stdin, completion comes back on a private descriptor."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace

import anyio

from dsv4agent.sandboxes import Process, Sandbox, SandboxCrashed
from dsv4agent.tools.command_output import DRAIN, CommandOutput, drain, pump

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
SNAPSHOT_SECONDS = 10.0
"""Seconds given to an idle shell to say what its state is."""

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
# this loop itself do not. A mark that ends in `s` asks for the state as well.
_LOOP = (
    '__status() { return "$1"; }; __code=0; '
    "while IFS= read -r -d '' __command; do "
    '__status "$__code"; eval "$__command" </dev/null 3>&-; '
    "{ __code=$?; set +evx; } 2>/dev/null; "
    "IFS= read -r -d '' __mark; "
    'builtin printf \'%s %d %s\\0\' "$__mark" "$__code" "$PWD" >&3; '
    "case $__mark in *s) { builtin umask -p; builtin export -p; builtin declare -f; builtin export -pf; "
    "builtin printf '\\0'; } >&3;; esac; "
    "done"
)
BASH = ("bash", "--noprofile", "--norc", "-c")
_ARGV = (*BASH, _LOOP, "bash")
_KEEP_STATUS = b'__status "$__code"'


@dataclass(frozen=True)
class ShellOutcome:
    """How a command ended.

    Attributes:
        exit_code: Exit status as the shell sees it (128 + signal for a signal), or None if it was stopped.
        directory: Working directory of the next call.
        timed_out: Whether it was stopped by the timeout.
        shell_ended: Whether the shell itself exited, so that exports are lost.
        limit: The limit of the sandbox that stopped it, in words.
    """

    exit_code: int | None
    directory: str
    timed_out: bool = False
    shell_ended: bool = False
    limit: str | None = None


@dataclass(frozen=True)
class ShellState:
    """What another shell needs in order to go on like this one.

    Attributes:
        directory: Working directory.
        definitions: A script that makes the exports and functions and sets the umask.
    """

    directory: str
    definitions: bytes = b""


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
            # A limit ends the whole tree, so that a shell that goes on never met one. One that met it between
            # two calls, by what it left running, says so at the next.
            return replace(outcome, limit=process.limit_hit)

    async def snapshot(self) -> ShellState:
        """Return the shell's directory, exports, functions and umask; one that was not started has none."""
        async with self._lock:
            process = self._process
            if process is None:
                return ShellState(await self._next_directory())
            mark = secrets.token_hex(16).encode() + b"s"
            records: list[bytes] = []
            # Half an exchange would leave the shell out of step, and one with an idle shell is short.
            with anyio.move_on_after(SNAPSHOT_SECONDS, shield=True):
                await _send(process, _KEEP_STATUS + b"\0" + mark + b"\0")
                records = (await _read_records(process, 2)).split(b"\0")
            if len(records) == 3 and records[0].startswith(mark):
                return ShellState(os.fsdecode(records[0].split(b" ", 2)[2]), records[1])
            await self._stop()
            return ShellState(await self._next_directory())

    async def restart(self) -> None:
        """End the shell and all that it started; the next one starts in the workspace."""
        async with self._lock:
            await self._stop()
            self._directory = self._sandbox.policy.workspace

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
            group.start_soon(pump, process, output)
            group.start_soon(_send, process, script + b"\0" + mark + b"\0")
            reply = await _read_records(process, 1)
            if not reply.endswith(b"\0"):
                # The shell ended, or became another program (`exec make`), whose output is the command's too.
                await process.wait()
            group.cancel_scope.cancel()
        # What the command printed was in the pipe before the mark was.
        await drain(process, output, 0.0)
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
                await drain(process, output, DRAIN)

    async def _next_directory(self) -> str:
        """Return the last known directory, or the workspace if that is gone."""
        try:
            if (await self._sandbox.stat(self._directory)).kind == "dir":
                return self._directory
        except OSError:
            pass
        return self._sandbox.policy.workspace


async def _read_records(process: Process, count: int) -> bytes:
    """Read NUL-terminated records from the private descriptor, fewer if the shell ends before."""
    reply = b""
    while reply.count(b"\0") < count and (data := await process.read_control()):
        reply += data
    return reply


async def _send(process: Process, data: bytes) -> None:
    try:
        await process.write(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # The shell is gone; the end of its control stream says so.
