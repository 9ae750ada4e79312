"""Linked work trees, made and removed by hand: `git worktree` would read the repository's configuration.

The files are those of gitrepository-layout(5). Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import os
import re
import shutil

from dsv4agent.tools._git_history import History
from dsv4agent.tools._git_repository import Refusal, Repository
from dsv4agent.tools._git_view import git_folders, write_text

PREFIX = "dsv4agent/"
"""Before the names of branches that belong to work trees made here."""


def add(repository: Repository, name: str, folder: str, revision: str) -> str:
    """Check out a new branch `dsv4agent/<name>` in a new folder; return the branch's name.

    Raises:
        Refusal: `invalid_arguments`, `exists`, `not_found`.
        OSError: The folder or the git folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise Refusal("invalid_arguments", "a work tree's name has letters, digits, - and _ only, at most 64")
    if repository.private:
        raise Refusal("not_a_repository", "work trees need a git repository; `git init` makes one")
    branch = f"{PREFIX}{name}"
    admin = os.path.join(repository.common_dir, "worktrees", f"dsv4agent-{name}")
    if os.path.lexists(folder) or os.path.lexists(admin):
        raise Refusal("exists", f"work tree {name} is there already; take another name or remove it")
    start = repository.git(
        "rev-parse", "--verify", "-q", "--end-of-options", f"{revision}^{{commit}}", check=False
    )
    if not start:
        raise Refusal("not_found", f"no commit {revision} to start from; commit first")
    if repository.git("rev-parse", "--verify", "-q", f"refs/heads/{branch}", check=False):
        raise Refusal("exists", f"branch {branch} is there already; take another name")
    repository.git("update-ref", f"refs/heads/{branch}", start.decode().strip(), repository.no_object)
    try:
        os.makedirs(admin, mode=0o700)
        os.makedirs(folder)
        write_text(os.path.join(admin, "commondir"), "../..\n")
        write_text(os.path.join(admin, "HEAD"), f"ref: refs/heads/{branch}\n")
        write_text(os.path.join(admin, "gitdir"), os.path.join(os.path.realpath(folder), ".git") + "\n")
        write_text(os.path.join(folder, ".git"), f"gitdir: {admin}\n")
        tree = Repository(folder)
        try:
            tree.git("read-tree", "--reset", "-u", "--no-recurse-submodules", "HEAD")
        finally:
            tree.close()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(admin, ignore_errors=True)
        repository.git("update-ref", "-d", f"refs/heads/{branch}", check=False)
        raise
    return branch


def remove(repository: Repository, folder: str) -> None:
    """Remove a work tree whose content is committed or in a checkpoint; its branch stays.

    Raises:
        Refusal: `not_found` or `uncommitted_changes`.
        OSError: Something could not be deleted.
    """
    found = git_folders(folder) if os.path.isdir(folder) else None
    if (
        found is None
        or found[1] != repository.common_dir
        or os.path.dirname(found[0]) != os.path.join(found[1], "worktrees")
    ):
        raise Refusal("not_found", f"{folder} is no work tree of this repository")
    tree = Repository(folder)
    try:
        _require_saved(tree)
    finally:
        tree.close()
    shutil.rmtree(folder)
    shutil.rmtree(found[0])


def _require_saved(tree: Repository) -> None:
    operation = tree.in_progress()
    if operation:
        raise Refusal("uncommitted_changes", f"a {operation} is in progress there; end it first")
    others = tree.git("ls-files", "-z", "-o", "--exclude-standard").split(b"\0")[:-1]
    nested = [path for path in others if path.endswith(b"/")]
    if nested:
        raise Refusal("uncommitted_changes", "it holds another repository; move that away first", nested)
    if not tree.git("status", "--porcelain=v1", "-z", "--ignore-submodules=dirty"):
        return
    content = History(tree, "none").content()
    saved = tree.git("for-each-ref", "--format=%(tree)", "refs/dsv4agent/").decode().split()
    if content is None or content not in saved:
        raise Refusal("uncommitted_changes", "commit or checkpoint what changed there, then remove it")
