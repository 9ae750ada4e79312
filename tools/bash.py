"""The `bash` tool: one shell per session whose working directory and exports last between calls."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.output import fit_output
from dsv4agent.tools.shell import CommandOutput, Shell, ShellOutcome

DEFAULT_TIMEOUT = 300.0


class BashTool:
    """Runs shell commands one after another in a persistent bash inside the session's sandbox.

    Args:
        timeout: Seconds before a command is stopped.
    """

    name = "bash"
    description = (
        "Run a command in a persistent bash shell; the working directory and exports last between calls."
    )
    effects = Effects.WORKSPACE

    def __init__(self, *, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        self._shells: WeakKeyDictionary[Sandbox, Shell] = WeakKeyDictionary()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["command"],
            "properties": {
                "command": {
                    "type": "string",
                    "description": "Command to run, written raw, without XML escaping.",
                }
            },
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
        started = time.monotonic()
        with CommandOutput(ctx.spill_dir, ctx.on_output) as output:
            outcome = await shell.run(script, output, timeout=self._timeout)
            return self._result(ctx, outcome, output, 1000 * (time.monotonic() - started))

    async def aclose(self) -> None:
        """End all shells."""
        shells = list(self._shells.values())
        self._shells.clear()
        for shell in shells:
            await shell.aclose()

    def _result(
        self, ctx: ToolContext, outcome: ShellOutcome, output: CommandOutput, duration_ms: float
    ) -> ToolResult:
        fresh = f"the next call starts in a fresh shell in {shlex.quote(_printable(outcome.directory))}"
        opening, note = "", None
        if outcome.timed_out:
            opening = f"timeout: stopped after {self._timeout:g} s; {fresh}"
        elif outcome.shell_ended:
            note = f"the shell ended; {fresh}"
        text, truncation = fit_output(
            output.captured(),
            exit_code=outcome.exit_code,
            note=note,
            opening=opening,
            budget=ctx.max_output_tokens,
            count_tokens=ctx.count_tokens,
            save=output.save,
        )
        code = outcome.exit_code
        return ToolResult(
            text=text,
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
