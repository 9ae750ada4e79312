"""Keeps limits for which the kernel has no counter here: looks at processes and ends what exceeds them.

One thread for each sandbox, which runs only while programs do. It sends signals and nothing else, so it has
no part in the event loop. Between two looks a program can go beyond a limit; the looks come closer as a
limit comes nearer, and further apart while nothing happens.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dsv4agent.sandboxes.limits import human_size
from dsv4agent.sandboxes.process_tree import (
    ProcessInfo,
    ahead_of_others,
    descendants,
    living_processes,
)
from dsv4agent.sandboxes.protocol import ResourceLimits
from dsv4agent.sandboxes.usage import DiskGauge, memory_files, proportional_memory

_SHORTEST, _USUAL, _LONGEST = 0.02, 0.1, 0.4
"""Seconds between two looks: near a limit, while programs work, while they wait."""
_SHARE = 1 / 25
"""Of one processor, for the usual look; near a limit it may take half."""
_SLOW = 1.0
"""Seconds between looks at files in memory without a name."""


class Watched(Protocol):
    """A process as the watch sees it."""

    limit_hit: str | None

    @property
    def pid(self) -> int:
        """Process id of its outermost process."""
        ...

    def dup_pidfd(self) -> int:
        """Return a descriptor of its own for the process."""
        ...

    def kill_at_once(self) -> None:
        """Kill its whole tree."""
        ...


@dataclass(frozen=True, eq=False)
class _Tree:
    process: Watched
    pidfd: int

    def alive(self) -> bool:
        """Tell whether the outermost process has not ended, so that its number is still its own."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)


@dataclass(frozen=True)
class _Use:
    """What one tree uses: its processes, their threads, their memory in bytes."""

    pids: tuple[int, ...]
    threads: int
    resident: int
    ticks: int


class ResourceWatch:
    """Watches the programs of one sandbox.

    Args:
        limits: Memory, processes and disk; None is not looked at.
        folders: The folders whose growth counts.
    """

    def __init__(self, limits: ResourceLimits, folders: Sequence[str]) -> None:
        self._limits = limits
        self._disk = None if limits.disk_bytes is None else DiskGauge(folders, limits.disk_bytes)
        self._trees: set[_Tree] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._fresh = False
        self._in_files = 0
        self._next_slow = 0.0
        self._last_seen: set[tuple[_Tree, int, int, int]] = set()
        self._needed = any((limits.memory_bytes, limits.processes, limits.disk_bytes))

    def add(self, process: Watched) -> None:
        """Watch a process and all below it until it ends."""
        if not self._needed:
            return
        with self._lock:
            self._trees.add(_Tree(process, process.dup_pidfd()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="sandbox watch", daemon=True)
                self._thread.start()
            self._fresh = True
            self._wake.set()

    def close(self) -> None:
        """Let the thread end. The programs are gone by now, or the caller's to end."""
        with self._lock:
            thread = self._thread
            self._needed = False
            self._wake.set()
        if thread is not None:
            thread.join(_LONGEST)

    def _watch(self) -> None:
        with ahead_of_others():
            self._run()

    def _run(self) -> None:
        pause = _SHORTEST
        while True:
            self._wake.wait(pause)
            with self._lock:
                self._wake.clear()
                ended = {tree for tree in self._trees if not self._needed or not tree.alive()}
                for tree in ended:
                    os.close(tree.pidfd)
                self._trees -= ended
                trees = tuple(self._trees)
                if not trees:
                    self._thread = None
                    return
            started = time.monotonic()
            nearness = self._look(trees)
            cost = time.monotonic() - started
            if nearness > 0.5:
                pause = max(_SHORTEST, cost)
            elif self._fresh:
                self._fresh = False
                pause = _SHORTEST
            else:
                usual = _LONGEST if nearness < 0 else _USUAL
                pause = max(min(1.5 * pause, usual), min(cost / _SHARE, _LONGEST))

    def _look(self, trees: Sequence[_Tree]) -> float:
        """Compare and act. Return the largest share of a limit in use, or -1 if no program did anything."""
        processes = living_processes()
        uses = {tree: _use(tree, processes) for tree in trees}
        pids = [pid for use in uses.values() for pid in use.pids]
        if time.monotonic() >= self._next_slow:
            self._next_slow = time.monotonic() + _SLOW
            self._in_files = memory_files(pids).memory_bytes
        if self._disk is not None and self._disk.exceeded(lambda: memory_files(pids).disk_bytes):
            for tree in trees:
                _stop(tree, f"disk limit of {human_size(self._disk.limit)}")
            self._disk.forgive()
        nearness = max(self._check_processes(uses), self._check_memory(uses))
        seen = {(tree, use.ticks, use.threads, use.resident) for tree, use in uses.items()}
        idle, self._last_seen = seen == self._last_seen, seen
        return -1.0 if idle and nearness <= 0.5 else nearness

    def _check_processes(self, uses: Mapping[_Tree, _Use]) -> float:
        if not self._limits.processes:
            return 0.0
        total = sum(use.threads for use in uses.values())
        if total > self._limits.processes:
            largest = max(uses, key=lambda tree: uses[tree].threads)
            _stop(largest, f"limit of {self._limits.processes} processes and threads")
        return total / self._limits.processes

    def _check_memory(self, uses: Mapping[_Tree, _Use]) -> float:
        limit = self._limits.memory_bytes
        if not limit:
            return 0.0
        total = sum(use.resident for use in uses.values()) + self._in_files
        if total > limit:
            # What processes share was counted for each of them. The exact sum takes longer to get.
            exact = {tree: proportional_memory(use.pids) for tree, use in uses.items()}
            files = memory_files([pid for use in uses.values() for pid in use.pids]).memory_bytes
            private = sum(memory.private for memory in exact.values())
            shared = sum(memory.shared_files for memory in exact.values())
            if private + max(shared, files) > limit:
                largest = max(uses, key=lambda tree: (exact[tree].private, uses[tree].resident))
                _stop(largest, f"memory limit of {human_size(limit)}")
        return total / limit


def _use(tree: _Tree, processes: Mapping[int, ProcessInfo]) -> _Use:
    pids = (tree.process.pid, *descendants(tree.process.pid, processes))
    found = [processes[pid] for pid in pids if pid in processes]
    return _Use(
        pids,
        sum(info.threads for info in found),
        sum(info.resident for info in found),
        sum(info.ticks for info in found),
    )


def _stop(tree: _Tree, limit: str) -> None:
    if tree.alive():
        tree.process.limit_hit = limit
        tree.process.kill_at_once()
