"""The bundled model repairs a small repository that was generated a moment ago.

`python -m examples.demo [--seed N]` makes a git repository with one injected bug, lets the agent work on
it in a sandbox, and then judges by itself: it copies the changes to the sources, and nothing else, into a
fresh copy of the repository and runs the tests there in a fresh sandbox. The exit code is 0 only if they
pass and no test was touched.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import anyio
from rich.console import Console
from rich.syntax import Syntax

from dsv4agent import Agent, Dsv4agentError, Limits, Policy, RunFinished, SandboxError, Session, StepFinished
from dsv4agent.check import Check
from dsv4agent.cli.changes import workspace_changes
from dsv4agent.cli.views import TextView, safe
from dsv4agent.sandboxes import Completed, choose_sandbox
from examples.train_mini.repository import Repository, make_repository, write

TASK = "The tests fail. Find the bug and fix it."
TESTS = ("python", "-B", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider")
CHECK = Check(shlex.join(TESTS), seconds=60)
PATIENCE, LONGEST, SHORTEST = 170.0, 60.0, 15.0
"""Seconds for all attempts together, for one, and the fewest in which another is worth beginning."""
CIRCLING = 3
"""Times that an attempt may make the same calls: after that it finds nothing new."""
SEED_STEP = 1_000_003
"""Between the seeds of the attempts of one demo."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    model: str
    seed: int
    max_steps: int
    attempts: int


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="repeat a run; drawn if not given")
    parser.add_argument(
        "--pool", default="known", help="where the buggy function comes from: known, unseen, program"
    )
    parser.add_argument("--model", default="mini", help="bundled name or checkpoint folder")
    parser.add_argument("--max-steps", type=int, default=20, help="model turns of one attempt")
    parser.add_argument("--attempts", type=int, default=10, help="a failed one is taken back first")
    arguments = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    console = Console()
    console.print(f"seed {seed} (make demo SEED={seed} repeats this run)", highlight=False)
    repository = make_repository(Random(f"demo:{seed}"), arguments.pool)
    try:
        options = Options(arguments.model, seed, arguments.max_steps, max(1, arguments.attempts))
        return anyio.run(demonstrate, console, repository, options)
    except (Dsv4agentError, SandboxError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


async def demonstrate(console: Console, repository: Repository, options: Options) -> int:
    """Show the failing tests, the agent at work, and the verdict."""
    with tempfile.TemporaryDirectory(prefix="dsv4agent-demo-") as place:
        # The workspace goes away with this folder, and so does the session that worked in it.
        os.environ["DSV4AGENT_HOME"] = str(Path(place) / "state")
        folder = Path(place) / Path(repository.workspace).name
        folder.mkdir()
        write(repository, folder)
        console.rule("the tests before")
        before = await run_tests(folder)
        console.print(safe(output_of(before)), markup=False, highlight=False)
        if before.exit_code == 0:
            console.print("The generated tests pass already; this seed makes no demo.")
            return 1
        console.rule("the agent")
        diff = await repair(console, folder, options)
        console.rule("the verdict, from a fresh copy in a fresh sandbox")
        touched = [path for path in repository.test_paths if text_of(folder / path) != repository.files[path]]
        copy = Path(place) / "verdict" / folder.name
        copy.mkdir(parents=True)
        write(repository, copy)
        for path in repository.files:
            if path.endswith(".py") and not is_test(path, repository) and (text := text_of(folder / path)):
                (copy / path).write_text(text, encoding="utf-8")
        after = await run_tests(copy)
        console.print(safe(output_of(after)), markup=False, highlight=False)
        console.print(Syntax(safe(diff).rstrip("\n") or "(no change)", "diff", background_color="default"))
        return verdict(console, after.exit_code == 0, touched)


async def repair(console: Console, folder: Path, options: Options) -> str:
    """Let the agent work, show what it does, and return the diff of the workspace.

    A try whose tests stay red is taken back, and the next one draws other tokens.
    """
    end = anyio.current_time() + PATIENCE
    async with Agent[None](options.model, checkpoints=True) as agent:
        for number in range(1, options.attempts + 1):
            if number > 1:
                console.rule(f"the tests still fail; its changes were taken back: attempt {number}")
            async with agent.session(folder, seed=options.seed + (number - 1) * SEED_STEP) as session:
                seconds = min(LONGEST, end - anyio.current_time())
                limits = Limits(steps=options.max_steps, seconds=seconds, repeats=CIRCLING)
                await work(console, session, limits)
                passed = (await CHECK.run(session.sandbox)).exit_code == 0
                late = end - anyio.current_time() < SHORTEST
                if passed or late or number == options.attempts:
                    break
                await session.restore()
        # Of the last attempt, whatever became of it.
        async with await choose_sandbox(Policy(workspace=str(folder))) as sandbox:
            changes = await workspace_changes(sandbox)
    return changes.diff if changes is not None else ""


async def work(console: Console, session: Session, limits: Limits) -> None:
    """Run the task in a session and show it."""
    view = TextView(console)
    seconds, sampled = 0.0, 0
    async for event in session.run(TASK, limits=limits):
        view.show(event)
        if isinstance(event, StepFinished):
            seconds, sampled = seconds + event.seconds, sampled + event.sampled_tokens
        elif isinstance(event, RunFinished):
            console.print(
                f"{event.steps} steps in {event.seconds:.1f} s; {event.sampled_tokens} tokens sampled at "
                f"{sampled / max(seconds, 1e-9):.0f} a second, {event.computed_tokens} computed, "
                f"{event.reused_tokens} reused",
                highlight=False,
            )


async def run_tests(folder: Path) -> Completed:
    """Run a repository's tests in a sandbox of their own."""
    async with await choose_sandbox(Policy(workspace=str(folder))) as sandbox:
        try:
            return await sandbox.run(TESTS, cwd=str(folder), timeout=60)
        except TimeoutError:
            return Completed(124, b"the tests did not end within 60 seconds", b"")


def verdict(console: Console, green: bool, touched: list[str]) -> int:
    """Say what is so, and return the exit code."""
    if green and not touched:
        console.print("repaired: all tests pass, and no test was touched", style="bold green")
        return 0
    if touched:
        console.print(f"failed: test files were changed: {', '.join(touched)}", style="bold red")
    if not green:
        console.print(
            "failed: the tests do not pass; the model did not find the bug this time", style="bold red"
        )
    return 1


def is_test(path: str, repository: Repository) -> bool:
    """Whether a file decides what the tests are."""
    return path in repository.test_paths or Path(path).name == "conftest.py"


def output_of(completed: Completed) -> str:
    """Return what a program printed."""
    return (completed.stdout + completed.stderr).decode("utf-8", "replace").rstrip("\n")


def text_of(path: Path) -> str:
    """Return a file's text, or nothing if it is gone."""
    return (
        path.read_text(encoding="utf-8", errors="replace") if path.is_file() and not path.is_symlink() else ""
    )


if __name__ == "__main__":
    sys.exit(main())
