"""The `str_replace_editor` tool: view, create and edit text files through the session's sandbox."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, Status, ToolContext, ToolResult
from dsv4agent.tools.file_view import (
    binary_kind,
    cut_start,
    decode_text,
    displayed_lines,
    list_folder,
    numbered,
)
from dsv4agent.tools.replacement import (
    Ambiguity,
    find_replacement,
    line_ending,
    line_number,
    nearest_region,
    with_line_ending,
)
from dsv4agent.tools.syntax_check import new_syntax_error

MAX_FILE_BYTES = 8 << 20
CONTEXT_LINES = 2
_SHOWN_MATCHES = 20

_NEEDS = {
    "view": (),
    "create": ("file_text",),
    "str_replace": ("old_str", "new_str"),
    "insert": ("insert_line", "new_str"),
}


class StrReplaceEditor:
    """Views, creates and edits files; remembers what it showed, not to overwrite what others changed."""

    name = "str_replace_editor"
    description = "View, create and edit text files."
    effects = Effects.WORKSPACE

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Sandbox, dict[str, int]] = WeakKeyDictionary()
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["command", "path"],
            "properties": {
                "command": {
                    "type": "string",
                    "enum": ["view", "create", "str_replace", "insert"],
                    "description": "What to do.",
                },
                "path": {
                    "type": "string",
                    "description": "Path of the file, absolute or relative to the workspace.",
                },
                "file_text": {"type": "string", "description": "Whole new text, for create."},
                "old_str": {
                    "type": "string",
                    "description": "Text to replace, which must occur exactly once, for str_replace.",
                },
                "new_str": {"type": "string", "description": "New text, for str_replace and insert."},
                "insert_line": {
                    "type": "integer",
                    "minimum": 0,
                    "description": "Line after which to insert, 0 for the start.",
                },
                "view_range": {
                    "type": "array",
                    "items": {"type": "integer"},
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "First and last line to view, -1 for the end.",
                },
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Run one command; whatever the model can mend is a result with a code."""
        seen = self._seen.get(ctx.sandbox)
        if seen is None:
            seen = self._seen[ctx.sandbox] = {}
        command: str = args["command"]
        missing = [name for name in _NEEDS[command] if args.get(name) is None]
        try:
            if missing:
                raise _Refusal("invalid_arguments", f"{command} needs {' and '.join(_NEEDS[command])}")
            call = _Call(ctx, args, seen)
            if command == "view":
                text = await call.view()
            elif command == "create":
                text = await call.create()
            elif command == "str_replace":
                text = await call.str_replace()
            else:
                text = await call.insert()
        except _Refusal as refusal:
            denied = refusal.code in {"outside_workspace", "permission_denied"}
            return ToolResult(
                text=f"{refusal.code}: {refusal.reason}",
                status=Status.DENIED if denied else Status.ERROR,
                code=refusal.code,
            )
        return ToolResult(text=text)

    async def aclose(self) -> None:
        """Forget what was seen."""
        self._seen.clear()


class _Refusal(Exception):
    """The call ends with a stable code and the next useful step."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass
class _Call:
    """One call: its path as the model wrote it (`shown`) and as the sandbox takes it (`path`)."""

    ctx: ToolContext
    args: Mapping[str, Any]
    seen: dict[str, int]
    shown: str = field(init=False)
    path: str = field(init=False)

    def __post_init__(self) -> None:
        self.shown = self.args["path"]
        if not self.shown or "\0" in self.shown:
            raise _Refusal("invalid_arguments", "path is empty or holds a NUL character")
        try:
            self.shown.encode()
        except UnicodeEncodeError:
            raise _Refusal(
                "invalid_arguments", "path holds a lone surrogate; write it as plain text"
            ) from None
        # Joined, not normalised: `..` behind a symbolic link is for the kernel inside the sandbox to resolve.
        self.path = posixpath.join(self.ctx.sandbox.policy.workspace, self.shown)

    async def view(self) -> str:
        try:
            text = await self._read()
        except IsADirectoryError:
            if self.args.get("view_range") is not None:
                raise _Refusal("invalid_arguments", f"{self.shown} is a directory; omit view_range") from None
            try:
                return await list_folder(self.ctx, self.path)
            except OSError as error:
                raise self._refusal(error, writing=False) from None
        lines = displayed_lines(text)
        first, last = self._range(len(lines))
        if not lines:
            return "(empty file)"
        whole = "\n".join(numbered(lines, first, last))
        shown = cut_start(self.ctx, whole)
        if shown is whole:
            return whole
        end = first + shown.count("\n")
        return f"{shown}\n[... lines {end + 1}-{last} of {len(lines)} not shown; use view_range]"

    async def create(self) -> str:
        data = self._encoded(self.args["file_text"])
        before: str | None = None
        try:
            before = await self._read(remember=False)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise _is_folder(self.shown) from None
        except _Refusal as refusal:
            if refusal.code not in {"binary_file", "too_large"}:
                raise
            raise _Refusal(
                refusal.code, f"{self.shown} exists and is not a text file; remove it first"
            ) from None
        if before is not None and self.seen.get(self.path) != hash(before):
            how = "changed since it was last seen" if self.path in self.seen else "exists and was not viewed"
            raise _Refusal("stale_file", f"{self.shown} {how}; view it before overwriting it")
        await self._write(data, self.args["file_text"])
        done = f"Created {self.shown}." if before is None else f"Overwrote {self.shown}."
        return self._with_warning(done, before, self.args["file_text"])

    async def str_replace(self) -> str:
        old, new = self.args["old_str"], self.args["new_str"]
        if not old:
            raise _Refusal("invalid_arguments", "old_str is empty; give the text to replace, or use insert")
        if old == new:
            raise _Refusal("no_change", "old_str and new_str are the same; nothing was edited")
        text = await self._read_file()
        found = find_replacement(text, old, new)
        if found is None:
            raise _Refusal("not_found", self._nearest(text, old))
        if isinstance(found, Ambiguity):
            raise _Refusal("not_unique", self._ambiguity(found.lines))
        after = text[: found.start] + found.new + text[found.end :]
        if after == text:
            raise _Refusal("no_change", f"the edit leaves {self.shown} as it is")
        await self._write(self._encoded(after), after)
        done = f"Edited {self.shown} ({found.looseness})." if found.looseness else f"Edited {self.shown}."
        return self._edited(done, text, after, found.start, found.start + len(found.new))

    async def insert(self) -> str:
        line: int = self.args["insert_line"]
        text = await self._read_file()
        ending = line_ending(text)
        new = with_line_ending(self.args["new_str"], ending)
        lines = text.split("\n")
        count = len(lines) - (lines[-1] == "")
        if line > count:
            raise _Refusal(
                "invalid_arguments", f"insert_line {line} is past the end; {self.shown} has {count} lines"
            )
        if count and line == count and lines[-1]:
            # After a last line without a newline; the new last line has none either.
            start, begin = len(text), len(text) + len(ending)
            block = ending + new.removesuffix(ending)
        else:
            start = sum(len(before) + 1 for before in lines[:line]) or int(text.startswith("\ufeff"))
            begin = start
            block = new if new.endswith("\n") else new + ending
        after = text[:start] + block + text[start:]
        await self._write(self._encoded(after), after)
        return self._edited(f"Edited {self.shown}.", text, after, begin, start + len(block))

    def _edited(self, done: str, before: str, after: str, start: int, end: int) -> str:
        """Say that it is done, show the new lines with two lines of context, and warn."""
        lines = displayed_lines(after)
        first = line_number(after, start)
        last = line_number(after, end - 1 if end > start and after[end - 1] == "\n" else end)
        region = numbered(lines, max(first - CONTEXT_LINES, 1), min(last + CONTEXT_LINES, len(lines)))
        shown = cut_start(self.ctx, "\n".join(region))
        return self._with_warning(f"{done}\n{shown}" if shown else done, before, after)

    def _with_warning(self, text: str, before: str | None, after: str) -> str:
        error = new_syntax_error(self.path, before, after)
        return f"{text}\nwarning: {error}" if error else text

    def _nearest(self, text: str, old: str) -> str:
        region = nearest_region(text, old)
        if region is None:
            return f"old_str is not in {self.shown}; view the file and copy the text exactly"
        first, last = region
        shown = cut_start(self.ctx, "\n".join(numbered(displayed_lines(text), first, last)))
        where = f"line {first}" if first == last else f"lines {first}-{last}"
        return f"old_str is not in {self.shown}; the nearest text is at {where}:\n{shown}"

    def _ambiguity(self, lines: tuple[int, ...]) -> str:
        places = ", ".join(str(line) for line in lines[:_SHOWN_MATCHES])
        more = ", ..." if len(lines) > _SHOWN_MATCHES else ""
        return (
            f"old_str occurs {len(lines)} times in {self.shown}, at lines {places}{more}; "
            "include more lines to make it unique"
        )

    def _range(self, count: int) -> tuple[int, int]:
        wanted = self.args.get("view_range")
        if wanted is None:
            return 1, count
        first, last = wanted
        if first < 1 or (last != -1 and last < first):
            raise _Refusal("invalid_arguments", "view_range needs 1 <= first <= last, or -1 as last")
        if first > max(count, 1):
            raise _Refusal(
                "invalid_arguments", f"view_range starts at {first} but {self.shown} has {count} lines"
            )
        return first, count if last == -1 else min(last, count)

    def _encoded(self, text: str) -> bytes:
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise _Refusal(
                "invalid_arguments", "the text holds a lone surrogate; write it as plain text"
            ) from None

    async def _read_file(self) -> str:
        try:
            return await self._read()
        except IsADirectoryError:
            raise _is_folder(self.shown) from None

    async def _read(self, *, remember: bool = True) -> str:
        """Return the file's text. A missing file raises only for `create`, which has a use for that."""
        try:
            data = await self.ctx.sandbox.read_bytes(self.path, MAX_FILE_BYTES + 1)
        except IsADirectoryError:
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not remember:
                raise
            raise self._refusal(error, writing=False) from None
        if len(data) > MAX_FILE_BYTES:
            size = (await self.ctx.sandbox.stat(self.path)).size
            raise _Refusal("too_large", f"{self.shown} has {size} bytes; use bash with sed -n or grep")
        if b"\0" in data:
            kind = binary_kind(data)
            raise _Refusal(
                "binary_file", f"{self.shown} is {kind} of {len(data)} bytes; inspect it with bash"
            )
        text = decode_text(data)
        if remember:
            self.seen[self.path] = hash(text)
        return text

    async def _write(self, data: bytes, text: str) -> None:
        try:
            await self.ctx.sandbox.write_bytes(self.path, data)
        except OSError as error:
            raise self._refusal(error, writing=True) from None
        self.seen[self.path] = hash(text)

    def _refusal(self, error: OSError, *, writing: bool) -> _Refusal:
        explain = _ERRORS.get(error.errno or 0)
        if explain is None:
            return _Refusal("io_error", f"{self.shown}: {error.strerror or error}")
        if writing and explain is _denied and not self._inside():
            workspace = self.ctx.sandbox.policy.workspace
            return _Refusal("outside_workspace", f"{self.shown} is not below {workspace}; write there")
        return explain(self.shown)

    def _inside(self) -> bool:
        policy = self.ctx.sandbox.policy
        path = posixpath.normpath(self.path) + "/"
        return any(path.startswith(posixpath.join(root, "")) for root in (policy.workspace, *policy.writable))


def _missing(shown: str) -> _Refusal:
    return _Refusal("not_found", f"{shown} does not exist; view its folder to see what does")


def _denied(shown: str) -> _Refusal:
    return _Refusal("permission_denied", f"{shown} may not be accessed; work with other files")


def _not_a_folder(shown: str) -> _Refusal:
    return _Refusal("not_found", f"{shown} leads through something that is not a folder; check the path")


def _special(shown: str) -> _Refusal:
    return _Refusal("not_a_file", f"{shown} is a pipe, socket or device; only regular files can be used")


def _is_folder(shown: str) -> _Refusal:
    return _Refusal("not_a_file", f"{shown} is a directory; give the path of a file")


def _no_space(shown: str) -> _Refusal:
    return _Refusal("no_space", f"no space is left to write {shown}; remove files first")


_ERRORS: Mapping[int, Callable[[str], _Refusal]] = {
    errno.ENOENT: _missing,
    errno.EACCES: _denied,
    errno.EPERM: _denied,
    errno.EROFS: _denied,
    errno.ENOTDIR: _not_a_folder,
    errno.ELOOP: _not_a_folder,
    errno.EINVAL: _special,
    errno.ENXIO: _special,
    errno.EISDIR: _is_folder,
    errno.ENOSPC: _no_space,
    errno.EDQUOT: _no_space,
}
