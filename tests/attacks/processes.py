"""Attacks on `processes` and `environment`: other programs' memory, descriptors, variables, and lives."""
# ruff: noqa: ASYNC230, ASYNC240 - the host only looks, at files of its own

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import anyio

from dsv4agent.sandboxes.process_tree import descendants
from tests.attacks.attack import Attack, Run, family, shows
from tests.attacks.programs import Program, py, sh
from tests.attacks.stage import HostView, Stage

_SHARED_PIDS = {"landlock": "declared partial: command lines of other processes can be seen"}


async def _alive(stage: Stage, program: Program) -> str:
    """Run a program; see whether the victim and this process stand as they stood."""
    victim = stage.host.victim
    before = _condition(victim.pid)
    await stage.run(program)
    await anyio.sleep(0.05)
    if victim.poll() is not None or stage.host.scene.victim.poll() is not None:
        return "a host process was ended"
    after = _condition(victim.pid)
    if after != before:
        os.kill(victim.pid, signal.SIGCONT)
        _put_right(victim.pid, before)
        return f"a host process was changed: {before} became {after}"
    return ""


def _condition(pid: int) -> dict[str, object]:
    return {
        "stopped": HostView(pid).status()["State"][0] in "Tt",
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "scheduler": os.sched_getscheduler(pid),
        "processors": tuple(sorted(os.sched_getaffinity(pid))),
        "files": resource.prlimit(pid, resource.RLIMIT_NOFILE),
        "core": resource.prlimit(pid, resource.RLIMIT_CORE),
        "out of memory": Path(f"/proc/{pid}/oom_score_adj").read_text(),
    }


def _put_right(pid: int, before: dict[str, object]) -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, int(str(before["nice"])))
        os.sched_setscheduler(pid, int(str(before["scheduler"])), os.sched_param(0))
        os.sched_setaffinity(pid, range(os.cpu_count() or 1))
    except OSError:
        pass  # Without privileges some of it cannot be undone; the victim is for one run only.


def _unharmed(program: Program) -> Run:
    async def run(stage: Stage) -> str:
        return await _alive(stage, program)

    return run


async def _messages(stage: Stage) -> str:
    """See whether a program took part in System V message queues of the host."""
    await stage.run(
        py("""
libc.msgsnd(int(T["QUEUE"]), struct.pack("l8s", 1, b"attack!!"), ctypes.c_size_t(8), 2048)
quietly(syscall, 69, int(T["QUEUE"]), struct.pack("l8s", 1, b"attack!!"), 8, 2048)
""")
    )
    with open("/proc/sysvipc/msg") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    used = [row for row in rows if row[1] == stage.host.addresses["QUEUE"] and int(row[4])]
    return "a message lies in a host queue" if used else ""


async def _left_shared_memory(stage: Stage) -> str:
    """See whether System V memory, which no process's end frees, is left on the host."""
    key = 0x64737634
    await stage.run(py(f"libc.shmget({key}, ctypes.c_size_t(4096), 0o1600)"))
    with open("/proc/sysvipc/shm") as file:
        left = [line.split() for line in file.readlines()[1:] if line.split()[0] == str(key)]
    for row in left:
        await anyio.run_process(["ipcrm", "-m", row[1]], check=False)
    return "shared memory was left on the host" if left else ""


async def _visible_commands(stage: Stage) -> str:
    done = await stage.run(sh('cat /proc/*/cmdline; ps axww; cat "/proc/$VICTIM/comm"'))
    return "command lines of the host are shown" if b"secrets = sys.stdin" in done.stdout else ""


async def _inside_of_a_neighbour(stage: Stage) -> str:
    """Read the memory of another program of the same sandbox that serves files: nothing may reach it."""
    await stage.sandbox.stat(str(stage.workspace))
    ours = [HostView(pid) for pid in descendants(os.getpid())]
    before = [view.pid for view in ours if "file_server" in view.command()]
    await stage.run(
        py("""
for pid in os.listdir("/proc"):
    if pid.isdigit() and int(pid) not in (os.getpid(), os.getppid()):
        if b"file_server" in (quietly(lambda: open(f"/proc/{pid}/cmdline", "rb").read()) or b""):
            quietly(os.kill, int(pid), signal.SIGKILL)
""")
    )
    gone = [pid for pid in before if not os.path.exists(f"/proc/{pid}")]
    return "the file server was killed by a program" if gone else ""


async def _of_the_file_server(stage: Stage) -> str:
    for path in ("/proc/self/environ", "/proc/1/environ", f"/proc/{os.getpid()}/environ"):
        try:
            data = await stage.sandbox.read_bytes(path, 1 << 20)
        except OSError:
            continue
        if leak := stage.leaked(data):
            return f"{path}: {leak}"
    return ""


ATTACKS = (
    *family(
        "processes",
        "processes",
        Attack(
            "memory",
            "Reads another process's memory by /proc/PID/mem, process_vm_readv and ptrace.",
            "",
            shows(
                py("""
victim, address = int(T["VICTIM"]), int(T["MEMORY"])
def by_file():
    with open(f"/proc/{victim}/mem", "rb", 0) as file:
        file.seek(address)
        os.write(1, file.read(64))
def by_call():
    buffer = ctypes.create_string_buffer(64)
    local = struct.pack("PN", ctypes.addressof(buffer), 64)
    remote = struct.pack("PN", address, 64)
    syscall(310, victim, local, 1, remote, 1, 0)
    os.write(1, buffer.raw)
def by_trace():
    syscall(101, 0x4206, victim, 0, 0)
    words = []
    for offset in range(0, 64, 8):
        word = ctypes.c_long()
        syscall(101, 2, victim, ctypes.c_void_p(address + offset), ctypes.byref(word))
        words.append(struct.pack("l", word.value))
    os.write(1, b"".join(words))
for way in (by_file, by_call, by_trace):
    quietly(way)
""")
            ),
            opens_uncaged=True,
        ),
        Attack(
            "written_memory",
            "Writes into another process by /proc/PID/mem and process_vm_writev, and stops it by ptrace.",
            "",
            _unharmed(
                py("""
victim, address = int(T["VICTIM"]), int(T["MEMORY"])
quietly(syscall, 101, 16, victim, 0, 0)
quietly(put, f"/proc/{victim}/mem", flags=os.O_WRONLY)
quietly(put, f"/proc/{victim}/oom_score_adj", b"1000", flags=os.O_WRONLY)
quietly(put, f"/proc/{victim}/clear_refs", b"1", flags=os.O_WRONLY)
time.sleep(0.1)
""")
            ),
        ),
        Attack(
            "open_files",
            "Reads another process's open file by /proc/PID/fd, pidfd_getfd and /proc/PID/map_files.",
            "",
            shows(
                py("""
victim, number = int(T["VICTIM"]), int(T["DESCRIPTOR"])
def pour(descriptor):
    os.write(1, os.pread(descriptor, 100, 0))
quietly(lambda: pour(os.open(f"/proc/{victim}/fd/{number}", os.O_RDONLY)))
quietly(lambda: pour(syscall(438, syscall(434, victim, 0), number, 0)))
quietly(lambda: pour(os.open(f"/proc/{victim}/task/{victim}/fd/{number}", os.O_RDONLY)))
""")
            ),
            opens_uncaged=True,
        ),
        Attack(
            "system_v_memory",
            "Attaches to System V shared memory of a host process.",
            "",
            shows(
                py("""
address = libc.shmat(int(T["SEGMENT"]), None, 0o10000)
if address not in (None, ctypes.c_void_p(-1).value):
    os.write(1, ctypes.string_at(address, 64))
""")
            ),
            opens_uncaged=True,
        ),
        Attack(
            "system_v_messages",
            "Sends into a System V message queue of a host process.",
            "",
            _messages,
            opens_uncaged=True,
        ),
        Attack(
            "system_v_leftovers",
            "Leaves System V memory behind, which outlives all processes.",
            "",
            _left_shared_memory,
            opens_uncaged=True,
        ),
        Attack(
            "signals",
            "Sends signals to host processes by number, group, handle and to everybody.",
            "",
            _unharmed(
                py("""
victim, host = int(T["VICTIM"]), int(T["HOST"])
for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
    quietly(os.kill, victim, number)
    quietly(os.killpg, victim, number)
    quietly(syscall, 200, victim, number)
    quietly(syscall, 234, victim, victim, number)
    handle = quietly(syscall, 434, victim, 0)
    if handle:
        quietly(syscall, 424, handle, number, 0, 0)
reading, writing = os.pipe()
import fcntl
quietly(fcntl.fcntl, reading, fcntl.F_SETOWN, victim)
quietly(fcntl.fcntl, reading, 10, signal.SIGKILL)
quietly(fcntl.fcntl, reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(writing, b"x")
time.sleep(0.1)
""")
            ),
        ),
        Attack(
            "limits_of_others",
            "Sets resource limits of a host process, down to what ends it.",
            "",
            _unharmed(
                py("""
import resource
victim = int(T["VICTIM"])
quietly(resource.prlimit, victim, resource.RLIMIT_NOFILE, (7, 7))
quietly(resource.prlimit, victim, resource.RLIMIT_CORE, (4096, 4096))
""")
            ),
        ),
        Attack(
            "scheduling_of_others",
            "Changes priority, scheduler, processors and I/O class of a host process.",
            "",
            _unharmed(
                py("""
victim = int(T["VICTIM"])
quietly(os.setpriority, os.PRIO_PROCESS, victim, 19)
quietly(os.sched_setscheduler, victim, os.SCHED_IDLE, os.sched_param(0))
quietly(os.sched_setaffinity, victim, [max(os.sched_getaffinity(0))])
quietly(syscall, 251, 1, victim, 3 << 13)
""")
            ),
        ),
        Attack(
            "priority_of_the_user",
            "Changes the priority of all of the user's processes and of a whole group.",
            "",
            _unharmed(
                py("""
victim = int(T["VICTIM"])
quietly(os.setpriority, os.PRIO_PGRP, victim, 18)
""")
            ),
        ),
        Attack(
            "command_lines",
            "Lists other processes and their command lines.",
            "",
            _visible_commands,
            exempt=_SHARED_PIDS,
            opens_uncaged=True,
        ),
        Attack("file_server", "Kills the process that serves the file tools.", "", _inside_of_a_neighbour),
    ),
    *family(
        "environment",
        "environment",
        Attack(
            "own",
            "Looks for the host's variables in its own environment and those of its parents.",
            "",
            shows(sh("env; cat /proc/self/environ /proc/$PPID/environ /proc/1/environ; set")),
        ),
        Attack(
            "of_others",
            "Reads the environment of every process it sees.",
            "",
            shows(sh('cat "/proc/$VICTIM/environ" "/proc/$HOST/environ" /proc/*/environ; ps axeww')),
            opens_uncaged=True,
        ),
        Attack(
            "of_the_file_server",
            "Reads the environment that the file tools run in.",
            "",
            _of_the_file_server,
        ),
    ),
)
