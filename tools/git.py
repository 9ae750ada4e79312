"""The `git` tool: reads, commits, branches, work trees and checkpoints, with no program but git itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsv4agent.sandboxes import ProgramsUnsupported
from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.checkpoints import Checkpoints, Refused, Restored, Worktree
from dsv4agent.tools.git_client import GitClient, GitRefused
from dsv4agent.tools.output import Captured, fit_output, save_output

ACTIONS = (
    "status",
    "diff",
    "log",
    "show",
    "blame",
    "commit",
    "branch",
    "worktree_add",
    "worktree_remove",
    "checkpoint",
    "restore",
)
_SHOWN_PATHS = 20
_NEXT_STEPS = {
    "not_a_repository": "run `git init` in the workspace with bash, or work without git",
    "head_moved": "restore goes back only on the same commit and branch; use diff or show to undo by hand",
    "changed_meanwhile": "undo your changes in the other files by hand",
}


@dataclass(frozen=True)
class Identity:
    """Author and committer of the agent's commits."""

    name: str = "dsv4agent"
    email: str = "dsv4agent@localhost"


class GitTool:
    """Answers through a git server in the session's sandbox, which no repository's configuration reaches.

    Args:
        session_id: Names the checkpoints: `refs/dsv4agent/<session_id>/`.
        identity: Author and committer of commits.
        worktrees: Folder for work trees, which the policy lets be written; without it there are none.
        store: Where checkpoints of a workspace that is no repository are kept (see `Checkpoints`).
    """

    name = "git"
    description = (
        "Inspect and commit the workspace's git repository; save and restore checkpoints of its files."
    )
    effects = Effects.WORKSPACE

    def __init__(
        self,
        *,
        session_id: str = "session",
        identity: Identity | None = None,
        worktrees: Path | None = None,
        store: str | None = None,
    ) -> None:
        self._session_id = session_id
        self._identity = identity or Identity()
        self._worktrees = worktrees
        self._store = store
        self._clients: set[GitClient] = set()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["action"],
            "properties": {
                "action": {"type": "string", "enum": list(ACTIONS), "description": "What to do."},
                "path": {
                    "type": "string",
                    "description": "File or folder; for commit several, one a line (default: all changes).",
                },
                "revision": {
                    "type": "string",
                    "description": "Commit or range; start of a new branch; checkpoint number for restore.",
                },
                "message": {"type": "string", "description": "For commit and checkpoint."},
                "name": {"type": "string", "description": "Branch or work tree; branch without it lists."},
                "switch": {"type": "boolean", "description": "Whether branch goes to it, new or not."},
                "staged": {"type": "boolean", "description": "Whether diff shows what is staged."},
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Number of commits in log (default 20).",
                },
                "lines": {
                    "type": "string",
                    "pattern": "^[0-9]+-[0-9]+$",
                    "description": "First and last line for blame, as 10-40.",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Run one action; whatever the model can mend is a result with a code.

        Raises:
            SandboxError: The sandbox failed.
        """
        started = time.monotonic()
        try:
            text = await self._act(ctx, args)
        except GitRefused as refusal:
            return _refused(refusal.code, refusal.reason, refusal.paths)
        except ProgramsUnsupported:
            return _refused("unavailable", "this sandbox runs no programs, so there is no git", ())
        shown, truncation = fit_output(
            Captured(text),
            budget=ctx.max_output_tokens,
            count_tokens=ctx.count_tokens,
            save=lambda: None if ctx.spill_dir is None else save_output(ctx.spill_dir, "git", text),
        )
        return ToolResult(shown, duration_ms=1000 * (time.monotonic() - started), truncated=truncation)

    async def aclose(self) -> None:
        """End the git servers."""
        clients, self._clients = self._clients, set()
        for client in clients:
            await client.aclose()

    async def _act(self, ctx: ToolContext, args: Mapping[str, Any]) -> bytes:
        action: str = args["action"]
        if any("\0" in value for value in args.values() if isinstance(value, str)):
            raise GitRefused("invalid_arguments", "an argument holds a NUL character; write it as plain text")
        client = GitClient.of(ctx.sandbox)
        self._clients.add(client)
        if action in {"worktree_add", "worktree_remove"}:
            return await self._worktree(ctx, args)
        if action in {"checkpoint", "restore"}:
            return await self._checkpoint(ctx, args)
        request = {
            "operation": action,
            "folder": ctx.sandbox.policy.workspace,
            "identity": [self._identity.name, self._identity.email],
            "args": {**args, "path": _relative(args.get("path"), ctx.sandbox.policy.workspace)},
        }
        _, text = await client.ask(request, repeatable=action not in {"commit", "branch"})
        return text

    async def _checkpoint(self, ctx: ToolContext, args: Mapping[str, Any]) -> bytes:
        checkpoints = Checkpoints(ctx.sandbox, self._session_id, store=self._store)
        if args["action"] == "checkpoint":
            made = await checkpoints.save(args.get("message") or "checkpoint")
            skipped = f"; left out: {_listed(made.skipped)}" if made.skipped else ""
            return f"checkpoint {made.number}{skipped}".encode("utf-8", "backslashreplace")
        revision: str = args.get("revision") or ""
        if not revision.isdecimal():
            known = ", ".join(
                f"{one.number} ({one.label})" for one in (await checkpoints.list())[-_SHOWN_PATHS:]
            )
            raise GitRefused(
                "invalid_arguments", f"restore needs a checkpoint's number; there are: {known or 'none'}"
            )
        done = await checkpoints.restore(int(revision))
        if isinstance(done, Refused):
            raise GitRefused(done.code, done.reason, done.paths)
        return _told(done).encode("utf-8", "backslashreplace")

    async def _worktree(self, ctx: ToolContext, args: Mapping[str, Any]) -> bytes:
        name: str = args.get("name") or ""
        if not name:
            raise GitRefused("invalid_arguments", f"{args['action']} needs name")
        if self._worktrees is None:
            raise GitRefused("unavailable", "this session has no folder for work trees; use a branch")
        if os.path.basename(name) != name or name in {".", ".."}:
            raise GitRefused("invalid_arguments", "a work tree's name is no path")
        folder = self._worktrees / name
        if args["action"] == "worktree_add":
            made = await Worktree.add(ctx.sandbox, folder, name, revision=args.get("revision") or "HEAD")
            if isinstance(made, Refused):
                raise GitRefused(made.code, made.reason, made.paths)
            return f"work tree {folder} on branch {made.branch}".encode()
        tree = Worktree(name, f"dsv4agent/{name}", folder, ctx.sandbox.policy.workspace)
        refused = await tree.remove(ctx.sandbox)
        if refused is not None:
            raise GitRefused(refused.code, refused.reason, refused.paths)
        return f"removed work tree {name}; branch {tree.branch} stays".encode()


def _relative(paths: str | None, workspace: str) -> str | None:
    """Return paths below the workspace's top, which is where git runs.

    Raises:
        GitRefused: `outside_workspace`.
    """
    if not paths:
        return None
    kept: list[str] = []
    for path in filter(None, paths.split("\n")):
        relative = os.path.relpath(os.path.normpath(os.path.join(workspace, path)), workspace)
        if relative == ".." or relative.startswith("../"):
            raise GitRefused("outside_workspace", f"{path} is not in the workspace; use a path below it")
        kept.append(relative)
    return "\n".join(kept)


def _told(done: Restored) -> str:
    changed = [*(f"wrote {path}" for path in done.written), *(f"removed {path}" for path in done.removed)]
    left = [f"left {path}: {reason}" for path, reason in done.left.items()]
    opening = f"restored {done.checkpoint}; restore {done.before} to undo"
    return "\n".join([opening, *(changed or ["nothing had to change"]), *left])


def _refused(code: str, reason: str, paths: tuple[str, ...]) -> ToolResult:
    step = f"; {_NEXT_STEPS[code]}" if code in _NEXT_STEPS else ""
    about = f": {_listed(paths)}" if paths else ""
    denied = code in {"permission_denied", "outside_workspace"}
    text = f"{code}: {reason}{about}{step}".encode("utf-8", "backslashreplace").decode()
    return ToolResult(text, Status.DENIED if denied else Status.ERROR, code)


def _listed(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    return ", ".join(paths[:_SHOWN_PATHS]) + more
