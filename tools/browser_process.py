"""The host's side of the browser that runs inside a sandbox."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from dsv4agent.sandboxes import Process, Sandbox, SandboxCrashed

START_SECONDS = 60.0
PATIENCE = 25.0
"""Seconds beyond an action's own limit after which a silent server is ended."""
MOST_REPLY_BYTES = 64 << 20

# Sources arrive on stdin, so that they need not be readable inside; later ones import earlier ones.
_MODULES = (
    "_browser_words",
    "_browser_refs",
    "_browser_downloads",
    "_browser_tab",
    "_browser_actions",
    "_browser_session",
    "_browser_server",
)
_BOOT = """
import json, os, struct, sys, types
boot = json.loads(sys.stdin.buffer.readline())
try:
    for name, source in boot["modules"]:
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(source, name, "exec"), module.__dict__)
except ImportError as error:
    data = json.dumps({"code": "unavailable", "reason": str(error)}).encode()
    os.write(3, struct.pack(">I", len(data)) + data)
else:
    module.main(boot["settings"])
"""
_ARGV = (sys.executable, "-I", "-c", _BOOT)


class BrowserGone(Exception):
    """Raised when the browser ended; `during` tells whether it had begun with the request."""

    def __init__(self, during: bool) -> None:
        super().__init__(during)
        self.during = during


class BrowserFailed(Exception):
    """Raised when no browser could be started: a code, and the reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class BrowserProcess:
    """A running browser; one request at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, sandbox: Sandbox, settings: Mapping[str, Any]) -> BrowserProcess:
        """Start a browser inside a sandbox.

        Raises:
            BrowserFailed: There is none, or it does not start.
            SandboxError: The sandbox cannot start programs, or failed to start this one.
        """
        browser = cls(await sandbox.spawn(_ARGV))
        try:
            return await browser._boot(settings)
        except BaseException:
            await browser.stop()
            raise

    async def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and return the answer. A call that is cancelled leaves the browser useless.

        Raises:
            BrowserGone: It ended.
            TimeoutError: It said nothing for long after `seconds`.
        """
        taken = False
        try:
            with anyio.fail_after(seconds + PATIENCE):
                await self._process.write(json.dumps(request).encode() + b"\n")
                taken = "taken" in await self._reply()
                return await self._reply()
        except (BrokenPipeError, ConnectionResetError, EOFError, ValueError):
            raise BrowserGone(taken) from None

    async def stop(self) -> None:
        """End the browser and all its processes."""
        with anyio.CancelScope(shield=True):
            await self._process.kill(0.0)

    async def _boot(self, settings: Mapping[str, Any]) -> BrowserProcess:
        folder = Path(__file__).parent
        modules = [
            [f"dsv4agent.tools.{name}", (folder / f"{name}.py").read_text("utf-8")] for name in _MODULES
        ]
        boot = json.dumps({"modules": modules, "settings": dict(settings)}).encode() + b"\n"
        answer: dict[str, Any] = {}
        try:
            with anyio.fail_after(START_SECONDS):
                await self._process.write(boot)
                answer = await self._reply()
        except TimeoutError:
            raise BrowserFailed("failed", f"the browser did not start within {START_SECONDS:g} s") from None
        except (BrokenPipeError, EOFError, ValueError) as error:
            said = (await _rest(self._process.read)).decode("utf-8", "replace").strip() or str(error)
            reason = f"the browser's driver ended: {said[-500:].splitlines()[-1]}"
            raise BrowserFailed("failed", reason) from None
        if answer["code"]:
            raise BrowserFailed(answer["code"], answer["reason"])
        return self

    async def _reply(self) -> dict[str, Any]:
        header = await self._receive(4)
        (size,) = struct.unpack(">I", header)
        if size > MOST_REPLY_BYTES:
            # Before the program starts, the channel carries the sandbox's own complaints.
            said = (header + await _rest(self._process.read_control)).decode("utf-8", "replace").strip()
            raise SandboxCrashed(f"the browser's driver did not start: {said}")
        return json.loads(await self._receive(size))

    async def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            data = await self._process.read_control(min(size - len(received), 1 << 20))
            if not data:
                raise EOFError("it said nothing")
            received += data
        return bytes(received)


async def _rest(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """Return what a stream still holds, without waiting for long."""
    said = b""
    with anyio.move_on_after(0.5):
        while data := await read():
            said += data
    return said
