"""Running and resuming a session from the command line, with signals and a summary."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
from anyio.abc import TaskStatus
from rich.console import Console
from rich.syntax import Syntax

from dsv4agent.agent import Agent
from dsv4agent.budgets import Limits
from dsv4agent.check import Check
from dsv4agent.cli.asking import terminal_ask
from dsv4agent.cli.changes import Changes, workspace_changes
from dsv4agent.cli.exits import ExitCode, code_of_stop
from dsv4agent.cli.views import JsonView, TextView, safe
from dsv4agent.errors import BackendError, UsageError
from dsv4agent.groups import single_error
from dsv4agent.sandboxes import Completed, Gate, Network, NetworkMode, Policy, ProviderName, SandboxError
from dsv4agent.session import Session
from dsv4agent.transcript import RunFinished, StepFinished, StopReason

_NO_NETWORK = Network()
_CHECK_SHOWN = 4000
"""Characters from the end of a failed check's output."""

ProfileName = Literal["minimal", "full", "research"]


@dataclass(frozen=True)
class Order:
    """What the command line asks for. None leaves a value to the checkpoint or to the stored session."""

    model: str
    repo: Path = Path()
    task: str | None = None
    resume: str | None = None
    mode: str | None = None
    sandbox: ProviderName = "auto"
    profile: ProfileName = "minimal"
    network: Network = _NO_NETWORK
    max_steps: int | None = None
    max_tokens: int | None = None
    max_repeats: int | None = None
    redraws: int | None = None
    timeout: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    check: str | None = None
    attempts: int = 1
    json: bool = False


def parse_network(text: str) -> Network:
    """Return the network policy that an option means: `off`, `on`, or hosts separated by commas.

    Raises:
        UsageError: A host cannot be meant.
    """
    if text in {"off", "on"}:
        return Network(NetworkMode(text))
    network = Network.only(*(host.strip() for host in text.split(",") if host.strip()))
    try:
        Gate(network)
    except SandboxError as error:
        raise UsageError(f"--network: {error}") from error
    return network


async def work(order: Order) -> ExitCode:
    """Do what was asked for and return the exit code. Errors that end the command are raised."""
    watch = _SignalWatch()
    code: ExitCode | None = None
    with single_error():
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch.listen, tasks.cancel_scope)
            code = await _work(order, watch)
            tasks.cancel_scope.cancel()
    if code is not None:
        return code
    # Only a signal before the session was open cancels the group from outside.
    sys.stderr.write("Interrupted before the session began; nothing was stored.\n")
    return ExitCode.INTERRUPTED


class _SignalWatch:
    """The first signal stops the run and leaves it resumable, the second ends the process."""

    def __init__(self) -> None:
        self.session: Session | None = None

    async def listen(
        self, scope: anyio.CancelScope, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Wait for signals until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            count = 0
            async for number in signals:
                count += 1
                if count > 1:
                    os._exit(128 + number)
                if self.session is None:
                    scope.cancel()
                else:
                    sys.stderr.write("\nStopping; press Ctrl-C again to end at once.\n")
                    self.session.interrupt()


async def _work(order: Order, watch: _SignalWatch) -> ExitCode:
    console = Console(file=sys.stdout)
    agent: Agent[None] = Agent(
        order.model,
        profile=order.profile,
        ask=None if order.json else terminal_ask(console),
        # What a failed attempt changed has to go back before the next.
        checkpoints=True if order.attempts > 1 else None,
        mode=order.mode,
        temperature=order.temperature,
        top_p=order.top_p,
    )
    async with agent:
        for number in range(1, order.attempts + 1):
            code = await _attempt(agent, order, watch, console, number)
            if code is not ExitCode.CHECK_FAILED:
                return code
    return ExitCode.CHECK_FAILED


async def _attempt(
    agent: Agent[None], order: Order, watch: _SignalWatch, console: Console, number: int
) -> ExitCode:
    """Work in a session of its own, and check; take the changes back if that fails and attempts are left."""
    view = JsonView() if order.json else TextView(console)
    finished: RunFinished | None = None
    seconds, sampled = 0.0, 0
    backend = await agent.load()
    limits = Limits(
        steps=order.max_steps or backend.defaults.max_steps,
        new_tokens=order.max_tokens,
        repeats=order.max_repeats,
        redraws=order.redraws,
        seconds=order.timeout,
    )
    # A resumed session works where it began, whatever is said of the workspace here.
    policy = Policy(workspace=str(order.repo.resolve()), network=order.network)
    seed = None if order.seed is None else order.seed + number - 1
    async with agent.session(
        order.repo, sandbox=order.sandbox, policy=policy, resume=order.resume, seed=seed
    ) as session:
        watch.session = session
        async with aclosing(session.run(order.task, limits=limits)) as events:
            async for event in events:
                view.show(event)
                if isinstance(event, StepFinished):
                    seconds, sampled = seconds + event.seconds, sampled + event.sampled_tokens
                elif isinstance(event, RunFinished):
                    finished = event
        if finished is None:
            raise BackendError(f"The run of session {session.id} ended without a result. Resume it.")
        code = code_of_stop(finished.stop_reason)
        checked = await _checked(order, session, finished)
        if not order.json:
            changes = await workspace_changes(session.sandbox)
            _summarize(console, session.id, finished, changes, sampled / seconds if seconds else 0.0)
        elif finished.stop_reason != "finished":
            sys.stderr.write(f"To go on: dsv4agent resume {session.id}\n")
        if checked is None:
            return code
        if checked.exit_code == 0:
            sys.stderr.write("The check passed.\n")
            return ExitCode.OK
        said = safe((checked.stdout + checked.stderr).decode("utf-8", "replace")[-_CHECK_SHOWN:].rstrip())
        sys.stderr.write(f"{said}\nThe check failed (exit code {checked.exit_code}).\n")
        if number < order.attempts:
            await session.restore()
            sys.stderr.write(f"Its changes were taken back; attempt {number + 1} of {order.attempts}.\n")
        return ExitCode.CHECK_FAILED


async def _checked(order: Order, session: Session, finished: RunFinished) -> Completed | None:
    """Run the check, if there is one and the run was not stopped by the user."""
    if order.check is None or finished.stop_reason in {StopReason.INTERRUPTED, StopReason.ERROR}:
        return None
    return await Check(order.check).run(session.sandbox)


def _summarize(
    console: Console, session_id: str, finished: RunFinished, changes: Changes | None, speed: float
) -> None:
    console.rule()
    show_changes(console, changes)
    rows = (
        ("stopped", f"{finished.stop_reason.value}: {finished.message}"),
        ("steps", f"{finished.steps} in {finished.seconds:.1f} s"),
        (
            "tokens",
            f"{finished.sampled_tokens} sampled at {speed:.1f} a second, "
            f"{finished.computed_tokens} computed, {finished.reused_tokens} reused",
        ),
        ("session", session_id),
        ("resume", f"dsv4agent resume {shlex.quote(session_id)}"),
    )
    for name, text in rows:
        console.print(f"{name:>8}  {safe(text)}", markup=False, highlight=False, soft_wrap=True)


def show_changes(console: Console, changes: Changes | None) -> None:
    """Print what a session changed; nothing where there is no repository."""
    if changes is None:
        return
    if changes.diff.strip():
        console.print(Syntax(safe(changes.diff).rstrip("\n"), "diff", background_color="default"))
    else:
        console.print("No tracked file differs from the last commit.")
    for name in changes.untracked:
        console.print(f"new file: {safe(name)}", markup=False, highlight=False)
