import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dsv4agent.sandboxes import Policy, Sandbox, choose_sandbox
from dsv4agent.tools.jobs import MAX_REMEMBERED, Jobs
from dsv4agent.tools.shell import ShellState
from tests.tools.shell_desk import appears, is_still

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    (tmp_path / "workspace").mkdir()
    async with await choose_sandbox(Policy(str(tmp_path / "workspace")), "none") as opened:
        yield opened


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    jobs = Jobs()
    yield jobs
    await jobs.aclose()


def here(sandbox: Sandbox) -> ShellState:
    return ShellState(sandbox.policy.workspace)


async def test_ends_are_noticed_without_being_asked_for_and_told_once(jobs: Jobs, sandbox: Sandbox) -> None:
    assert jobs.pending_announcements() == []
    job = await jobs.start(sandbox, b"exit 5", here(sandbox), spill_dir=None)
    await job.wait(20)
    assert jobs.pending_announcements() == ["job-1 finished: exit code 5"]
    assert jobs.pending_announcements() == []


async def test_a_job_that_prints_much_is_not_held_up_and_needs_no_reader(
    jobs: Jobs, sandbox: Sandbox, tmp_path: Path
) -> None:
    job = await jobs.start(sandbox, b"seq 1 700000", here(sandbox), spill_dir=tmp_path / "spill")
    await job.wait(30)
    assert str(job.end) == "finished: exit code 0"
    with job.take_output() as output:
        path = output.save()
        assert output.captured().omitted > 0
    assert path is not None and path.read_bytes().split()[-1] == b"700000"


async def test_children_that_keep_the_pipe_do_not_hold_up_the_end(jobs: Jobs, sandbox: Sandbox) -> None:
    job = await jobs.start(sandbox, b"setsid sleep 100 & echo done", here(sandbox), spill_dir=None)
    await job.wait(20)
    assert str(job.end) == "finished: exit code 0"
    with job.take_output() as output:
        assert output.captured().head == b"done\n"


async def test_a_command_longer_than_an_argument_may_be(jobs: Jobs, sandbox: Sandbox) -> None:
    command = b": '" + b"x" * 300_000 + b"'; echo end"
    job = await jobs.start(sandbox, command, here(sandbox), spill_dir=None)
    await job.wait(20)
    with job.take_output() as output:
        assert output.captured().head == b"end\n"


async def test_a_job_that_cannot_start_says_why(jobs: Jobs, sandbox: Sandbox) -> None:
    state = ShellState(f"{sandbox.policy.workspace}/missing")
    job = await jobs.start(sandbox, b"true", state, spill_dir=None)
    await job.wait(20)
    assert job.end is not None and job.end.exit_code == 127
    with job.take_output() as output:
        assert b"No such file or directory" in output.captured().head


async def test_closing_ends_everything(sandbox: Sandbox, tmp_path: Path) -> None:
    jobs = Jobs()
    beat = b"while :; do echo . >> beat; sleep 0.02; done"
    for _ in range(2):
        await jobs.start(sandbox, beat, here(sandbox), spill_dir=None)
    file = tmp_path / "workspace" / "beat"
    await appears(file)
    await jobs.aclose()
    assert is_still(file)
    assert list(jobs.all) == []


async def test_closing_the_sandbox_first_ends_them_too(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    jobs = Jobs()
    async with await choose_sandbox(Policy(str(tmp_path / "workspace")), "none") as sandbox:
        await jobs.start(sandbox, b"sleep 100", here(sandbox), spill_dir=None)
    job = jobs.get("job-1")
    assert job is not None
    await job.wait(20)
    assert job.end is not None and job.end.exit_code != 0
    await jobs.aclose()


async def test_cancelling_the_start_s_scope_leaves_the_job_alone(jobs: Jobs, sandbox: Sandbox) -> None:
    async with anyio.create_task_group() as group:
        await jobs.start(sandbox, b"sleep 0.3; echo done", here(sandbox), spill_dir=None)
        group.cancel_scope.cancel()
    job = jobs.get("job-1")
    assert job is not None
    await job.wait(20)
    assert str(job.end) == "finished: exit code 0"


async def test_many_jobs_leave_no_descriptors_and_old_ones_are_forgotten(
    jobs: Jobs, sandbox: Sandbox, tmp_path: Path
) -> None:
    spill, before = tmp_path / "spill", 0
    for number in range(MAX_REMEMBERED + 5):
        job = await jobs.start(sandbox, b"true", here(sandbox), spill_dir=spill)
        await job.wait(20)
        if number == 2:
            gc.collect()
            before = len(os.listdir("/proc/self/fd"))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 4 * MAX_REMEMBERED
    assert len(jobs.all) <= MAX_REMEMBERED + 1
    assert jobs.get("job-1") is None
    await jobs.aclose()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
