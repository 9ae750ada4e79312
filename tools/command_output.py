"""Collecting what a process prints, while it prints, without ever waiting for pipes that it left open."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import anyio

from dsv4agent.sandboxes import Process
from dsv4agent.tools.output import Captured, LiveText, new_output_file, save_output

PIPE_BYTES = 1 << 20
"""The most that a pipe can hold, so the most that can be left to read after the end of a command."""
DISPLAY_PATIENCE = 1.0
"""Seconds that a live display may take for one piece."""
HELD_BYTES = 1 << 18
"""Output kept in memory from the start, and again from the end."""
SPILL_BYTES = 64 << 20
"""Output kept on disk."""
DRAIN = 0.1
"""Seconds spent on what is in the pipe after a kill; survivors may hold it open for ever."""


class CommandOutput:
    """Collects one command's output: start and end in memory, all of it on disk if too long for that.

    Args:
        spill_dir: Folder for what is too long; None keeps start and end only.
        on_output: Called with each piece, for display.
        name: First part of the file's name.
    """

    def __init__(
        self,
        spill_dir: Path | None,
        on_output: Callable[[str], Awaitable[None]] | None = None,
        *,
        name: str = "bash",
    ) -> None:
        self._spill_dir = spill_dir
        self._name = name
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
        self.close()

    def close(self) -> None:
        """Close the file; what was collected stays."""
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

    @property
    def empty(self) -> bool:
        """Whether nothing was collected."""
        return not self._head

    def captured(self) -> Captured:
        """Return what is held."""
        if not self._omitted:
            return Captured(bytes(self._head + self._tail))
        return Captured(bytes(self._head), bytes(self._tail), self._omitted)

    def save(self) -> Path | None:
        """Keep the full output in the spill folder and return its path; None without such a folder."""
        if self._path is None and self._spill_dir is not None:
            self._path = save_output(self._spill_dir, self._name, bytes(self._head + self._tail))
        return self._path

    def _spill(self, rest: bytes) -> None:
        if self._spill_dir is None:
            return
        if self._descriptor < 0:
            self._path, self._descriptor = new_output_file(self._spill_dir, self._name)
            rest = bytes(self._head) + rest
        rest = rest[: max(SPILL_BYTES - self._spilled, 0)]
        self._spilled += len(rest)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class Feedable(Protocol):
    """What takes output as it comes."""

    async def feed(self, chunk: bytes) -> None:
        """Add a chunk."""
        ...


async def pump(process: Process, output: Feedable) -> None:
    """Collect output until the end of the stream."""
    while data := await process.read():
        await output.feed(data)


async def drain(process: Process, output: CommandOutput, seconds: float) -> None:
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
