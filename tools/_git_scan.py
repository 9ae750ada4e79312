"""The exact state of a work tree: every file's mode and blob id, computed from its bytes alone.

No filter, line-ending conversion or attribute takes part, so that a state can be restored byte for byte.

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dsv4agent.tools._git_repository import Refusal, Repository
from dsv4agent.tools._git_view import masked_files

MAX_FILE_BYTES = 32 << 20
"""Larger files are left out of checkpoints and never touched by a restore."""
MAX_NEW_BYTES = 1 << 30
"""New content that one checkpoint may add."""
MAX_FILES = 200_000
BATCH_BYTES = 64 << 20
"""New content that lies in the private folder at one time."""
SETTLED_NS = 2_500_000_000
"""A file changed so shortly before it was read may change again without a new time; covers coarse clocks."""

FILE, EXECUTABLE, LINK, SUBMODULE = "100644", "100755", "120000", "160000"
TEMPORARY = b".dsv4agent-"
"""Names that begin so are files being written, here and in the sandbox's file server."""


class Entry(NamedTuple):
    """What stands at a path."""

    mode: str
    oid: str


State = dict[bytes, Entry]


class Look(NamedTuple):
    """A path as found: its entry, or why it has none; permission bits of a file, and its bytes."""

    entry: Entry | None
    reason: str = ""
    permissions: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class Scan:
    """A work tree at one moment.

    Attributes:
        state: All files and links that are tracked or not ignored, and tracked submodules.
        skipped: Paths left out, with what would tell a change: too large, unreadable, pipes, devices.
        permissions: Permission bits of files where git's one bit does not tell them.
        index: Tracked entries as the index has them, or None while it has conflicts.
        ignored: What the ignore rules hide, whole folders as `name/`.
        rules: The ignore rules in force, as an opaque value.
    """

    state: State
    skipped: dict[bytes, str]
    permissions: dict[bytes, int]
    index: State | None
    ignored: frozenset[bytes]
    rules: str


@dataclass
class Scanner:
    """Scans one work tree again and again, reading only what changed."""

    repository: Repository
    _cache: dict[bytes, tuple[tuple[int, ...], Entry]] = field(
        default_factory=dict[bytes, "tuple[tuple[int, ...], Entry]"]
    )

    def scan(self, known: Mapping[bytes, Entry]) -> Scan:
        """Read the work tree and store all of its content in the object database.

        Args:
            known: The last checkpoint's state: its content is stored, and no new ignore rule hides its paths.

        Raises:
            Refusal: `too_large`.
        """
        repository = self.repository
        index: State | None = {}
        paths: set[bytes] = {path for path in known if not _is_ours(path)}
        state: State = {}
        listing = repository.git("ls-files", "-z", "-t", "-s", "-c", "-o", "--exclude-standard")
        for record in listing.split(b"\0")[:-1]:
            if record.startswith(b"? "):
                path = record[2:]
                # A nested repository is another's; a trailing slash says so.
                if not path.endswith(b"/") and not _is_ours(path):
                    paths.add(path)
                continue
            fields, path = record.split(b"\t", 1)
            _, mode, oid, stage = fields.decode().split(" ")
            if index is not None:
                index[path] = Entry(mode, oid)
            if stage != "0":
                index = None
            if mode == SUBMODULE:
                state[path] = Entry(mode, oid)
                paths.discard(path)
            else:
                paths.add(path)
        if len(paths) > MAX_FILES:
            raise Refusal(
                "too_large", f"{len(paths)} files; checkpoints hold {MAX_FILES}. Ignore some of them"
            )
        # Blobs of the index are in the database; everything else is written, so that git keeps it.
        have = {entry.oid for entry in (*known.values(), *(index or {}).values())}
        skipped: dict[bytes, str] = {}
        permissions: dict[bytes, int] = {}
        usual = 0o777 & ~umask()
        writer = _BlobWriter(repository, have)
        folders = Folders(repository.root)
        cache: dict[bytes, tuple[tuple[int, ...], Entry]] = {}
        masked = masked_files(os.path.realpath(repository.root))
        for path in sorted(paths - state.keys()):
            if path in masked:
                skipped[path] = "hidden by the sandbox"
                continue
            if not folders.real(os.path.dirname(path)):
                continue  # Below a link or a file, where git sees nothing either.
            found = self._look(path, writer, cache)
            if found.entry is not None:
                state[path] = found.entry
                if found.permissions and found.permissions != usual & (
                    0o777 if found.entry.mode == EXECUTABLE else 0o666
                ):
                    permissions[path] = found.permissions
            elif found.reason:
                skipped[path] = found.reason
        writer.flush()
        self._cache = cache
        return Scan(state, skipped, permissions, index, self._ignored(), self._rules(state))

    def _look(
        self, path: bytes, writer: _BlobWriter, cache: dict[bytes, tuple[tuple[int, ...], Entry]]
    ) -> Look:
        full = os.path.join(self.repository.root, path)
        stamp = _stamp(full)
        old = self._cache.get(path)
        if old is not None and old[0] == stamp and old[1].oid in writer.have:
            cache[path] = old
            return Look(old[1], permissions=stat.S_IMODE(stamp[0]) & 0o777 if old[1].mode != LINK else 0)
        now = time.time_ns()
        found = look(full, self.repository.object_format)
        if found.entry is not None:
            writer.add(found.entry.oid, found.data)
            if stamp and stamp == _stamp(full) and now - stamp[-1] > SETTLED_NS:
                cache[path] = stamp, found.entry
        return found

    def _ignored(self) -> frozenset[bytes]:
        out = self.repository.git("ls-files", "-z", "-o", "-i", "--exclude-standard", "--directory")
        return frozenset(out.split(b"\0")[:-1])

    def _rules(self, state: Mapping[bytes, Entry]) -> str:
        digest = hashlib.sha256()
        for path, entry in sorted(state.items()):
            if os.path.basename(path) == b".gitignore":
                digest.update(path + b"\0" + entry.oid.encode())
        try:
            with open(os.path.join(self.repository.common_dir, "info", "exclude"), "rb") as file:
                digest.update(file.read(1 << 20))
        except OSError:
            pass  # Most repositories have none that says anything.
        return digest.hexdigest()


class Folders:
    """Tells which folders of a work tree are real ones, reached through no link."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._known: dict[bytes, bool] = {b"": True}

    def real(self, folder: bytes) -> bool:
        """Tell whether a relative path is a folder all the way down."""
        known = self._known.get(folder)
        if known is None:
            known = self.real(os.path.dirname(folder)) and _is_folder(os.path.join(self._root, folder))
            self._known[folder] = known
        return known


def look(full: bytes, object_format: str) -> Look:
    """Read what stands at an absolute path, following no link in its last part."""
    try:
        found = os.lstat(full)
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(full)
            return Look(Entry(LINK, blob_id(target, object_format)), data=target)
        if stat.S_ISDIR(found.st_mode):
            return Look(None)
        if not stat.S_ISREG(found.st_mode):
            return Look(None, "not a regular file")
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Look(None)
    except OSError as error:
        return Look(None, error.strerror or str(error))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return Look(None, "not a regular file")
        data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            return Look(None, f"over {MAX_FILE_BYTES} bytes: {found.st_size}, {found.st_mtime_ns}")
    mode = EXECUTABLE if found.st_mode & 0o100 else FILE
    return Look(Entry(mode, blob_id(data, object_format)), permissions=found.st_mode & 0o777, data=data)


def blob_id(data: bytes, object_format: str) -> str:
    """Return the id under which git stores exactly these bytes."""
    return hashlib.new(object_format, b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def c_quoted(path: bytes) -> bytes:
    """Return a path as git reads it from a line of its own, whatever bytes it holds."""
    return b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


class _BlobWriter:
    """Puts exact bytes into the object database, many at a time."""

    def __init__(self, repository: Repository, have: set[str]) -> None:
        self.have = have
        self._repository = repository
        self._waiting: list[str] = []
        self._bytes = 0
        self._total = 0

    def add(self, oid: str, data: bytes) -> None:
        """Take a blob that the database may lack."""
        if oid in self.have:
            return
        self.have.add(oid)
        self._total += len(data)
        if self._total > MAX_NEW_BYTES:
            raise Refusal("too_large", f"over {MAX_NEW_BYTES >> 20} MiB of new content; ignore some of it")
        # A copy, since the file itself may change before git reads it.
        with open(self._repository.scratch(f"blob-{oid}"), "wb") as file:
            file.write(data)
        self._waiting.append(oid)
        self._bytes += len(data)
        if self._bytes > BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        copies = [self._repository.scratch(f"blob-{oid}") for oid in waiting]
        names = b"".join(c_quoted(os.fsencode(path)) + b"\n" for path in copies)
        written = self._repository.git("hash-object", "-w", "--no-filters", "--stdin-paths", input=names)
        if written.decode().split() != waiting:
            raise Refusal("git_failed", "the object database stored other bytes than were read; try again")
        for path in copies:
            os.unlink(path)


def _is_ours(path: bytes) -> bool:
    """Tell whether a path is no part of a work tree: a file being written, or something in a git folder."""
    parts = path.split(b"/")
    return parts[-1].startswith(TEMPORARY) or any(part.lower() == b".git" for part in parts)


def _is_folder(full: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(full).st_mode)
    except OSError:
        return False


def _stamp(full: bytes) -> tuple[int, ...]:
    """Return what changes whenever a file does, its time of change last."""
    try:
        found = os.lstat(full)
    except OSError:
        return ()
    return found.st_mode, found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def umask() -> int:
    """Return the file mode creation mask."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
