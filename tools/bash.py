"""The `bash` tool: one shell per session whose working directory and exports last between calls."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.command_output import CommandOutput
from dsv4agent.tools.jobs import MAX_RUNNING, Jobs, TooManyJobs
from dsv4agent.tools.output import empty_input_hint, fit_output
from dsv4agent.tools.shell import Shell, ShellOutcome

DEFAULT_TIMEOUT = 300.0
MAX_TIMEOUT = 600


class BashTool:
    """Runs shell commands one after another in a persistent bash inside the session's sandbox.

    Args:
        timeout: Seconds before a command is stopped.
        jobs: The session's background jobs, shared with `bash_output` and `bash_kill`. With it the model is
            shown the full surface (`timeout`, `run_in_background`, `restart`), without it `command` alone.
    """

    name = "bash"
    description = (
        "Run a command in a persistent bash shell; the working directory and exports last between calls."
    )
    effects = Effects.WORKSPACE

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT, jobs: Jobs | None = None) -> None:
        self._timeout = timeout
        self._jobs = jobs
        self._shells: WeakKeyDictionary[Sandbox, Shell] = WeakKeyDictionary()
        properties: dict[str, Any] = {
            "command": {
                "type": "string",
                "description": "Command to run, written raw, without XML escaping.",
            }
        }
        if jobs is not None:
            properties |= _full_surface(timeout)
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["command"],
            "properties": properties,
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Run `args["command"]` and return its output with the exit code, if that is not 0.

        Raises:
            SandboxError: The sandbox could not start a shell.
        """
        command: str = args["command"]
        try:
            script = command.encode()
        except UnicodeEncodeError:
            return _invalid("the command holds a lone surrogate; write it as plain text")
        if b"\0" in script:
            return _invalid("the command holds a NUL character; write it as plain text")
        shell = self._shells.get(ctx.sandbox)
        if shell is None:
            shell = self._shells[ctx.sandbox] = Shell(ctx.sandbox)
        if args.get("restart"):
            await shell.restart()
        limit: float | None = args.get("timeout")
        if self._jobs is None:
            return await self._run(ctx, shell, script, self._timeout)
        if args.get("run_in_background"):
            return await _start_job(ctx, self._jobs, shell, script, limit)
        return await self._run(ctx, shell, script, limit or self._timeout, self._jobs)

    async def aclose(self) -> None:
        """End all shells and jobs."""
        shells = list(self._shells.values())
        self._shells.clear()
        for shell in shells:
            await shell.aclose()
        if self._jobs is not None:
            await self._jobs.aclose()

    async def _run(
        self, ctx: ToolContext, shell: Shell, script: bytes, timeout: float, jobs: Jobs | None = None
    ) -> ToolResult:
        started = time.monotonic()
        with CommandOutput(ctx.spill_dir, ctx.on_output) as output:
            outcome = await shell.run(script, output, timeout=timeout)
            return _result(ctx, outcome, output, timeout, jobs, 1000 * (time.monotonic() - started))


def announcements(jobs: Jobs) -> str:
    """Return the lines that tell which jobs ended since the last result, each once."""
    return "".join(f"\n[{line}]" for line in jobs.pending_announcements())


def _full_surface(timeout: float) -> dict[str, Any]:
    return {
        "timeout": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TIMEOUT,
            "description": f"Seconds before the command is stopped, {timeout:g} by default.",
        },
        "run_in_background": {
            "type": "boolean",
            "description": "Return at once with a job id for bash_output and bash_kill.",
        },
        "restart": {"type": "boolean", "description": "Start a fresh shell in the workspace first."},
    }


async def _start_job(
    ctx: ToolContext, jobs: Jobs, shell: Shell, script: bytes, limit: float | None
) -> ToolResult:
    state = await shell.snapshot()
    try:
        job = await jobs.start(ctx.sandbox, script, state, spill_dir=ctx.spill_dir, limit=limit)
    except TooManyJobs:
        running = ", ".join(job.job_id for job in jobs.all if job.end is None)
        text = f"too_many_jobs: {MAX_RUNNING} jobs run ({running}); end one with bash_kill or wait for one"
        return ToolResult(text + announcements(jobs), Status.ERROR, "too_many_jobs")
    text = f"started {job.job_id}; bash_output shows what it prints, bash_kill ends it"
    return ToolResult(text + announcements(jobs))


def _result(
    ctx: ToolContext,
    outcome: ShellOutcome,
    output: CommandOutput,
    timeout: float,
    jobs: Jobs | None,
    duration_ms: float,
) -> ToolResult:
    fresh = f"the next call starts in a fresh shell in {shlex.quote(_printable(outcome.directory))}"
    opening = f"timeout: stopped after {timeout:g} s; {fresh}" if outcome.timed_out else ""
    news = "" if jobs is None else announcements(jobs)
    captured = output.captured()
    notes: list[str] = []
    if outcome.limit is not None:
        notes.append(f"stopped: {outcome.limit}")
    if outcome.shell_ended:
        notes.append(f"the shell ended; {fresh}")
    if jobs is not None and outcome.exit_code and (hint := empty_input_hint(captured)):
        notes.append(hint)
    text, truncation = fit_output(
        captured,
        exit_code=outcome.exit_code,
        note="; ".join(notes) or None,
        opening=opening,
        budget=max(ctx.max_output_tokens - (ctx.count_tokens(news) if news else 0), 1),
        count_tokens=ctx.count_tokens,
        save=output.save,
    )
    code = outcome.exit_code
    return ToolResult(
        text=text + news,
        status=Status.TIMEOUT if outcome.timed_out else Status.OK,
        code="timeout" if outcome.timed_out else None,
        exit_code=code,
        signal=code - 128 if code is not None and 128 < code <= 192 else None,
        duration_ms=duration_ms,
        truncated=truncation,
    )


def _printable(name: str) -> str:
    """Return a file name as one line of text: it may hold line ends, escape sequences and foreign bytes."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def _invalid(reason: str) -> ToolResult:
    return ToolResult(text=f"invalid_arguments: {reason}", status=Status.ERROR, code="invalid_arguments")
