"""The `apply_patch` tool: one patch over several files, applied whole or not at all."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.base import Effects, ToolContext, ToolResult
from dsv4agent.tools.file_changes import FileChanges, PlannedFile
from dsv4agent.tools.file_view import cut_start, displayed_lines, numbered
from dsv4agent.tools.patch_format import AddFile, DeleteFile, PatchError, Section, UpdateFile, parse_patch
from dsv4agent.tools.patch_match import Mismatch, apply_chunks
from dsv4agent.tools.refusal import Refusal, is_inside, require_path, require_text
from dsv4agent.tools.replacement import nearest_region
from dsv4agent.tools.syntax_check import new_syntax_error
from dsv4agent.tools.text_file import encode_text, text_of


class ApplyPatchTool:
    """Adds, changes, moves and deletes files as one patch says; checks all of it before it writes."""

    name = "apply_patch"
    description = "Add, change, move and delete files with one patch, applied whole or not at all."
    effects = Effects.WORKSPACE

    def __init__(self) -> None:
        self.parameters: Mapping[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "required": ["patch"],
            "properties": {
                "patch": {
                    "type": "string",
                    "description": (
                        "*** Begin Patch, *** Add|Update|Delete File: PATH, @@ HEADER, "
                        "lines led by blank, - or +, *** End Patch."
                    ),
                }
            },
        }

    async def __call__(self, ctx: ToolContext, args: Mapping[str, Any]) -> ToolResult:
        """Apply `args["patch"]`; whatever the model can mend is a result with a code."""
        try:
            require_text(patch=args["patch"])
            try:
                sections = parse_patch(args["patch"])
            except PatchError as error:
                raise Refusal("invalid_patch", str(error)) from None
            plan = _Plan(ctx, FileChanges(ctx.sandbox))
            for section in sections:
                await plan.add(section)
            await plan.changes.write()
        except Refusal as refusal:
            return refusal.result()
        return ToolResult(text=plan.report())

    async def aclose(self) -> None:
        """Hold nothing."""


@dataclass
class _Plan:
    """What the sections seen so far come to, without a byte written."""

    ctx: ToolContext
    changes: FileChanges
    lines: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    async def add(self, section: Section) -> None:
        """Plan one section on top of those before it.

        Raises:
            Refusal: It cannot be applied.
        """
        if isinstance(section, AddFile):
            await self._add_file(section)
        elif isinstance(section, DeleteFile):
            await self._delete_file(section)
        else:
            await self._update_file(section)

    def report(self) -> str:
        """Return a line for each file, then the warnings."""
        whole = "\n".join([*self.lines, *self.warnings])
        shown = cut_start(self.ctx, whole)
        if shown is whole:
            return whole
        missing = whole.count("\n") - shown.count("\n")
        return f"{shown}\n[... {missing} lines not shown; all was applied]"

    async def _add_file(self, section: AddFile) -> None:
        file = await self._file(section.path)
        if file.exists:
            raise Refusal("already_exists", f"{section.path} exists; use *** Update File, or delete it first")
        text = "".join(line + "\n" for line in section.lines)
        file.put(encode_text(text))
        self.lines.append(f"A {section.path} (+{len(section.lines)})")
        self._warn(section.path, None, text)

    async def _delete_file(self, section: DeleteFile) -> None:
        file = await self._existing(section.path)
        data = file.data or b""
        file.take_away()
        size = "" if b"\0" in data else f" (-{_line_count(data)})"
        self.lines.append(f"D {section.path}{size}")

    async def _update_file(self, section: UpdateFile) -> None:
        file = await self._existing(section.path)
        target = file
        if section.move_to is not None:
            target = await self._file(section.move_to)
            if target is not file and target.exists:
                raise Refusal("already_exists", f"{section.move_to} exists; delete it first")
        data = file.data or b""
        note = ""
        if section.chunks:
            before = text_of(data, section.path)
            patched = apply_chunks(before, section.chunks)
            if isinstance(patched, Mismatch):
                raise Refusal("not_found", self._mismatch(section, patched, before))
            data = encode_text(patched.text)
            note = "".join(f"; change {number} matched {rule}" for number, rule in patched.loose)
            self._warn(target.shown, before, patched.text)
        if target is file and data == file.data:
            raise Refusal("no_change", f"the patch leaves {section.path} as it is; nothing was written")
        mode = file.mode
        if target is not file:
            file.take_away()
        target.put(data, mode)
        moved = target is not file
        name = f"R {section.path} -> {section.move_to}" if moved else f"M {section.path}"
        added, removed = (sum(chunk.count(kind) for chunk in section.chunks) for kind in "+-")
        self.lines.append(f"{name} (+{added} -{removed}{note})")

    async def _existing(self, shown: str) -> PlannedFile:
        file = await self._file(shown)
        if not file.exists:
            raise Refusal("not_found", f"{shown} does not exist; view its folder to see what does")
        return file

    async def _file(self, shown: str) -> PlannedFile:
        return await self.changes.file(_inside_path(self.ctx.sandbox, shown), shown)

    def _warn(self, path: str, before: str | None, after: str) -> None:
        if error := new_syntax_error(path, before, after):
            self.warnings.append(f"warning: {path}: {error}")

    def _mismatch(self, section: UpdateFile, mismatch: Mismatch, text: str) -> str:
        chunk = section.chunks[mismatch.chunk - 1]
        what = f"the header {mismatch.wanted[0]!r} is" if mismatch.header else "the old lines are"
        where = f"change {mismatch.chunk} of {section.path} (line {chunk.line} of the patch)"
        place = " at the end of the file" if chunk.end_of_file and not mismatch.header else ""
        after = f" after line {mismatch.after}" if mismatch.after else ""
        said = f"{where}: {what} not there{place}{after}; nothing was written"
        if mismatch.earlier is not None and mismatch.earlier <= mismatch.after:
            return f"{said}; found at line {mismatch.earlier}: give changes in the order of the file"
        region = nearest_region(text, "\n".join(mismatch.wanted))
        if region is None:
            return f"{said}; view the file and copy the lines exactly"
        first, last = region
        shown = cut_start(self.ctx, "\n".join(numbered(displayed_lines(text), first, last)))
        lines = f"line {first}" if first == last else f"lines {first}-{last}"
        return f"{said}; the nearest text is at {lines}:\n{shown}"


def _inside_path(sandbox: Sandbox, shown: str) -> str:
    """Return the absolute path, `..` resolved as text, so that what is checked is what is used.

    Raises:
        Refusal: `outside_workspace`, or it is no path.
    """
    require_path(shown)
    path = posixpath.normpath(posixpath.join(sandbox.policy.workspace, shown))
    if not is_inside(sandbox.policy, path) or path == sandbox.policy.workspace:
        raise Refusal(
            "outside_workspace", f"{shown} is not below {sandbox.policy.workspace}; nothing was written"
        )
    if shown.endswith("/"):
        raise Refusal("not_a_file", f"{shown} is the path of a folder; give the path of a file")
    return path


def _line_count(data: bytes) -> int:
    return data.count(b"\n") + (data != b"" and not data.endswith(b"\n"))
