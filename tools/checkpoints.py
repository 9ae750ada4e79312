"""Checkpoints of a workspace and linked work trees, for the runtime.

A checkpoint is a commit under `refs/dsv4agent/<session>/` that holds the work tree byte for byte. Making one
touches neither HEAD nor the index nor any file of the work tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.git_client import GitClient, GitRefused


class Actor(StrEnum):
    """Who changes files between one checkpoint and the next."""

    AGENT = "agent"
    USER = "user"


@dataclass(frozen=True)
class Checkpoint:
    """A saved state.

    Attributes:
        number: From 1 on, within the session.
        commit: Its commit.
        tree: The tree that is the work tree.
        label: What the caller called it.
        hands_to: Who changes files after it.
        head: Commit at HEAD when it was made, or None before the first one.
        branch: Branch that HEAD named, or None if it was detached.
        index: Tree of the index, or None if it had conflicts.
        time_ns: When it was made, in nanoseconds since 1970.
        skipped: Paths left out: larger than 32 MiB, unreadable, or no plain files.
    """

    number: int
    commit: str
    tree: str
    label: str
    hands_to: Actor
    head: str | None
    branch: str | None
    index: str | None
    time_ns: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """A restore that was done.

    Attributes:
        checkpoint: Number of the checkpoint gone back to.
        before: Number of the checkpoint made right before; restoring that one undoes this restore.
        after: Number of the checkpoint of the result.
        written: Paths created or replaced.
        removed: Paths deleted.
        left: Paths that the agent changed and that could not go back, with the reason.
    """

    checkpoint: int
    before: int
    after: int
    written: tuple[str, ...]
    removed: tuple[str, ...]
    left: Mapping[str, str]


@dataclass(frozen=True)
class Refused:
    """A request that was not met; nothing was changed.

    Attributes:
        code: `head_moved`, `changed_meanwhile`, `not_found`, `pruned`, `not_a_repository`, ...
        reason: The next useful step.
        paths: The paths it is about.
    """

    code: str
    reason: str
    paths: tuple[str, ...] = ()


class Checkpoints:
    """The checkpoints of one session.

    Whose a change is follows from the checkpoints themselves: what changed after one that hands to the agent
    is the agent's, what changed after one that hands to the user is the user's. So a runtime saves one before
    each step, handing to the agent, and one after it, handing to the user.

    Args:
        sandbox: The only way to the workspace.
        session_id: Letters, digits, `-` and `_`.
        folder: Top of the work tree; the sandbox's workspace if not given.
        store: For a workspace that is no git repository: writable folder outside it for a private bare one,
            made if missing. Without it such a workspace has no checkpoints.
    """

    def __init__(
        self, sandbox: Sandbox, session_id: str, *, folder: str | None = None, store: str | None = None
    ) -> None:
        self._sandbox = sandbox
        self._session_id = session_id
        self._folder = folder or sandbox.policy.workspace
        self._store = store

    async def save(self, label: str, *, hands_to: Actor = Actor.AGENT) -> Checkpoint:
        """Save the work tree: tracked files and those not ignored, staged or not.

        Args:
            label: One line that says what for.
            hands_to: Who changes files from now on.

        Raises:
            GitRefused: `not_a_repository`, `unsupported_repository`, `too_large`, `permission_denied`,
                `no_space` or `git_failed`.
            SandboxError: The sandbox failed.
        """
        return _checkpoint(await self._ask("save", label=label, hands_to=hands_to.value))

    async def restore(self, checkpoint: Checkpoint | int) -> Restored | Refused:
        """Take the files that the agent alone changed since a checkpoint back to it.

        Files that the user changed are left as they are. The state right before is saved first.

        Raises:
            SandboxError: The sandbox failed. If that cut the restore, the next call finishes it.
        """
        number = checkpoint if isinstance(checkpoint, int) else checkpoint.number
        try:
            done = await self._ask("restore", number=number)
        except GitRefused as refusal:
            return Refused(refusal.code, refusal.reason, refusal.paths)
        return Restored(
            checkpoint=done["target"],
            before=done["before"],
            after=done["after"],
            written=tuple(done["written"]),
            removed=tuple(done["removed"]),
            left=done["left"],
        )

    async def list(self) -> list[Checkpoint]:
        """Return all checkpoints, oldest first. Raises as `save`."""
        return [_checkpoint(fields) for fields in await self._ask("list")]

    async def prune(self, keep: int) -> int:
        """Delete all but the first checkpoint and the last `keep` (at least 1); return how many.

        The first one is kept for `final_patch`. Raises as `save`.
        """
        if keep < 1:
            raise ValueError("at least one checkpoint is kept")
        return await self._ask("prune", keep=keep)

    async def final_patch(self) -> bytes:
        """Return what changed since the session's first checkpoint, as a binary git patch.

        Raises:
            GitRefused: As for `save`, and `not_found` without a checkpoint.
            SandboxError: The sandbox failed.
        """
        _, patch = await self._exchange("patch", {})
        return patch

    async def aclose(self) -> None:
        """End the git server of the sandbox; the checkpoints stay."""
        await GitClient.of(self._sandbox).aclose()

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        result, _ = await self._exchange(operation, arguments)
        return result["value"]

    async def _exchange(self, operation: str, arguments: Mapping[str, Any]) -> tuple[Any, bytes]:
        request = {"folder": self._folder, "store": self._store, "session": self._session_id, **arguments}
        return await GitClient.of(self._sandbox).ask({"operation": operation, **request})


@dataclass(frozen=True)
class Worktree:
    """A linked work tree on a branch of its own, for a session or sub-agent that works beside others.

    Attributes:
        name: As given.
        branch: `dsv4agent/<name>`.
        folder: Its top.
        repository: Top of the work tree it was made from.
    """

    name: str
    branch: str
    folder: Path
    repository: str

    @classmethod
    async def add(
        cls,
        sandbox: Sandbox,
        folder: Path,
        name: str,
        *,
        revision: str = "HEAD",
        repository: str | None = None,
    ) -> Worktree | Refused:
        """Check out a new branch in a new folder.

        Args:
            sandbox: Its policy must let the folder's parent be written.
            folder: Absolute path that does not exist yet, in the session's own folder.
            name: Letters, digits, `-` and `_`, at most 64.
            revision: Where the branch starts.
            repository: Top of the work tree to branch from; the workspace if not given.

        Raises:
            SandboxError: The sandbox failed.
        """
        top = repository or sandbox.policy.workspace
        request = {"operation": "worktree_add", "folder": top, "target": str(folder), "name": name}
        try:
            branch, _ = await GitClient.of(sandbox).ask({**request, "revision": revision}, repeatable=False)
        except GitRefused as refusal:
            return Refused(refusal.code, refusal.reason, refusal.paths)
        return cls(name, branch, folder, top)

    async def remove(self, sandbox: Sandbox) -> Refused | None:
        """Delete the folder; the branch stays.

        Refuses (`uncommitted_changes`) unless all there is committed or in a checkpoint. Ignored files go.

        Raises:
            SandboxError: The sandbox failed.
        """
        request = {"operation": "worktree_remove", "folder": self.repository, "target": str(self.folder)}
        try:
            await GitClient.of(sandbox).ask(request)
        except GitRefused as refusal:
            return Refused(refusal.code, refusal.reason, refusal.paths)
        return None


def _checkpoint(fields: dict[str, Any]) -> Checkpoint:
    fields["hands_to"] = Actor(fields["hands_to"])
    fields["skipped"] = tuple(fields["skipped"])
    return Checkpoint(**fields)
