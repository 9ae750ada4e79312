"""What the model can ask of a repository, answered as compact text.

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from dsv4agent.tools._git_repository import MAX_OUTPUT, Refusal, Repository
from dsv4agent.tools._git_view import masked_files

_PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", "--submodule=short")


class Actions:
    """Reads and commits through a repository's view.

    Args:
        repository: Where.
        name: Name of author and committer.
        email: Their address.
    """

    def __init__(self, repository: Repository, name: str, email: str) -> None:
        self._repository = repository
        self._git = repository.git
        self._identity = {
            "GIT_AUTHOR_NAME": name,
            "GIT_AUTHOR_EMAIL": email,
            "GIT_COMMITTER_NAME": name,
            "GIT_COMMITTER_EMAIL": email,
        }

    def status(self, args: dict[str, Any]) -> bytes:
        """Say where HEAD is and what differs from it, one path a line."""
        out = self._git(
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=normal",
            "--ignore-submodules=dirty",
            *_paths(args),
        )
        fields = iter(out.split(b"\0")[:-1])
        lines: list[bytes] = []
        for field in fields:
            line = field[:3] + shown(field[3:])
            if field[:1] in b"RC":
                line = field[:3] + shown(next(fields)) + b" -> " + shown(field[3:])
            lines.append(line)
        head = self._repository.head()
        where = f"branch {self._repository.branch}" if self._repository.branch else "detached HEAD"
        where += f" at {head[:10]}" if head else ", no commit yet"
        operation = self._repository.in_progress()
        if operation:
            where += f", {operation} in progress"
        return b"\n".join([_text(where), *(lines or [b"nothing changed"])])

    def diff(self, args: dict[str, Any]) -> bytes:
        """Show unstaged changes, staged ones, or those since a commit or between two."""
        revisions = [self._checked(args["revision"])] if args.get("revision") else []
        staged = ("--cached",) if args.get("staged") else ()
        out = self._git("diff", *_PLAIN, *staged, *revisions, *_paths(args), max_bytes=MAX_OUTPUT)
        return out or b"no difference"

    def log(self, args: dict[str, Any]) -> bytes:
        """List commits, newest first."""
        if self._repository.head() is None and not args.get("revision"):
            return b"no commit yet"
        revision = self._checked(args.get("revision") or "HEAD")
        limit = f"--max-count={args.get('limit') or 20}"
        form = "--format=%h %as %an: %s"
        options = ("--no-color", "--no-show-signature", "--no-ext-diff", "--no-textconv")
        out = self._git("log", *options, limit, form, revision, *_paths(args), max_bytes=MAX_OUTPUT)
        return out or b"no commits"

    def show(self, args: dict[str, Any]) -> bytes:
        """Show a commit with its patch, or a file of it (`revision:path`)."""
        revision = self._checked(args.get("revision") or "HEAD")
        form = "--format=commit %H%nparents %p%nauthor %an <%ae> %ad%n%n%B"
        options = ("--no-show-signature", "--date=iso-strict", *_PLAIN)
        return self._git("show", *options, form, revision, *_paths(args), max_bytes=MAX_OUTPUT)

    def blame(self, args: dict[str, Any]) -> bytes:
        """Say for each line of a file which commit it came from."""
        if not args.get("path"):
            raise Refusal("invalid_arguments", "blame needs path")
        revision = [self._checked(args["revision"])] if args.get("revision") else []
        lines = [f"-L{args['lines'].replace('-', ',')}"] if args.get("lines") else []
        return self._git("blame", "--date=short", *lines, *revision, *_paths(args), max_bytes=MAX_OUTPUT)

    def branch(self, args: dict[str, Any]) -> bytes:
        """List branches, create one, or switch to one, creating it if it is new."""
        name = args.get("name")
        if not name:
            form = (
                "--format=%(if)%(HEAD)%(then)* %(else)  %(end)%(refname:short) %(objectname:short) %(subject)"
            )
            return self._git("for-each-ref", form, "refs/heads/") or b"no branches yet"
        reference = f"refs/heads/{name}"
        if name.startswith("-") or not self._git("check-ref-format", "--normalize", reference, check=False):
            raise Refusal("invalid_arguments", f"{name} cannot be the name of a branch")
        exists = bool(self._git("rev-parse", "--verify", "-q", reference, check=False))
        if not args.get("switch"):
            if exists:
                raise Refusal("exists", f"branch {name} is there already; set switch to go to it")
            self._create(reference, args.get("revision") or "HEAD")
            return _text(f"created {name}")
        if exists and args.get("revision"):
            raise Refusal("exists", f"branch {name} is there already; leave revision out to switch to it")
        if not exists and self._repository.head() is not None:
            self._create(reference, args.get("revision") or "HEAD")
        self._switch(name)
        return _text(f"on branch {name}")

    def commit(self, args: dict[str, Any]) -> bytes:
        """Commit given paths or all changes, leaving alone whatever else is staged."""
        repository = self._repository
        message = (args.get("message") or "").strip()
        if not message:
            raise Refusal("invalid_arguments", "commit needs message")
        self._require_idle("commit")
        if os.path.lexists(f"{repository.index}.lock"):
            raise Refusal("busy", "another git program holds the index; try again when it has ended")
        head = repository.head()
        wanted = [os.fsencode(path) for path in (args.get("path") or "").split("\n") if path]
        changed = self._changed(head, wanted)
        self._require_unfiltered(changed)
        index = repository.scratch("commit-index")
        tree = self._tree_with(head, changed, index)
        old_tree = self._git("rev-parse", f"{head}^{{tree}}").decode().strip() if head else None
        if tree == old_tree or (head is None and not changed):
            raise Refusal("nothing_to_commit", "the given paths do not differ from HEAD; see status")
        parents = ["-p", head] if head else []
        date = f"@{int(time.time())} +0000"
        env = {**self._identity, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        text = message.encode("utf-8", "replace") + b"\n"
        commit = self._git("commit-tree", tree, *parents, input=text, env=env).decode().strip()
        subject = message.split("\n")[0][:200]
        self._advance(commit, head or repository.no_object, f"commit: {subject}")
        note = ""
        try:
            pathspec = b"".join(path + b"\0" for path in changed)
            self._git("reset", "-q", "--pathspec-from-file=-", "--pathspec-file-nul", input=pathspec)
        except Refusal as refusal:
            note = f"\nthe index was not updated ({refusal.reason}); `git reset` does it"
        where = repository.branch or "detached HEAD"
        files = f"{len(changed)} file{'' if len(changed) == 1 else 's'}"
        return _text(f"[{where} {commit[:10]}] {subject}\n{files}{note}")

    def _changed(self, head: str | None, wanted: Sequence[bytes]) -> list[bytes]:
        """Return the paths that may differ from HEAD, without submodules and other repositories."""
        pathspec = ("--", *wanted) if wanted else ()
        if head is None:
            out = self._git("ls-files", "-z", *pathspec)
        else:
            out = self._git(
                "diff-index", "-z", "--name-only", "--ignore-submodules=all", "--no-renames", head, *pathspec
            )
        tracked = out.split(b"\0")[:-1]
        others = self._git("ls-files", "-z", "-o", "--exclude-standard", *pathspec).split(b"\0")[:-1]
        new = [path for path in others if not path.endswith(b"/")]
        for path in wanted:
            name = path.rstrip(b"/")
            found = name in {b".", b""} or any(
                one == name or one.startswith(name + b"/") for one in (*tracked, *new)
            )
            if not found and not self._git("ls-files", "-z", "--", path):
                raise Refusal(
                    "not_found", f"{os.fsdecode(shown(path))} is no changed file; see status", [path]
                )
        # What the sandbox hides looks changed, and would be committed as what stands in its place.
        return sorted({*tracked, *new} - masked_files(os.path.realpath(self._repository.root)))

    def _tree_with(self, head: str | None, changed: Sequence[bytes], index: str) -> str:
        """Return the tree of HEAD with these paths as they are in the work tree."""
        if os.path.exists(index):
            os.unlink(index)
        if head:
            self._git("read-tree", head, index=index)
        paths = b"".join(path + b"\0" for path in changed)
        self._git("update-index", "--add", "--remove", "--replace", "-z", "--stdin", input=paths, index=index)
        return self._git("write-tree", index=index).decode().strip()

    def _advance(self, commit: str, old: str, reason: str) -> None:
        """Move the branch, or a detached HEAD, from one commit to the next."""
        command = ("update-ref", "--create-reflog", "-m", reason, "HEAD", commit, old)
        if self._repository.branch:
            self._git(*command, env=self._identity)
            return
        with _HeadLock(self._repository) as lock:
            self._git(*command, env=self._identity)
            lock.commit()

    def _create(self, reference: str, revision: str) -> None:
        start = (
            self._git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
        )
        reason = f"branch: Created from {revision}"
        none = self._repository.no_object
        self._git("update-ref", "--create-reflog", "-m", reason, reference, start, none, env=self._identity)

    def _switch(self, name: str) -> None:
        """Switch branches in the view, with the user's HEAD locked, and then move that HEAD."""
        self._require_idle("switch")
        if self._repository.sparse:
            raise Refusal("unsupported_repository", "sparse checkouts are not switched; ask the user to")
        head = self._repository.head()
        with _HeadLock(self._repository) as lock:
            if head is None:
                self._git("symbolic-ref", "HEAD", f"refs/heads/{name}")
            else:
                changed = self._git(
                    "diff-tree", "-r", "-z", "--name-only", "--no-renames", head, f"refs/heads/{name}"
                )
                self._require_unfiltered(changed.split(b"\0")[:-1], f"refs/heads/{name}")
                options = ("-q", "--no-guess", "--no-recurse-submodules", "--no-overwrite-ignore")
                self._git("switch", *options, name, env=self._identity)
            lock.commit()

    def _require_idle(self, what: str) -> None:
        operation = self._repository.in_progress()
        if operation:
            raise Refusal(
                "operation_in_progress", f"a {operation} is in progress; {what} when the user ended it"
            )

    def _require_unfiltered(self, paths: Sequence[bytes], revision: str | None = None) -> None:
        """Refuse paths whose content a filter program would have to convert (Git LFS, for one)."""
        names = b"".join(path + b"\0" for path in paths)
        out = self._git("check-attr", "-z", "--stdin", "filter", input=names) if names else b""
        fields = out.split(b"\0")
        filtered = [
            fields[at]
            for at in range(0, len(fields) - 2, 3)
            if fields[at + 2] not in {b"unspecified", b"unset"}
        ]
        if not filtered and revision and names:
            files = self._git("ls-tree", "-r", "-z", "--name-only", revision).split(b"\0")
            for path in files:
                if os.path.basename(path) == b".gitattributes":
                    text = self._git("cat-file", "blob", os.fsencode(revision) + b":" + path)
                    if b"filter=" in text:
                        filtered.append(path)
        if filtered:
            raise Refusal(
                "filtered_path", "a filter program would have to run, which this tool never does", filtered
            )

    def _checked(self, revision: str) -> str:
        """Return a revision that can be no option."""
        if revision.startswith("-") or "\0" in revision or "\n" in revision:
            raise Refusal("invalid_arguments", f"{revision!r} is no revision")
        if not self._git("rev-parse", "-q", "--revs-only", revision, check=False) and not (
            ":" in revision and self._git("rev-parse", "-q", "--verify", revision, check=False)
        ):
            raise Refusal("not_found", f"no revision {revision}; see log and branch")
        return revision


class _HeadLock:
    """Holds the user's HEAD while the view's moves, as git itself does it."""

    def __init__(self, repository: Repository) -> None:
        self._view_head = os.path.join(repository.view, "HEAD")
        self._head = os.path.join(repository.git_dir, "HEAD")
        self._lock = f"{self._head}.lock"
        self._open = False

    def __enter__(self) -> _HeadLock:
        try:
            os.close(os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            raise Refusal("busy", "another git program holds HEAD; try again when it has ended") from None
        self._open = True
        return self

    def commit(self) -> None:
        """Make the user's HEAD what the view's is."""
        with open(self._view_head, "rb") as source, open(self._lock, "wb") as lock:
            lock.write(source.read())
            lock.flush()
            os.fsync(lock.fileno())
        os.rename(self._lock, self._head)
        self._open = False

    def __exit__(self, *unused: object) -> None:
        if self._open:
            os.unlink(self._lock)


def shown(path: bytes) -> bytes:
    """Return a path for people: as it is, or quoted if that would mislead."""
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and not text.startswith('"') and text.strip() == text:
        return path
    quoted = "".join(
        char
        if char.isprintable() and char not in '"\\'
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in text
    )
    return f'"{quoted}"'.encode("utf-8", "backslashreplace")


def _paths(args: dict[str, Any]) -> list[str | bytes]:
    paths = [os.fsencode(path) for path in (args.get("path") or "").split("\n") if path]
    return ["--", *paths]


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
