"""Questions of the model to the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import anyio.to_thread
from rich.console import Console

from dsv4agent.cli.views import safe
from dsv4agent.tools import Ask


def terminal_ask(console: Console) -> Ask | None:
    """Return what puts a question on the terminal and reads a line; None if nobody sits at one."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None

    async def ask(question: str, options: Sequence[str]) -> str:
        console.print(f"\n? {safe(question)}", style="bold", markup=False, highlight=False)
        for number, option in enumerate(options, start=1):
            console.print(f"  {number}: {safe(option)}", markup=False, highlight=False)
        # A thread that waits for a line cannot be stopped; it is left behind if the run is.
        line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        return chosen(line, options)

    return ask


def chosen(line: str, options: Sequence[str]) -> str:
    """Return the option that a line names by its number, else the line itself."""
    answer = line.strip()
    if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(options):
        return options[int(answer) - 1]
    return answer
