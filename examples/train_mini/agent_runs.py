"""Repairs by the real agent: its loop, engine, tools and sandbox, in a real git repository on disk."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from examples.train_mini.closed_loop import EDITOR, Ending, Limits, Outcome
from examples.train_mini.repetition import EditHistory
from examples.train_mini.world_pool import Task

if TYPE_CHECKING:
    from dsv4agent.agent import Agent


def run_with_agent(
    model: Path,
    tasks: Sequence[Task],
    temperature: float,
    limits: Limits,
    *,
    seed: int = 0,
    redraws: int = 0,
) -> list[Outcome]:
    """Repair one repository after another; the context limit is the model's own."""
    return anyio.run(_run_all, model, tasks, temperature, limits, seed, redraws)


async def _run_all(
    model: Path, tasks: Sequence[Task], temperature: float, limits: Limits, seed: int, redraws: int
) -> list[Outcome]:
    from dsv4agent.agent import Agent
    from dsv4agent.budgets import Limits as RunLimits

    outcomes: list[Outcome] = []
    run_limits = RunLimits(steps=limits.steps, redraws=redraws)
    # The runtime's dependencies are needed for this mode only.
    agent: Agent[None] = Agent(model, temperature=temperature, limits=run_limits)
    async with agent:
        for number, task in enumerate(tasks):
            with tempfile.TemporaryDirectory(prefix="repair-") as folder:
                outcomes.append(await _run_one(agent, task, Path(folder), seed + number))
    return outcomes


async def _run_one(agent: Agent[None], task: Task, folder: Path, seed: int) -> Outcome:
    from dsv4agent.transcript import RunFinished, StopReason, ToolCallStarted
    from examples.train_mini.repository import write
    from examples.train_mini.worlds import task_and_repository

    text, repository = task_and_repository(task.collection, task.index)
    workspace = folder / Path(repository.workspace).name
    workspace.mkdir()
    write(repository, workspace)
    edits: list[int] = []
    history = EditHistory()
    steps, stop = 0, StopReason.ERROR
    async with agent.session(workspace, seed=seed) as session:
        async for event in session.run(text):
            if (
                isinstance(event, ToolCallStarted)
                and event.name == EDITOR
                and '"view"' not in event.arguments
            ):
                edits.append(event.step)
                history.add(json.loads(event.arguments))
            elif isinstance(event, RunFinished):
                steps, stop = event.steps, event.stop_reason
        command = ["python", "-m", "pytest", "-q"]
        finished = await session.sandbox.run(command, cwd=str(workspace), timeout=60)
        answer = session.messages()[-1].get("content") or ""
        tokens = session.ledger.total_tokens
    untouched = all(
        (workspace / path).exists()
        and (workspace / path).read_text(encoding="utf-8") == repository.files[path]
        for path in repository.test_paths
    )
    green = finished.exit_code == 0
    tries = len(set(edits))
    return Outcome(
        f"{task.collection}-{task.index}",
        repository.bug.family.value,
        green and untouched,
        _ending(stop.value, green, str(answer)),
        steps,
        tries,
        tokens,
        green and untouched and tries == 1,
        history.repeats,
    )


def _ending(stop: str, green: bool, answer: str) -> Ending:
    if stop == "finished":
        if green:
            return Ending.DONE
        claimed = "pass" in answer.lower() or "fixed" in answer.lower()
        return Ending.CLAIMED if claimed else Ending.GAVE_UP
    return {
        "max_steps": Ending.STEPS,
        "context_full": Ending.CONTEXT,
        "malformed": Ending.INVALID_CALL,
    }.get(stop, Ending.UNFINISHED_TURN)
