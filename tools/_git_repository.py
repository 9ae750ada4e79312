"""A repository as git gets to see it: through a private folder that holds none of its configuration.

A repository's configuration names programs in many places, some under names of its own choice (filters,
diff and merge drivers, aliases, hooks). So git never reads it. Every command runs with `GIT_DIR` set to a
view: a folder with a configuration of ours and links to the objects, refs, logs and excludes of the real
one. Attributes that name a driver then find none, whatever they say.

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from subprocess import Popen
from threading import Thread
from typing import Any, BinaryIO, cast

import git

from dsv4agent.tools._git_view import git_folders, make_view, private_store, read_text, write_text

MAX_OUTPUT = 8 << 20
"""Bytes of a command's output that are kept for the model."""

_IN_PROGRESS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "BISECT_LOG": "bisect",
}
_KNOWN_EXTENSIONS = {"objectformat", "worktreeconfig", "partialclone", "preciousobjects", "noop"}
# Settings that say how files and blobs relate and that name no program, with the values they may have.
_CARRIED = {
    "core.filemode": re.compile(r"true|false"),
    "core.symlinks": re.compile(r"true|false"),
    "core.ignorecase": re.compile(r"true|false"),
    "core.autocrlf": re.compile(r"true|false|input"),
    "core.eol": re.compile(r"lf|crlf|native"),
    "core.excludesfile": re.compile(r".+"),
}
# A second lock on the door: even a setting that found its way into the view would be overruled.
_OVERRULED = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.pager": "cat",
    "core.editor": "false",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.untrackedCache": "false",
    "core.quotePath": "false",
    "core.safecrlf": "false",
    "core.logAllRefUpdates": "true",
    "core.fsync": "loose-object,reference",
    "core.fsyncMethod": "batch",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gpg.program": "false",
    "log.showSignature": "false",
    "credential.helper": "",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "diff.autoRefreshIndex": "false",
    "diff.ignoreSubmodules": "dirty",
    "status.submoduleSummary": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "safe.directory": "*",
    "safe.bareRepository": "explicit",
    "advice.detachedHead": "false",
}
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "SSH_ASKPASS": "false",
    "GIT_SSH_COMMAND": "false",
    "GIT_EDITOR": "false",
    "GIT_SEQUENCE_EDITOR": "false",
    "GIT_PAGER": "cat",
}


class Refusal(Exception):
    """The request cannot be met: a stable code, the next useful step, and the paths it is about."""

    def __init__(self, code: str, reason: str, paths: Sequence[bytes] = ()) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.paths = list(paths)


class Repository:
    """A work tree with its git folder, seen through a view.

    Args:
        folder: The top of the work tree.
        store: For a folder that is no repository: where a private bare one is kept, made if missing.

    Raises:
        Refusal: `not_a_repository` or `unsupported_repository`.
    """

    def __init__(self, folder: str, store: str | None = None) -> None:
        self.folder = folder
        self.root = os.fsencode(folder)
        found = git_folders(folder)
        self.private = found is None
        if found is None:
            if store is None:
                raise Refusal("not_a_repository", f"{folder} is not the top of a git repository")
            found = private_store(store)
        self.git_dir, self.common_dir = found
        if not self.private and ".git" not in self.git_dir.split("/"):
            # Under another name any program of the sandbox may write it.
            raise Refusal("unsupported_repository", "its git folder is not called .git; move it there")
        self.identity = _identity(self.git_dir), _identity(self.common_dir)
        self._config_stamp: tuple[int, ...] = ()
        settings = self._read_settings()
        self.object_format = settings.get("extensions.objectformat", "sha1")
        self.view, self._alive = make_view(self.git_dir, self.common_dir, self.object_format)
        self.index = os.path.join(self.git_dir, "index")
        self._git = git.Git(folder)
        self._environment = {"GIT_DIR": self.view, "GIT_WORK_TREE": folder, **_ENVIRONMENT}
        self._apply(settings)
        self.refresh()

    def refresh(self) -> None:
        """Take over what the user changed since: HEAD and settings.

        Raises:
            Refusal: The repository is gone or another one.
        """
        if (_identity(self.git_dir), _identity(self.common_dir)) != self.identity:
            raise Refusal("not_a_repository", f"the repository of {self.folder} went away; call again")
        if self._config_stamp != _stamp(os.path.join(self.common_dir, "config")):
            self._apply(self._read_settings())
        head = os.path.join(self.git_dir, "HEAD")
        text = f"ref: {os.readlink(head)}\n" if os.path.islink(head) else read_text(head)
        if text != read_text(os.path.join(self.view, "HEAD")):
            write_text(os.path.join(self.view, "HEAD"), text)
        self.symbolic_head = text.strip()

    @property
    def no_object(self) -> str:
        """The id that stands for none."""
        return "0" * (64 if self.object_format == "sha256" else 40)

    @property
    def branch(self) -> str | None:
        """The branch that HEAD names, or None if it is detached."""
        name = self.symbolic_head.removeprefix("ref: ")
        return name.removeprefix("refs/heads/") if name != self.symbolic_head else None

    def head(self) -> str | None:
        """Return the id of the commit at HEAD, or None before the first one."""
        out = self.git("rev-parse", "--verify", "-q", "HEAD^{commit}", check=False)
        return out.decode().strip() or None

    def in_progress(self) -> str | None:
        """Return the name of a merge, rebase or the like that the user has not ended."""
        for name, operation in _IN_PROGRESS.items():
            if os.path.lexists(os.path.join(self.git_dir, name)):
                return operation
        return None

    def scratch(self, name: str) -> str:
        """Return a path for a private file, where no other program of the sandbox can write."""
        return os.path.join(self.view, name)

    def git(
        self,
        *args: str | bytes,
        input: bytes = b"",
        index: str | None = None,
        env: dict[str, str] | None = None,
        max_bytes: int | None = None,
        check: bool = True,
    ) -> bytes:
        """Run a git command on the view and return its standard output.

        Args:
            args: Subcommand and arguments.
            input: Standard input.
            index: Index file; the real one if not given.
            env: Further variables.
            max_bytes: Stop the command after so much output.
            check: Whether a failure is a refusal (`git_failed`) rather than no output.
        """
        environment = {**self._environment, "GIT_INDEX_FILE": index or self.index, **(env or {})}
        command = ["git", *map(os.fsdecode, args)]
        with _stream(input) as stream:
            if max_bytes is not None:
                return self._read_some(command, stream, environment, max_bytes)
            status, out, error = self._git.execute(
                command,
                istream=stream,
                env=environment,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
        if status and not check:
            return b""
        if status:
            raise Refusal("git_failed", _complaint(args, error))
        return out

    def _read_some(self, command: list[str], stream: BinaryIO, env: dict[str, str], limit: int) -> bytes:
        """Return at most so many bytes of output; a command that has more is stopped."""
        started: Any = self._git.execute(command, istream=stream, env=env, as_process=True)
        process = cast("Popen[bytes]", started.proc)
        assert process.stdout is not None and process.stderr is not None
        complaints: list[bytes] = []
        errors = process.stderr
        # Read beside the output, as either pipe may fill up.
        reader = Thread(target=lambda: complaints.append(errors.read()))
        reader.start()
        out = process.stdout.read(limit + 1)
        if len(out) > limit:
            process.kill()
        code = process.wait()
        reader.join()
        process.stdout.close()
        errors.close()
        if code and len(out) <= limit:
            raise Refusal("git_failed", _complaint(command[1:], complaints[0]))
        return out[:limit]

    def close(self) -> None:
        """Remove the view."""
        shutil.rmtree(self.view, ignore_errors=True)
        os.close(self._alive)

    def _read_settings(self) -> dict[str, str]:
        """Return the repository's own settings, read as plain text by a git that stands nowhere."""
        path = os.path.join(self.common_dir, "config")
        self._config_stamp = _stamp(path)
        environment = {**_ENVIRONMENT, "GIT_DIR": "/dev/null"}
        status, out, error = git.Git("/").execute(
            ["git", "config", "--file", path, "--no-includes", "--null", "--list"],
            env=environment,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
        )
        if status:
            raise Refusal("unsupported_repository", f"the repository's config cannot be read: {error}")
        settings: dict[str, str] = {}
        for record in out.decode("utf-8", "surrogateescape").split("\0"):
            name, _, value = record.partition("\n")
            settings[name] = value
        unknown = {name.partition(".")[2] for name in settings if name.startswith("extensions.")}
        unknown -= _KNOWN_EXTENSIONS
        if unknown and not (unknown == {"refstorage"} and settings["extensions.refstorage"] == "files"):
            raise Refusal("unsupported_repository", f"unknown extensions: {', '.join(sorted(unknown))}")
        return settings

    def _apply(self, settings: dict[str, str]) -> None:
        chosen = {
            name: settings[name]
            for name, allowed in _CARRIED.items()
            if name in settings and allowed.fullmatch(settings[name])
        }
        self.sparse = settings.get("core.sparsecheckout", "false") != "false"
        pairs = [*chosen.items(), *_OVERRULED.items()]
        self._environment["GIT_CONFIG_COUNT"] = str(len(pairs))
        for number, (name, value) in enumerate(pairs):
            self._environment[f"GIT_CONFIG_KEY_{number}"] = name
            self._environment[f"GIT_CONFIG_VALUE_{number}"] = value


def _stream(data: bytes) -> BinaryIO:
    descriptor = os.memfd_create("input", os.MFD_CLOEXEC)
    stream = os.fdopen(descriptor, "w+b")
    stream.write(data)
    stream.seek(0)
    return cast("BinaryIO", stream)


def _complaint(args: Sequence[str | bytes], error: str | bytes) -> str:
    text = error.decode("utf-8", "replace") if isinstance(error, bytes) else error
    lines = [line.removeprefix("fatal: ").removeprefix("error: ") for line in text.strip().splitlines()]
    return "\n".join(lines[:20]) or f"git {os.fsdecode(args[0])} failed and said nothing"


def _identity(path: str) -> tuple[int, int]:
    try:
        result = os.stat(path)
    except OSError:
        return 0, 0
    return result.st_dev, result.st_ino


def _stamp(path: str) -> tuple[int, ...]:
    try:
        result = os.stat(path)
    except OSError:
        return ()
    return result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns
