"""What a session changed in a git workspace."""

from __future__ import annotations

from dataclasses import dataclass

from dsv4agent.sandboxes import Sandbox

MOST_BYTES = 1 << 20
"""Bytes of a diff, or of a list of files, that are kept; nobody reads more in a terminal."""


@dataclass(frozen=True)
class Changes:
    """Difference of the working tree to the last commit.

    Attributes:
        diff: Unified diff of tracked files, cut at `MOST_BYTES`.
        untracked: Files that git does not know and does not ignore, cut likewise.
    """

    diff: str
    untracked: tuple[str, ...]


async def workspace_changes(sandbox: Sandbox) -> Changes | None:
    """Ask git; None if the workspace is no repository with a commit, or has no git.

    Git runs inside the sandbox, because a repository's own configuration can make it run programs.
    """
    try:
        diff = await _git(sandbox, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--", ".")
        others = await _git(sandbox, "ls-files", "--others", "--exclude-standard", "-z")
    except (OSError, TimeoutError):
        return None
    if diff is None:
        return None
    names = (others or b"").split(b"\0")
    if len(others or b"") == MOST_BYTES:
        names.pop()  # Its end was cut off.
    return Changes(
        diff.decode("utf-8", "replace"), tuple(name.decode("utf-8", "replace") for name in names if name)
    )


async def _git(sandbox: Sandbox, *words: str) -> bytes | None:
    """Return what git prints, cut at `MOST_BYTES`; None if it fails.

    Cut inside, because this process would have to hold whatever a repository makes git print.
    """
    workspace = sandbox.policy.workspace
    git = ("git", "-c", "core.quotePath=false", "--no-optional-locks", "-C", workspace, *words)
    cut = ("bash", "-c", f'set -o pipefail; "$@" | head -c {MOST_BYTES}', "bash", *git)
    done = await sandbox.run(cut, cwd=workspace, timeout=30)
    return done.stdout if done.exit_code == 0 or len(done.stdout) == MOST_BYTES else None
