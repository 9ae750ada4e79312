"""What a session changed in a git workspace."""

from __future__ import annotations

from dataclasses import dataclass

from dsv4agent.sandboxes import Sandbox


@dataclass(frozen=True)
class Changes:
    """Difference of the working tree to the last commit.

    Attributes:
        diff: Unified diff of tracked files.
        untracked: Files that git does not know and does not ignore.
    """

    diff: str
    untracked: tuple[str, ...]


async def workspace_changes(sandbox: Sandbox) -> Changes | None:
    """Ask git; None if the workspace is no repository with a commit, or has no git.

    Git runs inside the sandbox, because a repository's own configuration can make it run programs.
    """
    workspace = sandbox.policy.workspace
    git = ("git", "-c", "core.quotePath=false", "--no-optional-locks", "-C", workspace)
    try:
        diff = await sandbox.run((*git, "diff", "--no-color", "HEAD", "--", "."), cwd=workspace, timeout=30)
        if diff.exit_code != 0:
            return None
        others = await sandbox.run(
            (*git, "ls-files", "--others", "--exclude-standard", "-z"), cwd=workspace, timeout=30
        )
    except (OSError, TimeoutError):
        return None
    names = others.stdout.decode("utf-8", "replace").split("\0")
    return Changes(diff.stdout.decode("utf-8", "replace"), tuple(name for name in names if name))
