"""A child process with byte pipes that never waits for anything but its own descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

import anyio

from dsv4agent.sandboxes.process_tree import descendants, kill_tree, living_processes, terminate_tree

# Standard error is the private channel on the way in; a shell moves it to descriptor 3 as its last act
# inside the cage. The machinery's own complaints come before that and so never mix with the program's
# output.
CONTROL_CHANNEL = "exec 3>&2 2>&1;"
DRAIN = 0.5
"""Seconds given to pipes to reach their end after a program's end, so that nothing written is lost."""
_LAST_SECONDS = 1.0
"""Seconds given to killed processes to be gone."""


class Pipe:
    """One end of a pipe, non-blocking, closed at the end of the stream or when it is forgotten."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def read(self, max_bytes: int) -> bytes:
        """Return what is there at once, else wait for it; empty at the end of the stream."""
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._descriptor)
                continue
            if not data:
                self.close()
            return data
        return b""

    async def wait_readable(self) -> None:
        """Wait until there is something to read."""
        await anyio.wait_readable(self._descriptor)

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises `BrokenPipeError` if nobody reads any more."""
        view = memoryview(data)
        while view:
            if self._descriptor < 0:
                raise BrokenPipeError
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._descriptor)

    def duplicate(self) -> int:
        """Return another descriptor for the same thing, which the caller closes."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Close the descriptor; further reads find the end of the stream."""
        if self._descriptor >= 0:
            anyio.notify_closing(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _sockets() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


class PipeProcess:
    """A process started by `PipeProcess.start`; implements the `Process` protocol."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        pipes: tuple[Pipe, Pipe, Pipe],
        machinery: int,
        judge: Callable[[int], str | None],
    ) -> None:
        self.limit_hit: str | None = None
        self._child = child
        self._judge = judge
        self._stdin, self._stdout, self._stderr = pipes
        self._machinery = machinery
        self._pidfd = Pipe(os.pidfd_open(child.pid))

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        machinery: int,
        judge: Callable[[int], str | None],
        control: bool = False,
    ) -> Self:
        """Start a program in a session of its own with three pipes and no other descriptor than `pass_fds`.

        Args:
            argv: Program and arguments.
            env: The whole environment.
            pass_fds: Descriptors to hand on.
            machinery: How many levels of processes belong to the sandbox and must not get the polite signal.
            judge: Tells from an exit code whether a resource limit was met, and which.
            control: Whether requests and marks go over input and the second channel: these are sockets then,
                which, unlike pipes, nothing that the program starts can open again through /proc.
        """
        inner: list[int] = []
        outer: list[int] = []
        try:
            for number, reading in enumerate((False, True, True)):
                read_end, write_end = _sockets() if control and number != 1 else os.pipe()
                outer.append(read_end if reading else write_end)
                inner.append(write_end if reading else read_end)
            child = subprocess.Popen(
                argv,
                stdin=inner[0],
                stdout=inner[1],
                stderr=inner[2],
                env=env,
                cwd="/",
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except BaseException:
            for descriptor in outer:
                os.close(descriptor)
            raise
        finally:
            for descriptor in inner:
                os.close(descriptor)
        return cls(child, (Pipe(outer[0]), Pipe(outer[1]), Pipe(outer[2])), machinery, judge)

    @property
    def pid(self) -> int:
        """Host process id of the outermost process."""
        return self._child.pid

    def dup_pidfd(self) -> int:
        """Return a descriptor for the outermost process that stays valid whatever happens to this object."""
        return self._pidfd.duplicate()

    @property
    def running(self) -> bool:
        """Whether the outermost process still runs."""
        return self._child.poll() is None

    async def write(self, data: bytes) -> None:
        """Write to the standard input."""
        await self._stdin.write(data)

    def close_stdin(self) -> None:
        """Let the program find the end of its input."""
        self._stdin.close()

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Read what is there from standard output."""
        return await self._stdout.read(max_bytes)

    async def read_control(self, max_bytes: int = 4096) -> bytes:
        """Read from the second channel: descriptor 3 of a spawned program, standard error of a plain one."""
        return await self._stderr.read(max_bytes)

    async def wait(self) -> int:
        """Wait for the end of the outermost process and return its exit code."""
        while (code := self._child.poll()) is None:
            await self._pidfd.wait_readable()
        self.limit_hit = self.limit_hit or self._judge(code)
        return code

    async def kill(self, grace: float = 2.0) -> None:
        """End the whole tree: SIGTERM, `grace` seconds, SIGKILL. Never waits for pipes."""
        tree = descendants(self.pid).keys() if self.running else set[int]()
        if tree and grace > 0:
            terminate_tree(self.pid, self._machinery)
            with anyio.move_on_after(grace):
                await self.wait()
        self.kill_now()
        await self.wait()
        # The outermost process may end a moment before the namespace whose end takes the others along.
        with anyio.move_on_after(_LAST_SECONDS):
            while tree & living_processes().keys():  # noqa: ASYNC110  (nothing tells of other processes)
                await anyio.sleep(0.002)
        self._stdin.close()

    def kill_at_once(self) -> None:
        """Kill the whole tree, from whatever thread, if the caller knows that the outermost process lives."""
        kill_tree(self.pid)

    def kill_now(self) -> None:
        """Send SIGKILL to the whole tree."""
        if self.running:
            kill_tree(self.pid)

    def close(self) -> None:
        """Kill what still runs, reap it and close all pipes, without an event loop's help."""
        self.kill_now()
        self._child.wait()
        for pipe in (self._stdin, self._stdout, self._stderr, self._pidfd):
            pipe.close()


async def communicate(process: PipeProcess, data: bytes, collected: tuple[bytearray, bytearray]) -> int:
    """Feed a process and collect both its streams until it ends, but not until survivors close them."""

    async def feed() -> None:
        try:
            await process.write(data)
        except BrokenPipeError:
            pass  # It did not want all of its input.
        process.close_stdin()

    async def collect(read: Callable[[int], Awaitable[bytes]], into: bytearray) -> None:
        while chunk := await read(65536):
            into += chunk

    code = 0
    async with anyio.create_task_group() as group:
        group.start_soon(feed)
        async with anyio.create_task_group() as readers:
            readers.start_soon(collect, process.read, collected[0])
            readers.start_soon(collect, process.read_control, collected[1])
            code = await process.wait()
            readers.cancel_scope.deadline = anyio.current_time() + DRAIN
        group.cancel_scope.cancel()
    return code
