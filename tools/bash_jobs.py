"""The `bash_output` and `bash_kill` tools: reading and ending what `bash` started in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dsv4agent.tools.base import Effects, Status, Tool, ToolContext, ToolResult
from dsv4agent.tools.bash import DEFAULT_TIMEOUT, MAX_TIMEOUT, BashTool, announcements
from dsv4agent.tools.jobs import Job, Jobs
from dsv4agent.tools.output import fit_output

_JOB_ID: Mapping[str, Any] = {"type": "string", "description": "Id of the job, such as job-1."}


def shell_tools(timeout: float = DEFAULT_TIMEOUT) -> list[Tool]:
    """Return new `bash`, `bash_output` and `bash_kill` for one session, which share its jobs.

    Args:
        timeout: Seconds before a foreground command is stopped, unless the call says otherwise.
    """
    jobs = Jobs()
    return [BashTool(timeout=timeout, jobs=jobs), BashOutputTool(jobs), BashKillTool(jobs)]


class BashOutputTool:
    """Returns what a background job printed since the last call, and whether it still runs.

    Args:
        jobs: The session's jobs.
    """

    name = "bash_output"
    description = "Read what a background job printed since the last call and whether it still runs."
    effects = Effects.NONE

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["job_id"],
            "properties": {
                "job_id": _JOB_ID,
                "wait": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": MAX_TIMEOUT,
                    "description": "Seconds to wait for the job's end, 0 by default.",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Wait if asked to, and return the new output and the job's state."""
        started = time.monotonic()
        job = self._jobs.get(args["job_id"])
        if job is None:
            return _not_found(self._jobs, args["job_id"])
        await job.wait(args.get("wait", 0))
        return _result(ctx, self._jobs, job, started)

    async def aclose(self) -> None:
        """Do nothing: `bash` ends the jobs."""


class BashKillTool:
    """Ends a background job and everything that it started.

    Args:
        jobs: The session's jobs.
    """

    name = "bash_kill"
    description = "End a background job and everything that it started."
    effects = Effects.WORKSPACE

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["job_id"],
            "properties": {"job_id": _JOB_ID},
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """End the job, if it still runs, and return its last output."""
        started = time.monotonic()
        job = self._jobs.get(args["job_id"])
        if job is None:
            return _not_found(self._jobs, args["job_id"])
        await job.stop("bash_kill")
        return _result(ctx, self._jobs, job, started)

    async def aclose(self) -> None:
        """Do nothing: `bash` ends the jobs."""


def _result(ctx: ToolContext, jobs: Jobs, job: Job, started: float) -> ToolResult:
    """Return a job's new output, its state, and what other jobs ended meanwhile."""
    end = job.end
    job.announced = end is not None  # by this result
    state = f"[{job.job_id} {end or 'is running'}]"
    trailer = f"\n{state}{announcements(jobs)}"
    with job.take_output() as output:
        captured = output.captured()
        text, truncation = fit_output(
            captured,
            budget=max(ctx.max_output_tokens - ctx.count_tokens(trailer), 1),
            count_tokens=ctx.count_tokens,
            save=output.save,
        )
    return ToolResult(
        text=("(no new output)" if output.empty else text) + trailer,
        exit_code=end.exit_code if end else None,
        duration_ms=1000 * (time.monotonic() - started),
        truncated=truncation,
    )


def _not_found(jobs: Jobs, job_id: str) -> ToolResult:
    known = ", ".join(f"{job.job_id} ({job.end or 'running'})" for job in jobs.all) or "none"
    text = f"not_found: no job {job_id}; jobs: {known}"
    return ToolResult(text + announcements(jobs), Status.ERROR, "not_found")
