"""Attacks on `system_calls`: new namespaces and mounts, privileges, other ABIs, wide kernel interfaces."""
# ruff: noqa: ASYNC230 - the host only looks, at files of its own

from __future__ import annotations

import os
import platform

from tests.attacks.attack import Attack, Run, family, holds, shows
from tests.attacks.programs import Program, py, sh
from tests.attacks.stage import Stage

_IS_ROOT = os.geteuid() == 0


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


ATTACKS = family(
    "kernel",
    "system_calls",
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
