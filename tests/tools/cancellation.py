"""Cancelling tools at random moments: what is left afterwards, and whether they still work.

`ROWS` is the table. A tool joins with one row; what must hold for all of them is checked by `Sweep`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import anyio

from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.sandboxes.process_tree import descendants
from dsv4agent.tools import StrReplaceEditor, Tool
from dsv4agent.tools.bash_jobs import shell_tools
from dsv4agent.tools.notes import Notes
from dsv4agent.tools.python import PythonTool
from tests.tools.shell_desk import Desk, open_desk

PATIENCE = 5.0
"""Seconds in which a killed process must be gone."""
SHORTEST = 5e-5
"""Seconds before the earliest cancellation, besides those before the call's first step."""

LISTEN = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(1000)"
)


@dataclass(frozen=True)
class Trial:
    """One cancellation.

    Attributes:
        number: From 0, within its row.
        sleep: Argument of `sleep` that no other process has, so that the trial's processes are known by it.
        port: A free port, on which only the trial's processes may listen.
    """

    number: int
    sleep: str
    port: int


Call = tuple[str, Mapping[str, Any]]
Step = Callable[[Desk, Trial], Awaitable[None]]


async def nothing(desk: Desk, trial: Trial) -> None:
    """Need no preparation, or no check but those for all tools."""


@dataclass(frozen=True)
class Row:
    """How one tool is cancelled, and what must hold afterwards.

    Attributes:
        name: Of the row.
        tools: Makes the tools.
        call: The call to cancel.
        longest: Seconds before the latest cancellation; the moments are log-uniform.
        again: A call that must work afterwards, and a pattern that its whole text must match.
        before: Prepares a trial.
        after: Checks what only this tool promises, and ends what may have gone on (a background job).
    """

    name: str
    tools: Callable[[], Sequence[Tool]]
    call: Callable[[Trial], Call]
    longest: float
    again: tuple[Call, str]
    before: Step = nothing
    after: Step = nothing


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
        async with open_desk(self._folder, self._row.tools(), self._provider) as desk:
            for number in range(count):
                sleep = f"1000.{os.getpid()}{number:05}"
                cancelled += await self._try(desk, Trial(number, sleep, self._port))
        left = set(descendants(os.getpid())) - before
        assert not left, f"{self._row.name}: processes outlive the sandbox: {_command_lines(left)}"
        return cancelled

    async def _try(self, desk: Desk, trial: Trial) -> bool:
        row = self._row
        await row.before(desk, trial)
        tool, args = row.call(trial)
        delay = SHORTEST * (row.longest / SHORTEST) ** self._random.random() if trial.number % 10 else 0.0
        where = f"{row.name}, trial {trial.number}, cancelled after {delay:.6f} s"
        with anyio.CancelScope(deadline=anyio.current_time() + delay) as scope:
            await desk.call(tool, **args)
        await row.after(desk, trial)
        assert await _comes_true(lambda: not _with_argument(trial.sleep)), f"{where}: a process is left"
        assert await _comes_true(lambda: not _listens(trial.port)), f"{where}: port {trial.port} is left open"
        temporary = [path.name for path in desk.workspace.rglob(".dsv4agent-*")]
        assert not temporary, f"{where}: half-written files: {temporary}"
        (tool, args), expected = row.again
        text = await desk.text(tool, **args)
        assert re.fullmatch(expected, text, re.DOTALL), f"{where}: afterwards: {text[:300]!r}"
        return scope.cancel_called


async def _end_job(desk: Desk, trial: Trial) -> None:
    """End the trial's job, if it was started; it must be known by an id, or not run at all."""
    listed = await desk.text("bash_output", job_id="none")
    for job_id in re.findall(r"(job-\d+) \(running\)", listed):
        assert await _comes_true(lambda: bool(_with_argument(trial.sleep))), f"{job_id} does not run"
        await desk.call("bash_kill", job_id=job_id)


async def _start_job(desk: Desk, trial: Trial) -> None:
    await desk.call("bash", command=f"echo up {trial.number}; {_noise(trial)}", run_in_background=True)
    assert await _comes_true(lambda: bool(_with_argument(trial.sleep)))


async def _job_goes_on_and_lost_nothing(desk: Desk, trial: Trial) -> None:
    assert _with_argument(trial.sleep), "the job ended with the call that only watched it"
    text = await desk.text("bash_output", job_id=f"job-{trial.number + 1}")
    assert text == f"up {trial.number}\n[job-{trial.number + 1} is running]", text
    await _end_job(desk, trial)


def _noise(trial: Trial) -> str:
    """Return a command that starts a daemon and a listener, and goes on itself."""
    # Not every sandbox lets a program listen; that it cannot is no news here.
    listener = f'{sys.executable} -S -c "{LISTEN}" {trial.port} 2>/dev/null'
    return f"setsid sleep {trial.sleep} & {listener} & sleep {trial.sleep}"


def _python(trial: Trial) -> Call:
    code = (
        "import contextlib, socket, subprocess, time\n"
        f"subprocess.Popen(['sleep', '{trial.sleep}'])\n"
        "try:\n"
        f"    server = socket.create_server(('127.0.0.1', {trial.port}))\n"
        "except PermissionError:\n"
        "    server = contextlib.nullcontext()\n"
        "with server:\n"
        "    while True: time.sleep(0.001)\n"
    )
    return "python", {"code": code}


def _generation(number: int) -> str:
    """Return a text of a megabyte that tells its number at both ends."""
    return f"begin {number}\n" + "filler line\n" * 90_000 + f"end {number}\n"


def _whole(text: str) -> int:
    """Return the number of a generation that was written whole."""
    found = re.search(r"begin (\d+)\n(?:filler line\n)*end (\d+)\s*$", text)
    assert found is not None and found[1] == found[2], f"half-written: {text[:40]!r}...{text[-40:]!r}"
    return int(found[1])


async def _old_file(desk: Desk, trial: Trial) -> None:
    (desk.workspace / "file").write_text(_generation(2 * trial.number))
    await desk.call("str_replace_editor", command="view", path="file", view_range=[1, 2])


async def _file_is_old_or_new(desk: Desk, trial: Trial) -> None:
    number = _whole((desk.workspace / "file").read_text())
    assert number in {2 * trial.number, 2 * trial.number + 1}


def _edit(trial: Trial) -> Call:
    text = _generation(2 * trial.number + 1)
    return "str_replace_editor", {"command": "create", "path": "file", "file_text": text}


async def _old_note(desk: Desk, trial: Trial) -> None:
    await desk.call("notes", action="write", name="note", text=_note(2 * trial.number))


async def _note_is_old_or_new(desk: Desk, trial: Trial) -> None:
    number = _whole((desk.workspace / ".dsv4agent/notes/note.md").read_text())
    assert number in {2 * trial.number, 2 * trial.number + 1}


def _note(number: int) -> str:
    return f"begin {number}\n" + "filler line\n" * 5000 + f"end {number}\n"


ROWS: Mapping[str, Row] = {
    row.name: row
    for row in (
        Row(
            "bash",
            shell_tools,
            lambda trial: ("bash", {"command": _noise(trial)}),
            longest=0.3,
            again=(("bash", {"command": "echo works"}), "works"),
        ),
        Row(
            "bash in the background",
            shell_tools,
            lambda trial: ("bash", {"command": _noise(trial), "run_in_background": True}),
            longest=0.003,
            after=_end_job,
            again=(("bash", {"command": "echo works"}), r"works(\n\[job-\d+ stopped: bash_kill\])?"),
        ),
        Row(
            "bash_output",
            shell_tools,
            lambda trial: ("bash_output", {"job_id": f"job-{trial.number + 1}", "wait": 600}),
            longest=0.2,
            before=_start_job,
            after=_job_goes_on_and_lost_nothing,
            again=(("bash", {"command": "echo works"}), "works"),
        ),
        Row(
            "python",
            lambda: [PythonTool()],
            _python,
            longest=0.3,
            again=(("python", {"code": "6 * 7"}), "42"),
        ),
        Row(
            "notes",
            lambda: [Notes()],
            lambda trial: ("notes", {"action": "write", "name": "note", "text": _note(2 * trial.number + 1)}),
            longest=0.004,
            before=_old_note,
            after=_note_is_old_or_new,
            again=(("notes", {"action": "append", "name": "other", "text": "x"}), r"(Wrote|Appended).*"),
        ),
        Row(
            "str_replace_editor",
            lambda: [StrReplaceEditor()],
            _edit,
            longest=0.012,
            before=_old_file,
            after=_file_is_old_or_new,
            again=(
                ("str_replace_editor", {"command": "view", "path": "file", "view_range": [1, 1]}),
                ".*begin.*",
            ),
        ),
    )
}


async def _comes_true(condition: Callable[[], bool]) -> bool:
    """Wait for a condition: a process takes a moment to come, and a killed one to go."""
    with anyio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.005)
    return condition()


def _with_argument(argument: str) -> list[int]:
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


def _listens(port: int) -> bool:
    """Tell whether anyone on this machine listens on a port of 127.0.0.1."""
    address = f":{port:04X} "
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(address in line.split(maxsplit=2)[1] + " " and line.split()[3] == "0A" for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _command_lines(pids: set[int]) -> list[str]:
    lines: list[str] = []
    for pid in pids:
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200])
        except OSError:
            pass  # It ended meanwhile.
    return lines
