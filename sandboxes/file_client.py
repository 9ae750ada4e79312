"""The host's side of the file server that runs inside a cage."""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import anyio

from dsv4agent.sandboxes.errors import SandboxCrashed
from dsv4agent.sandboxes.frames import read_frame
from dsv4agent.sandboxes.pipes import PipeProcess
from dsv4agent.sandboxes.protocol import FileStat

PATIENCE = 60.0
"""Seconds after which a silent server counts as dead."""

# The source arrives on stdin, so that it need not be readable (nor be at all) inside the cage.
_BOOT = "import sys;i=sys.stdin.buffer;exec(compile(i.read(int(i.readline())),'file_server','exec'))"
_SOURCE = Path(__file__).with_name("_file_server.py")


def server_argv(python: str) -> tuple[str, ...]:
    """Return the command line of the server under a Python inside the cage."""
    return (python, "-I", "-S", "-c", _BOOT)


class FileClient:
    """Sends one request at a time to a server that it starts when first needed, and again if it died.

    Args:
        start: Starts the command of `server_argv` inside the cage.
    """

    def __init__(self, start: Callable[[], Awaitable[PipeProcess]]) -> None:
        self._start = start
        self._server: PipeProcess | None = None
        self._lock = anyio.Lock()
        self._outdated = False

    async def stat(self, path: str) -> FileStat:
        """Follow links and describe `path`."""
        reply, _ = await self._ask({"operation": "stat", "path": path})
        return FileStat(*reply)

    async def read_bytes(self, path: str, max_bytes: int | None) -> bytes:
        """Read a regular file."""
        _, data = await self._ask({"operation": "read", "path": path, "max_bytes": max_bytes})
        return data

    async def write_bytes(self, path: str, data: bytes, mode: int | None) -> None:
        """Replace a file whole."""
        await self._ask({"operation": "write", "path": path, "mode": mode}, data)

    async def remove(self, path: str) -> None:
        """Remove a file, or a link itself."""
        await self._ask({"operation": "remove", "path": path})

    async def list_dir(self, path: str) -> list[tuple[str, FileStat]]:
        """Return sorted names with what they are."""
        reply, _ = await self._ask({"operation": "list", "path": path})
        return [(name, FileStat(*described)) for name, described in reply]

    async def facts(self, masked: list[str], outside: list[str]) -> dict[str, Any]:
        """Return what the server could and could not do when it tried."""
        reply, _ = await self._ask({"operation": "facts", "path": "/", "masked": masked, "outside": outside})
        return reply

    def renew(self) -> None:
        """Take another server for the next request: this one does not see what its cage should show."""
        self._outdated = self._server is not None

    def close(self) -> None:
        """End the server."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _ask(self, request: dict[str, Any], data: bytes = b"") -> tuple[Any, bytes]:
        """Send a request, twice if the server died: every operation may be repeated, if it says so.

        Raises:
            OSError: As the kernel answered inside the cage.
            SandboxCrashed: The server cannot be kept alive.
        """
        answer: tuple[Any, bytes] | None = None
        # Half an exchange would leave the server out of step, and an exchange is short: a cancellation
        # waits for it.
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if self._outdated:
                    self._outdated = False
                    await self._bury()
                try:
                    answer = await self._exchange(_message(request, data))
                except (OSError, EOFError):
                    await self._bury()
                    answer = await self._last_try(_message({**request, "repeated": True}, data))
        assert answer is not None, "a shielded scope is not left early"
        reply = answer[0]
        failure = cast("dict[str, Any]", reply) if isinstance(reply, dict) else {}
        if "errno" in failure:
            raise OSError(failure["errno"], failure["message"], request["path"])
        return answer

    async def _last_try(self, message: bytes) -> tuple[Any, bytes]:
        try:
            return await self._exchange(message)
        except (OSError, EOFError) as error:
            complaint = await self._bury()
            raise SandboxCrashed(f"the file server ended: {complaint or error}") from error

    async def _exchange(self, message: bytes) -> tuple[Any, bytes]:
        with anyio.fail_after(PATIENCE):
            if self._server is None:
                self._server = await self._start()
                source = _SOURCE.read_bytes()
                await self._server.write(b"%d\n" % len(source) + source)
            await self._server.write(message)
            return await read_frame(self._server)

    async def _bury(self) -> str:
        """End a broken server and return what it, or the machinery around it, said last."""
        server, self._server = self._server, None
        if server is None:
            return ""
        await server.kill(0.0)
        said = b""
        with anyio.move_on_after(0.1):
            while data := await server.read_control():
                said += data
        server.close()
        return said.decode("utf-8", "replace").strip()


def _message(request: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(request).encode()
    return struct.pack(">II", len(text), len(data)) + text + data
