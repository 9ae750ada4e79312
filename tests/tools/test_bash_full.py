import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from jsonschema import Draft202012Validator

from dsv4agent.sandboxes import SandboxUnavailable
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import BashTool, Status
from dsv4agent.tools.bash_jobs import BashKillTool, BashOutputTool, shell_tools
from dsv4agent.tools.jobs import MAX_RUNNING, Jobs
from tests.tools.editor_desk import count_words
from tests.tools.shell_desk import Desk, appears, is_still, open_desk

pytestmark = pytest.mark.anyio

BEAT = "while :; do echo . >> beat; sleep 0.02; done"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """What the tools do must not depend on the cage; the plainest one starts everywhere."""
    async with open_desk(tmp_path, shell_tools()) as opened:
        yield opened


def test_surfaces() -> None:
    bash, output, kill = shell_tools()
    assert list(bash.parameters["properties"]) == ["command", "timeout", "run_in_background", "restart"]
    assert list(output.parameters["properties"]) == ["job_id", "wait"]
    assert list(kill.parameters["properties"]) == ["job_id"]
    assert list(BashTool().parameters["properties"]) == ["command"]
    for tool in (bash, output, kill):
        Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["additionalProperties"] is False
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", tool.name)
        for text in (tool.description, *(p["description"] for p in tool.parameters["properties"].values())):
            assert text.endswith(".") and len(text) <= 110


async def test_the_call_sets_the_time_limit(desk: Desk) -> None:
    result = await desk.call("bash", command=f"echo begun; {BEAT}", timeout=1)
    assert result.text == (
        f"timeout: stopped after 1 s; the next call starts in a fresh shell in {desk.workspace}\nbegun"
    )
    assert (result.status, result.code) == (Status.TIMEOUT, "timeout")
    assert is_still(desk.workspace / "beat")
    assert await desk.text("bash_output", job_id="job-1") == "not_found: no job job-1; jobs: none"


async def test_restart_begins_anew_in_the_workspace(desk: Desk) -> None:
    await desk.call("bash", command="mkdir d; cd d; export A=1; f() { :; }; sleep 100 &")
    assert await desk.text("bash", command="pwd; echo [$A]; type f; jobs", restart=True) == (
        f"{desk.workspace}\n[]\nbash: line 1: type: f: not found"
    )


async def test_a_job_starts_where_the_shell_is_with_its_exports_and_functions(desk: Desk) -> None:
    await desk.call("bash", command="mkdir d; cd d; export A='x\ny'; B=2; umask 027; false")
    await desk.call("bash", command="f() { echo from f $1; }; g() { echo from g; }; export -f g; (exit 6)")
    script = 'pwd; echo "$A[$B]"; f 7; bash -c g; umask; read z; exit 3'
    started = await desk.call("bash", command=script, run_in_background=True)
    assert started.text == "started job-1; bash_output shows what it prints, bash_kill ends it"
    result = await desk.call("bash_output", job_id="job-1", wait=20)
    assert result.text == f"{desk.workspace}/d\nx\ny[]\nfrom f 7\nfrom g\n0027\n[job-1 finished: exit code 3]"
    assert (result.status, result.exit_code) == (Status.OK, 3)
    assert await desk.text("bash", command="echo $? $PWD") == f"6 {desk.workspace}/d"


async def test_output_comes_once(desk: Desk) -> None:
    await desk.call(
        "bash", command="echo one; until test -e go; do sleep 0.02; done; echo two", run_in_background=True
    )
    with anyio.fail_after(10):
        while (text := await desk.text("bash_output", job_id="job-1")).startswith("(no new output)"):
            assert text == "(no new output)\n[job-1 is running]"
            await anyio.sleep(0.02)
    assert text == "one\n[job-1 is running]"
    (desk.workspace / "go").touch()
    assert await desk.text("bash_output", job_id="job-1", wait=20) == "two\n[job-1 finished: exit code 0]"
    assert await desk.text("bash_output", job_id="job-1") == "(no new output)\n[job-1 finished: exit code 0]"


async def test_waiting_ends_at_its_time(desk: Desk) -> None:
    await desk.call("bash", command="sleep 100", run_in_background=True)
    begin = time.monotonic()
    assert (await desk.text("bash_output", job_id="job-1", wait=1)).endswith("[job-1 is running]")
    assert 0.9 < time.monotonic() - begin < 20


async def test_the_end_of_a_job_is_announced_once_by_the_next_result(tmp_path: Path) -> None:
    jobs = Jobs()
    tools = [BashTool(jobs=jobs), BashOutputTool(jobs), BashKillTool(jobs)]
    async with open_desk(tmp_path, tools) as desk:
        texts: list[str] = []
        for code in (4, 0, 5):
            texts.append(await desk.text("bash", command=f"exit {code}", run_in_background=True))
            await jobs.all[-1].wait(20)
        assert [text.split("\n")[1:] for text in texts] == [
            [],
            ["[job-1 finished: exit code 4]"],
            ["[job-2 finished: exit code 0]"],
        ]
        assert await desk.text("bash_output", job_id="job-3") == (
            "(no new output)\n[job-3 finished: exit code 5]"
        )
        await desk.call("bash", command="sleep 100", run_in_background=True)
        await desk.call("bash_kill", job_id="job-4")
        assert await desk.text("bash", command="(exit 1)") == "[exit code: 1]"
        await desk.call("bash", command="true", run_in_background=True)
        await jobs.all[-1].wait(20)
        assert await desk.text("bash", command="echo out; (exit 1)") == (
            "out\n[exit code: 1]\n[job-5 finished: exit code 0]"
        )
        assert jobs.pending_announcements() == []
        assert await desk.text("bash", command="true") == "(no output)"


async def test_bash_kill_ends_the_tree_and_returns_the_last_output(desk: Desk) -> None:
    command = f'trap "" TERM; echo up; (setsid bash -c "{BEAT}") & {BEAT}'
    await desk.call("bash", command=command, run_in_background=True)
    await appears(desk.workspace / "beat")
    assert await desk.text("bash_kill", job_id="job-1") == "up\n[job-1 stopped: bash_kill]"
    assert is_still(desk.workspace / "beat")
    again = await desk.call("bash_kill", job_id="job-1")
    assert (again.text, again.status) == ("(no new output)\n[job-1 stopped: bash_kill]", Status.OK)
    assert await desk.text("bash", command="echo alive") == "alive"


async def test_a_job_outlives_a_stopped_shell(desk: Desk) -> None:
    await desk.call("bash", command="until test -e go; do sleep 0.02; done", run_in_background=True)
    await desk.call("bash", command="sleep 100", timeout=1)
    await desk.call("bash", command="touch go", restart=True)
    assert (await desk.text("bash_output", job_id="job-1", wait=20)).endswith("finished: exit code 0]")


async def test_a_job_with_a_time_limit(desk: Desk) -> None:
    await desk.call("bash", command=BEAT, run_in_background=True, timeout=1)
    result = await desk.call("bash_output", job_id="job-1", wait=20)
    assert (result.text, result.exit_code) == (
        "(no new output)\n[job-1 stopped: time limit of 1 s]",
        None,
    )
    assert is_still(desk.workspace / "beat")


async def test_so_many_jobs_run_and_no_more(desk: Desk) -> None:
    for _ in range(MAX_RUNNING):
        await desk.call("bash", command="sleep 100", run_in_background=True)
    refused = await desk.call("bash", command="touch no", run_in_background=True)
    assert refused.code == "too_many_jobs" and refused.text.startswith("too_many_jobs: 8 jobs run (job-1, ")
    await desk.call("bash_kill", job_id="job-3")
    assert "job-9" in await desk.text("bash", command="true", run_in_background=True)


async def test_long_output_of_a_job_is_cut_and_kept(tmp_path: Path) -> None:
    async with open_desk(tmp_path, shell_tools(), budget=300) as desk:
        await desk.call("bash", command="seq 1 200000", run_in_background=True)
        result = await desk.call("bash_output", job_id="job-1", wait=30)
        assert count_words(result.text) <= 300
        assert result.text.startswith("1\n2\n")
        assert result.text.endswith("\n200000\n[job-1 finished: exit code 0]")
        kept = tmp_path / "spill" / "job-1.txt"
        assert result.truncated is not None and result.truncated.path == kept
        assert kept.read_text() == "".join(f"{n}\n" for n in range(1, 200001))


async def test_programs_that_want_input_fail_fast_with_a_hint(desk: Desk) -> None:
    hint = "[standard input is empty and no terminal: give input with a pipe, < FILE or an option]"
    failed = await desk.text("bash", command="python -c 'input()'")
    assert failed.endswith(f"EOFError: EOF when reading a line\n{hint}\n[exit code: 1]")
    assert hint not in await desk.text("bash", command="cat; read x; grep -q x")
    assert hint not in await desk.text("bash", command="echo 'EOFError: EOF when reading a line'")


@pytest.mark.parametrize("provider", ["bubblewrap", "landlock"])
async def test_jobs_in_real_cages(provider: ProviderName, tmp_path: Path) -> None:
    try:
        async with open_desk(tmp_path, shell_tools(), provider) as desk:
            await desk.call("bash", command="export A=1; mkdir d; cd d")
            await desk.call("bash", command="echo $A $PWD; sh -c 'kill -9 $$'", run_in_background=True)
            result = await desk.call("bash_output", job_id="job-1", wait=20)
            assert result.text == f"1 {desk.workspace}/d\nKilled\n[job-1 finished: exit code 137]" or (
                result.exit_code == 137 and result.text.startswith(f"1 {desk.workspace}/d\n")
            )
            await desk.call("bash", command=f"cd ..; {BEAT}", run_in_background=True)
            await appears(desk.workspace / "beat")
            assert (await desk.text("bash_kill", job_id="job-2")).endswith("[job-2 stopped: bash_kill]")
            assert is_still(desk.workspace / "beat")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
