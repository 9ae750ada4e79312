import os
import signal
import stat
import sys
import time
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import (
    Network,
    NetworkMode,
    Policy,
    Sandbox,
    SandboxClosed,
    SandboxUnavailable,
    choose_sandbox,
)
from dsv4agent.sandboxes.caged import CagedSandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.sandboxes.process_tree import descendants

pytestmark = pytest.mark.anyio


def children_running(program: str) -> set[int]:
    """Return our living descendants that have a word on their command line."""
    found: set[int] = set()
    for pid in descendants(os.getpid()):
        try:
            if program.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
        except OSError:
            continue
    return found


async def test_run_separates_streams_and_feeds_input(sandbox: Sandbox, workspace: Path) -> None:
    done = await sandbox.run(["bash", "-c", "cat; pwd; echo err >&2; exit 5"], input=b"in\n")
    assert (done.exit_code, done.stdout, done.stderr) == (5, f"in\n{workspace}\n".encode(), b"err\n")


async def test_run_carries_large_streams_both_ways(sandbox: Sandbox) -> None:
    data = os.urandom(3 << 20)
    assert (await sandbox.run(["cat"], input=data)).stdout == data
    assert (await sandbox.run(["true"], input=data)).exit_code == 0


async def test_environment_and_directory_can_be_set(sandbox: Sandbox, workspace: Path) -> None:
    (workspace / "sub").mkdir()
    done = await sandbox.run(["bash", "-c", "echo $A $TERM; pwd"], env={"A": "1"}, cwd=str(workspace / "sub"))
    assert done.stdout == f"1 dumb\n{workspace}/sub\n".encode()


async def test_python_is_the_one_that_runs_us(sandbox: Sandbox) -> None:
    done = await sandbox.run(["python", "-c", "import sys, anyio; print(sys.prefix)"])
    assert done.stdout.decode().strip() == sys.prefix, done.stderr


async def test_a_missing_program_is_an_exit_code(sandbox: Sandbox) -> None:
    assert (await sandbox.run(["no-such-program"])).exit_code != 0


async def test_home_and_temporary_folder_are_writable_and_private(sandbox: Sandbox, provider: str) -> None:
    if provider == "none":
        pytest.skip("home is the user's own")
    done = await sandbox.run(["bash", "-c", 'echo x > "$HOME/a" && echo x > "$TMPDIR/b" && cat "$HOME/a"'])
    assert done.stdout == b"x\n", done.stderr
    shared = await sandbox.run(["bash", "-c", 'cat "$TMPDIR/b"'])
    assert shared.stdout == b"x\n"


async def test_timeout_is_kept_though_a_daemon_holds_the_pipe(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await sandbox.run(["bash", "-c", "trap '' TERM; setsid sleep 60 & sleep 60"], timeout=0.3)
    assert time.monotonic() - started < 4
    started = time.monotonic()
    done = await sandbox.run(["bash", "-c", "setsid sleep 60 & echo started"], timeout=30)
    assert done.stdout == b"started\n"
    assert time.monotonic() - started < 4


async def test_cancellation_leaves_no_process(sandbox: Sandbox) -> None:
    before = descendants(os.getpid()).keys()
    with anyio.move_on_after(0.3) as scope:
        await sandbox.run(["bash", "-c", "sleep 60 & setsid sleep 60 & wait"])
    assert scope.cancelled_caught
    assert descendants(os.getpid()).keys() <= before


async def test_spawn_merges_output_and_has_a_control_channel(sandbox: Sandbox) -> None:
    process = await sandbox.spawn(["bash", "-c", "read x; echo out-$x; echo err >&2; echo mark >&3"])
    await process.write(b"1\n")
    assert await process.read_control() == b"mark\n"
    assert await process.wait() == 0
    output = b""
    while data := await process.read():
        output += data
    assert output == b"out-1\nerr\n"


async def test_kill_is_polite_first(sandbox: Sandbox, workspace: Path) -> None:
    process = await sandbox.spawn(
        ["bash", "-c", "trap 'echo asked > asked; exit 0' TERM; echo ready >&3; while :; do sleep 0.02; done"]
    )
    assert await process.read_control() == b"ready\n"
    await process.kill(5.0)
    assert (workspace / "asked").read_text() == "asked\n"
    assert await process.wait() == 0


async def test_files_round_trip(sandbox: Sandbox, workspace: Path) -> None:
    path = str(workspace / "a" / "b \udcff\n.bin")
    data = os.urandom(2 << 20)
    await sandbox.write_bytes(path, data)
    assert await sandbox.read_bytes(path) == data
    assert await sandbox.read_bytes(path, 10) == data[:10]
    described = await sandbox.stat(path)
    assert (described.kind, described.size) == ("file", len(data))
    assert described.mtime_ns == os.stat(path).st_mtime_ns
    assert [name for name, _ in await sandbox.list_dir(str(workspace / "a"))] == ["b \udcff\n.bin"]


async def test_written_files_keep_their_mode_and_links(sandbox: Sandbox, workspace: Path) -> None:
    script = workspace / "script"
    script.write_text("old")
    script.chmod(0o750)
    (workspace / "link").symlink_to("script")
    await sandbox.write_bytes(str(workspace / "link"), b"new")
    assert (workspace / "link").is_symlink() and script.read_text() == "new"
    assert stat.S_IMODE(script.stat().st_mode) == 0o750
    await sandbox.write_bytes(str(script), b"new", mode=0o600)
    assert stat.S_IMODE(script.stat().st_mode) == 0o600
    assert sorted(os.listdir(workspace)) == ["link", "script"]


async def test_removing_takes_the_link_and_not_what_it_leads_to(sandbox: Sandbox, workspace: Path) -> None:
    (workspace / "file").write_text("x")
    (workspace / "link").symlink_to("file")
    (workspace / "folder").mkdir()
    await sandbox.remove(str(workspace / "link"))
    assert sorted(os.listdir(workspace)) == ["file", "folder"]
    await sandbox.remove(str(workspace / "file"))
    assert os.listdir(workspace) == ["folder"]
    for path, error in {"file": FileNotFoundError, "folder": IsADirectoryError}.items():
        with pytest.raises(error):
            await sandbox.remove(str(workspace / path))


async def test_kernel_errors_come_through(sandbox: Sandbox, workspace: Path) -> None:
    (workspace / "file").write_text("x")
    (workspace / "loop").symlink_to("loop")
    os.mkfifo(workspace / "fifo")
    for path, error in {
        "missing": FileNotFoundError,
        "": IsADirectoryError,
        "file/below": NotADirectoryError,
        "loop": OSError,
        "fifo": OSError,
        "nul\0": OSError,
    }.items():
        with pytest.raises(error):
            await sandbox.read_bytes(f"{workspace}/{path}")
        if path != "missing":
            with pytest.raises(OSError):
                await sandbox.write_bytes(f"{workspace}/{path}", b"")
    with pytest.raises(NotADirectoryError):
        await sandbox.list_dir(str(workspace / "file"))
    kinds = {name: described.kind for name, described in await sandbox.list_dir(str(workspace))}
    assert kinds == {"file": "file", "loop": "other", "fifo": "other"}
    assert (workspace / "file").read_text() == "x"


async def test_a_killed_file_server_is_replaced(sandbox: Sandbox, workspace: Path) -> None:
    await sandbox.write_bytes(str(workspace / "a"), b"1")
    servers = children_running("file_server")
    assert servers
    for pid in sorted(servers, reverse=True):
        os.kill(pid, signal.SIGKILL)
    await anyio.sleep(0.05)
    assert await sandbox.read_bytes(str(workspace / "a")) == b"1"


async def test_file_requests_survive_cancellation(sandbox: Sandbox, workspace: Path) -> None:
    (workspace / "big").write_bytes(b"x" * (4 << 20))
    (workspace / "small").write_bytes(b"small")
    for delay in (0.0, 0.001, 0.003):
        with anyio.move_on_after(delay):
            await sandbox.read_bytes(str(workspace / "big"))
        assert await sandbox.read_bytes(str(workspace / "small")) == b"small"


async def test_parallel_requests_get_their_own_answers(sandbox: Sandbox, workspace: Path) -> None:
    async def check(number: int) -> None:
        await sandbox.write_bytes(str(workspace / f"{number}"), str(number).encode())
        assert await sandbox.read_bytes(str(workspace / f"{number}")) == str(number).encode()
        assert (await sandbox.run(["cat", f"{number}"])).stdout == str(number).encode()

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(check, number)


async def test_a_closed_sandbox_refuses_and_leaves_nothing(sandbox: Sandbox, workspace: Path) -> None:
    assert isinstance(sandbox, CagedSandbox)
    temporary = (await sandbox.run(["bash", "-c", "sleep 60 & echo $TMPDIR"])).stdout.decode().strip()
    await sandbox.spawn(["sleep", "60"])
    await sandbox.aclose()
    assert children_running("sleep") == set()
    assert temporary == "/tmp" or os.path.basename(temporary) not in os.listdir("/tmp")
    with pytest.raises(SandboxClosed):
        await sandbox.run(["true"])
    with pytest.raises(SandboxClosed):
        await sandbox.read_bytes(str(workspace))
    await sandbox.aclose()


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
async def test_policy_widens_what_it_names_only(name: ProviderName, tmp_path: Path) -> None:
    for folder in ("work", "data", "hidden/kept", "hidden/other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text(folder)
    policy = Policy(
        str(tmp_path / "work"),
        writable=(str(tmp_path / "data"),),
        masked=(str(tmp_path / "hidden"),),
        env={"EXTRA": "yes"},
        readable=(str(tmp_path / "hidden/kept"),),
    )
    try:
        opened = await choose_sandbox(policy, name)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    async with opened as sandbox:
        await sandbox.write_bytes(str(tmp_path / "data/new"), b"x")
        assert (tmp_path / "data/new").read_bytes() == b"x"
        assert await sandbox.read_bytes(str(tmp_path / "hidden/kept/file")) == b"hidden/kept"
        assert (await sandbox.run(["bash", "-c", "echo $EXTRA"])).stdout == b"yes\n"
        for path in ("hidden/kept/new", "hidden/other/file", "hidden/new"):
            with pytest.raises(OSError):
                await sandbox.write_bytes(str(tmp_path / path), b"x")
        with pytest.raises(OSError):
            await sandbox.read_bytes(str(tmp_path / "hidden/other/file"))


@pytest.mark.parametrize("name", ["bubblewrap", "landlock"])
async def test_network_can_be_switched_on(name: ProviderName, workspace: Path) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    try:
        opened = await choose_sandbox(Policy(str(workspace), network=Network(NetworkMode.ON)), name)
    except SandboxUnavailable as error:
        await listener.aclose()
        pytest.skip(str(error))
    async with opened as sandbox, listener:
        done = await sandbox.run(["bash", "-c", f"exec 4<>/dev/tcp/127.0.0.1/{port} && echo reached"])
        assert done.stdout == b"reached\n", done.stderr
        assert sandbox.report.guarantees["network"].value == "none"
        assert "network: switched on by the policy" in sandbox.report.notes
