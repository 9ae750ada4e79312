"""The folders of a repository, and the view of it that git gets to see (see `_git_repository`).

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Sequence

_OCTAL = re.compile(rb"\\([0-7]{3})")


def safe_path(path: str, writable: Sequence[str]) -> str:
    """Return PATH without folders that programs of the sandbox may write: a `git` there is not git."""
    roots = [os.path.realpath(root) for root in writable]
    kept: list[str] = []
    for folder in path.split(":"):
        real = os.path.realpath(folder)
        inside = any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots)
        if os.path.isabs(folder) and not inside:
            kept.append(folder)
    return ":".join(kept)


def masked_files(root: bytes) -> set[bytes]:
    """Return the files of a work tree that the sandbox covers with something else, such as `.env`."""
    found: set[bytes] = set()
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            # Blanks, line ends and backslashes are written as octal numbers.
            point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
            if point.startswith(root + b"/") and not os.path.isdir(point):
                found.add(os.path.relpath(point, root))
    return found


def git_folders(folder: str) -> tuple[str, str] | None:
    """Return git folder and common folder of a work tree's top, or None if it is none."""
    entry = os.path.join(folder, ".git")
    if os.path.isfile(entry):
        text = read_text(entry)
        if not text.startswith("gitdir: "):
            return None
        entry = os.path.join(folder, text.removeprefix("gitdir: ").rstrip("\n"))
    git_dir = os.path.realpath(entry)
    if not os.path.lexists(os.path.join(git_dir, "HEAD")):
        return None
    common = os.path.join(git_dir, "commondir")
    common_dir = (
        os.path.realpath(os.path.join(git_dir, read_text(common).strip()))
        if os.path.isfile(common)
        else git_dir
    )
    complete = all(os.path.isdir(os.path.join(common_dir, name)) for name in ("objects", "refs"))
    return (git_dir, common_dir) if complete else None


def private_store(store: str) -> tuple[str, str]:
    """Make a bare repository by hand, so that no template of the machine takes part."""
    for name in ("objects/info", "objects/pack", "refs/heads"):
        os.makedirs(os.path.join(store, name), mode=0o700, exist_ok=True)
    for name, text in (("HEAD", "ref: refs/heads/none\n"), ("config", _configuration("sha1"))):
        if not os.path.exists(os.path.join(store, name)):
            write_text(os.path.join(store, name), text)
    real = os.path.realpath(store)
    return real, real


def make_view(git_dir: str, common_dir: str, object_format: str) -> tuple[str, int]:
    """Make the view in the git folder, the one place that other programs of the sandbox cannot write.

    Returns:
        The view, and a descriptor whose lock says that it is in use.

    Raises:
        OSError: The git folder cannot be written. There is no other place: whoever can write the view can
            make git run a program.
    """
    parent = os.path.join(git_dir, "dsv4agent")
    os.makedirs(parent, mode=0o700, exist_ok=True)
    if os.path.islink(parent):
        raise NotADirectoryError(errno.ENOTDIR, "a link leads elsewhere", parent)
    _remove_abandoned(parent)
    view = tempfile.mkdtemp(prefix="view-", dir=parent)
    alive = os.open(os.path.join(view, "alive"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)
    write_text(os.path.join(view, "config"), _configuration(object_format))
    write_text(os.path.join(view, "HEAD"), "ref: refs/heads/none\n")
    os.mkdir(os.path.join(view, "info"))
    os.mkdir(os.path.join(view, "logs"))
    os.makedirs(os.path.join(common_dir, "logs", "refs"), exist_ok=True)
    shared = ("objects", "refs", "packed-refs", "shallow", "logs/refs", "info/exclude", "info/attributes")
    for name in shared:
        os.symlink(os.path.join(common_dir, name), os.path.join(view, name))
    os.symlink(os.path.join(git_dir, "logs/HEAD"), os.path.join(view, "logs/HEAD"))
    return view, alive


def _remove_abandoned(parent: str) -> None:
    """Remove views whose program was killed."""
    for name in os.listdir(parent):
        view = os.path.join(parent, name)
        try:
            alive = os.open(os.path.join(view, "alive"), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # Just being made, or no view.
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(view, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(alive)


def _configuration(object_format: str) -> str:
    text = "[core]\n\trepositoryformatversion = 1\n\tbare = false\n"
    return text + (f"[extensions]\n\tobjectformat = {object_format}\n" if object_format != "sha1" else "")


def read_text(path: str) -> str:
    """Return the start of a small text file, whatever bytes it holds."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(1 << 16)


def write_text(path: str, text: str) -> None:
    """Write a text file that `read_text` returned."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
