"""A tool over a real cage and a real folder, which is filled anew for each scenario."""

import os
import shutil
import stat
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dsv4agent.sandboxes import Policy, Sandbox, SandboxUnavailable, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import Tool, ToolContext, ToolResult
from tests.tools.editor_desk import count_words

Content = str | bytes | Callable[[str], object]
"""Text, bytes, or what makes something else at an absolute path."""

PROVIDERS: tuple[ProviderName, ...] = ("landlock", "bubblewrap")


class RealDesk:
    """A workspace of real files under a real policy."""

    def __init__(self, sandbox: Sandbox, root: Path) -> None:
        self.sandbox = sandbox
        self.root = root
        self.workspace = root / "workspace"

    def fill(self, files: Mapping[str, Content]) -> None:
        """Empty the workspace and its neighbour `outside`, then make these files."""
        for folder in (self.workspace, self.root / "outside"):
            folder.mkdir(exist_ok=True)
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        for name, content in files.items():
            path = os.path.normpath(os.path.join(self.workspace, name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if callable(content):
                content(path)
            else:
                Path(path).write_bytes(content.encode() if isinstance(content, str) else content)

    def contents(self) -> dict[str, bytes]:
        """Return what the workspace holds: files' bytes, and a word for what is no file."""
        found: dict[str, bytes] = {}
        for folder, folders, names in os.walk(self.workspace):
            for name in [*folders, *names]:
                path = os.path.join(folder, name)
                mode = os.lstat(path).st_mode
                key = os.path.relpath(path, self.workspace)
                if stat.S_ISLNK(mode):
                    found[key] = b"link to " + os.fsencode(os.readlink(path))
                elif stat.S_ISREG(mode):
                    found[key] = Path(path).read_bytes()
                elif not stat.S_ISDIR(mode):
                    found[key] = b"special"
        return found

    async def call(self, tool: Tool, budget: int = 4000, **arguments: Any) -> ToolResult:
        """Call a tool with a tokenizer of words."""
        return await tool(ToolContext(self.sandbox, count_words, budget), arguments)


@asynccontextmanager
async def open_desk(root: Path, policy: Callable[[str], Policy] = Policy) -> AsyncGenerator[RealDesk]:
    """Open the first provider that works; skip the test where none does."""
    for folder in ("workspace", "outside"):
        (root / folder).mkdir()
    reasons: list[str] = []
    for provider in PROVIDERS:
        try:
            sandbox = await choose_sandbox(policy(str(root / "workspace")), provider)
        except SandboxUnavailable as error:
            reasons.append(str(error))
            continue
        async with sandbox:
            yield RealDesk(sandbox, root)
        return
    pytest.skip("; ".join(reasons))


def link(target: str) -> Callable[[str], object]:
    return lambda path: os.symlink(target, path)


def fifo(path: str) -> object:
    return os.mkfifo(path)


def folder(path: str) -> object:
    return os.makedirs(path, exist_ok=True)


def hard_link(name: str) -> Callable[[str], object]:
    return lambda path: os.link(os.path.join(os.path.dirname(path), name), path)


def with_mode(mode: int, text: str | bytes) -> Callable[[str], object]:
    def make(path: str) -> None:
        Path(path).write_bytes(text.encode() if isinstance(text, str) else text)
        os.chmod(path, mode)

    return make
