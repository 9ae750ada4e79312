"""Limits of one process and of a whole sandbox, met by real programs."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import Policy, ResourceLimits, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.sandboxes.limits import human_size, limit_behind, shell_prefix
from dsv4agent.sandboxes.process_tree import descendants

pytestmark = pytest.mark.anyio
MIB = 1 << 20
NONE = ResourceLimits(None, None, None, None, None, None)


async def limited(provider: ProviderName, workspace: Path, limits: ResourceLimits) -> Sandbox:
    try:
        return await choose_sandbox(Policy(str(workspace), limits=limits), provider)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


def test_the_shell_sets_what_it_is_told() -> None:
    limits = ResourceLimits(cpu_seconds=7, file_bytes=MIB, open_files=50)
    script = "ulimit -S -t; ulimit -H -t; ulimit -f; ulimit -n; ulimit -c"
    done = subprocess.run([*shell_prefix(limits), "sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.split() == [b"7", b"12", b"2048", b"50", b"0"]
    done = subprocess.run([*shell_prefix(NONE), "echo", "a b", "$x"], capture_output=True, check=True)
    assert done.stdout == b"a b $x\n"


def test_a_lower_limit_of_ours_is_no_error() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run(
        [*shell_prefix(ResourceLimits(open_files=hard * 2)), "sh", "-c", "ulimit -n"], capture_output=True
    )
    assert done.returncode == 0 and int(done.stdout) == hard


def test_exit_codes_tell_of_limits() -> None:
    limits = ResourceLimits(cpu_seconds=9, file_bytes=3 << 30)
    for code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        assert limit_behind(code, limits) == "processor time limit of 9 s"
    assert limit_behind(-signal.SIGXFSZ, limits) == "file size limit of 3 GiB"
    assert limit_behind(0, limits) is limit_behind(1, limits) is limit_behind(-signal.SIGXCPU, NONE) is None


def test_sizes_are_written_for_people() -> None:
    assert [human_size(n) for n in (5, 1536, 8 << 30, 1 << 41)] == ["5 bytes", "1.5 KiB", "8 GiB", "2048 GiB"]


async def test_a_limit_on_memory_counts_all_processes(workspace: Path, provider: ProviderName) -> None:
    code = "x = b'a' * (60 << 20); import time; time.sleep(60)"
    script = f'for i in 1 2 3 4; do python -c "{code}" & done; wait'
    async with await limited(provider, workspace, ResourceLimits(memory_bytes=150 * MIB)) as sandbox:
        done = await sandbox.run(["bash", "-c", script], timeout=30)
        assert done.limit == "memory limit of 150 MiB"
        assert (await sandbox.run(["echo", "on"])).stdout == b"on\n"


async def test_shared_memory_is_counted_once(workspace: Path) -> None:
    code = """
import mmap, os, time
shared = mmap.mmap(-1, 100 << 20)
shared.write(b"x" * (100 << 20))
children = [os.fork() for _ in range(2)]
shared[:]
time.sleep(1.0)
"""
    async with await limited("bubblewrap", workspace, ResourceLimits(memory_bytes=600 * MIB)) as sandbox:
        done = await sandbox.run(["python", "-c", code], timeout=30)
        assert (done.exit_code, done.limit) == (0, None)


async def test_files_in_memory_count_as_memory(workspace: Path, provider: ProviderName) -> None:
    code = """
import os, time
f = os.memfd_create("hidden")
for _ in range(200):
    os.write(f, bytes(1 << 20))
time.sleep(60)
"""
    async with await limited(provider, workspace, ResourceLimits(memory_bytes=150 * MIB)) as sandbox:
        assert (await sandbox.run(["python", "-c", code], timeout=30)).limit == "memory limit of 150 MiB"


@pytest.mark.parametrize("prefix", ["", "setsid "])
async def test_a_flood_of_processes_is_ended(workspace: Path, provider: ProviderName, prefix: str) -> None:
    (workspace / "flood.sh").write_text(
        f"[ $1 -gt 7 ] && exec sleep 60\n{prefix}bash $0 $(($1+1)) & {prefix}bash $0 $(($1+1)) & sleep 60\n"
    )
    async with await limited(provider, workspace, ResourceLimits(processes=60)) as sandbox:
        done = await sandbox.run(["bash", f"{workspace}/flood.sh", "0"], timeout=30)
        assert done.limit == "limit of 60 processes and threads"
    assert not [pid for pid in descendants(os.getpid()) if _runs(pid, "flood.sh")]


async def test_threads_count_too(workspace: Path, provider: ProviderName) -> None:
    code = """
import threading, time
for _ in range(99):
    threading.Thread(target=time.sleep, args=(60,)).start()
"""
    async with await limited(provider, workspace, ResourceLimits(processes=60)) as sandbox:
        assert (await sandbox.run(["python", "-c", code], timeout=30)).limit is not None


async def test_a_fork_bomb_in_namespaces_is_ended(workspace: Path) -> None:
    async with await limited("bubblewrap", workspace, ResourceLimits(processes=200)) as sandbox:
        done = await sandbox.run(["bash", "-c", ":(){ :|:& };:; sleep 60"], timeout=30)
        assert done.limit == "limit of 200 processes and threads"


async def test_limits_of_one_process(workspace: Path, provider: ProviderName) -> None:
    limits = ResourceLimits(cpu_seconds=1, file_bytes=MIB, open_files=40)
    async with await limited(provider, workspace, limits) as sandbox:
        done = await sandbox.run(["sh", "-c", "while :; do :; done"], timeout=30)
        assert done.limit == "processor time limit of 1 s"
        done = await sandbox.run(["sh", "-c", "exec cat /dev/zero > big"], timeout=30)
        assert done.limit == "file size limit of 1 MiB"
        assert (workspace / "big").stat().st_size == MIB
        done = await sandbox.run(["python", "-c", "import os\nfor _ in range(99): os.dup(0)"])
        assert done.exit_code == 1 and b"Too many open files" in done.stderr
        process = await sandbox.spawn(["sh", "-c", "exec cat /dev/zero > big"])
        assert process.limit_hit is None
        await process.wait()
        assert process.limit_hit == "file size limit of 1 MiB"


@pytest.mark.parametrize(
    ("provider", "way"), [("bubblewrap", "named"), ("landlock", "named"), ("bubblewrap", "unnamed")]
)
async def test_a_disk_that_fills_up_is_noticed(provider: ProviderName, way: str) -> None:
    # On a disk and not in memory, where the folders for tests may be.
    async with anyio.TemporaryDirectory(prefix="dsv4agent-", dir="/var/tmp") as folder:
        keep = "" if way == "named" else "exec 5> file; rm file; cat /dev/zero >&5"
        script = keep or "i=0; while :; do i=$((i+1)); head -c 4000000 /dev/zero > f$i; done"
        async with await limited(provider, Path(folder), ResourceLimits(disk_bytes=50 * MIB)) as sandbox:
            done = await sandbox.run(["sh", "-c", f"{script}; sleep 60"], timeout=60)
            assert done.limit == "disk limit of 50 MiB"
            # Making room must stay possible.
            assert (await sandbox.run(["sh", "-c", "sleep 1.1; rm -f f*; echo ok"])).stdout == b"ok\n"


async def test_memory_folders_are_small(workspace: Path) -> None:
    async with await limited("bubblewrap", workspace, ResourceLimits(memory_bytes=40 * MIB)) as sandbox:
        done = await sandbox.run(["sh", "-c", "cat /dev/zero > /dev/shm/big; wc -c < /dev/shm/big"])
        assert int(done.stdout) == 10 * MIB
        assert (await sandbox.run(["sh", "-c", "echo x > /dev/file"])).exit_code != 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_watch_lives_only_while_programs_do(workspace: Path, backend: str) -> None:
    if backend == "trio":
        pytest.importorskip("trio")

    async def scene() -> None:
        async with await limited("bubblewrap", workspace, ResourceLimits()) as sandbox:
            await sandbox.write_bytes(f"{workspace}/file", b"")
            assert not _watching(), "the file server needs none"
            await sandbox.spawn(["sleep", "60"])
            assert _watching()
            await sandbox.run(["true"])
        assert not _watching()

    anyio.run(scene, backend=backend)


def test_signals_reach_the_program_s_own_group(workspace: Path) -> None:
    """The supervisor stays out of the group that is signalled whole, and the program does not lead it."""
    code = "import os; os.setsid(); print(os.getpgrp() == os.getpid())"

    async def scene() -> None:
        async with await limited("none", workspace, ResourceLimits()) as sandbox:
            done = await sandbox.run([sys.executable, "-c", code])
            assert done.stdout == b"True\n", done.stderr

    anyio.run(scene)


def _watching() -> bool:
    return any(thread.name == "sandbox watch" for thread in threading.enumerate())


def _runs(pid: int, word: str) -> bool:
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
