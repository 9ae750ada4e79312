"""Attacks on `system_calls`: new namespaces and mounts, privileges, other ABIs, wide kernel interfaces."""

from __future__ import annotations

import os
import platform

from tests.attacks.attack import Attack, Run, family, holds, shows
from tests.attacks.programs import Program, c, py, sh
from tests.attacks.stage import HostView, Stage

_ONLY_X86 = {} if platform.machine() == "x86_64" else dict.fromkeys(("bubblewrap", "landlock"), "x86_64 only")
_IS_ROOT = os.geteuid() == 0


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


def _privileges(program: Program) -> Run:
    """Run a program that waits; see whether a process of it has capabilities, no filter, or another user."""

    async def run(stage: Stage) -> str:
        async with stage.running(program) as found:
            for view in found:
                status = view.status()
                if not status or "attack" not in view.command():
                    continue
                if int(status["CapEff"], 16):
                    return f"it has the capabilities {status['CapEff']}"
                if status["NoNewPrivs"] != "1":
                    return "it may gain privileges"
                if status["Seccomp"] != "2":
                    return "it has no filter"
                if set(status["Uid"].split()) != {str(os.geteuid())}:
                    return f"it runs as user {status['Uid']}"
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


async def _settings(stage: Stage) -> str:
    """Open every setting of the kernel for writing; nothing is written even if that works."""
    done = await stage.run(
        py("""
def attempt(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        print(path, flush=True)
    except OSError:
        pass
attempt("/proc/sysrq-trigger")
for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/acpi", "/proc/scsi", "/proc/fs", "/sys/kernel",
            "/sys/power", "/sys/module", "/sys/fs", "/sys/firmware", "/sys/class", "/sys/block", "/sys/bus"):
    for folder, _, files in os.walk(top):
        for name in files:
            attempt(os.path.join(folder, name))
"""),
        timeout=20,
    )
    if done.exit_code:
        return f"the attempt failed: {done.stderr[-200:]!r}"
    opened = done.stdout.decode().splitlines()
    return f"{len(opened)} kernel settings can be opened for writing, first {opened[0]}" if opened else ""


async def _keys(stage: Stage) -> str:
    """Put a key into the user's keyring, and see whether it is in that of the host."""
    name = f"dsv4agent-{os.urandom(6).hex()}"
    await stage.run(
        py("""
for ring in (-4, -5, -3, -2):
    quietly(syscall, 248, b"user", T["NAME"].encode(), b"payload", 7, ring)
quietly(syscall, 250, 1, b"attack-session")
quietly(syscall, 249, b"user", T["NAME"].encode(), b"x", -4)
time.sleep(0.05)
"""),
        env={"NAME": name},
    )
    with open("/proc/keys") as keys:
        return "a key lies in the host's keyring" if any(name in line for line in keys) else ""


async def _host_name(stage: Stage) -> str:
    before = platform.node()
    await stage.run(
        py("""
quietly(syscall, 170, b"attacked", 8)
quietly(syscall, 171, b"attacked", 8)
quietly(put, "/proc/sys/kernel/hostname", b"attacked", os.O_WRONLY)
""")
    )
    return "" if platform.node() == before == os.uname().nodename else "the host's name was changed"


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
    "kernel",
    "system_calls",
    Attack(
        "unshare",
        "Makes new namespaces of each kind with unshare, from a thread too.",
        "",
        _namespaces(
            py("""
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000, 0x80):
    quietly(syscall, 272, flag)
    quietly(syscall, 272, flag | 0x10000000)
thread = threading.Thread(target=lambda: quietly(syscall, 272, 0x10000000))
thread.start()
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
    Attack("root_folder", "Changes its root folder.", "", _roots, opens_uncaged=_IS_ROOT),
    Attack(
        "capabilities",
        "Gains capabilities: by user id, ambient set, secure bits and a new user namespace.",
        "",
        _privileges(
            py("""
"attack"
libc.prctl(47, 2, 21, 0, 0)
libc.prctl(8, 1, 0, 0, 0)
libc.prctl(38, 0, 0, 0, 0)
libc.prctl(28, 0, 0, 0, 0)
quietly(syscall, 126, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *[0xFFFFFFFF] * 6))
quietly(os.setgroups, [0, 4, 6, 42])
for change in (os.setgid, os.seteuid, os.setuid):
    quietly(change, 65534)
    quietly(change, 0)
quietly(syscall, 272, 0x10000000)
wait()
""")
        ),
        opens_uncaged=True,
    ),
    Attack(
        "set_user_id_programs",
        "Starts the system's set-user-id programs, which must not be raised.",
        "",
        _privileges(
            sh(
                "for p in $(find /usr/bin /usr/sbin -perm -4000 -type f 2>/dev/null | head); do"
                ' (exec -a attack "$p" </dev/zero >/dev/null 2>&1) & done;'
                " (exec -a attack sleep 30) & sleep 0.1; echo ready; wait"
            )
        ),
        opens_uncaged=True,
    ),
    Attack(
        "filter_removed",
        "Removes or replaces the system-call filter and clears no_new_privs.",
        "",
        _privileges(
            py("""
"attack"
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
libc.prctl(38, 0, 0, 0, 0)
libc.prctl(22, 0, 0, 0, 0)
quietly(syscall, 317, 1, 0, struct.pack("HxxxxxxP", 1, ctypes.addressof(allow)))
quietly(syscall, 272, 0x10000000)
wait()
""")
        ),
        opens_uncaged=True,
    ),
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
    Attack(
        "io_uring",
        "Opens a ring that would make calls on its own.",
        "",
        holds(
            py("quietly(syscall, 425, 8, ctypes.create_string_buffer(256))\nwait()"), "anon_inode:[io_uring]"
        ),
        opens_uncaged=_IS_ROOT,
    ),
    Attack(
        "userfaultfd",
        "Takes page faults into its own hands, by call and by device.",
        "",
        holds(
            py("""
for flags in (1, 0, os.O_CLOEXEC | 1):
    quietly(syscall, 323, flags)
quietly(os.open, "/dev/userfaultfd", os.O_RDWR)
wait()
"""),
            "anon_inode:[userfaultfd]",
            "/dev/userfaultfd",
        ),
    ),
    Attack(
        "bpf",
        "Makes a BPF map.",
        "",
        holds(
            py('quietly(syscall, 321, 0, struct.pack("4I", 2, 4, 4, 1) + bytes(100), 72)\nwait()'),
            "anon_inode:bpf",
        ),
        opens_uncaged=_IS_ROOT,
    ),
    Attack(
        "perf_events",
        "Opens performance counters of itself, of another process and of the machine.",
        "",
        holds(
            py("""
event = struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 1) + bytes(64)
for pid, cpu in ((0, -1), (-1, 0), (int(T["VICTIM"]), -1)):
    quietly(syscall, 298, event, pid, cpu, -1, 0)
wait()
"""),
            "anon_inode:[perf_event]",
        ),
        opens_uncaged=_IS_ROOT,
    ),
    Attack(
        "fanotify",
        "Watches whole file systems for what others open.",
        "",
        holds(
            py("""
handle = quietly(syscall, 300, 0, os.O_RDONLY)
if not handle or quietly(syscall, 301, handle, 1 | 0x10, 0x20, -100, T["OUTSIDE"].encode()) is None:
    os.closerange(3, 100)
wait()
"""),
            "anon_inode:[fanotify]",
        ),
    ),
    Attack("keys", "Puts keys into the user's keyring.", "", _keys, opens_uncaged=True),
    Attack("settings", "Opens each kernel setting in /proc and /sys for writing.", "", _settings),
    Attack("host_name", "Changes the machine's name.", "", _host_name),
    Attack(
        "modules_and_more",
        "Loads modules, swaps, reboots and takes ports, all with arguments that do nothing.",
        "",
        shows(
            py("""
for number, arguments in ((175, (None, 0, b"")), (313, (-1, b"", 0)), (176, (b"no-such-module", 0)),
                          (167, (b"/nowhere", 0)), (169, (0, 0, 0)), (163, (b"/nowhere",)),
                          (246, (0, 0, None, 0)), (320, (-1, -1, 0, None, 0)), (172, (3,)), (173, (0, 1, 1))):
    try:
        syscall(number, *arguments)
    except Refused as error:
        # Any other answer than a refusal means that the kernel looked at the arguments.
        if error.errno in (errno.EPERM, errno.ENOSYS):
            continue
    os.write(1, b"dsv4agent-self-check-secret")
""")
        ),
        opens_uncaged=_IS_ROOT,
    ),
)
