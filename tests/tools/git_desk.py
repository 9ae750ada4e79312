"""A real repository, a sandbox around it, and the git tool on top."""

import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dsv4agent.sandboxes import Policy, Sandbox, choose_sandbox
from dsv4agent.sandboxes.choice import ProviderName
from dsv4agent.tools import ToolContext, ToolResult
from dsv4agent.tools.checkpoints import Checkpoints
from dsv4agent.tools.git import GitTool
from tests.tools.editor_desk import count_words


class GitDesk:
    """A workspace with a repository; calls the tool as the model does and git as the user does."""

    def __init__(self, sandbox: Sandbox, folder: Path, session: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.session = session
        self.tool = GitTool(worktrees=session)
        self.context = ToolContext(sandbox, count_words, 2000, session / "spill")
        self.checkpoints = Checkpoints(sandbox, "session")

    async def call(self, action: str, **arguments: Any) -> ToolResult:
        return await self.tool(self.context, {"action": action, **arguments})

    async def text(self, action: str, **arguments: Any) -> str:
        return (await self.call(action, **arguments)).text

    def git(self, *args: str, input: bytes = b"", folder: Path | None = None) -> str:
        """Run git as the user."""
        return user_git(folder or self.folder, *args, input=input)

    def write(self, name: str | bytes, data: str | bytes) -> Path:
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def start(self) -> None:
        """Make the repository with one commit of two files."""
        self.git("init", "-q", "-b", "main")
        self.write("a.txt", "one\ntwo\n")
        self.write("src/b.py", "b = 1\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "first")

    def files(self) -> dict[str, bytes]:
        """Return every file outside of `.git`."""
        found: dict[str, bytes] = {}
        for folder, names, files in os.walk(self.folder):
            if ".git" in names and folder == str(self.folder):
                names.remove(".git")
            for name in files:
                path = Path(folder, name)
                if path.is_fifo():
                    continue
                data = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
                found[str(path.relative_to(self.folder))] = data
        return found


def user_git(folder: Path, *args: str, input: bytes = b"") -> str:
    """Run git as the user, without this machine's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "user", f"GIT_{role}_EMAIL": "user@localhost"}
    done = subprocess.run(["git", *args], cwd=folder, env=environment, input=input, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode("utf-8", "surrogateescape")


@asynccontextmanager
async def open_desk(tmp_path: Path, provider: ProviderName = "none") -> AsyncGenerator[GitDesk]:
    """Make workspace and session folder and open a sandbox on them."""
    folder, session = tmp_path / "workspace", tmp_path / "session"
    folder.mkdir()
    session.mkdir()
    async with await choose_sandbox(Policy(str(folder), writable=[str(session)]), provider) as sandbox:
        desk = GitDesk(sandbox, folder, session)
        yield desk
        await desk.tool.aclose()
        await desk.checkpoints.aclose()
