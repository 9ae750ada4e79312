"""Files that go back with the conversation."""

import subprocess
from pathlib import Path

import pytest

from dsv4agent import Agent, SessionWarning, UsageError
from dsv4agent.tools import Profile
from tests.scripted import ScriptedBackend, calls, collect, only, says

pytestmark = pytest.mark.anyio


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=user", "-c", "user.email=user@localhost")
    done = subprocess.run(
        ("git", *identity, "-C", str(folder), *arguments), capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def repository(workspace: Path) -> Path:
    git(workspace, "init", "-q", "-b", "main")
    (workspace / "a.txt").write_text("one\n")
    git(workspace, "add", ".")
    git(workspace, "commit", "-q", "-m", "start")
    return workspace


def writes(name: str, text: str) -> dict[str, object]:
    return calls(("bash", {"command": f"printf '%s' '{text}' > {name}"}))


async def test_files_go_back_with_the_steps_and_the_user_s_stay(repository: Path) -> None:
    backend = ScriptedBackend([writes("a.txt", "two"), writes("b.txt", "new"), says("done")])
    agent = Agent[None](backend, checkpoints=True)
    async with agent.session(repository) as session:
        await collect(session, "go")
        (repository / "mine.txt").write_text("the user's")
        assert (repository / "b.txt").read_text() == "new"
        await session.rewind(2, files=True)
        assert not (repository / "b.txt").exists()
        assert (repository / "a.txt").read_text() == "two"
        done = await session.restore()
        assert done is not None and done.written == ("a.txt",)
        assert (repository / "a.txt").read_text() == "one\n"
        assert (repository / "mine.txt").read_text() == "the user's"
    assert git(repository, "status", "--porcelain").split() == ["??", "mine.txt"]
    assert git(repository, "log", "--format=%s") == "start\n"


async def test_a_moved_head_keeps_files_and_steps(repository: Path) -> None:
    backend = ScriptedBackend([writes("a.txt", "two"), says("done")])
    async with Agent[None](backend, checkpoints=True).session(repository) as session:
        await collect(session, "go")
        git(repository, "commit", "-q", "-a", "-m", "kept by the user")
        length = len(session.transcript.tokens)
        with pytest.raises(UsageError, match="head_moved"):
            await session.rewind(2, files=True)
        assert len(session.transcript.tokens) == length
        assert (repository / "a.txt").read_text() == "two"


async def test_a_workspace_without_git_has_checkpoints_too(workspace: Path) -> None:
    (workspace / "a.txt").write_text("one")
    backend = ScriptedBackend([writes("a.txt", "two"), says("done")])
    async with Agent[None](backend, checkpoints=True).session(workspace) as session:
        await collect(session, "go")
        await session.restore()
        assert (workspace / "a.txt").read_text() == "one"
    assert not (workspace / ".git").exists()


async def test_what_cannot_be_saved_is_said_once(repository: Path) -> None:
    git(repository, "config", "extensions.unknownOne", "1")
    turns = [writes("a.txt", "two"), writes("b.txt", "new"), says("done")]
    async with Agent[None](ScriptedBackend(turns), checkpoints=True).session(repository) as session:
        events = await collect(session, "go")
        [warning] = only(events, SessionWarning)
        assert warning.code == "no_checkpoints" and "unsupported_repository" in warning.message
        assert (repository / "b.txt").read_text() == "new"
        with pytest.raises(UsageError, match="cannot go back"):
            await session.restore()


async def test_without_checkpoints_nothing_is_restored(workspace: Path) -> None:
    async with Agent[None](ScriptedBackend([says("done")])).session(workspace) as session:
        await collect(session, "go")
        with pytest.raises(UsageError, match="checkpoints=True"):
            await session.restore()


async def test_the_tools_of_a_profile_share_the_session_s_checkpoints(repository: Path) -> None:
    turns = [
        writes("a.txt", "two"),
        calls(("git", {"action": "status"}), ("git", {"action": "commit", "message": "by the agent"})),
        says("done"),
    ]
    agent = Agent[None](ScriptedBackend(turns), profile="full")
    async with agent.session(repository) as session:
        await collect(session, "go")
        assert session.transcript.header.profile == Profile.FULL
        names = [function["name"] for function in session.transcript.header.tools]
        assert names[:2] == ["bash", "str_replace_editor"] and "git" in names and "web_fetch" in names
        session_id = session.id
    assert git(repository, "log", "-1", "--format=%s %an") == "by the agent dsv4agent\n"
    assert f"refs/dsv4agent/{session_id}/1" in git(repository, "for-each-ref", "--format=%(refname)")
    # Resumed by an agent of another profile, a session keeps its tools.
    async with Agent[None](ScriptedBackend(turns)).session(resume=session_id) as session:
        events = await collect(session, "again")
        assert not only(events, SessionWarning)
