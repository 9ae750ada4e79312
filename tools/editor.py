"""The `str_replace_editor` tool: view, create and edit text files through the session's sandbox."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, Foresight, ToolContext, ToolResult
from dsv4agent.tools.file_view import cut_start, displayed_lines, list_folder, numbered
from dsv4agent.tools.refusal import Refusal, os_refusal, require_path, require_text, write_refusal
from dsv4agent.tools.replacement import (
    Ambiguity,
    find_replacement,
    line_ending,
    line_number,
    nearest_region,
    with_line_ending,
)
from dsv4agent.tools.syntax_check import new_syntax_error
from dsv4agent.tools.text_file import encode_text, read_text

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
        command: str = args["command"]
        missing = [name for name in _NEEDS[command] if args.get(name) is None]
        try:
            if missing:
                raise Refusal("invalid_arguments", f"{command} needs {' and '.join(_NEEDS[command])}")
            call = _Call(ctx, args, self._seen_in(ctx.sandbox))
            if command == "view":
                text = await call.view()
            elif command == "create":
                text = await call.create()
            elif command == "str_replace":
                text = await call.str_replace()
            else:
                text = await call.insert()
        except Refusal as refusal:
            return refusal.result()
        return ToolResult(text=text)

    async def foresee(
        self, ctx: ToolContext, args: Mapping[str, Any], planned: dict[str, str]
    ) -> Foresight | None:
        """Return what an edit would do to its file; None for a view, and if the file cannot be read.

        An edit that does not fit the text changes nothing. Whether a file changed since it was seen is not
        looked at.
        """
        if args["command"] == "view":
            return None
        try:
            call = _Call(ctx, args, self._seen_in(ctx.sandbox))
            text = planned[call.path] if call.path in planned else await call.text_now()
        except (Refusal, OSError):
            return None
        after = call.outcome(text)
        if after is not None:
            planned[call.path] = after
        return Foresight(call.path, _digest(text), _digest(after))

    def _seen_in(self, sandbox: Sandbox) -> dict[str, int]:
        return self._seen.setdefault(sandbox, {})

    async def aclose(self) -> None:
        """Forget what was seen."""
        self._seen.clear()


@dataclass(frozen=True)
class _Edit:
    """A whole new text, where in it the new part is, and how loosely the old part was found, if it was."""

    text: str
    start: int
    end: int
    looseness: str | None = None


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
        require_path(self.shown)
        require_text(**{name: self.args.get(name) for name in ("file_text", "old_str", "new_str")})
        self.path = posixpath.join(self.ctx.sandbox.policy.workspace, self.shown)
        # `..` behind a symbolic link is for the kernel inside the sandbox to resolve, and a last slash is for
        # it to judge; other ways to write a path mean the same file.
        if ".." not in self.path.split("/") and not self.path.endswith(("/", "/.")):
            self.path = posixpath.normpath(self.path)

    async def view(self) -> str:
        try:
            text = await self._read()
        except IsADirectoryError:
            return await self._view_folder()
        except OSError as error:
            raise os_refusal(error, self.shown) from None
        lines = displayed_lines(text)
        first, last = self._range(len(lines))
        self._remember(text)
        if not lines:
            return "(empty file)"
        whole = "\n".join(numbered(lines, first, last))
        shown = cut_start(self.ctx, whole)
        if shown is whole:
            return whole
        end = first + shown.count("\n")
        if whole[len(shown)] == "\n":
            return f"{shown}\n[... lines {end + 1}-{last} of {len(lines)} not shown; use view_range]"
        rest = f", lines {end + 1}-{last} of {len(lines)} are not shown" if end < last else ""
        return f"{shown}\n[... line {end} is cut{rest}; use bash with cut -c]"

    async def _view_folder(self) -> str:
        if self.args.get("view_range") is not None:
            raise Refusal("invalid_arguments", f"{self.shown} is a directory; omit view_range")
        try:
            return await list_folder(self.ctx, self.path)
        except OSError as error:
            raise os_refusal(error, self.shown) from None

    async def text_now(self) -> str | None:
        """Return the file's text; None for one that is not there."""
        try:
            return await self._read()
        except FileNotFoundError:
            return None

    def outcome(self, text: str | None) -> str | None:
        """Return what the file with this text would hold after the edit; None for no file."""
        command = self.args["command"]
        if any(self.args.get(name) is None for name in _NEEDS[command]):
            return text
        if command == "create":
            return self.args["file_text"]
        if text is None:
            return None
        try:
            return (self._replaced(text) if command == "str_replace" else self._inserted(text)).text
        except Refusal:
            return text

    async def create(self) -> str:
        before: str | None = None
        try:
            before = await self._read()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._write_refusal(error) from None
        except Refusal as refusal:
            raise Refusal(
                refusal.code, f"{self.shown} exists and is not a text file; remove it first"
            ) from None
        if before is not None and self.seen.get(self.path) != hash(before):
            how = "changed since it was last seen" if self.path in self.seen else "exists and was not viewed"
            raise Refusal("stale_file", f"{self.shown} {how}; view it before overwriting it")
        await self._write(self.args["file_text"])
        done = f"Created {self.shown}." if before is None else f"Overwrote {self.shown}."
        return self._with_warning(done, before, self.args["file_text"])

    async def str_replace(self) -> str:
        self._require_difference()
        text = await self._read_file()
        return await self._put(text, self._replaced(text))

    async def insert(self) -> str:
        text = await self._read_file()
        if self.seen.get(self.path, hash(text)) != hash(text):
            raise Refusal(
                "stale_file", f"{self.shown} changed since it was last seen; view it for its line numbers"
            )
        return await self._put(text, self._inserted(text))

    def _require_difference(self) -> None:
        old, new = self.args["old_str"], self.args["new_str"]
        if not old:
            raise Refusal("invalid_arguments", "old_str is empty; give the text to replace, or use insert")
        if old == new:
            raise Refusal("no_change", "old_str and new_str are the same; nothing was edited")

    def _replaced(self, text: str) -> _Edit:
        self._require_difference()
        old = self.args["old_str"]
        found = find_replacement(text, old, self.args["new_str"])
        if found is None:
            raise Refusal("not_found", self._nearest(text, old))
        if isinstance(found, Ambiguity):
            raise Refusal("not_unique", self._ambiguity(found))
        after = text[: found.start] + found.new + text[found.end :]
        if after == text:
            raise Refusal("no_change", f"the edit leaves {self.shown} as it is")
        return _Edit(after, found.start, found.start + len(found.new), found.looseness)

    def _inserted(self, text: str) -> _Edit:
        line: int = self.args["insert_line"]
        ending = line_ending(text)
        new = with_line_ending(self.args["new_str"], ending)
        lines = text.split("\n")
        count = len(lines) - (lines[-1] == "")
        if line > count:
            raise Refusal(
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
        return _Edit(text[:start] + block + text[start:], begin, start + len(block))

    async def _put(self, before: str, edit: _Edit) -> str:
        """Write, say that it is done, show the new lines with two lines of context, and warn."""
        await self._write(edit.text)
        done = f"Edited {self.shown} ({edit.looseness})." if edit.looseness else f"Edited {self.shown}."
        after, start, end = edit.text, edit.start, edit.end
        lines = displayed_lines(after)
        first = line_number(after, start)
        last = line_number(after, end - 1 if end > start and after[end - 1] == "\n" else end)
        region = numbered(lines, max(first - CONTEXT_LINES, 1), min(last + CONTEXT_LINES, len(lines)))
        whole = "\n".join(region)
        shown = cut_start(self.ctx, whole)
        if shown is not whole:
            shown += "\n[... cut; view the file for the rest]"
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

    def _ambiguity(self, found: Ambiguity) -> str:
        count = f"at least {len(found.lines)}" if found.more else f"{len(found.lines)}"
        places = ", ".join(str(line) for line in found.lines[:_SHOWN_MATCHES])
        more = ", ..." if len(found.lines) > _SHOWN_MATCHES else ""
        return (
            f"old_str occurs {count} times in {self.shown}, at lines {places}{more}; "
            "include more lines to make it unique"
        )

    def _range(self, count: int) -> tuple[int, int]:
        wanted = self.args.get("view_range")
        if wanted is None:
            return 1, count
        first, last = wanted
        if first < 1 or (last != -1 and last < first):
            raise Refusal("invalid_arguments", "view_range needs 1 <= first <= last, or -1 as last")
        if first > max(count, 1):
            raise Refusal(
                "invalid_arguments", f"view_range starts at {first} but {self.shown} has {count} lines"
            )
        return first, count if last == -1 else min(last, count)

    async def _read_file(self) -> str:
        """Return the text of a file to edit.

        Raises:
            Refusal: It cannot be read, or is no text.
        """
        try:
            return await self._read()
        except OSError as error:
            raise self._write_refusal(error) from None

    async def _read(self) -> str:
        return await read_text(self.ctx.sandbox, self.path, self.shown)

    async def _write(self, text: str) -> None:
        try:
            await self.ctx.sandbox.write_bytes(self.path, encode_text(text))
        except OSError as error:
            raise self._write_refusal(error) from None
        self._remember(text)

    def _write_refusal(self, error: OSError) -> Refusal:
        return write_refusal(error, self.shown, self.path, self.ctx.sandbox.policy)

    def _remember(self, text: str) -> None:
        self.seen[self.path] = hash(text)


def _digest(text: str | None) -> str:
    """Return what stands for a file's text, or for no file."""
    if text is None:
        return ""
    # A text may hold lone surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
