import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsv4agent.sandboxes import Enforcement, Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes._launcher import landlock_abi
from dsv4agent.sandboxes.landlock import LEAST_ABI, LandlockSandbox, launcher_command
from dsv4agent.sandboxes.process_tree import descendants

pytestmark = pytest.mark.anyio


async def opened(policy: Policy) -> Sandbox:
    try:
        return await choose_sandbox(policy, "landlock")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_the_report_admits_what_holds_in_part(workspace: Path) -> None:
    async with await opened(Policy(str(workspace))) as sandbox:
        guarantees = sandbox.report.guarantees
        assert (
            guarantees["network"]
            is guarantees["system_calls"]
            is guarantees["environment"]
            is Enforcement.FULL
        )
        assert guarantees["writes"] is guarantees["processes"] is Enforcement.PARTIAL


async def test_only_harmless_devices_can_be_used(workspace: Path) -> None:
    async with await opened(Policy(str(workspace))) as sandbox:
        done = await sandbox.run(["bash", "-c", "echo x > /dev/null && head -c 4 /dev/zero | wc -c; ls /dev"])
        assert done.stdout == b"4\n"
        assert b"ermission denied" in done.stderr


async def test_threads_and_subprocesses_work(workspace: Path) -> None:
    code = """
import asyncio, concurrent.futures, subprocess
async def main():
    p = await asyncio.create_subprocess_exec("echo", "child", stdout=subprocess.PIPE)
    return (await p.communicate())[0].decode().strip()
print(asyncio.run(main()), list(concurrent.futures.ThreadPoolExecutor(2).map(abs, [-1, -2])))
"""
    async with await opened(Policy(str(workspace))) as sandbox:
        assert (await sandbox.run(["python", "-c", code])).stdout == b"child [1, 2]\n"


async def test_a_mask_inside_the_workspace_is_refused(workspace: Path) -> None:
    if landlock_abi() < LEAST_ABI:
        pytest.skip("no Landlock")
    (workspace / "secret").mkdir()
    with pytest.raises(SandboxUnavailable, match="cannot hide"):
        await choose_sandbox(Policy(str(workspace), masked=(str(workspace / "secret"),)), "landlock")


async def test_an_old_kernel_is_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsv4agent.sandboxes.landlock.landlock_abi", lambda: 1)
    with pytest.raises(SandboxUnavailable, match="version 1, 3 is needed"):
        await LandlockSandbox.open(Policy(str(workspace)))


async def test_signals_pass_through_the_supervisor(workspace: Path) -> None:
    async with await opened(Policy(str(workspace))) as sandbox:
        assert (await sandbox.run(["bash", "-c", "kill -SEGV $$"])).exit_code == -signal.SIGSEGV
        assert (await sandbox.run(["bash", "-c", "kill -KILL $$"])).exit_code == -signal.SIGKILL
        assert (
            await sandbox.run(["python", "-c", "import signal; print(signal.getsignal(13))"])
        ).exit_code == 0


def test_everything_dies_with_the_host_process(tmp_path: Path) -> None:
    """The supervisor is told when its parent dies, however that happened."""
    command = launcher_command(
        {"landlock": None, "seccomp": None, "cwd": str(tmp_path)},
        ["bash", "-c", "setsid bash -c 'echo $$ > pid; exec sleep 1000' & wait"],
    )
    start = f"subprocess.Popen({list(command.argv)!r}, pass_fds={command.pass_fds!r})"
    code = f"import subprocess, time; {start}; time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code], pass_fds=command.pass_fds) as host:
        pid = 0
        for _ in range(500):
            text = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
            if text.strip():
                pid = int(text)
                break
            time.sleep(0.01)
        assert pid in descendants(host.pid)
        host.kill()
    for _ in range(500):
        if not os.path.exists(f"/proc/{pid}"):
            return
        time.sleep(0.01)
    pytest.fail("the daemon survived")
