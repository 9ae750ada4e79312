"""A program in a container: its client here, and the means to end its process tree there."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

import anyio

from dsv4agent.sandboxes.pipes import PipeProcess

_PATIENCE = 20.0

# Run in the container. A tree is known by its supervisor's command line, which holds the token. What lost
# its supervisor, because a program ended that, hangs below the first process and is ended as well.
_KILLER = """
import os, signal, sys, time
token, number = sys.argv[1].encode(), int(sys.argv[2])
def look():
    parents, lines = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = open(f"/proc/{name}/stat", "rb").read().rpartition(b")")[2].split()
                if fields[0] not in b"ZX":
                    parents[int(name)] = int(fields[1])
                    lines[int(name)] = open(f"/proc/{name}/cmdline", "rb").read()
            except OSError:
                pass
    return parents, lines
def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass
def tree():
    parents, lines = look()
    def top(pid):
        while parents.get(pid, 0) in parents and parents[pid] != 1 and pid != 1:
            pid = parents[pid]
        return pid
    def ours(pid):
        line = lines.get(top(pid), b"")
        return token in line or b'"token": "' not in line
    heads = {pid for pid in parents if token in lines.get(pid, b"") and top(pid) == pid}
    mine = top(os.getpid())
    return {pid for pid in parents if pid != 1 and top(pid) != mine and ours(pid)} - heads, heads
members, heads = tree()
if number != signal.SIGKILL:
    send(members, number)
else:
    for _ in range(100):
        send(members, signal.SIGSTOP)
        found, _ = tree()
        if found <= members:
            break
        members |= found
    for _ in range(100):
        send(members, signal.SIGKILL)
        members, _ = tree()
        if not members:
            break
        time.sleep(0.002)
    send(heads, signal.SIGKILL)
"""


class ContainerProcess(PipeProcess):
    """A program whose real processes are in a container and not below this one."""

    _killer: tuple[str, ...] = ()
    _ended_by_memory: Callable[[], Awaitable[str | None]] | None = None

    @classmethod
    def start_in(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        judge: Callable[[int], str | None],
        ended_by_memory: Callable[[], Awaitable[str | None]],
        killer: Sequence[str],
        token: str,
    ) -> Self:
        """Start the client.

        Args:
            argv: Its command line.
            env: Its whole environment.
            judge: Tells from an exit code whether a resource limit was met.
            ended_by_memory: Tells whether the kernel ended a process for its memory.
            killer: Starts Python in the container.
            token: What its supervisor's command line holds.
        """
        process = cls.start(argv, env=env, machinery=1, judge=judge)
        process._killer = (*killer, "-c", _KILLER, token)
        process._ended_by_memory = ended_by_memory
        return process

    async def wait(self) -> int:
        """Wait for the client's end, which has the program's exit code."""
        code = await super().wait()
        if code == 128 + signal.SIGKILL and self._ended_by_memory is not None:
            ask, self._ended_by_memory = self._ended_by_memory, None
            self.limit_hit = self.limit_hit or await ask()
        return code

    async def kill(self, grace: float = 2.0) -> None:
        """End the tree in the container, then the client."""
        self._ended_by_memory = None  # What ends now was ended by us.
        if self.running and grace > 0:
            await self._signal(signal.SIGTERM)
            with anyio.move_on_after(grace):
                await self.wait()
        if self.running:
            await self._signal(signal.SIGKILL)
            with anyio.move_on_after(1.0):
                await self.wait()
        await super().kill(0.0)

    def kill_at_once(self) -> None:
        """End the tree in the container; for the watch, from its thread."""
        subprocess.run(
            [*self._killer, str(int(signal.SIGKILL))], capture_output=True, timeout=_PATIENCE, check=False
        )

    async def _signal(self, number: signal.Signals) -> None:
        with anyio.move_on_after(_PATIENCE):
            await anyio.run_process([*self._killer, str(int(number))], check=False)
