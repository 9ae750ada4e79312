"""Finding what a cage protects inside folders that may be written: repositories, and files with secrets."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsv4agent.sandboxes.masking import is_below

MOST_ENTRIES = 100_000
"""Directory entries looked at, nearest to the top first; about half a second on a slow disk."""

# Folders that tools fill from outside. Their files are no secrets of this project, and they are the largest.
_SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".tox", ".venv"}
    | {"__pycache__", "bower_components", "node_modules", "site-packages", "venv"}
)
_SECRET_NAMES = frozenset(
    {".env", ".envrc", ".git-credentials", ".netrc", "_netrc", ".pgpass", ".pypirc"}
    | {"id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_rsa"}
)
_TEMPLATES = frozenset({"defaults", "dist", "example", "sample", "template"})
_PACKAGE_TOKEN = re.compile(rb"^[^#;\n]*_(authToken|auth|password)\s*=", re.MULTILINE)


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        repositories: Every `.git`, folder or file, by its path; links are resolved.
        secrets: Files whose name says that they hold secrets; links are resolved.
        complete: Whether all folders were looked at.
    """

    repositories: tuple[str, ...]
    secrets: tuple[str, ...]
    complete: bool


def survey(folders: Iterable[str], *, most_entries: int = MOST_ENTRIES) -> Survey:
    """Look through folders, the given ones whatever their names, without following links to folders."""
    repositories: set[str] = set()
    secrets: set[str] = set()
    waiting = deque(sorted(set(folders)))
    left = most_entries
    while waiting and left > 0:
        try:
            entries = list(os.scandir(waiting.popleft()))
        except OSError:
            continue  # Not ours to read, so not the programs' either, or gone.
        left -= len(entries)
        for entry in entries:
            if entry.name == ".git":
                repositories.add(os.path.realpath(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED:
                    waiting.append(entry.path)
            elif _holds_secrets(entry):
                secrets.add(os.path.realpath(entry.path))
    return Survey(tuple(sorted(repositories)), tuple(sorted(secrets)), not waiting)


def git_folders(repository: str) -> Iterator[str]:
    """Yield the folders that a `.git` file leads to: its own, and the one that it shares with others."""
    own = _pointed_at(repository, "gitdir: ")
    if own is None:
        return
    yield own
    try:
        common = Path(own, "commondir").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return
    yield os.path.realpath(os.path.join(own, common))


def linked_main_folder(repository: str, writable: Sequence[str]) -> str | None:
    """Return the git folder outside the writable ones to which a linked worktree's commits go, if it is one.

    A `.git` file may name any folder, and whoever can write the file must not gain that folder by it. So
    the folder has to know this worktree: git keeps a file `gitdir` there that points back. It counts only
    where no program of a sandbox can have written it.
    """
    own = _pointed_at(repository, "gitdir: ")
    if own is None or any(is_below(own, root) for root in writable):
        return None
    main = os.path.dirname(os.path.dirname(own))
    back = _pointed_at(os.path.join(own, "gitdir"), "")
    is_worktree = os.path.dirname(own) == os.path.join(main, "worktrees") and back == repository
    is_git = all(os.path.exists(os.path.join(main, name)) for name in ("HEAD", "objects", "refs"))
    contains = any(is_below(root, main) for root in writable)
    return main if is_worktree and is_git and not contains else None


def _holds_secrets(entry: os.DirEntry[str]) -> bool:
    """Tell by the name, and for `.npmrc` by whether there is a token in it."""
    name = entry.name
    if name == ".npmrc":
        return os.path.isfile(entry.path) and _has_token(entry.path)
    if name in _SECRET_NAMES:
        return os.path.isfile(entry.path)
    parts = name.split(".")
    is_environment = name.startswith(".env.") or (len(parts) > 1 and parts[-1] == "env")
    return is_environment and not _TEMPLATES.intersection(parts) and os.path.isfile(entry.path)


def _has_token(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _PACKAGE_TOKEN.search(file.read(1 << 16)) is not None
    except OSError:
        return False


def _pointed_at(path: str, prefix: str) -> str | None:
    """Return the resolved path that a small text file holds after a prefix."""
    try:
        if not os.path.isfile(path):
            return None
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            line = file.read(4097).rstrip("\n")
    except OSError:
        return None
    if len(line) > 4096 or "\n" in line or not line.startswith(prefix):
        return None
    return os.path.realpath(os.path.join(os.path.dirname(path), line[len(prefix) :]))
