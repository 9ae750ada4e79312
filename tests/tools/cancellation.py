"""Cancelling tools at random moments: what is left afterwards, and whether they still work.

A tool joins with one row in `cancel_rows.py`; what must hold for all of them is checked by `Sweep`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import anyio

from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.sandboxes.process_tree import descendants
from dsv4agent.tools import Tool
from tests.tools.shell_desk import Desk, open_desk

PATIENCE = 5.0
"""Seconds in which a killed process must be gone."""
SHORTEST = 5e-5
"""Seconds before the earliest cancellation, besides those before the call's first step."""
TRIALS = 8
"""Trials of a row within the test suite."""


@dataclass(frozen=True)
class Trial:
    """One cancellation.

    Attributes:
        number: From 0, within its row.
        sleep: Argument of `sleep` that no other process has, so that the trial's processes are known by it.
        port: A free port, on which only the trial's processes may listen.
        site: The port that the row's site is served on.
        cut: Whether the call was cut off; known afterwards.
    """

    number: int
    sleep: str
    port: int
    site: int = 0
    cut: bool = False


Call = tuple[str, Mapping[str, Any]]
Step = Callable[[Desk, Trial], Awaitable[None]]


async def nothing(desk: Desk, trial: Trial) -> None:
    """Need no preparation, or no check but those for all tools."""


@contextmanager
def no_site() -> Generator[int]:
    """Serve nothing."""
    yield 0


def no_policy(site: int) -> Mapping[str, Any]:
    """Ask for nothing special."""
    return {}


@dataclass(frozen=True)
class Row:
    """How one tool is cancelled, and what must hold afterwards.

    Attributes:
        name: Of the row.
        tools: Makes the tools.
        call: The call to cancel.
        longest: Seconds before the latest cancellation; the moments are log-uniform.
        again: A call that must work afterwards.
        works: Pattern that the whole text of that call must match.
        before: Prepares a trial.
        after: Checks what only this tool promises, and ends what may have gone on (a background job).
        shortest: Seconds before the earliest cancellation.
        stays: Pattern for the command line of a process that may go on for the next call.
        stays_when_cut: The same if the call was cut off.
        site: Serves, outside of the sandbox, what the calls ask for, and yields its port.
        policy: Fields of the sandbox's policy, from the site's port.
        not_on: Sandboxes in which the tool cannot work.
        trials: Number of trials within the test suite.
    """

    name: str
    tools: Callable[[], Sequence[Tool]]
    call: Callable[[Desk, Trial], Call]
    longest: float
    again: Callable[[Trial], Call]
    works: str
    before: Step = nothing
    after: Step = nothing
    shortest: float = SHORTEST
    stays: str | None = None
    stays_when_cut: str | None = None
    site: Callable[[], AbstractContextManager[int]] = no_site
    policy: Callable[[int], Mapping[str, Any]] = no_policy
    not_on: Set[ProviderName] = frozenset()
    trials: int = TRIALS


class Sweep:
    """Runs the trials of one row on one sandbox."""

    def __init__(self, row: Row, folder: Path, provider: ProviderName, seed: int) -> None:
        self._row = row
        self._folder = folder
        self._provider: ProviderName = provider
        self._random = Random(f"{seed} {row.name}")
        self._port = _free_port()

    async def run(self, count: int) -> int:
        """Run so many trials and return how many calls were cancelled before they ended.

        Raises:
            AssertionError: Something was left, or broken.
        """
        before = set(descendants(os.getpid()))
        cancelled = 0
        with self._row.site() as site:
            policy = self._row.policy(site)
            async with open_desk(self._folder, self._row.tools(), self._provider, **policy) as desk:
                for number in range(count):
                    sleep = f"1000.{os.getpid()}{number:05}"
                    cancelled += await self._try(desk, Trial(number, sleep, self._port, site))
        left = set(descendants(os.getpid())) - before
        assert not left, f"{self._row.name}: processes outlive the sandbox: {_command_lines(left)}"
        return cancelled

    async def _try(self, desk: Desk, trial: Trial) -> bool:
        row = self._row
        await row.before(desk, trial)
        processes, ports = set(descendants(os.getpid())), listening_ports()
        tool, args = row.call(desk, trial)
        share = self._random.random()
        delay = row.shortest * (row.longest / row.shortest) ** share if trial.number % 10 else 0.0
        where = f"{row.name}, trial {trial.number}, cancelled after {delay:.6f} s"
        with anyio.CancelScope(deadline=anyio.current_time() + delay) as scope:
            await desk.call(tool, **args)
        trial = replace(trial, cut=scope.cancelled_caught)
        await row.after(desk, trial)
        assert await comes_true(lambda: not with_argument(trial.sleep)), f"{where}: a process is left"
        assert await comes_true(lambda: not self._strangers(processes, trial)), (
            f"{where}: processes are left: {_command_lines(self._strangers(processes, trial))}"
        )
        assert await comes_true(lambda: listening_ports() <= ports), (
            f"{where}: ports are left open: {listening_ports() - ports}"
        )
        temporary = [path.name for path in desk.workspace.rglob(".dsv4agent-*")]
        assert not temporary, f"{where}: half-written files: {temporary}"
        tool, args = row.again(trial)
        text = await desk.text(tool, **args)
        assert re.fullmatch(row.works, text, re.DOTALL), f"{where}: afterwards: {text[:300]!r}"
        return scope.cancel_called

    def _strangers(self, known: set[int], trial: Trial) -> set[int]:
        """Return the processes below this one that are neither known nor may stay."""
        fresh = set(descendants(os.getpid())) - known
        stays = self._row.stays_when_cut if trial.cut else self._row.stays
        return fresh if stays is None else {pid for pid in fresh if not re.search(stays, command_line(pid))}


async def comes_true(condition: Callable[[], bool]) -> bool:
    """Wait for a condition: a process takes a moment to come, and a killed one to go."""
    with anyio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)
    return condition()


def with_argument(argument: str) -> list[int]:
    """Return the processes of this machine that have an argument."""
    wanted = argument.encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                pass  # It ended meanwhile.
    return found


def listening_ports() -> set[int]:
    """Return the ports that processes below this one listen on, each in its own network."""
    ports: set[int] = set()
    for pid in descendants(os.getpid()):
        try:
            held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and f"socket:[{fields[9]}]" in held:
                        ports.add(int(fields[1].rpartition(":")[2], 16))
        except OSError:
            continue  # It ended meanwhile.
    return ports


def command_line(pid: int) -> str:
    """Return a process's command line, empty if it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _command_lines(pids: set[int]) -> list[str]:
    return [line[:200] for pid in pids if (line := command_line(pid))]
