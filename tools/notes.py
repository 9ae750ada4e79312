"""The `notes` tool: markdown files that outlast a session, with search over them."""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import anyio

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, ToolContext, ToolResult
from dsv4agent.tools.note_search import PROVENANCE, search_notes
from dsv4agent.tools.output import fits, keep_start
from dsv4agent.tools.refusal import Refusal, os_refusal, require_text

DEFAULT_FOLDER = ".dsv4agent/notes"
"""Relative to the workspace."""
MAX_NOTE_BYTES = 64 << 10
MAX_NOTES = 200

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NEEDS = {
    "write": ("name", "text"),
    "append": ("name", "text"),
    "read": ("name",),
    "list": (),
    "search": ("query",),
    "delete": ("name",),
}


class Notes:
    """Keeps notes as `NAME.md` in one folder, through the session's sandbox.

    Args:
        folder: Absolute folder that the sandbox's policy lets be written; None for `.dsv4agent/notes` in the
            workspace, which git is told to ignore.
        source: Who writes, as the line above each text says (a session's name).
    """

    name = "notes"
    description = "Keep notes that outlast this session, and find them again."
    effects = Effects.WORKSPACE

    def __init__(self, folder: str | None = None, *, source: str = "agent") -> None:
        self._folder = folder
        self._source = " ".join(source.replace("-->", "").split())
        self._lock = anyio.Lock()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["action"],
            "properties": {
                "action": {"type": "string", "enum": list(_NEEDS), "description": "What to do."},
                "name": {"type": "string", "description": "Name of the note: letters, digits, - and _."},
                "text": {"type": "string", "description": "Markdown, for write and append."},
                "query": {"type": "string", "description": "Words to look for, for search."},
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Do one action; whatever the model can mend is a result with a code."""
        action: str = args["action"]
        try:
            missing = [name for name in _NEEDS[action] if not args.get(name)]
            if missing:
                raise Refusal("invalid_arguments", f"{action} needs {' and '.join(_NEEDS[action])}")
            shelf = _Shelf(ctx.sandbox, self._folder, self._source)
            # One at a time: an append reads and writes.
            async with self._lock:
                text = await _act(shelf, action, args)
        except Refusal as refusal:
            return refusal.result()
        return ToolResult(_cut(text, ctx))

    async def aclose(self) -> None:
        """Do nothing: the notes are files."""


async def _act(shelf: _Shelf, action: str, args: Mapping[str, Any]) -> str:
    if action == "list":
        return await shelf.list()
    if action == "search":
        return await shelf.search(args["query"])
    name = str(args["name"]).removesuffix(".md")
    if not _NAME.fullmatch(name):
        raise Refusal(
            "invalid_arguments", "a name has 1 to 64 letters, digits, - and _, and begins with no mark"
        )
    if action == "read":
        return await shelf.read(name)
    if action == "delete":
        return await shelf.delete(name)
    return await shelf.write(name, args["text"], append=action == "append")


class _Shelf:
    """The notes in one sandbox's folder."""

    def __init__(self, sandbox: Sandbox, folder: str | None, source: str) -> None:
        self._sandbox = sandbox
        self._in_workspace = folder is None
        self._folder = folder or posixpath.join(sandbox.policy.workspace, DEFAULT_FOLDER)
        self._source = source

    async def write(self, name: str, text: str, *, append: bool) -> str:
        """Replace a note, or add to its end, with a line above that says when and by whom."""
        names = [known for known, _ in await self._entries()]
        if name not in names and len(names) >= MAX_NOTES:
            raise Refusal("too_many_notes", f"{MAX_NOTES} notes exist; delete or merge some first")
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        content = f"<!-- {stamp}, {self._source} -->\n{text.strip()}\n"
        if append and name in names:
            content = f"{(await self._load(name)).rstrip()}\n\n{content}"
        require_text(text=text)
        data = content.encode()
        if len(data) > MAX_NOTE_BYTES:
            raise Refusal(
                "too_large", f"{name} would have {len(data)} bytes, {MAX_NOTE_BYTES} are allowed; split it"
            )
        try:
            if self._in_workspace:
                await self._hide_from_git()
            await self._sandbox.write_bytes(self._path(name), data)
        except OSError as error:
            raise _refusal(error, name) from None
        return f"{'Appended to' if append and name in names else 'Wrote'} {name} ({len(data)} bytes)."

    async def read(self, name: str) -> str:
        """Return a note."""
        return (await self._load(name)).rstrip()

    async def list(self) -> str:
        """Return names with size, date of the first line and first words."""
        lines: list[str] = []
        for name, size in await self._entries():
            text = await self._load(name)
            date = PROVENANCE.match(text)
            words = next((line for line in text.split("\n") if line and not PROVENANCE.match(line)), "")
            lines.append(f"{name} ({size} bytes, {date[1] if date else 'no date'}): {words[:80]}")
        return "\n".join(lines) or "No notes yet."

    async def search(self, query: str) -> str:
        """Return the paragraphs that match best, with note and line number."""
        texts = {name: await self._load(name) for name, _ in await self._entries()}
        matches = await anyio.to_thread.run_sync(search_notes, texts, query)
        if not matches:
            raise Refusal("not_found", f"none of {len(texts)} notes has these words; try others, or list")
        return "\n".join(f"{match.name}:{match.line}: {match.excerpt}" for match in matches)

    async def delete(self, name: str) -> str:
        """Remove a note."""
        try:
            await self._sandbox.remove(self._path(name))
        except OSError as error:
            raise _refusal(error, name) from None
        return f"Deleted {name}."

    async def _entries(self) -> list[tuple[str, int]]:
        """Return names and sizes of what can be notes, sorted."""
        try:
            entries = await self._sandbox.list_dir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _refusal(error, self._folder) from None
        return [
            (name.removesuffix(".md"), found.size)
            for name, found in entries
            if found.kind == "file" and name.endswith(".md") and _NAME.fullmatch(name.removesuffix(".md"))
        ]

    async def _load(self, name: str) -> str:
        try:
            # Someone else may have put more there than a note can hold.
            data = await self._sandbox.read_bytes(self._path(name), MAX_NOTE_BYTES)
        except OSError as error:
            raise _refusal(error, name) from None
        return data.decode("utf-8", "replace")

    async def _hide_from_git(self) -> None:
        path = posixpath.join(posixpath.dirname(self._folder), ".gitignore")
        try:
            await self._sandbox.stat(path)
        except FileNotFoundError:
            await self._sandbox.write_bytes(path, b"*\n")

    def _path(self, name: str) -> str:
        return posixpath.join(self._folder, f"{name}.md")


def _refusal(error: OSError, name: str) -> Refusal:
    if error.errno == errno.ENOENT:
        return Refusal("not_found", f"no note {name}; list shows what there is")
    return os_refusal(error, name)


def _cut(text: str, ctx: ToolContext) -> str:
    if fits(text, ctx.max_output_tokens, ctx.count_tokens):
        return text
    marker = "\n[cut here; search shows single paragraphs]"
    room = max(ctx.max_output_tokens - ctx.count_tokens(marker), 0)
    return keep_start(text, room, ctx.count_tokens).rstrip("\n") + marker
