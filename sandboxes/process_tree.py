"""Ending a process and everything below it, seen from the host through /proc."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_ROUNDS = 100


def descendants(root: int) -> dict[int, int]:
    """Return the depth below `root` (1 for children) of every living descendant, by process id."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _living_parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
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
    that adopts orphans keeps them findable.
    """
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        fresh = descendants(root).keys() - stopped
        if not fresh:
            break
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
        stopped |= fresh
    for pid in stopped:
        _send(pid, signal.SIGKILL)
    for _ in range(_ROUNDS):
        if not descendants(root):
            break
        for pid in descendants(root):
            _send(pid, signal.SIGKILL)
        time.sleep(0.001)
    _send(root, signal.SIGKILL)


def _living_parent(entry: Path) -> int | None:
    try:
        # The command's name, in parentheses, may itself hold spaces and parentheses.
        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None  # It ended meanwhile.
    return None if fields[0] in {b"Z", b"X"} else int(fields[1])


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # Already gone, or its number belongs to someone else's process now.
