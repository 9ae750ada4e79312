"""The table of tools that are cancelled; here the shell, the interpreter, notes and the editor."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from dsv4agent.tools import StrReplaceEditor
from dsv4agent.tools.bash_jobs import shell_tools
from dsv4agent.tools.notes import Notes
from dsv4agent.tools.python import PythonTool
from tests.tools.cancel_rows_files import FILE_ROWS, generation, whole
from tests.tools.cancel_rows_git import GIT_ROWS
from tests.tools.cancel_rows_web import WEB_ROWS
from tests.tools.cancellation import Call, Row, Trial, comes_true, with_argument
from tests.tools.shell_desk import Desk

LISTEN = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(1000)"
)
_SHELL = r"__status\(\) "


async def _end_job(desk: Desk, trial: Trial) -> None:
    """End the trial's job, if it was started; it must be known by an id, or not run at all."""
    listed = await desk.text("bash_output", job_id="none")
    for job_id in re.findall(r"(job-\d+) \(running\)", listed):
        assert await comes_true(lambda: bool(with_argument(trial.sleep))), f"{job_id} does not run"
        await desk.call("bash_kill", job_id=job_id)


async def _start_job(desk: Desk, trial: Trial) -> None:
    await desk.call("bash", command=f"echo up {trial.number}; {_noise(trial)}", run_in_background=True)
    assert await comes_true(lambda: bool(with_argument(trial.sleep)))


async def _job_goes_on_and_lost_nothing(desk: Desk, trial: Trial) -> None:
    assert with_argument(trial.sleep), "the job ended with the call that only watched it"
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


async def _old_file(desk: Desk, trial: Trial) -> None:
    (desk.workspace / "file").write_text(generation(2 * trial.number))
    await desk.call("str_replace_editor", command="view", path="file", view_range=[1, 2])


async def _file_is_old_or_new(desk: Desk, trial: Trial) -> None:
    number = whole((desk.workspace / "file").read_text())
    assert number in {2 * trial.number, 2 * trial.number + 1}


def _edit(trial: Trial) -> Call:
    text = generation(2 * trial.number + 1)
    return "str_replace_editor", {"command": "create", "path": "file", "file_text": text}


async def _old_note(desk: Desk, trial: Trial) -> None:
    await desk.call("notes", action="write", name="note", text=_note(2 * trial.number))


async def _note_is_old_or_new(desk: Desk, trial: Trial) -> None:
    number = whole((desk.workspace / ".dsv4agent/notes/note.md").read_text())
    assert number in {2 * trial.number, 2 * trial.number + 1}


def _note(number: int) -> str:
    return f"begin {number}\n" + "filler line\n" * 5000 + f"end {number}\n"


def _echo(trial: Trial) -> Call:
    return "bash", {"command": "echo works"}


_ROWS = (
    Row(
        "bash",
        shell_tools,
        lambda _, trial: ("bash", {"command": _noise(trial)}),
        longest=0.3,
        again=_echo,
        works="works",
        stays=_SHELL,
    ),
    Row(
        "bash in the background",
        shell_tools,
        lambda _, trial: ("bash", {"command": _noise(trial), "run_in_background": True}),
        longest=0.003,
        after=_end_job,
        again=_echo,
        works=r"works(\n\[job-\d+ stopped: bash_kill\])?",
        stays=_SHELL,
        stays_when_cut=_SHELL,
        trials=16,
    ),
    Row(
        "bash_output",
        shell_tools,
        lambda _, trial: ("bash_output", {"job_id": f"job-{trial.number + 1}", "wait": 600}),
        longest=0.2,
        before=_start_job,
        after=_job_goes_on_and_lost_nothing,
        again=_echo,
        works="works",
        stays=_SHELL,
    ),
    Row(
        "python",
        lambda: [PythonTool()],
        lambda _, trial: _python(trial),
        longest=0.3,
        again=lambda _: ("python", {"code": "6 * 7"}),
        works="42",
        stays="python_server",
        stays_when_cut="python_server",
    ),
    Row(
        "notes",
        lambda: [Notes()],
        lambda _, trial: ("notes", {"action": "write", "name": "note", "text": _note(2 * trial.number + 1)}),
        longest=0.004,
        before=_old_note,
        after=_note_is_old_or_new,
        again=lambda _: ("notes", {"action": "append", "name": "other", "text": "x"}),
        works=r"(Wrote|Appended).*",
        trials=12,
    ),
    Row(
        "str_replace_editor",
        lambda: [StrReplaceEditor()],
        lambda _, trial: _edit(trial),
        longest=0.012,
        before=_old_file,
        after=_file_is_old_or_new,
        again=lambda _: ("str_replace_editor", {"command": "view", "path": "file", "view_range": [1, 1]}),
        works=".*begin.*",
    ),
)

ROWS: Mapping[str, Row] = {row.name: row for row in (*_ROWS, *FILE_ROWS, *GIT_ROWS, *WEB_ROWS)}
