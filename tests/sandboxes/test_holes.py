"""Ways out of a cage that an attacker would try, each with a real attempt."""

import os
import stat
import sys
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["bubblewrap", "landlock"])
async def cage(request: pytest.FixtureRequest, workspace: Path) -> Sandbox:
    name: ProviderName = request.param
    try:
        return await choose_sandbox(Policy(str(workspace)), name)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_no_program_leaves_this_user_s_rights_behind(cage: Sandbox, workspace: Path) -> None:
    code = """
import os
attempts = [
    lambda: os.chmod("made", 0o4755),
    lambda: os.fchmod(os.open("made", os.O_RDONLY), 0o4755),
    lambda: os.open("new", os.O_CREAT | os.O_WRONLY, 0o4755),
    lambda: os.mknod("node", 0o104755),
]
open("made", "w").close()
for attempt in attempts:
    try:
        attempt()
        print("worked")
    except PermissionError:
        pass
"""
    async with cage as sandbox:
        done = await sandbox.run(["python", "-c", code])
        assert (done.exit_code, done.stdout) == (0, b""), done.stderr
        (workspace / "old").touch()
        (workspace / "old").chmod(0o4755)
        await sandbox.write_bytes(str(workspace / "old"), b"new")
    assert not [name for name in os.listdir(workspace) if os.stat(workspace / name).st_mode & stat.S_ISUID]


async def test_a_host_process_keeps_its_limits_and_priority(cage: Sandbox) -> None:
    async with await anyio.open_process(["sleep", "60"]) as victim:
        code = f"""
import os, resource
for attempt in (
    lambda: resource.prlimit({victim.pid}, resource.RLIMIT_CPU, (1, 1)),
    lambda: os.setpriority(os.PRIO_PROCESS, {victim.pid}, 19),
    lambda: os.sched_setaffinity({victim.pid}, {{0}}),
    lambda: os.sched_setscheduler({victim.pid}, os.SCHED_IDLE, os.sched_param(0)),
):
    try:
        attempt()
        print("worked")
    except OSError:
        pass
"""
        async with cage as sandbox:
            done = await sandbox.run(["python", "-c", code])
            assert (done.exit_code, done.stdout) == (0, b""), done.stderr
        victim.kill()


async def test_no_descriptor_of_ours_is_inherited(cage: Sandbox) -> None:
    ours = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(ours, True)
    try:
        async with cage as sandbox:
            done = await sandbox.run(["bash", "-c", "echo /proc/self/fd/*; ls -l /proc/self/fd"])
            assert b"hostname" not in done.stdout and b"memfd" not in done.stdout
            names = {int(os.path.basename(name)) for name in done.stdout.splitlines()[0].split()}
            assert names <= {0, 1, 2, 3, 255}  # bash's own among them
    finally:
        os.close(ours)


async def test_the_first_process_of_a_namespace_has_nothing_to_take(workspace: Path) -> None:
    """It may be debugged, being of the same user, so it must be no more than the program."""
    try:
        sandbox = await choose_sandbox(Policy(str(workspace)), "bubblewrap")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    async with sandbox:
        status = (await sandbox.run(["cat", "/proc/1/status"])).stdout.decode()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


async def test_files_that_change_kind_never_block_the_file_server(cage: Sandbox, workspace: Path) -> None:
    """A program swaps a file, a pipe and a link to a device under the server's hands."""
    code = """
import os
os.mkfifo("pipe")
print("ready", flush=True)
open("plain", "w").close()
os.symlink("/dev/zero", "device")
while True:
    for name in ("plain", "pipe", "device"):
        os.link(name, "next", follow_symlinks=False)
        os.rename("next", "target")
"""
    async with cage as sandbox:
        process = await sandbox.spawn([sys.executable, "-c", code])
        with anyio.fail_after(20):
            assert await process.read() == b"ready\n"
            for _ in range(100):
                try:
                    assert await sandbox.read_bytes(str(workspace / "target"), 10) == b""
                except OSError:
                    pass
                try:
                    await sandbox.write_bytes(str(workspace / "target"), b"")
                except OSError:
                    pass
            assert (await sandbox.stat(str(workspace))).kind == "dir"


async def test_terminals_and_keys_are_out_of_reach(cage: Sandbox) -> None:
    code = """
import ctypes, fcntl, os, platform
for number, value in ((0x5412, b"x"), (0x541C, b"\\x02")):
    try:
        fcntl.ioctl(0, number, value)
        print("typed")
    except PermissionError:
        pass
    except OSError as error:
        print(error)
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 250, "aarch64": 219}[platform.machine()]
for keyring in range(-8, 0):
    if libc.syscall(number, 6, keyring, 0, 0) != -1:
        print("keyring", keyring)
try:
    open("/dev/tty")
    print("terminal")
except OSError:
    pass
"""
    async with cage as sandbox:
        done = await sandbox.run(["python", "-c", code])
        assert (done.exit_code, done.stdout) == (0, b""), done.stderr
