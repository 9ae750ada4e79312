"""One object through which all tools act on processes and files.

Failures that a model can act on (a missing file, a refused write, a command that times out) are `OSError`
subclasses or values, and tools turn them into results. Failures of the sandbox itself raise `SandboxError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from dsv4agent.sandboxes.gate import Gate


class Enforcement(StrEnum):
    """How far one guarantee holds."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True)
class EnforcementReport:
    """What a sandbox enforces, by guarantee, with reasons for less than full.

    Guarantees: `writes`, `reads`, `network`, `environment` (the host's variables are not seen),
    `system_calls` (filter, no capabilities), `processes` (those of the host are neither seen nor
    signalled), `secrets` (`.env` files look empty), `repositories` (`.git` is read-only), `limits`
    (resources are bounded).
    """

    provider: str
    guarantees: Mapping[str, Enforcement]
    notes: Sequence[str] = ()


class NetworkMode(StrEnum):
    """How much of the network is reachable from inside."""

    OFF = "off"
    ALLOW_LIST = "allow_list"
    ON = "on"


@dataclass(frozen=True)
class Network:
    """Which hosts may be reached.

    Attributes:
        mode: `off` (nothing but the sandbox's own loopback), `allow_list` (the named hosts, through a proxy
            in this process, which is the only way out), or `on` (everything this machine reaches).
        hosts: For `allow_list`: `example.org` (that host), `*.example.org` (every host below it),
            `example.org:8443` (another port than 80 and 443). Names are compared in lower case, as A-labels.
            `127.0.0.1:8000`, `[::1]:8000` and `localhost:8000` name addresses that are refused otherwise,
            with mode `on` as well.
    """

    mode: NetworkMode = NetworkMode.OFF
    hosts: tuple[str, ...] = ()

    @classmethod
    def only(cls, *hosts: str) -> Self:
        """Allow the named hosts alone."""
        return cls(NetworkMode.ALLOW_LIST, hosts)


@dataclass(frozen=True)
class ResourceLimits:
    """Bounds on what the programs of one sandbox may use; None leaves one open.

    Attributes:
        cpu_seconds: Processor time of one process.
        memory_bytes: Memory of all processes together.
        processes: Number of processes and threads, all together.
        file_bytes: Size of one file that is written.
        disk_bytes: Growth of the folders that may be written, all together.
        open_files: Descriptors of one process.
    """

    cpu_seconds: int | None = 3600
    memory_bytes: int | None = 8 << 30
    processes: int | None = 1024
    file_bytes: int | None = 8 << 30
    disk_bytes: int | None = 16 << 30
    open_files: int | None = 8192


@dataclass(frozen=True)
class Policy:
    """What a sandboxed process may do.

    Attributes:
        workspace: Absolute host folder; the only one that may be written, besides a private temporary folder.
        writable: Further writable host folders.
        masked: Host paths that look empty from inside, besides all home folders.
        network: Which hosts may be reached. None is the default everywhere.
        env: Environment variables set inside, on top of a scrubbed base.
        readable: Host paths that stay readable although they lie in a masked folder (a session's folder of
            long outputs).
        limits: Bounds on processor, memory, processes, disk and descriptors.
        mask_env_files: Whether files in the workspace that hold secrets by their name (`.env`, `.env.local`,
            but not `.env.example`) look empty.
        protect_repositories: Whether the `.git` of every repository in the workspace is read-only to
            programs, but for those that are started with `repositories=True`.
    """

    workspace: str
    writable: Sequence[str] = ()
    masked: Sequence[str] = ()
    network: Network = Network()
    env: Mapping[str, str] | None = None
    readable: Sequence[str] = ()
    limits: ResourceLimits = ResourceLimits()
    mask_env_files: bool = True
    protect_repositories: bool = True


@dataclass(frozen=True)
class Completed:
    """A finished process.

    `exit_code` is negative for a signal, as in `subprocess`, except under bubblewrap, which reports 128 +
    signal as shells do. `limit` names the resource limit that ended the process, if one did
    (`memory limit of 8 GiB`).
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    limit: str | None = None


@dataclass(frozen=True)
class FileStat:
    """What the file tools ask.

    `kind` is one of `file`, `dir`, `other`; `mode` holds permission bits; size in bytes, time of change in
    nanoseconds.
    """

    kind: str
    size: int
    mode: int
    mtime_ns: int


class Process(Protocol):
    """A running process inside the sandbox, with byte pipes."""

    @property
    def pid(self) -> int:
        """Host process id of the outermost process."""
        ...

    @property
    def limit_hit(self) -> str | None:
        """The resource limit that ended it or a part of it, in words; None if none did."""
        ...

    async def write(self, data: bytes) -> None:
        """Write to the standard input."""
        ...

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Return what standard output holds (standard error is merged into it); empty at its end.

        Waits if nothing is there, and returns without yielding to other tasks if something is.
        """
        ...

    async def read_control(self, max_bytes: int = 4096) -> bytes:
        """Read from the private control descriptor (number 3 inside), which carries completion marks."""
        ...

    async def kill(self, grace: float = 2.0) -> None:
        """End the whole process tree: SIGTERM, `grace` seconds, SIGKILL. Never waits for inherited pipes."""
        ...

    async def wait(self) -> int:
        """Wait for the end and return the exit code."""
        ...


class Sandbox(Protocol):
    """Runs processes and reads and writes files under one policy.

    Paths are absolute and mean the same inside and outside, but for the temporary folder, which is private.
    """

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        ...

    @property
    def report(self) -> EnforcementReport:
        """What is enforced, read from the running sandbox and not from wishes."""
        ...

    @property
    def gate(self) -> Gate:
        """The way out for the runtime's own requests, under the same network policy."""
        ...

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
    ) -> Completed:
        """Run a program to its end.

        `repositories` lifts the protection of `.git` folders; only the runtime's own git tool asks for it,
        and never for a command that the model wrote.

        Raises `TimeoutError` after `timeout` seconds, when its process tree is gone.
        """
        ...

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
    ) -> Process:
        """Start a program and return at once."""
        ...

    async def stat(self, path: str) -> FileStat:
        """Follow links and describe `path`. Raises `OSError` as the kernel does inside the sandbox."""
        ...

    async def read_bytes(self, path: str, max_bytes: int | None = None) -> bytes:
        """Read a regular file. Raises `OSError` (EINVAL for a pipe, socket or device)."""
        ...

    async def write_bytes(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Replace a file whole (temporary file, fsync, rename), making parent folders; links are followed.

        A file that exists keeps its mode unless `mode` is given. Raises `OSError`.
        """
        ...

    async def remove(self, path: str) -> None:
        """Remove a file, or a link itself; folders above it stay. Raises `OSError` (EISDIR for a folder)."""
        ...

    async def list_dir(self, path: str) -> list[tuple[str, FileStat]]:
        """Names with what they are (links are not followed), sorted by name. Raises `OSError`."""
        ...

    async def aclose(self) -> None:
        """Kill everything that runs inside and release the sandbox."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...
