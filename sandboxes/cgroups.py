"""A control group (version 2) for one sandbox, where this process may make one: the kernel's own counters."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from dsv4agent.sandboxes.protocol import ResourceLimits

ROOT = Path("/sys/fs/cgroup")
_NEEDED = frozenset({"memory", "pids"})
_ENTER = 'echo $$ > "$1" && shift && exec "$@"'


class ControlGroup:
    """Holds all processes of a sandbox within its limits of memory and processes.

    Attributes:
        prefix: What stands before a command line so that it runs in the group from its beginning.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.prefix = ("/bin/sh", "-c", _ENTER, "sh", str(folder / "cgroup.procs"))
        self._killed = 0

    @classmethod
    def make(cls, limits: ResourceLimits, *, root: Path = ROOT) -> Self | None:
        """Return a new group with its limits set, or None where that is not possible."""
        for parent in _parents(root):
            folder = parent / f"dsv4agent-{os.getpid()}-{os.urandom(4).hex()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            try:
                if _NEEDED <= set((folder / "cgroup.controllers").read_text().split()):
                    _set(folder / "memory.max", limits.memory_bytes)
                    _set(folder / "pids.max", limits.processes)
                    return cls(folder)
            except OSError:
                pass  # Not delegated after all.
            folder.rmdir()
        return None

    def killed_for_memory(self) -> bool:
        """Return whether the kernel ended a process for its memory since the last call."""
        count = 0
        for line in _read(self._folder / "memory.events").splitlines():
            if line.startswith("oom_kill "):
                count = int(line.split()[1])
        grown, self._killed = count > self._killed, count
        return grown

    def close(self) -> None:
        """End everything in the group and remove it."""
        try:
            (self._folder / "cgroup.kill").write_text("1")
        except OSError:
            pass  # Linux before 5.14; whoever started the processes ended them already.
        for _ in range(100):
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.002)  # Ended processes leave the group a moment later.
            else:
                return


def delegated(root: Path = ROOT) -> bool:
    """Tell whether a sandbox opened now would get a control group."""
    group = ControlGroup.make(ResourceLimits(), root=root)
    if group is not None:
        group.close()
    return group is not None


def _parents(root: Path) -> Iterator[Path]:
    """Yield where a group can be made that processes of ours can enter: beside our own, or in the root."""
    if not (root / "cgroup.controllers").exists():
        return  # Version 1, or none.
    own = next((line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line[:3] == "0::"), "")
    if own:
        here = root / own.lstrip("/")
        yield here.parent if here != root else root


def _set(file: Path, limit: int | None) -> None:
    file.write_text("max" if limit is None else str(limit))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
