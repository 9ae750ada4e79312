"""Processes below a process, seen from the host through /proc: what they use, and how to end them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass

_ROUNDS = 100
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One living process.

    Attributes:
        parent: Process id of its parent.
        group: Its process group.
        threads: Number of its threads.
        resident: Bytes of memory that it has in use, those that it shares included.
        ticks: Processor time that it used, in clock ticks.
    """

    parent: int
    group: int
    threads: int
    resident: int
    ticks: int


def living_processes() -> dict[int, ProcessInfo]:
    """Return all processes of the host that have not ended, by process id."""
    found: dict[int, ProcessInfo] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            info = _process_info(name)
            if info is not None:
                found[int(name)] = info
    return found


def descendants(root: int, processes: Mapping[int, ProcessInfo] | None = None) -> dict[int, int]:
    """Return the depth below `root` (1 for children) of every living descendant, by process id."""
    children: dict[int, list[int]] = {}
    for pid, info in (living_processes() if processes is None else processes).items():
        children.setdefault(info.parent, []).append(pid)
    depths: dict[int, int] = {}
    level, depth = [root], 0
    while level:
        depth += 1
        level = [child for parent in level for child in children.get(parent, ())]
        depths.update(dict.fromkeys(level, depth))
    return depths


def terminate_tree(root: int, machinery: int) -> None:
    """Send SIGTERM to all descendants of `root` but the first levels.

    Args:
        root: Outermost process.
        machinery: Levels that belong to the sandbox and not to the program, `root` included.
    """
    for pid, depth in descendants(root).items():
        if depth >= machinery:
            _send(pid, signal.SIGTERM)


def kill_tree(root: int) -> None:
    """Kill all descendants of `root`, then `root`.

    They are stopped first, so that none forks while the others die; `root` goes last, because a process
    that adopts orphans keeps them findable. Looking for them takes longer than forking, so whole groups are
    signalled where that is possible: the kernel lets no member of a group fork past a signal to it. Where
    one of the outer processes is the first of a process namespace, its death ends all others there at once.
    """
    for child, depth in descendants(root).items():
        if depth <= 2 and _leads_a_namespace(child):
            _send(child, signal.SIGKILL)
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        processes = living_processes()
        fresh = descendants(root, processes).keys() - stopped
        if not fresh:
            break
        _send_all(root, fresh, processes, signal.SIGSTOP)
        stopped |= fresh
    _send_all(root, stopped, living_processes(), signal.SIGKILL)
    for _ in range(_ROUNDS):
        processes = living_processes()
        left = descendants(root, processes)
        if not left:
            break
        _send_all(root, left.keys(), processes, signal.SIGKILL)
        time.sleep(0.001)
    _send(root, signal.SIGKILL)


def _process_info(name: str) -> ProcessInfo | None:
    try:
        descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, 1024)
        finally:
            os.close(descriptor)
    except OSError:
        return None  # It ended meanwhile.
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    fields = data.rpartition(b")")[2].split(None, 22)
    if fields[0] in {b"Z", b"X"}:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessInfo(int(fields[1]), int(fields[2]), int(fields[17]), int(fields[21]) * _PAGE, ticks)


def _send_all(root: int, pids: Set[int], processes: Mapping[int, ProcessInfo], number: int) -> None:
    """Signal processes, by whole groups but for those that `root` or we belong to."""
    ours = {os.getpgrp(), processes[root].group if root in processes else 0}
    groups = {processes[pid].group for pid in pids if pid in processes} - ours
    for group in groups:
        _send(-group, number)
    for pid in pids:
        if pid not in processes or processes[pid].group not in groups:
            _send(pid, number)


def threads_of(user: int) -> int:
    """Return the number of threads that a user has on this machine."""
    count = 0
    for pid, info in living_processes().items():
        try:
            count += info.threads if os.stat(f"/proc/{pid}").st_uid == user else 0
        except OSError:
            continue  # It ended.
    return count


@contextmanager
def ahead_of_others() -> Generator[None]:
    """Let this thread run before ordinary processes, where it may: hundreds of them may want to."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (OSError, AttributeError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _leads_a_namespace(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    numbers = [line.split()[1:] for line in lines if line.startswith(b"NSpid:")]
    return bool(numbers) and len(numbers[0]) > 1 and numbers[0][-1] == b"1"


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # Already gone, or its number belongs to someone else's process now.
