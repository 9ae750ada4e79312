"""One path of a restore, moved such that a kill or a change at any moment loses no byte.

Runs inside the sandbox (see `_git_server`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dsv4agent.tools._git_scan import LINK, TEMPORARY, Entry, Folders, blob_id, look

_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCHANGE = -100, 1, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class ChangedMeanwhile(Exception):
    """Raised when a path does not hold what the plan expects; it is left, or put back, as it was."""


@dataclass(frozen=True)
class Replacement:
    """What a plan does at one path.

    Attributes:
        root: Top of the work tree.
        object_format: Hash of the repository.
        path: Path below the root.
        now: What must stand there; None for nothing.
        then: What shall stand there; None for nothing.
        plan: Id of the plan; with `number` it names the temporary files.
        number: Place in the plan.
        begins: Called when a new file lies ready, before it gets its name: of a step that began and has no
            file aside, it is known that it got it, whatever the user has done with it since.
        resets: Called before the file aside of a step that began and came no further is given up.
        done: Called when the step is done, before the file that it replaced is given up: with that order a
            cut leaves either the note or the file, and what the user does afterwards is known to be theirs.
    """

    root: bytes
    object_format: str
    path: bytes
    now: Entry | None
    then: Entry | None
    plan: str
    number: int
    begins: Callable[[], None]
    resets: Callable[[], None]
    done: Callable[[], None]

    def remove(self) -> None:
        """Delete the file if it is as expected.

        Raises:
            ChangedMeanwhile: It is not.
            OSError: As the kernel says.
        """
        self._require_now()
        # Taken aside first, so that what is deleted is what was compared.
        os.rename(self._full, self._aside)
        if self._entry(self._aside) != self.now:
            self._put_back()
            raise ChangedMeanwhile("changed while it was being removed")
        self._sync_folder()
        self.done()
        os.unlink(self._aside)

    def place(self, data: bytes, permissions: int) -> None:
        """Create or replace the file.

        Raises:
            ChangedMeanwhile: Something else than expected stands there.
            OSError: As the kernel says.
        """
        assert self.then is not None
        if blob_id(data, self.object_format) != self.then.oid:
            raise OSError(errno.EIO, "the object database holds other bytes than were saved")
        self._make_folders()
        self._require_now()
        self._write_aside(data, permissions)
        if self.now is None:
            self.begins()
            self._appear()
        else:
            self._trade()
        self._sync_folder()
        self.done()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._aside)

    def settle(self, *, began: bool = False) -> bool:
        """Tidy up after a step that was cut; tell whether what is left shows that it was done.

        Args:
            began: Whether `begins` was called.
        """
        with contextlib.suppress(OSError):
            os.unlink(self._part)
        if not os.path.lexists(self._aside):
            return began
        entry = self._entry(self._aside)
        ours = entry is not None and entry in {self.now, self.then}
        # The old file lies aside only once the new one, or nothing, has its place. A new one may have two
        # names.
        done = ours and (entry == self.now or _is_same(self._aside, self._full))
        if done:
            self.done()
        elif began:
            self.resets()
        if ours:
            os.unlink(self._aside)
        else:
            self._put_back()  # Bytes that may be in no checkpoint.
        return done

    @property
    def _full(self) -> bytes:
        return os.path.join(self.root, self.path)

    @property
    def _part(self) -> bytes:
        return self._beside(b"part")

    @property
    def _aside(self) -> bytes:
        return self._beside(b"aside")

    def _beside(self, kind: bytes) -> bytes:
        name = b"%s%s-%d.%s" % (TEMPORARY, self.plan.encode(), self.number, kind)
        return os.path.join(os.path.dirname(self._full), name)

    def _entry(self, full: bytes) -> Entry | None:
        return look(full, self.object_format).entry

    def _require_now(self) -> None:
        if not is_at(self.root, self.path, self.now, self.object_format, Folders(self.root)):
            raise ChangedMeanwhile("changed meanwhile")

    def _make_folders(self) -> None:
        """Make the folders above, and clear empty ones out of the way."""
        parts = self.path.split(b"/")
        for count in range(1, len(parts)):
            folder = os.path.join(self.root, *parts[:count])
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise ChangedMeanwhile("a file or link stands in place of its folder")
        if self.now is None and os.path.isdir(self._full) and not os.path.islink(self._full):
            for folder, _, _ in os.walk(self._full, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    raise ChangedMeanwhile("a folder that is not empty stands in its place") from None

    def _write_aside(self, data: bytes, permissions: int) -> None:
        assert self.then is not None
        if self.then.mode == LINK:
            os.symlink(data, self._aside)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._part, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), permissions)
            os.fsync(file.fileno())
        # Only a whole file ever has the second name.
        os.rename(self._part, self._aside)

    def _appear(self) -> None:
        """Give the file its name unless something took it."""
        try:
            if _rename(self._aside, self._full, _RENAME_NOREPLACE):
                return
        except FileExistsError:
            os.unlink(self._aside)
            raise ChangedMeanwhile("appeared meanwhile") from None
        try:
            os.link(self._aside, self._full, follow_symlinks=False)
        except FileExistsError:
            os.unlink(self._aside)
            raise ChangedMeanwhile("appeared meanwhile") from None
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK} or os.path.lexists(
                self._full
            ):
                raise
            os.rename(self._aside, self._full)  # A file system without hard links.

    def _trade(self) -> None:
        """Let both files change places, and look what came out."""
        if not _exchange(self._aside, self._full):
            self._require_now()
            os.rename(self._aside, self._full)
            return
        if self._entry(self._aside) != self.now:
            self._put_back()
            raise ChangedMeanwhile("changed while it was being replaced")

    def _put_back(self) -> None:
        """Give what lies aside, bytes that are in no checkpoint, its place again."""
        with contextlib.suppress(OSError):
            os.link(self._aside, self._full, follow_symlinks=False)
        if _is_same(self._aside, self._full):
            os.unlink(self._aside)
            return
        if (
            self.then is not None
            and self._entry(self._full) == self.then
            and _exchange(self._aside, self._full)
        ):
            if self._entry(self._aside) == self.then:
                os.unlink(self._aside)
                return
        # Its place was taken again: both stay.
        os.rename(self._aside, self._full + b".kept-" + self.plan.encode())

    def _sync_folder(self) -> None:
        descriptor = os.open(os.path.dirname(self._full), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_at(root: bytes, path: bytes, entry: Entry | None, object_format: str, folders: Folders) -> bool:
    """Tell whether a path holds exactly this (None: nothing, or a folder)."""
    if not folders.real(os.path.dirname(path)):
        return entry is None
    found = look(os.path.join(root, path), object_format)
    return found.entry == entry and not found.reason


def remove_empty_folders(root: bytes, removed: Iterable[bytes]) -> None:
    """Remove folders that held removed files, and those above, as long as they are empty."""
    for path in sorted(removed, reverse=True):
        folder = os.path.dirname(path)
        while folder:
            try:
                os.rmdir(os.path.join(root, folder))
            except OSError:
                break
            folder = os.path.dirname(folder)


def _is_same(one: bytes, other: bytes) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


def _exchange(one: bytes, other: bytes) -> bool:
    """Let two names trade places at once; False where the file system cannot."""
    return _rename(one, other, _RENAME_EXCHANGE)


def _rename(one: bytes, other: bytes, flags: int) -> bool:
    if _LIBC.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
        return False
    raise OSError(code, os.strerror(code))
