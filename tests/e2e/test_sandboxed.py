"""The loop in each confining sandbox: the model reads what it is pointed to, and reaches nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from dsv4agent import Agent, SandboxUnavailable, ToolCallFinished
from dsv4agent.sandboxes import Policy, choose_sandbox
from dsv4agent.transcript import find_session
from tests.scripted import ScriptedBackend, assert_exact, calls, collect, only

pytestmark = pytest.mark.anyio


async def skip_without(provider: str, folder: Path) -> None:
    try:
        async with await choose_sandbox(Policy(workspace=str(folder)), provider):  # pyright: ignore[reportArgumentType]
            pass
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("provider", ["bubblewrap", "landlock"])
async def test_a_confined_session(workspace: Path, provider: str) -> None:
    await skip_without(provider, workspace)
    outside = workspace.parent / "outside"
    backend = ScriptedBackend(
        [
            calls(("bash", {"command": "seq 100000"})),
            calls(("bash", {"command": "wc -l < SPILLED"}), ("bash", {"command": f"touch {outside}"})),
            calls(("str_replace_editor", {"command": "create", "path": str(outside), "file_text": "x"})),
        ]
    )
    agent: Agent[None] = Agent(backend)
    async with agent.session(workspace, sandbox=provider) as session:  # pyright: ignore[reportArgumentType]
        async for event in session.run("go"):
            if isinstance(event, ToolCallFinished) and event.step == 1:
                found = re.search(r"full output: (\S+)\]", event.text)
                assert found is not None
                assert event.omitted_tokens > 0
                backend.turns[1] = calls(
                    ("bash", {"command": f"wc -l < {found[1]}"}), ("bash", {"command": f"touch {outside}"})
                )
        assert_exact(session, backend)
        assert session.transcript.header.sandbox["provider"] == provider
        results = only(session.transcript.events, ToolCallFinished)
    assert results[1].text == "100000"
    # A sandbox with a file system of its own lets these succeed there; no trace of them is left here.
    assert len(results) == 4
    assert not await anyio.Path(outside).exists()


async def test_a_command_of_an_interrupted_run_is_gone(workspace: Path) -> None:
    await skip_without("bubblewrap", workspace)
    backend = ScriptedBackend([calls(("bash", {"command": "(sleep 0.5; touch late) & sleep 60"}))])
    agent: Agent[None] = Agent(backend)
    async with agent.session(workspace, sandbox="bubblewrap") as session:
        async with anyio.create_task_group() as tasks:
            async for event in session.run("go"):
                if event.type == "tool_call_started":
                    tasks.start_soon(interrupt_soon, session.interrupt)
        assert not session.idle
    await anyio.sleep(0.6)
    assert not await anyio.Path(workspace / "late").exists()
    # The session goes on afterwards as any other.
    async with agent.session(resume=find_session().name, sandbox="bubblewrap") as again:
        await collect(again)


async def interrupt_soon(interrupt: Callable[[], None]) -> None:
    await anyio.sleep(0.1)
    interrupt()
