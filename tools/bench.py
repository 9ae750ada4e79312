"""Measures what the sandbox adds to a command: `python -m dsv4agent.tools.bench [--runs N] [--json]`.

For each provider that works here: a `bash` call of `true` in a running shell, and a new sandbox with its
first `true`. Beside them, in the same run: `subprocess.run(["true"])`, and `true` in a bash over pipes
without any sandbox. All are measured in turns, so that a change of the machine's load meets all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

import anyio

from dsv4agent.sandboxes import Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools.base import ToolContext
from dsv4agent.tools.bash import BashTool

PROVIDERS: Sequence[ProviderName] = ("bubblewrap", "landlock", "none")
LEAST_RUNS = 50
_WARM_UP = 3

Measured = Callable[[], Awaitable[float]]
"""Runs what is measured once and returns the seconds that it took."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds over all runs of one measurement."""

    name: str
    runs: int
    median_ms: float
    p90_ms: float


async def measure(runs: int) -> tuple[list[Timing], list[str]]:
    """Return the timings, and why a provider is missing."""
    missing: list[str] = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dsv4agent-bench-", dir="/var/tmp"))
        measured: dict[str, Measured] = {
            "subprocess.run(['true'])": _plain_subprocess,
            "bash over pipes, no sandbox": _plain_bash(stack),
        }
        for provider in PROVIDERS:
            try:
                sandbox = await stack.enter_async_context(await choose_sandbox(Policy(folder), provider))
            except SandboxUnavailable as error:
                missing.append(f"{provider}: {error}")
                continue
            measured[f"bash call, {provider}"] = _tool_call(sandbox, stack)
            measured[f"new sandbox and first command, {provider}"] = _new_sandbox(folder, provider)
        times: dict[str, list[float]] = {name: [] for name in measured}
        for run in range(runs + _WARM_UP):
            for name, once in measured.items():
                seconds = await once()
                if run >= _WARM_UP:
                    times[name].append(1000 * seconds)
    return [_timing(name, values) for name, values in times.items()], missing


async def _plain_subprocess() -> float:
    begin = time.perf_counter()
    subprocess.run(["true"], check=True)  # noqa: ASYNC221
    return time.perf_counter() - begin


def _plain_bash(stack: AsyncExitStack) -> Measured:
    """Return a round trip through a bash that says on its output that a command ended."""
    bash = subprocess.Popen(
        ["bash", "--noprofile", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert bash.stdin is not None and bash.stdout is not None
    stack.enter_context(bash)
    stack.callback(bash.kill)
    source, answers = bash.stdin.fileno(), bash.stdout.fileno()

    async def once() -> float:
        begin = time.perf_counter()
        os.write(source, b"true; echo $?\n")
        assert os.read(answers, 10) == b"0\n"
        return time.perf_counter() - begin

    return once


def _tool_call(sandbox: Sandbox, stack: AsyncExitStack) -> Measured:
    tool = BashTool()
    context = ToolContext(sandbox, count_tokens=len, max_output_tokens=4000)
    stack.push_async_callback(tool.aclose)

    async def once() -> float:
        begin = time.perf_counter()
        result = await tool(context, {"command": "true"})
        seconds = time.perf_counter() - begin
        assert result.exit_code == 0, result
        return seconds

    return once


def _new_sandbox(folder: str, provider: ProviderName) -> Measured:
    async def once() -> float:
        begin = time.perf_counter()
        async with await choose_sandbox(Policy(folder), provider) as sandbox:
            done = await sandbox.run(["true"])
            seconds = time.perf_counter() - begin  # closing it is not part of starting it
        assert done.exit_code == 0, done
        return seconds

    return once


def _timing(name: str, values: list[float]) -> Timing:
    return Timing(name, len(values), statistics.median(values), statistics.quantiles(values, n=10)[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help=f"runs of each, at least {LEAST_RUNS}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    timings, missing = anyio.run(measure, max(options.runs, LEAST_RUNS))
    if options.json:
        report = {"timings": [asdict(timing) for timing in timings], "missing": missing}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 0
    lines = [f"{'':44} {'runs':>5} {'median ms':>10} {'p90 ms':>10}"]
    lines += [f"{t.name:44} {t.runs:5} {t.median_ms:10.2f} {t.p90_ms:10.2f}" for t in timings]
    sys.stdout.write("\n".join([*lines, *missing]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
