"""Answers git requests inside a cage, so that the kernel's policy holds for git as for everything else.

Sent as text to an isolated interpreter, with the modules that it imports, so that no file of the package need
be readable inside. A message, either way, is two 32-bit big-endian lengths, a JSON object and bytes. A
request names its operation, folder and session; a reply has `result`, or `code`, `reason` and `paths`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import struct
from collections.abc import Callable
from types import FrameType
from typing import Any, BinaryIO

from dsv4agent.tools import _git_worktrees as worktrees
from dsv4agent.tools._git_actions import Actions, shown
from dsv4agent.tools._git_history import Checkpoint, History
from dsv4agent.tools._git_repository import Refusal, Repository
from dsv4agent.tools._git_restore import Outcome, Restorer

_CODES = {
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.ENOENT: "not_found",
}
Answer = tuple[Any, bytes]


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the end of the input or SIGTERM."""
    # A group of its own, for `_leave`; the first process of a session has one.
    with contextlib.suppress(PermissionError):
        os.setpgrp()
    signal.signal(signal.SIGTERM, _leave)
    desk = Desk()
    try:
        while len(header := requests.read(8)) == 8:
            size, data_size = struct.unpack(">II", header)
            request: dict[str, Any] = json.loads(requests.read(size))
            requests.read(data_size)
            reply, body = desk.answer(request)
            text = json.dumps(reply).encode()
            replies.write(struct.pack(">II", len(text), len(body)) + text + body)
            replies.flush()
    finally:
        desk.close()


class Desk:
    """Holds the repositories and histories that requests were about, for the next ones."""

    def __init__(self) -> None:
        self._repositories: dict[tuple[str, str | None], Repository] = {}
        self._histories: dict[tuple[str, str | None, str], History] = {}

    def answer(self, request: dict[str, Any]) -> Answer:
        """Return reply and body; whatever the caller can act on is a reply with a code."""
        try:
            result, body = self._dispatch(request["operation"], request)
            return {"result": result}, body
        except Refusal as refusal:
            return _refused(refusal.code, refusal.reason, refusal.paths), b""
        except OSError as error:
            code = _CODES.get(error.errno or 0, "io_error")
            about = [os.fsencode(error.filename)] if isinstance(error.filename, str | bytes) else []
            return _refused(code, error.strerror or str(error), about), b""

    def close(self) -> None:
        """Remove all views."""
        for repository in self._repositories.values():
            repository.close()
        self._repositories.clear()
        self._histories.clear()

    def _dispatch(self, operation: str, request: dict[str, Any]) -> Answer:
        if operation == "ping":
            return None, b""
        repository = self._repository(request["folder"], request.get("store"))
        if operation in _ACTIONS:
            if repository.private:
                raise Refusal("not_a_repository", f"{repository.folder} is not the top of a git repository")
            actions = Actions(repository, *request["identity"])
            act: Callable[[dict[str, Any]], bytes] = getattr(actions, operation)
            return None, act(request["args"])
        if operation == "worktree_add":
            return worktrees.add(repository, request["name"], request["target"], request["revision"]), b""
        if operation == "worktree_remove":
            worktrees.remove(repository, request["target"])
            return None, b""
        return self._checkpoint(operation, self._history(repository, request), request)

    def _checkpoint(self, operation: str, history: History, request: dict[str, Any]) -> Answer:
        restorer = Restorer(history)
        # Whatever is asked, a restore that was cut comes first: until then the work tree is half of each.
        ended = restorer.recover()
        result: Any = None
        body = b""
        if operation == "save":
            result = _described(history.save(request["label"], request["hands_to"])[0])
        elif operation == "restore":
            result = _told(restorer.restore(request["number"]))
        elif operation == "list":
            result = [_described(one) for one in history.list()]
        elif operation == "prune":
            result = history.prune(request["keep"])
        elif operation == "patch":
            checkpoints = history.list()
            if not checkpoints:
                raise Refusal("not_found", "no checkpoint to compare with; save one first")
            now, _ = history.save("final patch", checkpoints[-1].hands_to)
            body = history.patch(checkpoints[0], now)
        else:
            raise Refusal("invalid_arguments", f"unknown operation {operation}")
        return {"value": result, "ended": None if ended is None else _told(ended)}, body

    def _repository(self, folder: str, store: str | None) -> Repository:
        key = folder, store
        repository = self._repositories.get(key)
        if repository is not None:
            try:
                if repository.private and os.path.lexists(os.path.join(folder, ".git")):
                    raise Refusal("not_a_repository", "there is a repository now")
                repository.refresh()
                return repository
            except (Refusal, OSError):
                self._repositories.pop(key).close()
                self._histories = {one: kept for one, kept in self._histories.items() if one[:2] != key}
        repository = self._repositories[key] = Repository(folder, store)
        return repository

    def _history(self, repository: Repository, request: dict[str, Any]) -> History:
        key = request["folder"], request.get("store"), request["session"]
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = History(repository, request["session"])
        return history


_ACTIONS = {"status", "diff", "log", "show", "blame", "commit", "branch"}


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "number": checkpoint.number,
        "commit": checkpoint.commit,
        "tree": checkpoint.tree,
        "label": checkpoint.label,
        "hands_to": checkpoint.hands_to,
        "head": checkpoint.head,
        "branch": checkpoint.branch,
        "index": checkpoint.index,
        "time_ns": checkpoint.time_ns,
        "skipped": sorted(map(os.fsdecode, checkpoint.skipped)),
    }


def _told(outcome: Outcome) -> dict[str, Any]:
    return {
        "target": outcome.target,
        "before": outcome.before,
        "after": outcome.after,
        "written": list(map(os.fsdecode, outcome.written)),
        "removed": list(map(os.fsdecode, outcome.removed)),
        "left": {os.fsdecode(path): reason for path, reason in outcome.left.items()},
        "abandoned": outcome.abandoned,
    }


def _refused(code: str, reason: str, paths: list[bytes]) -> dict[str, Any]:
    return {"code": code, "reason": reason, "paths": [os.fsdecode(shown(path)) for path in paths]}


def _leave(number: int, frame: FrameType | None) -> None:
    """End git, wait for it, and end.

    With this process its process namespace goes, and a git that is killed with it leaves its lock files.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    raise SystemExit(0)
