"""Limits that the kernel keeps for each process, set by a shell that then becomes the program."""

from __future__ import annotations

import os
import resource
import signal

from dsv4agent.sandboxes.process_tree import threads_of
from dsv4agent.sandboxes.protocol import ResourceLimits

_CPU_GRACE = 5
"""Seconds of processor time between the signal that a program may handle and the one that it may not."""
_ROOM = 1024
"""Threads that the user's other programs may make meanwhile."""
_BLOCK = 512
"""Bytes in the unit in which POSIX shells count a file's size."""


def user_processes(limits: ResourceLimits) -> int | None:
    """Return how many threads this user may have before a program cannot make another, if that counts.

    The kernel counts all that a user runs, inside and outside of sandboxes, so what runs already and some
    room is added: this only stops a flood at once. For root it counts nothing.
    """
    if limits.processes is None or os.geteuid() == 0:
        return None
    return _possible(resource.RLIMIT_NPROC, threads_of(os.geteuid()) + _ROOM + limits.processes)


def shell_prefix(limits: ResourceLimits, *, user: int | None = None, then: str = "") -> tuple[str, ...]:
    """Return what stands before a program's command line so that it runs within the limits.

    A shell takes a millisecond and is there in every cage. Address space is not limited: too many programs
    reserve far more than they use.

    Args:
        limits: Those of one process are set; the others are for a control group or a watch.
        user: What `user_processes` returned.
        then: Shell code that runs last, ending in a semicolon.
    """
    commands = ["ulimit -c 0"]
    if limits.cpu_seconds is not None:
        hard = _possible(resource.RLIMIT_CPU, limits.cpu_seconds + _CPU_GRACE)
        commands += [f"ulimit -S -t {min(hard, limits.cpu_seconds)}", f"ulimit -H -t {hard}"]
    if limits.file_bytes is not None:
        commands.append(f"ulimit -f {_possible(resource.RLIMIT_FSIZE, limits.file_bytes) // _BLOCK}")
    if limits.open_files is not None:
        commands.append(f"ulimit -n {_possible(resource.RLIMIT_NOFILE, limits.open_files)}")
    if user is not None:  # Shells differ in the letter.
        commands.append(f"{{ ulimit -u {user} 2>/dev/null || ulimit -p {user}; }}")
    return ("/bin/sh", "-c", f'{" && ".join(commands)} && {{ {then} exec "$@"; }}', "sh")


def limit_behind(exit_code: int, limits: ResourceLimits) -> str | None:
    """Return which limit a program's exit code tells of: some have a signal of their own."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    if number == signal.SIGXCPU and limits.cpu_seconds is not None:
        return f"processor time limit of {limits.cpu_seconds} s"
    if number == signal.SIGXFSZ and limits.file_bytes is not None:
        return f"file size limit of {human_size(limits.file_bytes)}"
    return None


def human_size(count: int) -> str:
    """Return a number of bytes as people write it: `8 GiB`, `1.5 MiB`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.4g} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes all")


def _possible(which: int, wanted: int) -> int:
    """Return the limit, or this process's own if that is lower and cannot be raised."""
    hard = resource.getrlimit(which)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
