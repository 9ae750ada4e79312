import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import Policy, SandboxCrashed, choose_sandbox
from dsv4agent.tools.git_client import MODULES, GitClient, module_sources
from tests.tools.git_desk import GitDesk, open_desk

pytestmark = pytest.mark.anyio


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[GitDesk]:
    async with open_desk(tmp_path) as desk:
        desk.start()
        yield desk


def views(desk: GitDesk) -> list[str]:
    parent = desk.folder / ".git/dsv4agent"
    return sorted(name for name in os.listdir(parent) if name.startswith("view-")) if parent.exists() else []


def server_pids(desk: GitDesk) -> list[int]:
    """Return the processes that hold a lock on a view of this repository."""
    found: list[int] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
        except OSError:
            continue
        if any(link.startswith(f"{desk.folder}/.git/dsv4agent/") for link in links):
            found.append(int(name))
    return found


async def test_one_server_serves_tool_and_checkpoints(desk: GitDesk) -> None:
    assert GitClient.of(desk.sandbox) is GitClient.of(desk.sandbox)
    await desk.call("status")
    await desk.checkpoints.save("one")
    assert len(server_pids(desk)) == 1
    assert len(views(desk)) == 1


async def test_a_server_that_died_is_replaced(desk: GitDesk) -> None:
    await desk.call("status")
    for pid in server_pids(desk):
        os.kill(pid, signal.SIGKILL)
    assert "branch main" in await desk.text("status")
    assert len(views(desk)) == 1, "the view of the dead server was not removed"
    for pid in server_pids(desk):
        os.kill(pid, signal.SIGKILL)
    desk.write("a.txt", "changed\n")
    assert "1 file" in await desk.text("commit", message="after a death")


async def test_closing_leaves_nothing_behind(desk: GitDesk) -> None:
    await desk.call("status")
    await desk.tool.aclose()
    assert views(desk) == []
    assert server_pids(desk) == []
    assert "branch main" in await desk.text("status")


async def test_cancellation_ends_the_server(desk: GitDesk) -> None:
    await desk.call("status")
    stopped = server_pids(desk)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    with anyio.move_on_after(0.2) as scope:
        await desk.call("status")
    assert scope.cancelled_caught
    assert not set(stopped) & set(server_pids(desk))
    assert "branch main" in await desk.text("status")


async def test_a_crash_says_why(desk: GitDesk) -> None:
    client = GitClient(
        desk.sandbox, [*module_sources()[:1], ("_git_broken", "raise ValueError('broken on purpose')")]
    )
    with pytest.raises(SandboxCrashed, match="broken on purpose"):
        await client.ask({"operation": "list"})
    await client.aclose()


async def test_requests_take_turns(desk: GitDesk) -> None:
    texts: list[str] = []

    async def ask() -> None:
        texts.append(await desk.text("log"))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
    assert len(set(texts)) == 1
    assert len(texts) == 5
    assert len(server_pids(desk)) == 1


@pytest.mark.parametrize("provider", ["bubblewrap", "landlock"])
async def test_works_in_a_cage(tmp_path: Path, provider: str) -> None:
    assert provider in {"bubblewrap", "landlock"}
    async with open_desk(tmp_path, "bubblewrap" if provider == "bubblewrap" else "landlock") as desk:
        desk.start()
        saved = await desk.checkpoints.save("one")
        desk.write("a.txt", "changed\n")
        assert " M a.txt" in await desk.text("status")
        await desk.checkpoints.restore(saved)
        assert (desk.folder / "a.txt").read_text() == "one\ntwo\n"


async def test_what_the_cage_hides_is_neither_committed_nor_saved(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/.env").write_text("KEY=secret\n")
    (tmp_path / "session").mkdir()
    masked = [str(tmp_path / "workspace/.env")]
    policy = Policy(str(tmp_path / "workspace"), writable=[str(tmp_path / "session")], masked=masked)
    async with await choose_sandbox(policy, "bubblewrap") as sandbox:
        desk = GitDesk(sandbox, tmp_path / "workspace", tmp_path / "session")
        desk.start()
        assert desk.git("show", "HEAD:.env") == "KEY=secret\n"
        desk.write("a.txt", "changed\n")
        saved = await desk.checkpoints.save("one")
        assert saved.skipped == (".env",)
        assert "1 file" in await desk.text("commit", message="all")
        assert desk.git("show", "HEAD:.env") == "KEY=secret\n"
        await desk.tool.aclose()


def test_modules_come_after_what_they_import() -> None:
    seen: set[str] = set()
    for name, source in module_sources():
        seen.add(name)
        for other in MODULES:
            if f"dsv4agent.tools.{other} import" in source or f"dsv4agent.tools import {other}" in source:
                assert other in seen, f"{name} imports {other}"
    folder = Path(__file__).parent.parent.parent / "tools"
    assert seen == {path.stem for path in folder.glob("_git_*.py")}
