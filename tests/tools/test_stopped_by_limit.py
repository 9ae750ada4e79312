"""What the model reads when the sandbox's limit of memory ends a command, a job or an interpreter."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import ResourceLimits, SandboxUnavailable
from dsv4agent.tools import Status
from dsv4agent.tools.bash_jobs import shell_tools
from dsv4agent.tools.python import PythonTool
from tests.tools.shell_desk import Desk, open_desk

pytestmark = pytest.mark.anyio

LIMIT = "memory limit of 256 MiB"
EAT = "held = b'x' * (400 << 20); import time; time.sleep(60)"
EATER = f'python3 -c "{EAT}"'


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    limits = ResourceLimits(memory_bytes=256 << 20)
    try:
        async with open_desk(tmp_path, [*shell_tools(), PythonTool()], "bubblewrap", limits=limits) as opened:
            yield opened
    except SandboxUnavailable as error:
        pytest.skip(str(error))


async def test_bash_says_so_each_time(desk: Desk) -> None:
    for _ in range(2):
        result = await desk.call("bash", command=f"echo begun; {EATER}")
        assert re.fullmatch(
            rf"begun\n\[stopped: {LIMIT}(; the shell ended; the next call starts in a fresh shell in .*)?\]\n"
            r"\[exit code: 137\]",
            result.text,
        ), result.text
        assert await desk.text("bash", command="echo on") == "on"


async def test_bash_says_what_ended_the_shell_between_two_calls(desk: Desk) -> None:
    await desk.call("bash", command=f"export A=1; {{ {EATER}; }} >/dev/null 2>&1 &")
    gone = ""
    with anyio.fail_after(20):
        while f"stopped: {LIMIT}" not in gone:
            await anyio.sleep(0.1)
            gone = await desk.text("bash", command=":")
    assert await desk.text("bash", command="echo [$A]") == "[]"


async def test_bash_output_names_it_as_the_reason(desk: Desk) -> None:
    await desk.call("bash", command=f"echo begun; {EATER}", run_in_background=True)
    result = await desk.call("bash_output", job_id="job-1", wait=60)
    assert result.text == f"begun\n[job-1 stopped: {LIMIT}]"
    assert result.exit_code is None
    assert await desk.text("bash", command="echo on") == "on"


async def test_python_names_it_as_the_cause(desk: Desk) -> None:
    result = await desk.call("python", code=f"print('begun'); {EAT}")
    fresh = "the next call starts a fresh interpreter without the variables"
    assert result.text == f"crashed: the interpreter was stopped by the {LIMIT}; {fresh}\nbegun"
    assert (result.status, result.code) == (Status.ERROR, "crashed")
    assert await desk.text("python", code="6 * 7") == "42"
