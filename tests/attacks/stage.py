"""A sandbox among a prepared host, and the host's eyes: what changed, what leaked, who came, what is held."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Completed, Policy, Sandbox
from dsv4agent.sandboxes.process_tree import descendants
from tests.attacks.host import Host, Snapshot
from tests.attacks.programs import Program, compiled

PATIENCE = 8.0
"""Seconds for one program."""
_MACHINERY = re.compile(r"^\S*bwrap ")
_SETTLE = 0.03
"""Seconds after which a packet that was sent has arrived."""


@dataclass(frozen=True)
class Stage:
    """What an attack plays on.

    Attributes:
        provider: Name of the sandbox's provider.
        host: What the host has that must not be changed, read or reached.
        sandbox: The sandbox under attack.
        open: Opens another sandbox of the same provider.
    """

    provider: str
    host: Host
    sandbox: Sandbox
    open: Callable[[Policy], Awaitable[Sandbox]]

    @property
    def workspace(self) -> Path:
        """The one folder that may be written."""
        return self.host.workspace

    async def run(
        self, program: Program, *, timeout: float = PATIENCE, env: Mapping[str, str] | None = None
    ) -> Completed:
        """Run a program inside; one that takes too long has printed nothing."""
        variables = {**self.host.addresses, **(env or {})}
        try:
            return await self.sandbox.run(self._argv(program), env=variables, timeout=timeout)
        except TimeoutError:
            return Completed(-1, b"", b"took too long")

    def changed(self) -> str:
        """Return what is different outside, and put it right for the attacks to come."""
        found = self.host.outside_snapshot.difference(Snapshot.of(self.host.outside))
        if found:
            self.host.restore()
        return found

    def leaked(self, *outputs: Completed | bytes | str) -> str:
        """Return which of the host's secrets an output holds."""
        for output in outputs:
            if isinstance(output, Completed):
                data = output.stdout + output.stderr
            else:
                data = output.encode() if isinstance(output, str) else output
            for place, secret in self.host.secrets.items():
                if secret in data:
                    return f"the secret of {place} was read"
        return ""

    async def visited(self) -> str:
        """Return which of the host's sockets were reached since this was last asked."""
        await anyio.sleep(_SETTLE)
        visits = self.host.visitors()
        return f"the host's socket {', '.join(visits)} was reached" if visits else ""

    @asynccontextmanager
    async def running(self, program: Program) -> AsyncGenerator[list[HostView]]:
        """Start a program, wait until it prints `ready` or ends, and look at its processes from outside."""
        process = await self.sandbox.spawn(self._argv(program), env=self.host.addresses)
        try:
            said = b""
            with anyio.move_on_after(PATIENCE):
                while b"ready" not in said and (data := await process.read()):
                    said += data
            found = [HostView(pid) for pid in (process.pid, *sorted(descendants(process.pid)))]
            # Landlock's supervisor stands in the host's namespaces, bubblewrap's inner process in the cage's.
            machinery = [view for view in found if _MACHINERY.search(view.command()) or view is found[0]]
            yield [replace(view, cage=machinery[-1].pid) for view in found if view not in machinery]
        finally:
            with anyio.CancelScope(shield=True):
                await process.kill(0.0)

    def _argv(self, program: Program) -> list[str]:
        return self.bring(program) if program.language == "c" else program.argv()

    def bring(self, program: Program) -> list[str]:
        """Compile a C program, put it into the workspace and return its command line."""
        code = compiled(program.source)
        path = self.workspace / f"attack-{hash(program.source) & 0xFFFFFFFF:08x}"
        if not path.exists():
            path.write_bytes(code)
            path.chmod(0o755)
        return [str(path)]


@dataclass(frozen=True)
class HostView:
    """A process as the host sees it; `cage` is the innermost process of the machinery above it."""

    pid: int
    cage: int = 0

    def descriptors(self) -> list[str]:
        """Return what its descriptors lead to, but for the channels that every program is given."""
        folder = f"/proc/{self.pid}/fd"
        given = {_link(f"{folder}/{number}") for number in (0, 3)}
        return [link for link in _links(folder) if link not in given]

    def namespaces(self) -> dict[str, str]:
        """Return its namespaces by kind."""
        folder = f"/proc/{self.pid}/ns"
        return {kind: _link(f"{folder}/{kind}") for kind in ("user", "mnt", "pid", "net", "ipc", "uts")}

    def root(self) -> str:
        """Return device and inode of its root folder."""
        try:
            found = os.stat(f"/proc/{self.pid}/root")
        except OSError:
            return ""
        return f"{found.st_dev}:{found.st_ino}"

    def mounts(self) -> str:
        """Return its mount table."""
        return _text(f"/proc/{self.pid}/mountinfo")

    def status(self) -> dict[str, str]:
        """Return the fields of its status."""
        lines = _text(f"/proc/{self.pid}/status").splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def command(self) -> str:
        """Return its command line."""
        return _text(f"/proc/{self.pid}/cmdline").replace("\0", " ")


def host_processes() -> list[HostView]:
    """Return all processes of the host."""
    return [HostView(int(name)) for name in os.listdir("/proc") if name.isdigit()]


def _links(folder: str) -> list[str]:
    try:
        return [_link(os.path.join(folder, name)) for name in os.listdir(folder)]
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
