"""What pages send as files: kept in one folder, bounded in size, never over a file that is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from playwright.async_api import Download
from playwright.async_api import Error as PlaywrightError

from dsv4agent.tools._browser_words import clipped, quoted


class Downloads:
    """Saves what pages send as files into one folder, never over a file that is there.

    Args:
        folder: Where to; made when first needed.
        spool: Where the browser writes while a download runs.
        limit: The most bytes of one file.
        report: Takes a line about something that happened.
    """

    def __init__(self, folder: str, spool: str, limit: int, report: Callable[[str], None]) -> None:
        self._folder, self._spool, self._limit, self._report = folder, spool, limit, report
        self._running: set[asyncio.Task[None]] = set()

    def start(self, download: Download) -> None:
        """Save a download in the background."""
        task = asyncio.create_task(self._save(download))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def wait(self, seconds: float) -> None:
        """Wait for running downloads, but not for ever; what comes later is reported later."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        if self._running:
            self._report("a download is still running; wait shows when it is saved")

    async def _save(self, download: Download) -> None:
        name = clipped(download.suggested_filename)
        exceeded = asyncio.Event()
        guard = asyncio.create_task(self._guard(download, exceeded))
        try:
            path = str(await download.path())
            size = await asyncio.to_thread(os.path.getsize, path)
            if size > self._limit:
                self._report(f"download {quoted(name)} failed: more than {self._limit} bytes")
            else:
                saved = await asyncio.to_thread(copy_without_overwriting, path, self._folder, name)
                self._report(f"download saved to {saved} ({size} bytes)")
            await download.delete()
        except PlaywrightError:
            reason = f"more than {self._limit} bytes" if exceeded.is_set() else await _failure(download)
            self._report(f"download {quoted(name)} failed: {reason}")
        except OSError as error:
            self._report(f"download {quoted(name)} could not be saved: {error.strerror}")
        finally:
            guard.cancel()

    async def _guard(self, download: Download, exceeded: asyncio.Event) -> None:
        """Cancel a download that grows too large; the spool is seen whole, so several share the limit."""
        while await asyncio.to_thread(_folder_size, self._spool) <= self._limit:  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # Nothing tells of growth.
        exceeded.set()
        await download.cancel()


def copy_without_overwriting(source: str, folder: str, name: str) -> str:
    """Copy a file into a folder under its name, or `name-1`, `name-2` and so on; return the path."""
    os.makedirs(folder, exist_ok=True)
    stem, extension = os.path.splitext(safe_name(name))
    number = 0
    while True:
        path = os.path.join(folder, f"{stem}-{number}{extension}" if number else f"{stem}{extension}")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            number += 1
            continue
        with open(source, "rb") as reader, os.fdopen(descriptor, "wb") as writer:
            while piece := reader.read(1 << 20):
                writer.write(piece)
        return path


def safe_name(name: str) -> str:
    """Return a file name without folders, hidden start, marks of the shell, or more than 100 characters."""
    base = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(mark if mark.isalnum() or mark in "._-" else "_" for mark in base).lstrip("._-")
    stem, extension = os.path.splitext(kept)
    return (stem[: 100 - len(extension[:20])] + extension[:20]) or "download"


def _folder_size(folder: str) -> int:
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except OSError:
                pass  # Just deleted.
    return total


async def _failure(download: Download) -> str:
    try:
        return clipped(await download.failure() or "unknown reason")
    except PlaywrightError:
        return "its page was closed"
