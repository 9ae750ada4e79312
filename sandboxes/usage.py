"""What the programs of a sandbox use of memory and disk, counted so that it cannot be hidden easily."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

_BLOCK = 512
"""Bytes in the unit of `st_blocks`."""
_HINTED, _UNHINTED = (0.1, 10), (1.0, 50)
"""Between two walks through folders, while the disk fills up and while it does not: at least so many seconds,
and so many times the length of the last walk."""
_MOST_DESCRIPTORS = 20_000


@dataclass(frozen=True)
class Memory:
    """Bytes that processes use, each shared page counted once: their own, and files in memory."""

    private: int
    shared_files: int


@dataclass(frozen=True)
class UnnamedFiles:
    """Bytes in files without a name that are still open: in memory, and on disks."""

    memory_bytes: int
    disk_bytes: int


def proportional_memory(pids: Iterable[int]) -> Memory:
    """Return the exact memory of processes; each page counts as the share that they have in it."""
    total = shared = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b"kB" in line)
        except OSError:
            continue  # It ended.
        total += _kilobytes(fields, b"Pss") + _kilobytes(fields, b"SwapPss")
        shared += _kilobytes(fields, b"Pss_Shmem")
    return Memory(total - shared, shared)


def memory_files(pids: Iterable[int]) -> UnnamedFiles:
    """Return what lies in files that only descriptors hold, where no folder and no process shows it."""
    sizes: dict[tuple[int, int], tuple[bool, int]] = {}
    left = _MOST_DESCRIPTORS
    for path in (path for pid in pids for path in _descriptors(pid)):
        left -= 1
        if left < 0:
            break
        try:
            target = os.readlink(path)
            if not target.endswith(" (deleted)"):
                continue
            found = os.stat(path)
        except OSError:
            continue  # Closed meanwhile.
        if stat.S_ISREG(found.st_mode):
            in_memory = target.startswith(("/memfd:", "/dev/shm/", "/dev/zero"))
            sizes[found.st_dev, found.st_ino] = (in_memory, found.st_blocks * _BLOCK)
    return UnnamedFiles(
        sum(size for in_memory, size in sizes.values() if in_memory),
        sum(size for in_memory, size in sizes.values() if not in_memory),
    )


class DiskGauge:
    """Tells when folders have grown beyond a limit since it was made.

    A disk's free space says at once that something grew, whatever its name or place, and costs nothing. But
    it speaks for the whole disk: others fill it too, and what they free hides growth. So the folders are
    looked through for files that changed since, soon when the free space fell by the limit, now and then when
    it did not. A file's time of change cannot be set by programs.

    Attributes:
        limit: Bytes.
    """

    def __init__(self, folders: Sequence[str], limit: int) -> None:
        self.limit = limit
        self._folders = tuple(folders)
        self._since = time.time_ns()
        self._most_free = {folder: _free(folder) for folder in self._folders}
        self._allowed = limit
        self._walked, self._took = time.monotonic(), 0.0

    def exceeded(self, unnamed: Callable[[], int]) -> bool:
        """Return whether the limit is exceeded. Cheap enough to ask ten times a second.

        Args:
            unnamed: Counts the bytes on disk in files without a name; called when folders are looked through.
        """
        fallen = 0
        for folder, most in self._most_free.items():
            free = _free(folder)
            self._most_free[folder] = max(most, free)
            fallen = max(fallen, most - free)
        least, times = _HINTED if fallen > self._allowed else _UNHINTED
        if time.monotonic() < self._walked + max(least, times * self._took):
            return False
        return self._grown() + unnamed() > self._allowed

    def forgive(self) -> None:
        """Allow what is there now, and a little more, once the programs that wrote it have ended.

        Otherwise none could run any more, not even one that makes room.
        """
        self._allowed = max(self.limit, self._grown()) + self.limit // 64

    def _grown(self) -> int:
        """Return the size of all files that changed since the beginning; more than what they grew by."""
        started = time.monotonic()
        sizes: dict[tuple[int, int], int] = {}
        waiting = list(self._folders)
        while waiting:
            try:
                entries = list(os.scandir(waiting.pop()))
            except OSError:
                continue
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(entry.path)
                elif found.st_ctime_ns >= self._since:
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
        self._walked = time.monotonic()
        self._took = self._walked - started
        return sum(sizes.values())


def _free(folder: str) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bfree * found.f_frsize


def _descriptors(pid: int) -> Iterator[str]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        yield f"/proc/{pid}/fd/{name}"


def _kilobytes(fields: dict[bytes, bytes], name: bytes) -> int:
    return int(fields[name].split()[0]) * 1024 if name in fields else 0
