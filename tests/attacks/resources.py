"""Attacks on `limits`, on the end of programs, and on a host that collects what they print."""
# ruff: noqa: ASYNC240 - the host only looks, at files of its own

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import anyio

from dsv4agent.sandboxes import Policy, ResourceLimits
from tests.attacks.attack import Attack, Run, family
from tests.attacks.programs import Program, py, sh
from tests.attacks.stage import Stage

_MIB = 1 << 20
_GRACE = 1.0
"""Seconds for a limit that a watcher keeps: it may be passed for a moment."""
_PROCESSES, _MEMORY, _DISK, _FILE, _FILES, _SECONDS = 64, 256 * _MIB, 64 * _MIB, 32 * _MIB, 128, 1


def _limited(_: Stage, policy: Policy) -> Policy:
    limits = ResourceLimits(
        cpu_seconds=_SECONDS,
        memory_bytes=_MEMORY,
        processes=_PROCESSES,
        file_bytes=_FILE,
        disk_bytes=_DISK,
        open_files=_FILES,
    )
    return replace(policy, limits=limits)


# Each of these stops by itself a little beyond the limit, so that a limit that fails does no harm.
_FORKS = py("""
children = 0
for _ in range(300):
    try:
        pid = os.fork()
    except OSError:
        break
    if pid == 0:
        time.sleep(4)
        os._exit(0)
wait()
""")
_THREADS = py("""
threading.stack_size(65536)
for _ in range(300):
    thread = threading.Thread(target=time.sleep, args=(4,), daemon=True)
    if quietly(thread.start) is not None:
        break
wait()
""")


async def _count(stage: Stage, program: Program) -> str:
    async with stage.running(program) as found:
        await anyio.sleep(_GRACE)
        threads = sum(int(view.status().get("Threads", "0")) for view in found)
    return (
        f"{threads} processes and threads ran at a limit of {_PROCESSES}" if threads > _PROCESSES + 16 else ""
    )


async def _forks(stage: Stage) -> str:
    return await _count(stage, _FORKS)


async def _threads(stage: Stage) -> str:
    return await _count(stage, _THREADS)


def _resident(program: Program) -> Run:
    """Run a program that fills memory in steps and waits; add up what its processes and files hold."""

    async def run(stage: Stage) -> str:
        async with stage.running(program) as found:
            await anyio.sleep(_GRACE)
            held = sum(int(view.status().get("VmRSS", "0 kB").split()[0]) << 10 for view in found)
        return (
            f"{held >> 20} MiB were held at a limit of {_MEMORY >> 20}" if held > _MEMORY + 96 * _MIB else ""
        )

    return run


_HOG = py("""
blocks = []
for _ in range(32):
    block = quietly(bytearray, 16 << 20)
    if block is None:
        break
    blocks.append(block)
wait()
""")
_MANY_HOGS = py("""
for _ in range(4):
    if not os.fork():
        blocks = [quietly(bytearray, 16 << 20) for _ in range(8)]
        time.sleep(4)
        os._exit(0)
time.sleep(0.5)
wait()
""")
_SHARED_HOG = py("""
memory = os.memfd_create("hog")
block = bytes(1 << 20)
for _ in range(512):
    if quietly(os.write, memory, block) is None:
        break
area = mmap.mmap(memory, os.fstat(memory).st_size)
total = sum(area[i] for i in range(0, len(area), 4096))
wait()
""")


def _fills(source: str, allowed: int, what: str) -> Run:
    """Run a program that fills folders; see how many bytes more the host holds for it."""

    async def run(stage: Stage) -> str:
        folder = stage.workspace / "filled"
        folder.mkdir(exist_ok=True)
        shared = Path("/dev/shm")
        before = shutil.disk_usage(shared).used if shared.is_dir() else 0
        try:
            async with stage.running(py(source)):
                size = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
                size += max(shutil.disk_usage(shared).used - before, 0) if shared.is_dir() else 0
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return (
            f"{size >> 20} MiB of {what} at a limit of {allowed >> 20}" if size > allowed + 48 * _MIB else ""
        )

    return run


_DISK_FILLER = """
os.chdir(T["WORKSPACE"] + "/filled")
block = bytes(1 << 20)
for number in range(16):
    descriptor = os.open(str(number), os.O_WRONLY | os.O_CREAT)
    for _ in range(8):
        # Not too fast for a watcher that looks some times a second.
        time.sleep(0.02)
        if quietly(os.write, descriptor, block) is None:
            break
wait()
"""
_ONE_FILE = """
os.chdir(T["WORKSPACE"] + "/filled")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
descriptor = os.open("one", os.O_WRONLY | os.O_CREAT)
for _ in range(96):
    if quietly(os.write, descriptor, bytes(1 << 20)) is None:
        break
quietly(os.posix_fallocate, descriptor, 0, 96 << 20)
wait()
"""
_SHM_FILLER = """
block = bytes(1 << 20)
for number in range(16):
    quietly(put, f"/dev/shm/attack-{os.getpid()}-{number}", block * 32)
wait()
"""


async def _shm(stage: Stage) -> str:
    """Fill /dev/shm: the host's must stay as it is, and a private one counts as memory."""
    shared = Path("/dev/shm")
    async with stage.running(py(_SHM_FILLER)) as found:
        await anyio.sleep(_GRACE)
        left = [path.name for path in shared.glob("attack-*")]
        inside = Path("/proc", str(found[-1].pid), "root", "dev", "shm")
        try:
            size = sum(path.stat().st_blocks * 512 for path in inside.iterdir())
        except OSError:
            size = 0
    for name in left:
        (shared / name).unlink()
    if left:
        return "the host's /dev/shm was filled"
    return f"{size >> 20} MiB of /dev/shm at a limit of {_MEMORY >> 20}" if size > _MEMORY + 32 * _MIB else ""


async def _sparse(stage: Stage) -> str:
    path = stage.workspace / "sparse"
    await stage.run(sh('truncate -s 1T "$WORKSPACE/sparse"; truncate -s 33M "$WORKSPACE/sparse2"; true'))
    sizes = [found.stat().st_size for found in stage.workspace.glob("sparse*")]
    for found in stage.workspace.glob("sparse*"):
        found.unlink()
    del path
    return f"a file of {max(sizes)} bytes was made" if max(sizes, default=0) > _FILE else ""


async def _descriptors(stage: Stage) -> str:
    program = py("""
held = []
for _ in range(600):
    descriptor = quietly(os.open, "/dev/null", os.O_RDONLY)
    if descriptor is None:
        break
    held.append(descriptor)
print("ready", flush=True)
time.sleep(30)
""")
    async with stage.running(program) as found:
        most = max(len(view.descriptors()) for view in found)
    return f"{most} descriptors were open at a limit of {_FILES}" if most > _FILES else ""


async def _burner(stage: Stage) -> str:
    """Burn processor time, and raise the limit where that is possible; what it admits counts against it."""
    done = await stage.run(
        py("""
import resource
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
quietly(resource.setrlimit, resource.RLIMIT_CPU, (100, 100))
while time.process_time() < 8:
    pass
print("burned")
"""),
        timeout=20,
    )
    return f"a process used 8 s at a limit of {_SECONDS} s" if b"burned" in done.stdout else ""


async def _raised(stage: Stage) -> str:
    program = py("""
import resource
for kind in (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
    for value in ((resource.RLIM_INFINITY,) * 2, (1 << 30, 1 << 30)):
        quietly(resource.setrlimit, kind, value)
"attack"
wait()
""")
    async with stage.running(program) as found:
        text = Path(f"/proc/{found[-1].pid}/limits").read_text()
    row = next(line for line in text.splitlines() if line.startswith("Max open files"))
    return f"a limit was raised: {row}" if int(row.split()[4].replace("unlimited", "9" * 9)) > _FILES else ""


ATTACKS = family(
    "resources",
    "limits",
    *(
        Attack(name, description, "", run, needs="limits", policy=_limited)
        for name, description, run in (
            ("fork_bomb", "Forks three hundred times at a limit of 64 processes.", _forks),
            ("thread_bomb", "Starts three hundred threads at a limit of 64.", _threads),
            ("memory", "Takes 512 MiB at a limit of 256.", _resident(_HOG)),
            (
                "memory_of_many",
                "Takes 512 MiB in four processes, each below the limit.",
                _resident(_MANY_HOGS),
            ),
            ("shared_memory", "Takes 512 MiB of nameless files in memory.", _resident(_SHARED_HOG)),
            (
                "disk",
                "Writes 128 MiB in files below the limit of one file.",
                _fills(_DISK_FILLER, _DISK, "disk"),
            ),
            ("one_file", "Writes one file three times its limit.", _fills(_ONE_FILE, _FILE, "one file")),
            ("sparse_file", "Makes files that are huge and empty.", _sparse),
            ("dev_shm", "Fills /dev/shm with 512 MiB.", _shm),
            ("descriptors", "Opens six hundred files at a limit of 128.", _descriptors),
            ("processor", "Burns eight seconds at a limit of one, ignoring the warning.", _burner),
            ("raised_limits", "Raises its own limits.", _raised),
        )
    ),
)
