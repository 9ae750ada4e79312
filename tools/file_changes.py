"""Changes to several files that are planned first and then written all, or none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from dsv4agent.sandboxes import FileStat, Sandbox
from dsv4agent.tools.refusal import Refusal, folder_refusal, os_refusal, write_refusal
from dsv4agent.tools.text_file import read_data


@dataclass
class PlannedFile:
    """One file as it is, and as it is to be.

    Attributes:
        path: Absolute path.
        shown: The path as the model wrote it first.
        found: What was there when it was read; None if nothing.
        before: The bytes that were there.
        data: The bytes to be there; None for no file.
        mode: Permission bits to be there; None leaves them to the sandbox.
    """

    path: str
    shown: str
    found: FileStat | None
    before: bytes | None
    data: bytes | None
    mode: int | None

    @property
    def exists(self) -> bool:
        """Whether the plan so far has a file here."""
        return self.data is not None

    @property
    def changes(self) -> bool:
        """Whether the plan differs from what was there."""
        mode = None if self.found is None else self.found.mode
        return self.data != self.before or (self.exists and self.mode not in {None, mode})

    def put(self, data: bytes, mode: int | None = None) -> None:
        """Plan that the file holds these bytes."""
        self.data = data
        self.mode = mode

    def take_away(self) -> None:
        """Plan that there is no file."""
        self.data = None


class FileChanges:
    """Reads each file once, holds what it is to become, and writes everything at the end."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._files: dict[str, PlannedFile] = {}

    async def file(self, path: str, shown: str) -> PlannedFile:
        """Return the file at an absolute path as planned so far.

        Raises:
            Refusal: It cannot be read, or is no file.
        """
        if path not in self._files:
            self._files[path] = await self._read(path, shown)
        return self._files[path]

    async def write(self) -> None:
        """Write all files, then remove those that go; put back what was done if one of these fails.

        A cancellation waits for the end, so that the files are all as before or all as planned. Folders that
        were made stay.

        Raises:
            Refusal: `stale_file` if a file changed since it was read, or the kernel's refusal of a write.
        """
        files = [file for file in self._files.values() if file.changes]
        # Removals last: a file written anew in its place would not be the link that may have been removed.
        files.sort(key=lambda file: file.data is None)
        with anyio.CancelScope(shield=True):
            for index, file in enumerate(files):
                try:
                    await self._require_unchanged(file)
                    await self._put(file.path, file.data, file.mode)
                except (OSError, Refusal) as error:
                    failure = (
                        write_refusal(error, file.shown, file.path, self._sandbox.policy)
                        if isinstance(error, OSError)
                        else error
                    )
                    lost = await self._put_back(files[:index])
                    raise Refusal(failure.code, f"{failure.reason}; {lost}") from None

    async def _read(self, path: str, shown: str) -> PlannedFile:
        try:
            found = await self._sandbox.stat(path)
            if found.kind == "dir":
                raise folder_refusal(shown)
            data = await read_data(self._sandbox, path, shown)
        except FileNotFoundError:
            return PlannedFile(path, shown, None, None, None, None)
        except OSError as error:
            raise os_refusal(error, shown) from None
        return PlannedFile(path, shown, found, data, data, found.mode)

    async def _require_unchanged(self, file: PlannedFile) -> None:
        try:
            now = await self._sandbox.stat(file.path)
        except FileNotFoundError:
            now = None
        if now != file.found:
            raise Refusal("stale_file", f"{file.shown} changed while the patch was applied; view it again")

    async def _put(self, path: str, data: bytes | None, mode: int | None) -> None:
        if data is None:
            await self._sandbox.remove(path)
        else:
            await self._sandbox.write_bytes(path, data, mode=mode)

    async def _put_back(self, files: Sequence[PlannedFile]) -> str:
        """Undo the changes of these files and say how that went."""
        lost: list[str] = []
        for file in reversed(files):
            mode = None if file.found is None else file.found.mode
            try:
                await self._put(file.path, file.before, mode)
            except OSError:
                lost.append(file.shown)
        if lost:
            return f"these files could not be put back: {', '.join(lost)}"
        return "no file was changed"
