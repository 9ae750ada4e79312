"""Tools on a real sandbox, called with keyword arguments."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from dsv4agent.sandboxes import Policy, Sandbox, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import Tool, ToolContext, ToolResult
from tests.tools.editor_desk import count_words


def is_still(file: Path) -> bool:
    """Tell whether nobody writes to a file any more."""
    size = file.stat().st_size
    time.sleep(0.2)
    return file.stat().st_size == size > 0


async def appears(file: Path) -> None:
    """Wait until a file exists and is not empty.

    Raises:
        TimeoutError: It does not.
    """
    with anyio.fail_after(10):
        while not file.exists() or not file.stat().st_size:  # noqa: ASYNC110, ASYNC240
            await anyio.sleep(0.02)


class Desk:
    """Tools of one session by name, on one sandbox."""

    def __init__(self, sandbox: Sandbox, tools: Sequence[Tool], spill: Path | None, budget: int) -> None:
        self.sandbox = sandbox
        self.workspace = Path(sandbox.policy.workspace)
        self.tools = {tool.name: tool for tool in tools}
        self.live: list[str] = []
        self.last = ""  # For those who need the text of an earlier call.
        self.context = ToolContext(sandbox, count_words, budget, spill, self._show)

    async def call(self, name: str, /, **args: Any) -> ToolResult:
        return await self.tools[name](self.context, args)

    async def text(self, name: str, /, **args: Any) -> str:
        return (await self.call(name, **args)).text

    async def _show(self, text: str) -> None:
        self.live.append(text)


@asynccontextmanager
async def open_desk(
    folder: Path, tools: Sequence[Tool], provider: ProviderName = "none", budget: int = 4000, **policy: Any
) -> AsyncGenerator[Desk]:
    """Open a sandbox with `folder/workspace`, and close tools and sandbox at the end."""
    (folder / "workspace").mkdir(exist_ok=True)
    async with await choose_sandbox(Policy(str(folder / "workspace"), **policy), provider) as sandbox:
        try:
            yield Desk(sandbox, tools, folder / "spill", budget)
        finally:
            for tool in tools:
                await tool.aclose()
