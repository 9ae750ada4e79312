"""A persistent Python in a sandbox: code goes in on stdin, completion comes back on a private descriptor."""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from dsv4agent.sandboxes import Process, Sandbox, SandboxCrashed
from dsv4agent.tools.command_output import DRAIN, CommandOutput, drain, pump
from dsv4agent.tools.shell import ENVIRONMENT, GRACE

# The source arrives on stdin, so that it need not be readable (nor be at all) inside the cage.
_BOOT = (
    "import fcntl,os;i=os.fdopen(fcntl.fcntl(0,fcntl.F_DUPFD_CLOEXEC,200),'rb');"
    "exec(compile(i.read(int(i.readline())),'python_server','exec'),"
    "{'__name__':'python_server','requests':i})"
)
_READY = b"ready\n"
_ARGV = (sys.executable, "-u", "-c", _BOOT)
SEND_SECONDS = 10.0
"""Seconds given to an interpreter to take a request; one that does not is killed."""

_SOURCE = Path(__file__).with_name("_python_server.py")


@dataclass(frozen=True)
class CodeOutcome:
    """How a call's code ended.

    Attributes:
        raised: Whether an exception came out of it.
        exited: Argument of `sys.exit`, if that was called; the interpreter goes on all the same.
        timed_out: Whether it was stopped by the timeout.
        exit_code: How the interpreter ended (128 + signal for a signal), if it ended by itself. None if it
            had to be stopped: at the timeout, or because its answer made no sense.
        alive: Whether the interpreter and its variables are still there.
        limit: The limit of the sandbox that ended it, or a child process of it, in words.
    """

    raised: bool = False
    exited: str | None = None
    timed_out: bool = False
    exit_code: int | None = None
    alive: bool = True
    limit: str | None = None


class Interpreter:
    """Runs code in one Python process, and in a fresh one after that process ended."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._process: Process | None = None
        self._lock = anyio.Lock()
        self._received = b""
        self._ready = False

    async def run(self, code: str, output: CommandOutput, *, timeout: float) -> CodeOutcome:
        """Run code to its end, the timeout or a cancellation.

        At the timeout, and when cancelled, the code is interrupted; if that does not end it within the grace
        period, the interpreter is killed.

        Raises:
            SandboxError: No interpreter could be started.
        """
        async with self._lock:
            process = self._process or await self._start()
            mark = secrets.token_hex(16)
            outcome: CodeOutcome | None = None
            try:
                await self._request(process, {"mark": mark, "code": code})
                with anyio.move_on_after(timeout):
                    outcome = await self._reply(process, mark, output)
                if outcome is None:
                    outcome = await self._interrupt(process, mark, output)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._interrupt(process, mark, output)
                raise
            return replace(outcome, limit=process.limit_hit)

    async def aclose(self) -> None:
        """End the interpreter and all that it started."""
        await self._stop()

    async def _start(self) -> Process:
        workspace = self._sandbox.policy.workspace
        process = await self._sandbox.spawn(_ARGV, cwd=workspace, env=ENVIRONMENT)
        self._received, self._ready = b"", False
        self._process = process
        source = _SOURCE.read_bytes()
        await self._send(process, b"%d\n" % len(source) + source)
        return process

    async def _request(self, process: Process, request: dict[str, str]) -> None:
        await self._send(process, json.dumps(request).encode() + b"\n")

    async def _send(self, process: Process, data: bytes) -> None:
        # Half a request would leave the interpreter out of step. It reads while code runs, so this is short.
        with anyio.move_on_after(SEND_SECONDS, shield=True):
            try:
                await process.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # The interpreter is gone, or the code closed all descriptors.
            else:
                return
        await self._stop()

    async def _reply(self, process: Process, mark: str, output: CommandOutput) -> CodeOutcome:
        """Wait for the reply or for the interpreter's end, collecting output meanwhile."""
        ended: int | None = None

        async def watch() -> None:
            nonlocal ended
            ended = await process.wait()
            group.cancel_scope.deadline = anyio.current_time() + DRAIN

        async def listen() -> None:
            while b"\n" not in self._received and (data := await process.read_control()):
                self._received += data
                if not self._ready and self._received.startswith(_READY):
                    self._received, self._ready = self._received.removeprefix(_READY), True
            if b"\n" in self._received:
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            group.start_soon(pump, process, output)
            group.start_soon(listen)
        # What the code printed was in the pipe before the reply was.
        await drain(process, output, 0.0)
        line, found, self._received = self._received.partition(b"\n")
        if line and not self._ready:
            # Before the program starts, the channel carries the sandbox's own complaints.
            await self._stop()
            raise SandboxCrashed(f"the interpreter did not start: {line.decode('utf-8', 'replace')}")
        if found:
            outcome = _parse(line, mark)
            if not outcome.alive:
                await self._stop(output)
            return outcome
        assert ended is not None, "the group ends with a line or with the process"
        await self._stop()
        return CodeOutcome(exit_code=128 - ended if ended < 0 else ended, alive=False)

    async def _interrupt(self, process: Process, mark: str, output: CommandOutput) -> CodeOutcome:
        """Interrupt the code; kill the interpreter if it goes on."""
        if self._process is None:
            return CodeOutcome(timed_out=True, alive=False)
        outcome: CodeOutcome | None = None
        try:
            with anyio.move_on_after(GRACE):
                await self._request(process, {"interrupt": mark})
                outcome = await self._reply(process, mark, output)
        finally:
            if outcome is None:
                await self._stop(output)
        alive = outcome is not None and outcome.alive
        return CodeOutcome(timed_out=True, alive=alive)

    async def _stop(self, output: CommandOutput | None = None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            await process.kill(GRACE)
            if output is not None:
                await drain(process, output, DRAIN)


def _parse(line: bytes, mark: str) -> CodeOutcome:
    """Return the outcome that a reply states; if it is none, the code wrote to the channel itself."""
    try:
        reply: dict[str, Any] = json.loads(line)
        if reply["mark"] == mark:
            return CodeOutcome(raised=bool(reply["raised"]), exited=reply["exited"])
    except (ValueError, TypeError, KeyError):
        pass
    return CodeOutcome(alive=False)
