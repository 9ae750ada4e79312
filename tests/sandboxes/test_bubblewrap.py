import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsv4agent.sandboxes import Enforcement, Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.cgroups import delegated

pytestmark = pytest.mark.anyio


async def opened(policy: Policy) -> Sandbox:
    try:
        return await choose_sandbox(policy, "bubblewrap")
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that is not in /tmp, which is replaced whole."""
    folder = Path(tempfile.mkdtemp(prefix="dsv4agent-home-", dir="/var/tmp"))
    (folder / ".netrc").write_text("secret")
    (folder / "project").mkdir()
    (folder / "project" / "code.py").write_text("x = 1\n")
    monkeypatch.setenv("HOME", str(folder))
    yield folder
    shutil.rmtree(folder)


async def test_all_guarantees_hold_in_full(workspace: Path) -> None:
    async with await opened(Policy(str(workspace))) as sandbox:
        levels = dict(sandbox.report.guarantees)
        # Whether the kernel counts memory depends on the machine.
        assert levels.pop("limits") is (Enforcement.FULL if delegated() else Enforcement.PARTIAL)
        assert set(levels.values()) == {Enforcement.FULL} and len(levels) == 8
        assert len(sandbox.report.notes) == (0 if delegated() else 1)


async def test_a_workspace_in_the_home_shows_itself_alone(home: Path) -> None:
    async with await opened(Policy(str(home / "project"))) as sandbox:
        done = await sandbox.run(["bash", "-c", f"ls -A {home}; cat {home}/.netrc; echo y > code.py"])
        assert done.stdout == b"project\n"
        assert (home / "project" / "code.py").read_text() == "y\n"
        with pytest.raises(OSError):
            await sandbox.write_bytes(str(home / "new"), b"")
        assert (await sandbox.run(["bash", "-c", "echo $HOME"])).stdout == b"/tmp/home\n"


async def test_the_home_itself_can_be_the_workspace_with_masks_inside(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "key").write_text("secret")
    policy = Policy(str(home), masked=(str(home / ".ssh"), str(home / ".netrc")))
    async with await opened(policy) as sandbox:
        done = await sandbox.run(
            ["bash", "-c", "cat .netrc .ssh/key; ls -A .ssh; echo x > .ssh/new; echo x > made"]
        )
        assert done.stdout == b""
        assert (home / "made").exists() and os.listdir(home / ".ssh") == ["key"]
        assert (home / ".netrc").read_text() == "secret"


async def test_temporary_files_are_private_and_shared_within(workspace: Path) -> None:
    mine = f"mine-{os.urandom(8).hex()}"
    with tempfile.NamedTemporaryFile(dir="/tmp") as others:
        async with await opened(Policy(str(workspace))) as sandbox:
            done = await sandbox.run(["bash", "-c", f"ls {others.name}; echo mine > /tmp/{mine}"])
            assert done.stdout == b""
            assert await sandbox.read_bytes(f"/tmp/{mine}") == b"mine\n"
            assert mine not in os.listdir("/tmp")


async def test_sockets_of_services_are_covered(workspace: Path) -> None:
    folder = tempfile.mkdtemp(prefix="dsv4agent-", dir="/var/tmp")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
        service.bind(f"{folder}/service")
        service.listen()
        async with await opened(Policy(str(workspace))) as sandbox:
            assert (await sandbox.run(["test", "-S", f"{folder}/service"])).exit_code == 1
            code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{folder}/service')"
            done = await sandbox.run(["python", "-c", code])
            assert b"Error" in done.stderr
            # The service ends, and its folder goes with it: programs run on.
            shutil.rmtree(folder)
            assert (await sandbox.run(["true"])).exit_code == 0


async def test_local_servers_work_inside(workspace: Path) -> None:
    code = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"hello")).start()
print(socket.create_connection(server.getsockname()).recv(5).decode())
"""
    async with await opened(Policy(str(workspace))) as sandbox:
        assert (await sandbox.run(["python", "-c", code])).stdout == b"hello\n"


async def test_process_numbers_are_its_own(workspace: Path) -> None:
    async with await opened(Policy(str(workspace))) as sandbox:
        done = await sandbox.run(["bash", "-c", "echo $$; ls /proc | grep -c '^[0-9]'"])
        pid, count = map(int, done.stdout.split())
        assert pid < 10 and count < 10
