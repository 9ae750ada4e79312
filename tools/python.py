"""The `python` tool: one interpreter per session whose variables last between calls."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.bash import DEFAULT_TIMEOUT, MAX_TIMEOUT
from dsv4agent.tools.command_output import CommandOutput
from dsv4agent.tools.interpreter import CodeOutcome, Interpreter
from dsv4agent.tools.output import empty_input_hint, fit_output

_FRESH = "the next call starts a fresh interpreter without the variables"


class PythonTool:
    """Runs Python code, call after call, in one interpreter inside the session's sandbox.

    Args:
        timeout: Seconds before a call's code is interrupted, unless the call says otherwise.
    """

    name = "python"
    description = "Run Python code in a persistent interpreter and show what it prints and its last value."
    effects = Effects.WORKSPACE

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self._interpreters: WeakKeyDictionary[Sandbox, Interpreter] = WeakKeyDictionary()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["code"],
            "properties": {
                "code": {
                    "type": "string",
                    "description": "Code to run; variables last between calls, and await works at top level.",
                },
                "timeout": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_TIMEOUT,
                    "description": f"Seconds before the code is interrupted, {timeout:g} by default.",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Run `args["code"]` and return what it printed, the last value and the traceback, if any.

        Raises:
            SandboxError: The sandbox could not start an interpreter.
        """
        code: str = args["code"]
        timeout: float = args.get("timeout") or self._timeout
        interpreter = self._interpreters.get(ctx.sandbox)
        if interpreter is None:
            interpreter = self._interpreters[ctx.sandbox] = Interpreter(ctx.sandbox)
        started = time.monotonic()
        with CommandOutput(ctx.spill_dir, ctx.on_output, name="python") as output:
            outcome = await interpreter.run(code, output, timeout=timeout)
            return _result(ctx, outcome, output, timeout, 1000 * (time.monotonic() - started))

    async def aclose(self) -> None:
        """End all interpreters."""
        interpreters = list(self._interpreters.values())
        self._interpreters.clear()
        for interpreter in interpreters:
            await interpreter.aclose()


def _result(
    ctx: ToolContext, outcome: CodeOutcome, output: CommandOutput, timeout: float, duration_ms: float
) -> ToolResult:
    status, code, opening = _judge(outcome, timeout)
    captured = output.captured()
    note = empty_input_hint(captured) if outcome.raised else None
    if outcome.limit is not None:
        note = f"stopped: {outcome.limit}"
    elif outcome.exited is not None:
        note = f"sys.exit({outcome.exited}) was called; the interpreter goes on"
    text, truncation = fit_output(
        captured,
        note=note,
        opening=opening,
        budget=ctx.max_output_tokens,
        count_tokens=ctx.count_tokens,
        save=output.save,
    )
    exit_code = outcome.exit_code if not outcome.alive else int(outcome.raised)
    return ToolResult(
        text=text,
        status=status,
        code=code,
        exit_code=None if outcome.timed_out else exit_code,
        signal=_signal(outcome.exit_code),
        duration_ms=duration_ms,
        truncated=truncation,
    )


def _judge(outcome: CodeOutcome, timeout: float) -> tuple[Status, str | None, str]:
    """Return status, code and the line before the output."""
    if outcome.timed_out and outcome.alive:
        return Status.TIMEOUT, "timeout", f"timeout: interrupted after {timeout:g} s; variables are kept"
    if outcome.timed_out:
        return Status.TIMEOUT, "timeout", f"timeout: stopped after {timeout:g} s; {_FRESH}"
    if outcome.alive:
        return Status.OK, None, ""
    number = _signal(outcome.exit_code)
    cause = f"the interpreter ended with exit code {outcome.exit_code}"
    if outcome.exit_code is None:
        cause = "the code wrote to the interpreter's private descriptors, which was stopped"
    if outcome.limit is not None:
        cause = f"the interpreter was stopped by the {outcome.limit}"
    elif number is not None:
        cause = f"the interpreter was killed by {_signal_name(number)}"
    return Status.ERROR, "crashed", f"crashed: {cause}; {_FRESH}"


def _signal(exit_code: int | None) -> int | None:
    return exit_code - 128 if exit_code is not None and 128 < exit_code <= 192 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
