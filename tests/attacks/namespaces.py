"""Attacks on `system_calls`: new namespaces, mounts and roots, by every call and every table of calls."""
# ruff: noqa: E501 - programs of attackers stand as they would be run

from __future__ import annotations

import os
import platform

from tests.attacks.attack import PROVIDERS, Attack, Run, family, holds
from tests.attacks.programs import Program, c, py
from tests.attacks.stage import HostView, Stage

_ONLY_X86: dict[str, str] = {} if platform.machine() == "x86_64" else dict.fromkeys(PROVIDERS, "x86_64 only")


def _namespaces(program: Program) -> Run:
    """Run a program that waits in what it made; see whether a process of it left the cage's namespaces."""

    async def run(stage: Stage) -> str:
        async with stage.running(program) as found:
            for view in found:
                cage = HostView(view.cage).namespaces()
                entered = [kind for kind, name in view.namespaces().items() if name and name != cage[kind]]
                if entered:
                    return f"a new {', '.join(entered)} namespace was entered"
        return ""

    return run


async def _mounts(stage: Stage) -> str:
    program = py("""
marks = T["WORKSPACE"] + "/mounted"
os.makedirs(marks, exist_ok=True)
for kind, options in ((b"tmpfs", None), (b"proc", None), (b"sysfs", None),
                      (b"overlay", b"lowerdir=/usr,upperdir=/tmp/u,workdir=/tmp/w")):
    libc.mount(b"attack", marks.encode(), kind, 0, options)
handle = quietly(syscall, 430, b"tmpfs", 0)
if handle:
    quietly(syscall, 431, handle, 6, None, None, 0)
    mounted = quietly(syscall, 432, handle, 0, 0)
    if mounted:
        quietly(syscall, 429, mounted, b"", -100, marks.encode(), 4)
libc.umount2(b"/proc", 2)
libc.umount2(T["HIDDEN"].encode(), 2)
quietly(syscall, 155, b".", b".")
wait()
""")
    async with stage.running(program) as found:
        before, after = _mount_points(HostView(found[-1].cage)), _mount_points(found[-1])
    return "" if before == after else f"the mount table changed: {sorted({*before} ^ {*after})}"


def _mount_points(view: HostView) -> list[str]:
    return sorted(line.split()[4] for line in view.mounts().splitlines())


async def _roots(stage: Stage) -> str:
    program = py("""
quietly(os.chroot, "/proc/self/root" + T["WORKSPACE"])
quietly(os.chroot, T["WORKSPACE"])
wait()
""")
    space = stage.workspace.stat()
    async with stage.running(program) as found:
        changed = any(view.root() == f"{space.st_dev}:{space.st_ino}" for view in found)
    return "the root was changed" if changed else ""


_COMPAT = c(r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
/* The 32-bit call gate: other numbers, so that a filter by numbers would not see what is called. */
static long gate(long number, long a, long b, long c) {
    long result;
    asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c)
                 : "memory", "r8", "r9", "r10", "r11");
    return result;
}
static void stay(void) { puts("ready"); fflush(stdout); sleep(30); }
int main(void) {
    if (!fork()) { if (gate(310, 0x10000000 | 0x20000, 0, 0) >= 0) stay(); return 0; }
    if (!fork()) { if (gate(359, 1, 1, 0) >= 0) stay(); return 0; }   /* socket(AF_UNIX, SOCK_STREAM) */
    if (!fork()) {
        int *arguments = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        if (arguments == MAP_FAILED) return 0;
        arguments[0] = 1; arguments[1] = 1; arguments[2] = 0;
        if (gate(102, 1, (long)arguments, 0) >= 0) stay();            /* socketcall */
        return 0;
    }
    usleep(100000);
    stay();
}
""")


_X32 = py("""
for number in (272, 56, 41, 425, 321):
    if not os.fork():
        libc.syscall(ctypes.c_long(0x40000000 | number), ctypes.c_long(0x10000000 if number in (272, 56) else 1),
                     ctypes.c_long(1), ctypes.c_long(0))
        wait()
        os._exit(0)
time.sleep(0.1)
wait()
""")


_HIGH_BITS = py("""
# A filter that compares 32 bits of an argument must not be led by the upper ones, nor by a number's.
for high in (1 << 32, 1 << 62):
    quietly(syscall, 272 + high, 0x10020000)
    quietly(syscall, 272, 0x10020000 | high)
    quietly(syscall, 41, 40 | high, 1, 0)
    quietly(syscall, 41, 38 | high, 5, 0)
    if quietly(syscall, 56, 0x10000000 | 17 | high, 0, 0, 0, 0) == 0:
        wait()
wait()
""")


ATTACKS = family(
    "namespaces",
    "system_calls",
    Attack(
        "unshare",
        "Makes new namespaces of each kind with unshare.",
        "",
        _namespaces(
            py("""
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000, 0x80):
    quietly(syscall, 272, flag)
    quietly(syscall, 272, flag | 0x10000000)
wait()
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "clone_flags",
        "Makes new namespaces with clone, with flags in every position.",
        "",
        _namespaces(
            py("""
for flags in (0x10000000, 0x10020000, 0x20000, 0x50000000, 0x7E020000):
    if quietly(syscall, 56, flags | 17, 0, 0, 0, 0) == 0:
        wait()
wait()
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "clone3_flags",
        "Makes new namespaces with clone3, whose flags lie in memory where a filter cannot look.",
        "",
        _namespaces(
            py("""
for flags in (0x10000000, 0x10020000):
    arguments = struct.pack("8Q", flags, 0, 0, 0, 17, 0, 0, 0)
    if quietly(syscall, 435, arguments, len(arguments)) == 0:
        wait()
wait()
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "setns",
        "Enters the namespaces of host processes by file and by process handle.",
        "",
        _namespaces(
            py("""
for pid in (1, os.getppid(), int(T["HOST"]), int(T["VICTIM"])):
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        descriptor = quietly(os.open, f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        if descriptor:
            quietly(syscall, 308, descriptor, 0)
    handle = quietly(syscall, 434, pid, 0)
    if handle:
        quietly(syscall, 308, handle, 0x20000)
        quietly(syscall, 308, handle, 0x6C020000)
wait()
""")
        ),
    ),
    Attack("mounts", "Mounts, unmounts and pivots by old and new calls.", "", _mounts),
    Attack("root_folder", "Changes its root folder.", "", _roots, opens_uncaged=os.geteuid() == 0),
    Attack(
        "compat_abi",
        "Makes namespaces by the 32-bit gate (int 0x80), which has other numbers.",
        "",
        _namespaces(_COMPAT),
        tools=("gcc",),
        exempt=_ONLY_X86,
    ),
    Attack(
        "compat_sockets",
        "Opens sockets by the 32-bit gate.",
        "",
        holds(_COMPAT, "socket:"),
        tools=("gcc",),
        exempt=_ONLY_X86,
    ),
    Attack("x32_abi", "Makes namespaces by the x32 numbers.", "", _namespaces(_X32), exempt=_ONLY_X86),
    Attack("x32_sockets", "Opens sockets by the x32 numbers.", "", holds(_X32, "socket:"), exempt=_ONLY_X86),
    Attack("high_bits", "Hides a call's number or flags in upper halves.", "", _namespaces(_HIGH_BITS)),
    Attack(
        "high_bits_sockets",
        "Hides a socket's family in the upper half of an argument.",
        "",
        holds(_HIGH_BITS, "socket:"),
    ),
)
