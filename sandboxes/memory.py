"""The file half of a sandbox in memory: no processes, no disk, the kernel's errors."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from dsv4agent.sandboxes.errors import ProgramsUnsupported
from dsv4agent.sandboxes.gate import Gate
from dsv4agent.sandboxes.protocol import (
    Completed,
    Enforcement,
    EnforcementReport,
    FileStat,
    Policy,
    Process,
)

_REPORT = EnforcementReport(
    "memory",
    {
        "writes": Enforcement.FULL,
        "reads": Enforcement.FULL,
        "network": Enforcement.FULL,
        "processes": Enforcement.FULL,
    },
    ("holds files only and runs no programs",),
)


class MemorySandbox:
    """Holds a workspace's files in a dictionary, for file tools at speeds that no disk allows.

    Folders exist as far as files or `folders` need them. There are no links and no owners; writes outside
    the workspace and the policy's writable folders are refused as on a read-only file system.

    Args:
        files: Contents by absolute path; the dictionary is used as it is, not copied.
        workspace: The folder that may be written.
        folders: Further folders, which may be empty.
    """

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        *,
        workspace: str = "/workspace",
        policy: Policy | None = None,
        folders: Sequence[str] = (),
    ) -> None:
        self.files: dict[str, bytes] = {} if files is None else files
        self.modes: dict[str, int] = {}
        self._policy = policy or Policy(workspace)
        self._gate = Gate(self._policy.network)
        self._folders = {"/", self._policy.workspace, *folders}
        self._clock = 0
        self._times: dict[str, int] = {}

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def report(self) -> EnforcementReport:
        """Nothing outside the dictionary can be reached."""
        return _REPORT

    @property
    def gate(self) -> Gate:
        """The way out under the policy, for requests of the runtime."""
        return self._gate

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
        """Raise `ProgramsUnsupported`."""
        raise ProgramsUnsupported(f"a memory sandbox cannot run {argv[0]}; use choose_sandbox()")

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        repositories: bool = False,
    ) -> Process:
        """Raise `ProgramsUnsupported`."""
        raise ProgramsUnsupported(f"a memory sandbox cannot start {argv[0]}; use choose_sandbox()")

    async def stat(self, path: str) -> FileStat:
        """Describe a file or folder; modification times count writes."""
        return self._stat(self._resolve(path))

    async def read_bytes(self, path: str, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes."""
        data = self.files.get(path)
        if data is None:
            resolved = self._resolve(path)
            data = self.files.get(resolved)
            if data is None:
                raise _error(errno.EISDIR if self._is_folder(resolved) else errno.ENOENT, path)
        return data if max_bytes is None else data[:max_bytes]

    async def write_bytes(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Replace or make a file and the folders above it."""
        if posixpath.basename(path) in {"", ".", ".."}:
            raise _error(errno.EISDIR, path)
        resolved = self._resolve(path, parents_may_miss=True)
        if self._is_folder(resolved):
            raise _error(errno.EISDIR, path)
        self._require_writable(resolved, path)
        self.files[resolved] = data
        if mode is not None:
            self.modes[resolved] = mode
        self._clock += 1
        self._times[resolved] = self._clock

    async def remove(self, path: str) -> None:
        """Remove a file; the folders above it stay."""
        resolved = self._resolve(path)
        if self._is_folder(resolved):
            raise _error(errno.EISDIR, path)
        if resolved not in self.files:
            raise _error(errno.ENOENT, path)
        self._require_writable(resolved, path)
        self._folders.add(posixpath.dirname(resolved))
        del self.files[resolved]
        self.modes.pop(resolved, None)
        self._times.pop(resolved, None)

    async def list_dir(self, path: str) -> list[tuple[str, FileStat]]:
        """Return the sorted names in a folder with what they are."""
        resolved = self._resolve(path)
        if resolved in self.files:
            raise _error(errno.ENOTDIR, path)
        if not self._is_folder(resolved):
            raise _error(errno.ENOENT, path)
        prefix = posixpath.join(resolved, "")
        names = {
            entry[len(prefix) :].split("/", 1)[0]
            for entry in (*self.files, *self._folders)
            if entry.startswith(prefix) and entry != prefix
        }
        return [(name, self._stat(prefix + name)) for name in sorted(names)]

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _stat(self, path: str) -> FileStat:
        data = self.files.get(path)
        if data is not None:
            return FileStat("file", len(data), self.modes.get(path, 0o644), self._times.get(path, 0))
        if self._is_folder(path):
            return FileStat("dir", 0, 0o755, 0)
        raise _error(errno.ENOENT, path)

    def _require_writable(self, resolved: str, path: str) -> None:
        roots = (self._policy.workspace, *self._policy.writable)
        if not any(resolved.startswith(posixpath.join(root, "")) for root in roots):
            raise _error(errno.EROFS, path)

    def _is_folder(self, path: str) -> bool:
        if path in self._folders:
            return True
        prefix = path + "/"
        return any(entry.startswith(prefix) for entry in (*self.files, *self._folders))

    def _resolve(self, path: str, *, parents_may_miss: bool = False) -> str:
        """Walk a path as the kernel does: every component but the last must be a folder, also before `..`."""
        here = ""
        parts = [part for part in path.split("/") if part not in {"", "."}]
        must_be_folder = path.endswith(("/", "/."))
        for index, part in enumerate(parts):
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            here = f"{here}/{part}"
            if index == len(parts) - 1 and not must_be_folder:
                break
            if here in self.files:
                raise _error(errno.ENOTDIR, path)
            if not self._is_folder(here) and not (parents_may_miss and ".." not in parts[index:]):
                raise _error(errno.ENOENT, path)
        return here or "/"


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
